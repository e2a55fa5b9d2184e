"""Which runs the tables are made of: `benchmarks/results.yaml`, read and checked."""

from __future__ import annotations

import functools
import importlib.util
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from vlmrl.commands import compose, for_hydra, plain
from vlmrl.errors import UserError, unknown
from vlmrl.typed import Natural, typed
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.run_folder import EMBEDDED_WEIGHTS

# What says nothing about what comes out: where it is written, what is shown meanwhile, on what it computes.
IRRELEVANT = ("resume", "run_dir", "video", "video_dir", "progress_bar", "log_interval", "threads", "device")
# What only pictures and words depend on, by group.
UNSEEN = {"env": ("camera", "width", "height", "profile"), "task": ("goal", "baseline", "negatives", "camera")}


@dataclass(frozen=True)
class Row:
    """A line of a table: one command, with one or several seeds.

    Attributes:
        overrides: What `vlmrl.train` is given, after the overrides of the table.
        seeds: Seeds of its runs.
        label: What the table calls it; empty takes the row's name.
        ceiling: Name of the row with the ground-truth reward that this one is held against.
        published: What others report for the same task, as text.
        gain: Whether the gain over the best control is stated below the table.
        controls: Names of rows that learn from the same recordings without their rewards saying anything. Below the
            table it is stated whether this row, which learns from the truth, is above them all; where it is not, the
            recordings are no test of a reward.
        relabelled_by: Embedded encoder that the rewards of its recordings come from, as the commands above the table
            make them: with other weights they would be others. Empty if from none.
        module: What must be importable to run it, where that is not so in every environment; empty for the table's.
        table: Name of its table (set by `read_plan`).
        name: Its name (set by `read_plan`).
    """

    overrides: tuple[str, ...] = ()
    seeds: tuple[Natural, ...] = (0,)
    label: str = ""
    ceiling: str | None = None
    published: str | None = None
    gain: bool = False
    controls: tuple[str, ...] = ()
    relabelled_by: str = ""
    module: str = ""
    table: str = ""
    name: str = ""

    def command(self, seeds: Iterable[int] | None = None) -> str:
        """Return the shell command that makes the runs of these seeds, by default of all of the row's."""
        chosen = list(self.seeds if seeds is None else seeds)
        sweep = ["-m"] if len(chosen) > 1 else []
        seed = [f"seed={','.join(map(str, chosen))}"] if chosen != [0] else []  # 0 is the default
        return shlex.join(["python", "-m", "vlmrl.train", *sweep, *self.overrides, *seed])

    def can_run_here(self) -> bool:
        """Whether what it needs is installed."""
        return not self.module or importlib.util.find_spec(self.module) is not None

    def settings(self, seed: int) -> TrainConfig:
        """Return what `vlmrl.train` makes of the command.

        Raises:
            UserError: It would refuse it.
        """
        return replace(_composed(self.overrides), seed=seed)

    def encoder(self, seed: int) -> str | None:
        """Return the name of the encoder that has a part in the row's rewards; None if there is none."""
        settings = self.settings(seed)
        return settings.encoder.name if uses_encoder(settings) else self.relabelled_by or None


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        rows: {name: row}, in the order in which they are run and shown; a name is taken once in the whole plan.
        overrides: What all its rows begin with.
        against: Name of the row, of any table, that every row is compared with: it is shown first.
        published: Heading of the column with published figures.
        module: What must be importable to run its rows; empty if nothing special.
    """

    rows: dict[str, Row]
    overrides: tuple[str, ...] = ()
    against: str | None = None
    published: str = "published"
    module: str = ""


@dataclass(frozen=True)
class Plan:
    """All tables.

    Attributes:
        tables: {name: table}; each row knows its name, its table and all of its overrides.
    """

    tables: dict[str, Table]

    @property
    def rows(self) -> dict[str, Row]:
        """All rows by name."""
        return {name: row for table in self.tables.values() for name, row in table.rows.items()}

    def choose(self, patterns: Iterable[str], seeds: Iterable[int] | None = None) -> list[tuple[Row, int]]:
        """Return rows and seeds, in the order of the file.

        Args:
            patterns: Names of rows, with the shell's wildcards.
            seeds: Only these seeds; None takes all that a row has.

        Raises:
            UserError: A pattern fits no row, or no chosen row has one of the seeds.
        """
        rows = self.rows
        chosen: set[str] = set()
        for pattern in patterns:
            fitting = {name for name in rows if fnmatchcase(name, pattern)}
            if not fitting:
                raise unknown("row", pattern, rows)
            chosen |= fitting
        wanted = None if seeds is None else set(seeds)
        had = {seed for name in chosen for seed in rows[name].seeds}
        if wanted is not None and wanted - had:
            raise UserError(
                f"seeds={sorted(wanted)}: the chosen rows have the seeds {sorted(had)}. Further ones go into the yaml "
                "file."
            )
        return [
            (row, seed)
            for name, row in rows.items()
            if name in chosen
            for seed in row.seeds
            if wanted is None or seed in wanted
        ]


def read_plan(path: Path) -> Plan:
    """Read the yaml file.

    Raises:
        UserError: There is none, or a name, key or value in it is wrong.
    """
    if not path.is_file():
        raise UserError(f"There is no file '{path}' with the rows of the tables: plan=<file>.")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"'{path}' is no yaml: {' '.join(str(error).split())}") from error
    tables = typed(Plan, {"tables": values}).tables
    taken: dict[str, str] = {}
    named = {}
    for title, table in tables.items():
        rows = {}
        for name, row in table.rows.items():
            if name in taken:
                raise UserError(f"'{path}': the row '{name}' is in the tables '{taken[name]}' and '{title}'.")
            if not name.replace("_", "").isalnum():
                raise UserError(f"'{path}': the row '{name}' names a file; give it letters, digits and underscores.")
            if row.relabelled_by and row.relabelled_by not in EMBEDDED_WEIGHTS:
                raise unknown("embedded encoder", row.relabelled_by, EMBEDDED_WEIGHTS)
            if not row.seeds or len(set(row.seeds)) < len(row.seeds):
                raise UserError(f"'{path}': the row '{name}' needs seeds, each once; it has {list(row.seeds)}.")
            taken[name] = title
            rows[name] = replace(
                row,
                name=name,
                table=title,
                overrides=(*table.overrides, *row.overrides),
                module=row.module or table.module,
            )
        named[title] = replace(table, rows=rows)
    for table in named.values():
        for other in (
            table.against,
            *(name for row in table.rows.values() for name in (row.ceiling, *row.controls)),
        ):
            if other is not None and other not in taken:
                raise unknown("row", other, taken)
    return Plan(named)


def settings_of(overrides: Iterable[str]) -> TrainConfig:
    """Return the settings that `vlmrl.train` makes of its arguments.

    Raises:
        UserError: It would refuse them.
    """
    return train_settings(plain(compose("train", for_hydra(overrides))))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> TrainConfig:
    # Hydra takes a tenth of a second, and the tables ask for every seed of every row each time that they are written.
    return settings_of(overrides)


def essence(settings: TrainConfig) -> dict[str, Any]:
    """Return what of the settings decides what comes out, as JSON holds it.

    A reward that looks at no picture does not depend on words, cameras or the encoder, and one that asks nobody not on
    the judge. A reward program counts by its text, which a run writes down, wherever it came from.
    """
    values = {key: _json(value) for key, value in settings.plain().items() if key not in IRRELEVANT}
    foretold = getattr(settings.reward.config, "foretold", None)
    if foretold is not None:
        values["reward"]["program"] = foretold(settings.env.name, settings.words)
    if not settings.asks_judge:
        values.pop("judge")
    if not uses_encoder(settings):
        for group, keys in UNSEEN.items():
            values[group] = {key: value for key, value in values[group].items() if key not in keys}
        words = () if settings.asks_judge else ("goal", "baseline")
        values = {key: value for key, value in values.items() if key not in ("encoder", "scorer", *words)}
    return values


def uses_encoder(settings: TrainConfig) -> bool:
    """Say if an encoder has a part in the reward of a run, or in what a judge of it says."""
    judge = settings.judge.config if settings.asks_judge and settings.judge is not None else None
    return settings.reward.config.uses_encoder or (judge is not None and judge.uses_encoder)


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str = "") -> list[str]:
    """Say in which settings two runs differ, each as "agent.gamma is 0.9, not 0.95"."""
    said = []
    for key in [*found, *(key for key in wanted if key not in found)]:
        path = f"{where}.{key}" if where else key
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if "name" in one and one["name"] != other.get("name"):  # another agent: its settings cannot be compared
                one, other = ({"name": choice.get("name")} for choice in (one, other))
            said += differences(one, other, path)
        elif one != other:
            said.append(f"{path} is {_shown(one)}, not {_shown(other)}")
    return said


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return "null" if value is None else str(value)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json(entry) for key, entry in value.items()}
    return [_json(entry) for entry in value] if isinstance(value, list | tuple) else value
