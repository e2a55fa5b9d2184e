"""The folder of a run: what was asked, with what, and what came out."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import yaml

from vlmrl.encoders import crafter, mini
from vlmrl.errors import UserError, did_you_mean

PACKAGES = (
    "vlmrl",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "sample-factory",
    "gymnasium",
    "mujoco",
    "open_clip_torch",
    "numpy",
    "hydra-core",
)
# What the digests of the embedded encoders are called among the versions, by the encoder's name.
EMBEDDED_WEIGHTS = {"mini": "mini weights", "crafter": "crafter weights"}


# Commands whose folders others go on with, each by a setting that only it has, or it and those below.
MADE_BY = {"search": "selection_seeds", "train": "total_timesteps"}


class HasPlain(Protocol):
    """Settings that can be written down."""

    def plain(self) -> dict[str, Any]:
        """Return nested dicts of plain values."""
        ...


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings, yaml."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """The policy and its optimisers, an SB3 zip."""
        return self.path / "model.zip"

    @property
    def best(self) -> Path:
        """The best policy so far, an SB3 zip, where it is kept."""
        return self.path / "best.zip"

    @property
    def newest(self) -> Path:
        """The policy at the end of training, an SB3 zip, where `model` is the best one."""
        return self.path / "last.zip"

    @property
    def reward_model(self) -> Path:
        """What a reward model has learned in this run, safetensors."""
        return self.path / "reward_model.safetensors"

    @property
    def answers(self) -> Path:
        """What a judge has answered in this run, SQLite."""
        return self.path / "answers.sqlite"

    @property
    def labels(self) -> Path:
        """Labels of texts that the reward knew at the end, JSON, which other runs can be given."""
        return self.path / "labels.json"

    @property
    def untrained(self) -> Path:
        """The policy as it was before training, an SB3 zip."""
        return self.path / "untrained.zip"

    @property
    def result(self) -> Path:
        """Figures of the trained policy and its controls, JSON."""
        return self.path / "result.json"

    @property
    def dataset(self) -> Path:
        """What was learned from, JSON, where that was recordings."""
        return self.path / "dataset.json"

    @property
    def monitor(self) -> Path:
        """Folder of `<i>.monitor.csv`, one line an episode."""
        return self.path / "monitor"

    @property
    def checkpoints(self) -> Path:
        """Folder of `<step>/`, from which the run can be resumed."""
        return self.path / "checkpoints"

    def write(self, files: Mapping[str, str]) -> None:
        """Write texts, such as the reward program, into files of these names."""
        for name, text in files.items():
            self.path.joinpath(name).write_text(text, encoding="utf-8")

    def read_config(self, *commands: str) -> dict[str, Any]:
        """Return the settings of the run.

        Args:
            commands: Names in `MADE_BY` of those whose folder is wanted; none is train.

        Raises:
            UserError: This is not a run folder, or that of another command.
        """
        if not self.config.is_file():
            within = [path.parent for path in self.path.glob(f"*/{self.config.name}")]
            newest = f" The newest run in it is '{max(within, key=lambda path: path.name)}'." if within else ""
            raise UserError(f"'{self.path}' is not a run folder: it holds no {self.config.name}.{newest}")
        values = yaml.safe_load(self.config.read_text())
        made_by = next((command for command, key in MADE_BY.items() if key in values), None)
        wanted = commands or ("train",)
        if made_by not in wanted:
            maker = f"vlmrl.{made_by}" if made_by else "another command"
            raise UserError(f"'{self.path}' was made by {maker}; give a folder of vlmrl.{' or vlmrl.'.join(wanted)}.")
        return values


def create(path: Path, settings: HasPlain) -> RunFolder:
    """Make a run folder and write down what is asked and with what.

    Writes `config.yaml`, `command.txt` and `versions.json`.

    Args:
        path: The folder; made if need be.
        settings: Settings with a method `plain()`.

    Raises:
        UserError: The folder holds another run.
    """
    folder = RunFolder(path)
    if folder.config.exists():
        raise UserError(f"'{path}' already holds a run; choose another run_dir.")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.config.write_text(yaml.safe_dump(_plain(settings.plain()), sort_keys=False))
    folder.path.joinpath("command.txt").write_text(
        shlex.join([Path(sys.executable).name, "-m", *_module_and_arguments()]) + "\n"
    )
    folder.path.joinpath("versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
    return folder


def find(name: str, runs: Path = Path("runs"), make: str = "vlmrl.train env=humanoid reward=clip") -> RunFolder:
    """Return the run folder of that path; "last" is the one in `runs/` that was begun or went on last.

    Args:
        name: What a person gives.
        runs: Where runs lie that are not named by a path.
        make: A command that makes such a folder, for who has none.

    Raises:
        UserError: There is no such folder.
    """
    path = runs / "last" if name == "last" else Path(name)
    if not path.is_dir():
        there = [*runs.glob("*/*"), *runs.glob("*/*/*"), *path.parent.glob("*")]
        names = [str(folder) for folder in there if RunFolder(folder).config.is_file()]
        near = did_you_mean(name, ["last", *names] if (runs / "last").exists() else names)
        raise UserError(f"There is no run folder '{path}'.{near} To make one: python -m {make}")
    return RunFolder(path.resolve())


def point_last(folder: RunFolder, runs: Path) -> None:
    """Point the link `runs/last` at a run. The link is replaced in one step, so it never dangles."""
    runs.mkdir(parents=True, exist_ok=True)
    fresh = runs / f".last.{os.getpid()}"
    try:
        fresh.symlink_to(os.path.relpath(folder.path, runs), target_is_directory=True)
        fresh.replace(runs / "last")
    except OSError as error:  # file systems without links: the path is printed anyway
        print(f"The link {runs / 'last'} could not be made ({error}).", file=sys.stderr)


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform, and the packages and embedded weights that results depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    for encoder, folder in (("mini", mini.WEIGHTS), ("crafter", crafter.WEIGHTS)):
        digest = hashlib.sha256()
        for path in sorted([*folder.glob("open_clip_*"), *folder.glob(mini.VIDEO_HEAD)]):
            digest.update(path.read_bytes())
        found[EMBEDDED_WEIGHTS[encoder]] = f"sha256 {digest.hexdigest()[:16]}"
    return found


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = spec.name if spec is not None else Path(sys.argv[0]).stem
    return [module, *sys.argv[1:]]


def _plain(value: Any) -> Any:
    """Tuples to lists and paths to strings, for yaml."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
