"""What `--help` shows, read from the yaml files: each key's value, and the comment beside it."""

from __future__ import annotations

import re
from importlib import resources

from omegaconf import Container, DictConfig, OmegaConf

GROUPS = ("env", "task", "reward", "encoder", "agent", "scorer", "judge", "fit")
# Groups of which a command chooses nothing by itself, so that no value can be shown.
OPTIONAL = {"train": ["preset"], "evaluate": ["env"], "collect": ["env"], "relabel": ["env"]}


def help_text(name: str, examples: str, config: DictConfig) -> str:
    """Write the help of a command.

    Args:
        name: Name of its yaml file.
        examples: What comes first.
        config: Its composed configuration, whose values are shown.
    """
    groups = [group for group in GROUPS if group in config]
    listed = {group: choices(group) for group in [*OPTIONAL.get(name, []), *groups]}
    if "fit" in config:  # a recipe comes with the name of its encoder or reward, whose settings mean nothing here
        rewards = choices("reward")
        listed = {
            kind: {name: text for name, text in listed["fit"].items() if (name in rewards) == (kind == "reward")}
            for kind in ("encoder", "reward")
        }
        groups = ["fit"]
    lines = [examples.strip(), ""]
    if listed:
        lines += ["Choices, given as group=choice:"]
        lines += [columns(f"{group}={name}", text) for group, names in listed.items() for name, text in names.items()]
        lines += [""]
    lines += ["Keys, given as key=value:"]
    lines += [
        columns(_shown(key, config[key]), meaning) for key, meaning in own_and_inherited(name).items() if key in config
    ]
    for group in groups:
        chosen = config[group].name
        meanings = comments(f"{group}/{chosen}.yaml")
        if meanings:
            lines += ["", f"Keys of {group} ({chosen}):"]
            lines += [
                columns(_shown(f"{group}.{key}", config[group][key]), meaning) for key, meaning in meanings.items()
            ]
    lines += [
        "",
        "Several runs: -m seed=0,1,2. The whole configuration, without running: --cfg job.",
        "A folder of yaml files of your own: --config-dir. What Hydra can do: --hydra-help.",
    ]
    return "\n".join(lines)


def choices(group: str) -> dict[str, str]:
    """Return {choice: meaning} of a group; the meaning is the comment at the top of its file."""
    folder = resources.files("vlmrl.configs").joinpath(group)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): _title(file.read_text()) for file in files}


def own_and_inherited(name: str) -> dict[str, str]:
    """Return the comments of a command's yaml file, and of those that its defaults begin with (`- train`)."""
    text = resources.files("vlmrl.configs").joinpath(f"{name}.yaml").read_text()
    inherited: dict[str, str] = {}
    for other in re.findall(r"^  - (\w+)$", text.partition("_self_")[0], flags=re.MULTILINE):
        inherited |= own_and_inherited(other)
    return comments(f"{name}.yaml") | inherited


def comments(path: str) -> dict[str, str]:
    """Return {key: comment beside it} of a yaml file of the package, for the keys that stand at the left margin."""
    file = resources.files("vlmrl.configs").joinpath(path)
    if not file.is_file():  # a file of the user's own, from --config-dir
        return {}
    return dict(re.findall(r"^(\w+):.*?  # (.*)$", file.read_text(), flags=re.MULTILINE))


def _title(text: str) -> str:
    """Return the comment at the top of a yaml file; Hydra's own comes before it."""
    return next(line for line in text.splitlines() if not line.startswith("# @package")).removeprefix("# ")


def columns(left: str, right: str) -> str:
    """Lay out a line of help: what to type, and what it means."""
    return f"  {left:<36}  {right}"


def _shown(key: str, value: object) -> str:
    """Return "key=value", cut where it is long; `--cfg job` shows all."""
    given = OmegaConf.to_container(value) if isinstance(value, Container) else value
    text = "null" if given is None else str(given).lower() if isinstance(given, bool) else str(given)
    return f"{key}={text}" if len(text) <= 40 else f"{key}={text[:37]}..."
