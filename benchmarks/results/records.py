"""What is kept of a finished run: one small JSON file for each row and seed."""

from __future__ import annotations

import csv
import functools
import json
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.results.plan import IRRELEVANT, UNSEEN, Plan, Row, differences, essence, settings_of
from vlmrl.errors import UserError
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.run_folder import EMBEDDED_WEIGHTS, RunFolder, versions

TRAINED = "trained"  # the policy that a run is about; the others are controls


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        command: The shell command that makes it.
        settings: What of its settings decides what comes out, see `plan.essence`.
        steps: Steps of training.
        steps_per_second: Of the last part, where it was interrupted.
        training_seconds: Wall time of training by the run's own log, over all parts.
        command_seconds: Wall time of the whole command, measuring included, over all parts. None if it was not timed.
        policies: {policy: summary of its episodes}, see `Episodes.summary`; "trained" and the controls.
        versions: Of the packages and of the embedded encoder's weights.
        machine: Its architecture and cores; empty where the run was made elsewhere.
        date: Day on which it ended, UTC.
    """

    command: str
    settings: dict[str, Any]
    steps: int
    steps_per_second: float
    training_seconds: float
    command_seconds: float | None
    policies: dict[str, dict[str, Any]]
    versions: dict[str, str]
    machine: dict[str, Any]
    date: str

    @property
    def trained(self) -> dict[str, Any]:
        """Summary of the trained policy."""
        return self.policies[TRAINED]

    @property
    def controls(self) -> dict[str, dict[str, Any]]:
        """Summaries of the policies that learned nothing."""
        return {name: summary for name, summary in self.policies.items() if name != TRAINED}


class Records:
    """A folder of records.

    Args:
        folder: The folder; made when a record is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, row: str, seed: int) -> Path:
        """Return where the record of a row and seed is."""
        return self.folder / f"{row}-{seed}.json"

    def load(self, row: str, seed: int) -> Record | None:
        """Return the record, or None if there is none.

        Raises:
            UserError: The file is no record.
        """
        path = self.path(row, seed)
        if not path.is_file():
            return None
        try:
            return Record(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"'{path}' is no record of a run ({error}). Delete it to have the run made again."
            ) from error

    def save(self, row: str, seed: int, record: Record) -> Path:
        """Write a record, whole or not at all."""
        path = self.path(row, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(record), indent=2) + "\n")
        return path


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def changed(record: Record, row: Row, seed: int) -> list[str]:
    """Say what has changed since a record was made: settings, or the embedded encoder that rewarded it.

    Returns:
        Nothing if the row's command would do the same today.
    """
    wanted = row.settings(seed)
    # Read as the settings of a run are: keys that came later have the defaults that the run had.
    found = essence(train_settings(_completed(record.settings, wanted)))
    return differences(found, essence(wanted)) + older_weights(record.versions, row, seed)


def older_weights(made_with: Mapping[str, str], row: Row, seed: int) -> list[str]:
    """Say if the embedded encoder that rewards a row is not the one that a run was made with."""
    key = _weights(row, seed)
    if key is None:
        return []
    now = _versions_now()[key]
    return ["the embedded encoder has new weights"] if made_with.get(key, now) != now else []


def unknown_weights(record: Record, row: Row, seed: int) -> bool:
    """Say if it cannot be told which weights the embedded encoder had: runs have not always written it down."""
    key = _weights(row, seed)
    return key is not None and key not in record.versions


def _weights(row: Row, seed: int) -> str | None:
    """Return what the digest of the embedded encoder that rewards is called; None where none does."""
    return EMBEDDED_WEIGHTS.get(row.encoder(seed) or "")


_versions_now = functools.cache(versions)  # reads all weights; the tables ask for every row


def is_finished(folder: RunFolder, settings: TrainConfig) -> bool:
    """Say if a run was trained to its end and measured; Ctrl-C ends one before."""
    return folder.result.is_file() and json.loads(folder.result.read_text())["steps"] >= settings.total_timesteps


def read_run(folder: RunFolder, command: str, command_seconds: float | None, here: bool) -> Record:
    """Make a record of a finished run.

    Args:
        folder: The run.
        command: What makes it.
        command_seconds: Wall time of the command, if it was timed.
        here: Whether it was made on this machine.

    Raises:
        UserError: It is not finished, or was trained for longer than its settings say.
    """
    settings = train_settings(folder.read_config())
    if not is_finished(folder, settings):
        raise UserError(
            f"The run '{folder.path}' is not finished. Go on with: python -m vlmrl.train resume={folder.path}"
        )
    result = json.loads(folder.result.read_text())
    longest = settings.total_timesteps + _overshoot(settings)
    if result["steps"] > longest:
        raise UserError(
            f"The run '{folder.path}' was trained for {result['steps']:,} steps, more than the "
            f"{settings.total_timesteps:,} of its settings: it was resumed with another total_timesteps, and no one "
            "command makes it."
        )
    made_with = _versions(folder)
    made_with.pop("platform", None)
    return Record(
        command=command,
        settings=essence(settings),
        steps=result["steps"],
        steps_per_second=result["steps_per_second"],
        training_seconds=_training_seconds(folder) or round(result["steps"] / max(result["steps_per_second"], 1e-9), 1),
        command_seconds=None if command_seconds is None else round(command_seconds, 1),
        policies=result["policies"],
        versions=made_with,
        machine={"architecture": platform.machine(), "cores": os.cpu_count()} if here else {},
        date=datetime.fromtimestamp(folder.result.stat().st_mtime, UTC).date().isoformat(),
    )


def row_of(folder: RunFolder, plan: Plan, patterns: tuple[str, ...]) -> tuple[Row, int]:
    """Find the row and seed that a run made by hand belongs to.

    Args:
        folder: The run.
        plan: All rows.
        patterns: Names of the rows to look among, with wildcards.

    Raises:
        UserError: Its settings are those of no such row, or its encoder was another; the nearest row is named.
    """
    settings = train_settings(folder.read_config())
    found = essence(settings)
    nearest: tuple[list[str], Row] | None = None
    for row in dict.fromkeys(row for row, _ in plan.choose(patterns)):
        wanted = essence(row.settings(settings.seed))
        differ = differences(found, wanted)
        if settings.seed not in row.seeds:
            differ.append(f"seed is {settings.seed}, and the row has {list(row.seeds)}")
        if nearest is None or len(differ) < len(nearest[0]):
            nearest = differ, row
    assert nearest is not None  # a pattern that fits nothing has been refused
    differ, row = nearest
    if not differ:
        differ = older_weights(_versions(folder), row, settings.seed)
    if differ:
        raise UserError(
            f"The run '{folder.path}' is not what a row asks for. The nearest is '{row.name}', but "
            f"{'; '.join(differ)}. Train it with: "
            f"{row.command([settings.seed] if settings.seed in row.seeds else row.seeds[:1])}"
        )
    return row, settings.seed


def own_command(folder: RunFolder) -> str:
    """Return the command of a run, without what only says where it was written.

    Raises:
        UserError: The command makes another run today, or names a folder of this machine.
    """
    settings = train_settings(folder.read_config())
    words = shlex.split(folder.path.joinpath("command.txt").read_text())
    arguments = [word for word in words[words.index("vlmrl.train") + 1 :] if word not in ("-m", "--multirun")]
    kept = []
    for argument in arguments:
        key = argument.partition("=")[0]
        if key == "seed":  # of a sweep it lists them all
            kept += [f"seed={settings.seed}"] if settings.seed else []
        elif key not in IRRELEVANT and not key.startswith("hydra."):
            kept.append(argument)
    differ = differences(essence(settings), essence(settings_of(kept)))
    if differ:
        raise UserError(
            f"The command of the run '{folder.path}' makes another one today: {'; '.join(differ)}. Train it again "
            f"with: {shlex.join(['python', '-m', 'vlmrl.train', *kept])}"
        )
    paths = [argument for argument in kept if argument.partition("=")[2].startswith(("/", "~"))]
    if paths:
        raise UserError(f"The command of the run '{folder.path}' names a folder of this machine: {' '.join(paths)}.")
    return shlex.join(["python", "-m", "vlmrl.train", *kept])


def _versions(folder: RunFolder) -> dict[str, str]:
    return json.loads(folder.path.joinpath("versions.json").read_text())


def _completed(kept: Mapping[str, Any], settings: TrainConfig) -> dict[str, Any]:
    """Add to the settings of a record what `essence` leaves out, so that they can be read as settings."""
    values = settings.plain()
    groups = ("encoder", "scorer", "goal", "baseline")
    completed = {key: values[key] for key in (*IRRELEVANT, *groups)} | dict(kept)
    for group, keys in UNSEEN.items():
        completed[group] = {key: values[group][key] for key in keys} | dict(kept[group])
    return completed


def _overshoot(settings: TrainConfig) -> int:
    """Return how many steps training may end late: it ends with a rollout."""
    config = settings.agent.config
    if hasattr(config, "train_freq"):
        return settings.n_envs * int(config.train_freq)
    return settings.n_envs * int(getattr(config, "n_steps", 1))


def _training_seconds(folder: RunFolder) -> float:
    """Return the time that the logs of all parts of a run show; 0 if nothing was logged."""
    total = 0.0
    for path in folder.path.glob("progress*.csv"):
        with path.open(newline="") as file:
            total += max((float(line.get("time/time_elapsed") or 0) for line in csv.DictReader(file)), default=0.0)
    return total
