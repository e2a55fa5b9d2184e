"""What every command does around its workflow: reads the configuration, says what is wrong with it, shows help.

Hydra composes the yaml files. Mistakes are looked for before Hydra starts the job, in every job of a sweep, so that
they come as one line at start, with exit code 2, and leave no run folder behind. Nor do those that the workflow finds
before it has written anything.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hydra
from hydra._internal.utils import get_args_parser  # the one place that knows Hydra's own flags
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vlmrl.command_help import GROUPS, help_text
from vlmrl.errors import UserError, unknown

CONFIGS = "vlmrl.configs"
SENTENCES = ("goal", "baseline", "task.goal", "task.baseline")
# Keys that the yaml files do not list.
FREE = ("env.kwargs", "judge.automatic.", "judge.extra_body.", "rater.automatic.", "rater.extra_body.")

C = TypeVar("C")


@contextmanager
def _interruptible() -> Iterator[None]:
    """End at Ctrl-C with a line and the status that shells give it; what a workflow says of it comes before."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        raise SystemExit(130) from None


@_interruptible()
def run_command(
    name: str, examples: str, settings: Callable[[Mapping[str, Any]], C], workflow: Callable[[C], object]
) -> None:
    """Be a command: read `sys.argv`, check it, and call a workflow once, or once for each job of a sweep.

    Args:
        name: Name of the command and of its yaml file.
        examples: What `--help` starts with.
        settings: Turns plain values into settings; its mistakes are `UserError`s.
        workflow: What the command does. `settings["run_dir"]` is then the folder of the run.
    """
    standing: set[Path] = set()
    try:
        flags, arguments = _parse(sys.argv[1:])
        if flags.help:
            _print(help_text(name, examples, compose(name, arguments, flags.config_dir)))
            return
        arguments = for_hydra(arguments, flags.multirun)
        if not (flags.shell_completion or flags.hydra_help):
            for overrides in expand(arguments, flags.multirun):
                values = plain(compose(name, overrides, flags.config_dir))
                settings(values)
                standing |= _standing(values.get("run_dir", "."))
    except UserError as error:
        fail(error)
    # Flags first: Hydra's own parser takes the overrides as one block.
    sys.argv[1:] = [*(argument for argument in sys.argv[1:] if argument not in flags.overrides), *arguments]

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=name)
    def job(config: DictConfig) -> None:
        run = HydraConfig.get()
        folder = Path(run.runtime.output_dir)
        if run.mode is RunMode.MULTIRUN:
            # Hydra's note on the sweep lies where all sweeps lie, each writing over the last; the jobs have their own.
            Path(run.sweep.dir, "multirun.yaml").unlink(missing_ok=True)
        try:
            with _removed_if_unused(folder, run.output_subdir, standing):
                workflow(settings({**plain(config), "run_dir": str(folder)}))
        except UserError as error:
            fail(error)

    job()


def _print(text: str) -> None:
    """Print, to a reader that may stop reading: `--help | head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends


def given_keys(arguments: Iterable[str]) -> list[str]:
    """Return the keys that arguments name, such as "env" and "agent.gamma", without Hydra's marks before them."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    return [override.partition("=")[0].lstrip("+~") for override in overrides]


def fail(error: UserError) -> NoReturn:
    """End the program with a user's mistake on stderr."""
    print(f"Error: {error}", file=sys.stderr)
    raise SystemExit(2)


def for_hydra(arguments: Iterable[str], multirun: bool = False) -> list[str]:
    """Write overrides as Hydra's grammar wants them, where a person would write them otherwise.

    Args:
        arguments: What a person types, such as "goal=up, and away".
        multirun: Whether commas separate the values of a sweep.
    """
    return _free_goal([_for_hydra(argument, multirun) for argument in arguments])


def compose(name: str, arguments: list[str], config_dir: str | None = None) -> DictConfig:
    """Compose a command's configuration.

    Args:
        name: Name of the primary yaml file.
        arguments: Hydra overrides.
        config_dir: Folder of the user's own yaml files.

    Raises:
        UserError: An override cannot be read, or names a choice or key that does not exist.
    """
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise UserError(f"--config-dir: there is no folder '{config_dir}'.")
        arguments = [*arguments, f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]
    try:
        with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
            return hydra.compose(name, arguments)
    except MissingConfigException as error:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        raise unknown(group or "configuration", choice, error.options or []) from error
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigAttributeError | ConfigKeyError) and OmegaConf.is_dict(cause.parent_node):
            where, _, key = str(cause.full_key).rpartition(".")
            allowed = [str(entry) for entry in cause.parent_node if entry != "hydra"]
            raise unknown(f"{where} key".lstrip(), key, allowed) from error
        raise UserError(_one_line(error, cause)) from error
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from error


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as nested dicts of plain values, interpolations resolved.

    Raises:
        UserError: An interpolation leads nowhere, or a value is missing.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(_one_line(error)) from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def expand(arguments: list[str], multirun: bool) -> list[list[str]]:
    """Return the overrides of each job: one, or every combination of the values of a sweep.

    Raises:
        UserError: An override cannot be read, or lists several values without a sweep.
    """
    choices: list[list[str]] = []
    for override in map(_read_override, arguments):
        if not override.is_sweep_override():
            if override.key_or_group in GROUPS and not isinstance(override.value(), str):
                raise UserError(f"{override.input_line}: {override.key_or_group} takes one name; --help lists them.")
            choices.append([str(override.input_line)])
        elif not multirun:
            key = override.get_key_element()
            raise UserError(
                f"{override.input_line} lists several values. Add -m to run them all, or write a list as {key}=[...] "
                f"and a text with commas as \"{key}='...'\"."
            )
        elif override.is_discrete_sweep():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        # What an optimising sweeper draws (interval(0,1)) is not known before it runs; its jobs are checked one by one.
    return [list(job) for job in itertools.product(*choices)]


def _standing(run_dir: str) -> set[Path]:
    """Return the folders that are there already, of those in which runs in `run_dir` come to lie."""
    path = Path(os.path.abspath(run_dir))
    return {folder for folder in (path, *path.parents) if folder.exists()}


@contextmanager
def _removed_if_unused(folder: Path, notes: str | None, standing: Collection[Path]) -> Iterator[None]:
    """Remove the folder of a run that ended in an error before it wrote anything.

    Hydra makes the folder, and puts its notes there, before the workflow is asked.

    Args:
        folder: The folder of the run.
        notes: Name of Hydra's own folder in it; None where Hydra writes none, and the folder is not the run's alone.
        standing: Folders above that were there before the command.
    """
    try:
        yield
    except BaseException:  # a bug and Ctrl-C among them
        if notes is not None and folder.is_dir() and [entry.name for entry in folder.iterdir()] == [notes]:
            shutil.rmtree(folder)
            for parent in folder.parents:
                if parent in standing:
                    break
                try:
                    parent.rmdir()
                except OSError:  # other runs lie there
                    break
        raise


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split Hydra's flags from overrides, in any order."""
    flags = get_args_parser().parse_intermixed_args(arguments)
    return flags, list(flags.overrides)


def _read_override(argument: str) -> Override:
    try:
        (override,) = OverridesParser.create().parse_overrides([argument])
        return override
    except OverrideParseException as error:
        key, equals, _ = argument.partition("=")
        if not equals:
            raise UserError(f"'{argument}' has no value: write {argument}=..., or --help for what there is.") from error
        raise UserError(
            f"'{argument}' cannot be read. Write key=value, and put a value with commas, brackets, colons or quotes in "
            f"it between quotes of its own: \"{key}='...'\"."
        ) from error


def _for_hydra(argument: str, multirun: bool) -> str:
    """Write an override as Hydra's grammar wants it, where a person would write it otherwise.

    Sentences are quoted: unquoted, commas, brackets and apostrophes have a meaning. (In a sweep, a comma separates
    sentences as it does other values.) Keys that the yaml files do not list are added.
    """
    key, _, value = argument.partition("=")
    if key.startswith(FREE):
        return f"++{argument}"
    if key not in SENTENCES or value in ("", "null") or value[0] in "'\"[$" or (multirun and "," in value):
        return argument
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _free_goal(arguments: list[str]) -> list[str]:
    """Let a sentence of one's own take the place of the environment's default task."""
    keys = [argument.partition("=")[0] for argument in arguments]
    if "goal" in keys and "goal=null" not in arguments and "task" not in keys:
        return [*arguments, "task=none"]
    return arguments


def _one_line(*errors: object) -> str:
    return " ".join(" ".join(str(error).split()) for error in errors if error is not None)
