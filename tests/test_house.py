"""The house as it was designed: links, floors, light imports, yaml files that all compose."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from vlmrl.agents import AGENTS
from vlmrl.command_help import choices, comments
from vlmrl.commands import compose, plain
from vlmrl.encoders import ENCODERS
from vlmrl.envs.tasks import PREDICATES
from vlmrl.judges import JUDGES
from vlmrl.reward_models import REWARDS
from vlmrl.serving import SCORERS
from vlmrl.workflows.config.fit import RECIPES
from vlmrl.workflows.config.recipes import Recipe
from vlmrl.workflows.config.train import train_settings

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "vlmrl" / "configs"
ROOMS = ["agents", "configs", "envs", "reward_models"]


@pytest.mark.parametrize("room", ROOMS)
def test_the_root_links_lead_into_the_package(room: str) -> None:
    link = ROOT / room
    assert link.is_symlink()
    assert link.readlink() == Path("vlmrl") / room
    assert (link / "__init__.py").is_file()


def test_nothing_is_imported_through_a_root_link(tmp_path: Path) -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted((ROOT / "vlmrl").rglob("*.py"))]
    code = f"""
import importlib, sys
for name in {names!r}:
    try:
        importlib.import_module(name.removesuffix('.__init__'))
    except ModuleNotFoundError as error:  # of an extra that is not installed here
        if error.name.partition('.')[0] in ('vlmrl', *{ROOMS!r}):
            raise
assert not set({ROOMS!r}) & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr


def test_the_package_itself_is_light() -> None:
    heavy = ["torch", "mujoco", "open_clip", "cv2", "stable_baselines3", "tensorboard"]
    modules = "vlmrl, vlmrl.errors, vlmrl.rows, vlmrl.workflows.config.train, vlmrl.commands"
    code = f"import sys, {modules}\nloaded = set({heavy!r}) & set(sys.modules)\nassert not loaded, loaded"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr


def test_imports_go_down_only() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_is_a_hall() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "vlmrl").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 600
    }
    assert not long


def test_the_picture_of_the_house_is_true() -> None:
    """Each file and folder of docs/architecture.md lies on the floor where it is drawn, and no room is left out."""
    package = ROOT / "vlmrl"
    picture = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    floor, rooms = package, set()
    for line in picture.splitlines():
        if re.match(r" {3}\w", line):  # a floor begins here
            room = re.match(r" {3}(\w+)/", line)
            floor = package / room[1] if room else package
        for name in re.findall(r"(?<![\w>])[\w*]+(?:\.py|/)", line):
            if name.endswith(".py"):
                assert list(floor.rglob(name)), f"{floor.name}/ has no {name}"
                continue
            assert any((place / name).is_dir() for place in (floor, package)), f"{floor.name}/ has no {name}"
            rooms.add(name.rstrip("/"))
    assert {path.parent.name for path in package.glob("*/__init__.py")} <= rooms


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.y*ml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_yaml_file_composes_and_explains_itself(path: Path) -> None:
    assert path.suffix == ".yaml"  # Hydra 1.4 reads no other
    assert path.read_text().startswith("# ")
    group, name = path.parent.name, path.stem
    if path.parent == CONFIGS:
        plain(compose(name, []))
    elif group == "tuned":
        agent = max((entry for entry in AGENTS if name.endswith(f"_{entry}")), key=len)  # recurrent_ppo, not ppo
        config = compose("train", [f"env={name.removesuffix(f'_{agent}')}", f"agent={agent}"])
        assert config.agent.name == agent
    elif group == "fit":
        plain(compose("fit", [f"fit={name}"]))
    elif group == "preset":
        agent = name.partition("_")[0]
        config = compose("train", ["env=none", f"agent={agent}", f"preset={name}", "dataset=recordings"])
        assert train_settings(plain(config)).agent.name == agent
    elif group == "task":
        if name != "none":
            envs = [entry.split("/")[0] for entry in PREDICATES if entry.endswith(f"/{name}")]
            assert envs, f"task '{name}' has no predicate"
            for env in envs:
                assert train_settings(plain(compose("train", [f"env={env}", f"task={name}"]))).task.name == name
    else:
        needs = {  # what they cannot do without
            "env=gym": ["goal=a robot"],
            "env=none": ["dataset=recordings"],
            "agent=iql": ["dataset=recordings"],
            "agent=bc": ["dataset=recordings"],
            "agent=appo": ["reward=ground_truth"],
        }
        words = needs.get(f"{group}={name}", [])
        config = compose("train", [f"{group}={name}", *words])
        assert config[group].name == name  # the same stem everywhere
        train_settings(plain(config))


@pytest.mark.parametrize(
    "path", [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name not in ("tuned", "preset")], ids=str
)
def test_every_key_in_a_yaml_file_has_a_meaning(path: Path) -> None:
    relative = str(path.relative_to(CONFIGS))
    text = path.read_text().partition("\nhydra:")[0]
    keys = {line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()} - {"name", "defaults"}
    assert keys == set(comments(relative)) - {"name"}


@pytest.mark.parametrize(
    ("group", "registry"),
    [("agent", AGENTS), ("encoder", ENCODERS), ("judge", JUDGES), ("reward", REWARDS), ("scorer", SCORERS)],
)
def test_yaml_files_and_registries_list_the_same(group: str, registry: object) -> None:
    assert list(choices(group)) == list(registry)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("path", "dataclass"),
    [
        (f"{registry.kind}/{name}", registry.load(name))
        for registry in (AGENTS, ENCODERS, JUDGES, REWARDS, SCORERS)
        for name in registry
    ]
    + [(f"fit/{name}", RECIPES.load(name)) for name in RECIPES],
)
def test_every_setting_is_in_its_yaml_file(path: str, dataclass: type) -> None:
    # `configs/fit.yaml` has those of every recipe.
    shared = {field.name for field in dataclasses.fields(Recipe)} | {"dataset"} if path.startswith("fit/") else set()
    assert set(comments(f"{path}.yaml")) == {field.name for field in dataclasses.fields(dataclass)} - shared


def test_every_predicate_has_a_yaml_file() -> None:
    assert {entry.split("/")[1] for entry in PREDICATES} | {"none"} == set(choices("task"))
    assert {entry.split("/")[0] for entry in PREDICATES} <= set(choices("env"))


def test_constraints_pin_every_dependency() -> None:
    def canonical(name: str) -> str:
        return name.lower().replace("_", "-")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [entry for extra in project["optional-dependencies"].values() for entry in extra]
    names = {canonical(entry.split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip()) for entry in wanted}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line and "+" not in line for line in lines)
    assert names <= {canonical(line.split("==")[0]) for line in lines}
