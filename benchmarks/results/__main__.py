"""The tables of docs/results.md: run what they are made of, keep the figures, write the tables.

    python -m benchmarks.results                                          everything that has not been run yet
    python -m benchmarks.results 'rows=[kneeling*]' 'seeds=[0]' budget_minutes=60 jobs=1
    python -m benchmarks.results --tables-only                            write the tables anew
    python -m benchmarks.results import=runs/<...>/<time>                 a run made by hand, if a row asks for it
    python -m benchmarks.results 'gallery=[humanoid]'                     film the best and the worst row of a table
    python -m benchmarks.results publish=runs/<...>/<time>                make a reference policy of a finished run

benchmarks/results.yaml lists the rows: each is a command of vlmrl.train with one or several seeds. A row that has its
figures (docs/results/<row>-<seed>.json) is passed over unless its settings or the embedded encoder have changed since;
one that was stopped goes on from its last checkpoint. The tables are written after each run that ends.

settings, each key=value:
  rows            names of rows, with wildcards (default all)
  seeds           only these seeds (default all that a row has)
  jobs            runs at the same time (default 1)
  budget_minutes  time after which nothing is begun and what runs is stopped, to be resumed another day (default none)
  import          a finished run folder to take over as a row's figures; rows= says among which rows to look
  gallery         tables whose best and worst row are filmed, into videos/gallery_<row>.mp4
  publish         a finished run folder to make a reference policy of, which policy=reference then finds
  plan            the list of rows (default benchmarks/results.yaml)
  page            the page with the tables (default docs/results.md)
  records         folder of the figures (default docs/results)
  runs            folder in which the runs are made (default runs/results)
  videos          folder of the gallery (default videos)
  reference       folder of the reference policies (default that of the package)
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmrl.commands import fail
from vlmrl.errors import UserError, unknown
from vlmrl.typed import Count, Natural, Positive, typed

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.results.plan import Plan, Row
    from benchmarks.results.records import Records


@dataclass(frozen=True)
class Settings:
    """What the command is given; its help says what each means. `import_` is `import`."""

    rows: tuple[str, ...] = ("*",)
    seeds: tuple[Natural, ...] | None = None
    jobs: Count = 1
    budget_minutes: Positive | None = None
    import_: str | None = None
    gallery: tuple[str, ...] = ()
    publish: str | None = None
    plan: str = "benchmarks/results.yaml"
    page: str = "docs/results.md"
    records: str = "docs/results"
    runs: str = "runs/results"
    videos: str = "videos"
    reference: str | None = None


def main() -> None:
    """Run the command; exit with 1 if a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        usage="%(prog)s [--tables-only] [key=value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables-only", action="store_true", help="run nothing, write the tables from what is there")
    parser.add_argument("settings", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    try:
        raise SystemExit(work(read_settings(arguments.settings), arguments.tables_only))
    except UserError as error:
        fail(error)


def read_settings(arguments: list[str]) -> Settings:
    """Read key=value arguments, written as for the suite's commands.

    Raises:
        UserError: One cannot be read, or a key or value is wrong.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    keys = [field.name.rstrip("_") for field in dataclasses.fields(Settings)]
    values: dict[str, Any] = {}
    for argument in arguments:
        key = argument.partition("=")[0]
        if key not in keys:
            raise unknown("key", key, keys)
        try:
            (override,) = OverridesParser.create().parse_overrides([argument])
        except OverrideParseException as error:
            raise UserError(f"'{argument}' cannot be read. Write key=value, a list as {key}='[a,b]'.") from error
        value = override.value()
        values["import_" if key == "import" else key] = [value] if key == "seeds" and isinstance(value, int) else value
    settings = typed(Settings, values)
    if sum(map(bool, (settings.import_, settings.gallery, settings.publish))) > 1:
        raise UserError("import, gallery and publish are three different things to do: give one of them.")
    return settings


def work(settings: Settings, tables_only: bool = False) -> int:
    """Do what is asked and write the tables.

    Returns:
        1 if a run failed, else 0.

    Raises:
        UserError: Something named is not there, or does not fit.
    """
    from benchmarks.results.plan import read_plan
    from benchmarks.results.records import Records
    from benchmarks.results.tables import render_page
    from vlmrl.workflows.report import make_console, shown

    console = make_console()
    if settings.publish is not None:
        _publish(settings, console)
        return 0
    plan, records = read_plan(Path(settings.plan)), Records(Path(settings.records))
    page, videos = Path(settings.page), Path(settings.videos)
    chosen = plan.choose(settings.rows, settings.seeds)

    def write_tables() -> None:
        if render_page(page, plan, records, videos):
            console.print(f"tables: {shown(page)}", soft_wrap=True)

    write_tables()  # what is wrong with the page shows before hours of work
    if tables_only:
        return 0
    status = 0
    if settings.import_ is not None:
        _import(settings, plan, records, console)
    elif settings.gallery:
        _film(settings, plan, records, console)
    else:
        status = _run(settings, chosen, records, console, write_tables)
    write_tables()
    return status


def _run(settings: Settings, chosen: list[tuple[Row, int]], records: Records, console: Console, after_each: Any) -> int:
    from benchmarks.results.runner import run_rows

    budget = None if settings.budget_minutes is None else 60 * settings.budget_minutes
    try:
        outcome = run_rows(chosen, records, Path(settings.runs), settings.jobs, budget, console, after_each)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on.")
        return 1
    for name, runs in dataclasses.asdict(outcome).items():
        if runs:
            console.print(f"{name}: {', '.join(runs)}", soft_wrap=True)
    return 1 if outcome.failed else 0


def _import(settings: Settings, plan: Plan, records: Records, console: Console) -> None:
    """Take over a run, and link to it from where the workflow would have made it."""
    from benchmarks.results.records import read_run, row_of
    from benchmarks.results.runner import Work
    from vlmrl.workflows.report import shown
    from vlmrl.workflows.run_folder import find

    folder = find(str(settings.import_))
    row, seed = row_of(folder, plan, settings.rows)
    record = read_run(folder, row.command([seed]), command_seconds=None, here=False)
    link = Work(Path(settings.runs), row, seed).path / "imported" / folder.path.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder.path, link.parent.resolve()), target_is_directory=True)
    console.print(f"{row.name}, seed {seed}: {shown(records.save(row.name, seed, record))}", soft_wrap=True)


def _film(settings: Settings, plan: Plan, records: Records, console: Console) -> None:
    from benchmarks.results.gallery import film_best_and_worst
    from vlmrl.workflows.report import shown

    for table in settings.gallery:
        for clip in film_best_and_worst(plan, table, records, Path(settings.runs), Path(settings.videos)):
            console.print(f"clip: {shown(clip)} ({clip.stat().st_size / 1e6:.2f} MB)", soft_wrap=True)


def _publish(settings: Settings, console: Console) -> None:
    """Make a reference policy of a finished run."""
    from benchmarks.results.records import own_command, read_run
    from vlmrl.agents.reference_policies import publish
    from vlmrl.workflows.config.scene import NO_TASK
    from vlmrl.workflows.config.train import train_settings
    from vlmrl.workflows.report import shown
    from vlmrl.workflows.run_folder import find

    folder = find(str(settings.publish))
    run = train_settings(folder.read_config())
    if run.task.name == NO_TASK:
        raise UserError(f"The run '{folder.path}' has no task, and a reference policy is found by its task.")
    card = dataclasses.asdict(read_run(folder, own_command(folder), command_seconds=None, here=False))
    del card["settings"], card["machine"], card["command_seconds"]
    model = run.agent.config.algorithm().load(folder.model, device="cpu")
    to = None if settings.reference is None else Path(settings.reference)
    reference = publish(model, run.env.name, run.task.name, card, to)
    size = reference.weights.stat().st_size / 1e6
    console.print(f"{shown(reference.weights)} ({size:.2f} MB) and {reference.card.name}", soft_wrap=True)
    console.print(
        f"see it: python -m vlmrl.evaluate env={run.env.name} task={run.task.name} policy=reference video=true",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
