"""Open the page where people compare clips: `python -m vlmrl.label run=<dir>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmrl.commands import run_command

if TYPE_CHECKING:
    from vlmrl.workflows.config.label import LabelConfig

EXAMPLES = """
The page where people say which of two clips is better. Needs vlmrl[label].

  python -m vlmrl.label run=last                                 # questions that a run with judge=human or hybrid asks
  python -m vlmrl.label store=answers.sqlite questions=all       # label what any judge was asked (judge.keep_clips)
  python -m vlmrl.label run=last export=answers.parquet          # write questions, answers and clips into a file
  python -m vlmrl.label run=last host=0.0.0.0 token_file=token.txt   # for other machines and phones
"""


def main() -> None:
    """Run the command."""
    run_command("label", EXAMPLES, _settings, _work)


def _settings(values: Mapping[str, Any]) -> LabelConfig:
    from vlmrl.workflows.config.label import label_settings

    return label_settings(values)


def _work(settings: LabelConfig) -> None:
    from vlmrl.workflows.label.run import label

    label(settings)


if __name__ == "__main__":
    main()
