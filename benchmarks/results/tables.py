"""Writes the tables into docs/results.md, between its markers; everything else on the page is people's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results.plan import Plan, Row, Table
from benchmarks.results.records import Record, Records, changed, unknown_weights, write_whole
from vlmrl.errors import UserError
from vlmrl.stats import difference_interval, student_mean, wilson

BEGIN = re.compile(r"<!-- table: *(.*?) *-->")
END = "<!-- end -->"
NOT_RUN = "not run"
NONE = "no predicate"
CEILING = "ceiling (ground-truth reward)"

Summary = Mapping[str, Any]


def render_page(page: Path, plan: Plan, records: Records, videos: Path) -> bool:
    """Write all tables into a page.

    Args:
        page: A markdown file with `<!-- table: <name> -->` and `<!-- end -->` around the place of each table.
        plan: The tables.
        records: Figures of finished runs.
        videos: Folder with clips, `gallery_<row>.mp4`, that rows are linked to.

    Returns:
        Whether the page has changed.

    Raises:
        UserError: Markers are missing, doubled or not closed, or name no table.
    """
    if not page.is_file():
        raise UserError(f"There is no page '{page}' to write the tables into.")
    text = page.read_text()
    pieces = [text]
    found: list[str] = []
    rendered = ""
    while match := BEGIN.search(pieces[-1]):
        rest, name = pieces.pop(), match[1]
        end = rest.find(END, match.end())
        following = BEGIN.search(rest, match.end())
        if end < 0 or (following and following.start() < end):
            raise UserError(f"'{page}': the marker of table '{name}' is not closed with {END}.")
        if name not in plan.tables or name in found:
            wrong = "is there twice" if name in found else "is no table of the plan"
            raise UserError(f"'{page}': table '{name}' {wrong}. The plan has {', '.join(plan.tables)}.")
        found.append(name)
        rendered += rest[: match.end()] + "\n\n" + render(plan, name, records, videos, page.parent) + "\n\n" + END
        pieces.append(rest[end + len(END) :])
    rendered += pieces[-1]
    missing = [name for name in plan.tables if name not in found]
    if missing:
        raise UserError(
            f"'{page}' has no place for {', '.join(missing)}. Write <!-- table: {missing[0]} --> and {END} where it "
            "should stand."
        )
    if rendered != text:
        write_whole(page, rendered)
    return rendered != text


def render(plan: Plan, name: str, records: Records, videos: Path, base: Path) -> str:
    """Return a table in markdown, with what is said above and below it.

    Args:
        plan: All tables.
        name: Name of the table.
        records: Figures of finished runs.
        videos: Folder with clips.
        base: Folder of the page, from which clips are linked.

    Raises:
        UserError: A record or a row cannot be read.
    """
    table, rows = plan.tables[name], plan.rows
    lines = list(table.rows.values())
    if table.against is not None:
        lines = [rows[table.against], *(row for row in lines if row.name != table.against)]
    made = {row.name: load_all(row, records) for row in rows.values()}
    cells: list[dict[str, str]] = []
    notes: list[str] = []
    for row in lines:
        runs = made[row.name]
        cells.append(_line(row, runs, table, made, _clip(row, videos, base)))
        for seed, record in runs.items():
            if what := changed(record, row, seed):
                notes.append(f"- {row.label or row.name}, seed {seed}, is out of date: {'; '.join(what)}")
            if unknown_weights(record, row, seed):
                notes.append(f"- {row.label or row.name}, seed {seed}: the encoder's weights were not written down")
        if 0 < len(runs) < len(row.seeds):
            waiting = [seed for seed in row.seeds if seed not in runs]
            notes.append(f"- {row.label or row.name}: {NOT_RUN} yet with seed {', '.join(map(str, waiting))}")
    # What the row that others are compared with has alone is shown in its own table.
    own = {heading for row, line in zip(lines, cells, strict=True) if row.name in table.rows for heading in line}
    order = [heading for heading in _headings(table) if heading in own]
    text = [_caption(lines, made)]
    text += ["", "| " + " | ".join(order) + " |", "| " + " | ".join("---" for _ in order) + " |"]
    text += ["| " + " | ".join(line.get(heading, "") for heading in order) + " |" for line in cells]
    gains = [gain for row in lines if row.gain and (gain := _gain(row, made[row.name]))]
    if gains:
        text += ["", "Gain in predicate fraction over the best control of the same seed:", "", *gains]
    if tests := [_test(row, made, rows) for row in lines if row.controls]:
        text += ["", "Whether the recordings are a test of a reward:", "", *tests]
    if notes:
        text += ["", *notes]
    return "\n".join(text)


def load_all(row: Row, records: Records) -> dict[int, Record]:
    """Return what has been run of a row, by seed."""
    return {seed: record for seed in row.seeds if (record := records.load(row.name, seed)) is not None}


def _headings(table: Table) -> list[str]:
    return [
        "run",
        "predicate holds",
        "success",
        "truth",
        "model reward",
        "predicate holds, controls",
        f"gain over {table.against}",
        CEILING,
        table.published,
        "steps",
        "time",
        "command",
    ]


def _caption(lines: list[Row], made: Mapping[str, Mapping[int, Record]]) -> str:
    """Say what the intervals are."""
    runs = [record for row in lines for record in made[row.name].values()]
    if not runs:
        return "No row of this table has been run yet."
    episodes = sorted({record.trained["episodes"] for record in runs})
    said = (
        f"{' or '.join(map(str, episodes))} episodes a run. 95 % intervals: of one seed, Wilson for success and "
        "bootstrap over episodes for the rest"
    )
    if any(len(made[row.name]) > 1 for row in lines):
        said += (
            "; of several, Student's t over the means of the seeds. Success has them in brackets, and where all are "
            "equal its interval is Wilson's over all episodes"
        )
    return said + "."


def _line(
    row: Row, runs: Mapping[int, Record], table: Table, made: Mapping[str, Mapping[int, Record]], clip: str | None
) -> dict[str, str]:
    label = row.label or row.name
    line = {"run": f"[{label}]({clip})" if clip else label, "command": f"`{row.command()}`"}
    if row.published is not None:
        line[table.published] = row.published
    if row.ceiling is not None:
        line[CEILING] = _ceiling(made[row.ceiling])
    if not runs:
        return line | {"predicate holds": NOT_RUN}
    trained = [record.trained for record in runs.values()]
    line |= {
        "predicate holds": _figure(trained, "fraction", percent=True),
        "success": _figure(trained, "success", percent=True, each=True),
        "truth": _figure(trained, "truth"),
        "model reward": _figure(trained, "model_reward"),
        "predicate holds, controls": _controls(runs),
        "steps": f"{round(np.mean([record.steps for record in runs.values()])):,}",
        "time": _time(list(runs.values())),
    }
    if table.against not in (None, row.name):
        line[f"gain over {table.against}"] = _shown_difference(runs, made[str(table.against)])
    return line


def _figure(summaries: Sequence[Summary], name: str, percent: bool = False, each: bool = False) -> str:
    """Show a figure: of one run with its own interval, of several with that over them; success has `each` of them."""
    figures = [summary[name] for summary in summaries if name in summary]
    if len(figures) < len(summaries):
        return NONE
    means = [figure["mean"] for figure in figures]
    if len(figures) == 1:
        return _with_interval(means[0], figures[0]["interval"], percent)
    low, high = student_mean(np.array(means))
    if each and len(set(means)) == 1:  # no spread to tell an interval from, but a finite number of episodes
        trials = sum(summary["episodes"] for summary in summaries)
        low, high = wilson(round(means[0] * trials), trials)
    if percent:
        low, high = max(0.0, low), min(1.0, high)  # no share lies outside
    shown = _with_interval(float(np.mean(means)), (low, high), percent)
    return shown + (f" ({', '.join(f'{100 * mean:.0f}' for mean in means)})" if each else "")


def _with_interval(mean: float, interval: tuple[float, float], percent: bool) -> str:
    low, high = interval
    return (
        f"{mean:.0%} [{100 * low:.0f}, {100 * high:.0f}]".replace("%", " %", 1)
        if percent
        else (f"{mean:.1f} [{low:.1f}, {high:.1f}]")
    )


def _controls(runs: Mapping[int, Record]) -> str:
    """Show in how many of the steps the predicate held without learning; without a predicate, what the truth was."""
    names = next(iter(runs.values())).controls

    def means(figure: str) -> dict[str, float]:
        found = {
            name: [r.controls[name][figure]["mean"] for r in runs.values() if figure in r.controls.get(name, {})]
            for name in names
        }
        return {name: float(np.mean(values)) for name, values in found.items() if values}

    if shares := means("fraction"):
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    if truths := means("truth"):
        return "truth: " + ", ".join(f"{name} {truth:.1f}" for name, truth in truths.items())
    return NONE


def _ceiling(runs: Mapping[int, Record]) -> str:
    if not runs:
        return NOT_RUN
    trained = [record.trained for record in runs.values()]
    return f"holds {_figure(trained, 'fraction', percent=True)}, success {_figure(trained, 'success', percent=True)}"


def _time(runs: list[Record]) -> str:
    """Show how long a run took: training, and the whole command where that is known."""
    shown = _minutes([record.training_seconds for record in runs])
    whole = [record.command_seconds for record in runs if record.command_seconds is not None]
    return f"{shown} ({_minutes(whole)} in all)" if len(whole) == len(runs) else shown


def _minutes(seconds: list[float]) -> str:
    mean = float(np.mean(seconds))
    return f"{mean / 60:.0f} min" if mean >= 90 else f"{mean:.0f} s"


def _shown_difference(runs: Mapping[int, Record], others: Mapping[int, Record]) -> str:
    """Show the difference in predicate fraction, over the seeds that both have; empty if there are none."""
    difference = _difference(runs, others)
    if difference is None:
        return ""
    mean, (low, high) = difference
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _difference(runs: Mapping[int, Record], others: Mapping[int, Record]) -> Estimate | None:
    """Return the difference in predicate fraction, over the seeds that both have; None if there are none."""
    pairs = {
        seed: (_estimate(runs[seed].trained), _estimate(others[seed].trained))
        for seed in runs
        if seed in others and "fraction" in runs[seed].trained and "fraction" in others[seed].trained
    }
    if not pairs:
        return None
    mean, interval, _ = _over_seeds(pairs)
    return mean, interval


def _gain(row: Row, runs: Mapping[int, Record]) -> str | None:
    """Say in one line how much oftener the predicate held than with the best control."""
    pairs, controls = {}, ""
    for seed, record in runs.items():
        known = {name: summary for name, summary in record.controls.items() if "fraction" in summary}
        if not known or "fraction" not in record.trained:
            return None
        best = max(known.values(), key=lambda summary: summary["fraction"]["mean"])
        pairs[seed] = (_estimate(record.trained), _estimate(best))
        controls = ", ".join(known)
    if not pairs:
        return None
    mean, (low, high), each = _over_seeds(pairs)
    how = f"Student's t over {len(pairs)} seeds" if len(pairs) > 1 else "one seed"
    said = f"- {row.label or row.name}: **{mean:.2f} [{low:.2f}, {high:.2f}]** over the best of {controls} ({how})"
    if len(pairs) > 1:
        said += "; " + ", ".join(f"seed {seed}: {d:.2f} [{lo:.2f}, {hi:.2f}]" for seed, (d, (lo, hi)) in each.items())
    return said


def _test(row: Row, made: Mapping[str, Mapping[int, Record]], rows: Mapping[str, Row]) -> str:
    """Say whether what is learned from the true rewards is better than what is learned where rewards say nothing.

    It counts as better where the whole interval of the difference in predicate fraction, over the seeds that both have,
    is above 0.
    """
    above: list[str] = []
    level: list[str] = []
    missing: list[str] = []
    for name in row.controls:
        label = rows[name].label or name
        difference = _difference(made[row.name], made[name])
        if difference is None:
            missing.append(label)
            continue
        mean, (low, high) = difference
        (above if low > 0 else level).append(f"{label} {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
    said = f"- {row.label or row.name}, against "
    if level:
        return said + f"{'; '.join(level)}: **no test**. What says nothing does as well, as far as these runs tell."
    if missing:
        return said + f"{'; '.join(missing)}: {NOT_RUN}, so nobody knows."
    return said + f"{'; '.join(above)}: a test."


Estimate = tuple[float, tuple[float, float]]


def _estimate(summary: Summary) -> Estimate:
    low, high = summary["fraction"]["interval"]
    return summary["fraction"]["mean"], (low, high)


def _over_seeds(
    pairs: Mapping[int, tuple[Estimate, Estimate]],
) -> tuple[float, tuple[float, float], dict[int, Estimate]]:
    """Return the mean difference, its interval, and the difference of each seed with its own."""
    each = {seed: (one[0] - other[0], difference_interval(one, other)) for seed, (one, other) in pairs.items()}
    means = np.array([difference for difference, _ in each.values()])
    if len(each) == 1:
        return float(means[0]), next(iter(each.values()))[1], each
    return float(means.mean()), student_mean(means), each


def _clip(row: Row, videos: Path, base: Path) -> str | None:
    clip = gallery_clip(videos, row.name)
    return Path(os.path.relpath(clip, base)).as_posix() if clip.is_file() else None


def gallery_clip(videos: Path, row: str) -> Path:
    """Return where the clip of a row is, if it has one."""
    return videos / f"gallery_{row}.mp4"
