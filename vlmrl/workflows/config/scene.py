"""Where policies act, what they should do and what rewards them: settings that several commands share."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from vlmrl.agents import AGENTS
from vlmrl.encoders import ENCODERS
from vlmrl.envs.tasks import PREDICATES, Task
from vlmrl.errors import UserError, unknown
from vlmrl.judges import JUDGES
from vlmrl.registry import Registry
from vlmrl.reward_models import REWARDS
from vlmrl.reward_models.base import Words
from vlmrl.serving import SCORERS
from vlmrl.typed import Count, Share, typed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NO_TASK = "none"
NO_ENV = "none"
REGISTRIES = {"reward": REWARDS, "encoder": ENCODERS, "scorer": SCORERS, "agent": AGENTS, "judge": JUDGES}


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and how it is drawn.

    Attributes:
        name: Name of the yaml file, such as "humanoid".
        id: What `gymnasium.make` is given.
        kwargs: Further arguments of the environment.
        camera: Cameras that the reward looks through, one or several; None takes the task's.
        width: Picture width in pixels; None takes the encoder's.
        height: Picture height in pixels; None takes the encoder's.
        profile: "lean" leaves out shadows and reflections, "default" draws what Gymnasium draws, "paper" what VLM-RM
            saw.
        max_episode_steps: Steps an episode; None takes the registered number.
    """

    name: str
    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    camera: tuple[str, ...] | None = None
    width: Count | None = None
    height: Count | None = None
    profile: Literal["lean", "default", "paper"] = "lean"
    max_episode_steps: Count | None = None


@dataclass(frozen=True)
class TaskConfig:
    """The words of a task, and how its success is told from its predicate; see `vlmrl.envs.tasks.Task`.

    Here and in `EnvConfig` the yaml files of the suite give every key; a file of the user's own may leave some out.
    """

    name: str
    goal: tuple[str, ...]
    baseline: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    camera: tuple[str, ...] = ("front",)
    rule: Literal["hold", "end"] = "hold"
    fraction: Share = 0.5
    start: str | None = None


@dataclass(frozen=True)
class Choice:
    """An entry of a registry and its settings.

    Attributes:
        name: Its name there.
        config: The dataclass that is registered under it, with its `build` method.
    """

    name: str
    config: Any


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Where policies act, what they should do, and what rewards them: what training and measuring share.

    `configs/train.yaml` says what each key means. Here and in `TrainConfig` the yaml files give every key; the defaults
    are for the settings of runs that were made before a key was there.

    Raises:
        UserError: The settings contradict each other.
    """

    env: EnvConfig
    task: TaskConfig
    reward: Choice
    encoder: Choice
    scorer: Choice
    goal: tuple[str, ...] | None
    baseline: tuple[str, ...] | None
    score_every: Count
    between: Literal["hold", "interpolate"] = "hold"

    def __post_init__(self) -> None:
        if self.goal is not None and self.task.name != NO_TASK:
            raise UserError(
                f"goal= is a sentence of your own, and task '{self.task.name}' has one already. Use goal= with "
                f"task=none (success is then not told), or keep the check of '{self.task.name}' and change its words: "
                "task.goal='...'."
            )
        if self.task.name != NO_TASK and f"{self.env.name}/{self.task.name}" not in PREDICATES:
            tasks = [entry.split("/")[1] for entry in PREDICATES if entry.split("/")[0] == self.env.name]
            raise unknown(f"task of environment '{self.env.name}':", self.task.name, [*tasks, NO_TASK])
        self.words, self.cameras  # noqa: B018  (raise what is wrong with them)

    @property
    def words(self) -> Words | None:
        """The sentences that the reward is made of: the person's own, else the task's; None where it reads none.

        Raises:
            UserError: There is no goal, or a sentence is empty.
        """
        if not getattr(self.reward.config, "uses_words", True) and self.goal is None and self.task.name == NO_TASK:
            return None
        goal = self.task.goal if self.goal is None else self.goal
        baseline = self.task.baseline if self.baseline is None else self.baseline
        return Words(goal, baseline, self.task.negatives)

    @property
    def reads_words(self) -> bool:
        """Whether the reward is made of sentences."""
        return bool(getattr(self.reward.config, "uses_words", True))

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras that the reward looks through: the environment's, else the task's.

        Raises:
            UserError: There is none, or one is named twice.
        """
        key, cameras = (
            ("env.camera", self.env.camera) if self.env.camera is not None else ("task.camera", self.task.camera)
        )
        if not cameras or len(set(cameras)) < len(cameras):
            raise UserError(
                f"{key} is [{','.join(cameras)}]; it must be the name of a camera, or a list of different ones."
            )
        return cameras

    def make_task(self) -> Task:
        """Make the task, with its predicate unless it is "none"."""
        predicate = None if self.task.name == NO_TASK else PREDICATES.load(f"{self.env.name}/{self.task.name}")
        goal = self.task.goal if self.goal is None else self.goal
        baseline = self.task.baseline if self.baseline is None else self.baseline
        return Task(
            name=self.task.name,
            goal="; ".join(goal),
            baseline="; ".join(baseline),
            negatives=self.task.negatives,
            cameras=self.cameras,
            predicate=predicate,
            rule=self.task.rule,
            fraction=self.task.fraction,
            start=self.task.start or "",
        )

    def plain(self) -> dict[str, Any]:
        """Return nested dicts of plain values in the form of the yaml files, from which the settings can be read."""
        values = asdict(self)
        for group in values.keys() & REGISTRIES.keys():
            if values[group] is None:  # of a run that was made before there was this group
                continue
            values[group] = {"name": values[group]["name"], **values[group]["config"]}
        return values


def plain_with_scene(settings: DataclassInstance, scene: SceneConfig | None) -> dict[str, Any]:
    """Return settings with a `scene` as plain values in the form of the yaml files, where they stand beside its own."""
    values = asdict(settings)
    del values["scene"]
    return values | (scene.plain() if scene is not None else {})


def import_plugins(modules: Any) -> None:
    """Import modules of the user's own, which register environments, predicates, rewards and agents as they load.

    Args:
        modules: Import paths, or one; None and an empty list are none.

    Raises:
        UserError: There is no such module.
    """
    for module in [modules] if isinstance(modules, str) else modules or ():
        import_own(str(module), "plugins")


def import_own(module: str, key: str) -> ModuleType:
    """Import a module that a person has named as the value of a key.

    Raises:
        UserError: There is no such module.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports: its author needs the traceback
        raise UserError(
            f"{key}: there is no module '{module}'. Python looks in the folder one stands in, in PYTHONPATH, and among "
            "the installed packages."
        ) from error


def chosen(values: Mapping[str, Any]) -> dict[str, Choice]:
    """Type the settings of every registered thing that the values name; old runs name no judge."""
    given = {group: values[group] for group in REGISTRIES if group in values}
    if given.get("judge", "") is None:
        del given["judge"]
    return {group: choose(REGISTRIES[group], value) for group, value in given.items()}


def choose(registry: Registry, values: Mapping[str, Any]) -> Choice:
    """Type the settings of a registered thing by its own dataclass.

    Args:
        registry: Names of dataclasses.
        values: {"name": its name, its settings}.

    Raises:
        UserError: No such name, or a setting is wrong.
    """
    if not isinstance(values, Mapping) or "name" not in values:
        raise UserError(f"{registry.kind} must be one of {', '.join(registry)}, got {values}.")
    settings = dict(values)
    name = str(settings.pop("name"))
    return Choice(name, typed(registry.load(name), settings, registry.kind))


def check_device(device: str) -> None:
    """Refuse what is no device; whether it is there is found out when it is used.

    Raises:
        UserError: `device` is not auto, cpu, cuda or cuda:<n>.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"device is '{device}'; it must be auto, cpu, cuda or cuda:<n>.")


SCENE_KEYS = tuple(entry.name for entry in fields(SceneConfig))
