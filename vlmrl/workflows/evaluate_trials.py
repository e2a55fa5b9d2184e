"""Say which policy is better: of trials from elsewhere, and of policies that were measured here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from vlmrl.workflows.comparison import (
    Comparison,
    chosen,
    compare_with_first,
    comparison_table,
    sentence,
    summary,
    trials_table,
)
from vlmrl.workflows.config.evaluate import EvaluateConfig
from vlmrl.workflows.report import letters, make_console, shown
from vlmrl.workflows.run_folder import RunFolder, create
from vlmrl.workflows.trials import Trials, read_trials


def evaluate_trials(settings: EvaluateConfig) -> list[Comparison]:
    """Report trials that were run elsewhere.

    Args:
        settings: Says which; `run_dir` is the folder for `result.json` and `comparison.json`.

    Returns:
        Every policy but the first, compared with the first.

    Raises:
        UserError: A file cannot be read, or policies cannot be compared.
    """
    console = make_console()
    trials = read_trials(settings.trials)
    summaries = {name: summary(own) for name, own in trials.items()}
    named = dict(zip(summaries, letters(), strict=False))
    for name, letter in named.items():
        console.print(f"{letter}: {name}", soft_wrap=True, highlight=False, markup=False)
    console.print(trials_table({named[name]: own for name, own in summaries.items()}))
    folder = create(Path(settings.run_dir), settings)
    comparisons = print_comparison(console, settings, folder, trials, named)
    folder.result.write_text(json.dumps(summaries, indent=2) + "\n")
    console.print(f"figures: {shown(folder.result)}", soft_wrap=True)
    return comparisons


def print_comparison(
    console: Console,
    settings: EvaluateConfig,
    folder: RunFolder,
    trials: Mapping[str, Trials],
    names: Mapping[str, str],
) -> list[Comparison]:
    """Print which policies are better than the first and write `comparison.json`; nothing with only one policy.

    Args:
        console: Where to.
        settings: Hold margin, and whether one looks while episodes come in.
        folder: Takes the file.
        trials: {policy: its trials}, every trial labelled or judged.
        names: {policy: what stands for it in the table}.

    Raises:
        UserError: Policies have no task in common.
    """
    if len(trials) < 2:
        return []
    comparisons = compare_with_first(trials, settings.margin)
    console.print(comparison_table(comparisons, names, settings.sequential))
    for entry in comparisons:
        console.print(escape(sentence(entry, names, settings.sequential, settings.margin)), highlight=False)
        for note in entry.notes:
            console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    plain = [{**entry.plain(), "verdict": chosen(entry, settings.sequential).word} for entry in comparisons]
    (folder.path / "comparison.json").write_text(json.dumps(plain, indent=2) + "\n")
    return comparisons
