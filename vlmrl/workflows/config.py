"""Settings of the commands: what the yaml files say, checked and typed.

The commands hand over plain mappings; behind this door there are dataclasses only. `train_settings` and its like also
read back what `TrainConfig.plain` has written.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from vlmrl.agents import AGENTS
from vlmrl.encoders import ENCODERS
from vlmrl.envs.tasks import PREDICATES, Task
from vlmrl.errors import UserError, unknown
from vlmrl.registry import Registry
from vlmrl.reward_models import REWARDS
from vlmrl.reward_models.base import Words
from vlmrl.serving import SCORERS
from vlmrl.typed import Count, Natural, Positive, Share, typed

NO_TASK = "none"
REGISTRIES = {"reward": REWARDS, "encoder": ENCODERS, "scorer": SCORERS, "agent": AGENTS}

# Each entry is a config dataclass with fields out, seed, device, threads and progress beside its own.
RECIPES = Registry("recipe", {"mini": "vlmrl.workflows.mini.fit:MiniFitConfig"})


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
            values[group] = {"name": values[group]["name"], **values[group]["config"]}
        return values


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SceneConfig):
    """Settings of `vlmrl.train`; `configs/train.yaml` says what each key means.

    `run_dir` is the run's own folder here.

    Raises:
        UserError: The settings contradict each other.
    """

    agent: Choice
    total_timesteps: Count
    n_envs: Count
    seed: Natural
    device: str
    threads: Natural
    standardize: bool
    centre: bool
    use_as: Literal["reward", "potential"] = "reward"
    shaping_weight: Positive = 1.0
    keep: Literal["last", "best"] = "last"
    audit: bool = True
    eval_episodes: Count
    video: bool
    log_interval: Count
    checkpoint_every: Count
    resume: str | None
    progress_bar: bool
    run_dir: str
    video_dir: str
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_device(self.device)
        super().__post_init__()
        if self.use_as == "potential":
            self.gamma  # noqa: B018  (raises that there is none)

    @property
    def gamma(self) -> float:
        """The agent's discount a step, with which shaping leaves the task as it is.

        Raises:
            UserError: The agent has none.
        """
        gamma = getattr(self.agent.config, "gamma", None)
        if gamma is None:
            raise UserError(f"use_as=potential needs the agent's discount, and agent '{self.agent.name}' has no gamma.")
        return float(gamma)


def train_settings(values: Mapping[str, Any]) -> TrainConfig:
    """Check the settings of `vlmrl.train`.

    Args:
        values: Plain values in the form of `configs/train.yaml`.

    Raises:
        UserError: A name, key, type or value is wrong, or they contradict each other.
    """
    import_plugins(values.get("plugins"))
    return typed(TrainConfig, {**values, **_chosen(values)})


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


def _chosen(values: Mapping[str, Any]) -> dict[str, Choice]:
    return {group: choose(registry, values[group]) for group, registry in REGISTRIES.items() if group in values}


# What may change when a run is resumed; everything else would make it another run.
RESUME_MAY_CHANGE = ("total_timesteps", "eval_episodes", "video", "progress_bar", "threads", "device", "video_dir")


def resumed_settings(values: Mapping[str, Any], stored: Mapping[str, Any], given: Iterable[str]) -> TrainConfig:
    """Return the settings of a run that goes on: its own, but for what is given now and may change.

    Args:
        values: Plain values of this command, with `resume` and `run_dir`.
        stored: Plain values of the run.
        given: Keys that this command names.

    Raises:
        UserError: A key is given that would make it another run.
    """
    given = set(given) - {"resume"}
    for key in sorted(given - set(RESUME_MAY_CHANGE)):
        raise UserError(
            f"resume goes on with the run's own settings, so {key}= cannot be given. What may change: "
            f"{', '.join(RESUME_MAY_CHANGE)}. For other settings start a new run."
        )
    changed = {key: values[key] for key in given}
    return train_settings({**stored, **changed, "resume": values["resume"], "run_dir": values["run_dir"]})


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


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of `vlmrl.evaluate`; `configs/evaluate.yaml` says what each key means.

    `run_dir` is the folder of this evaluation here. `scene` holds the keys that are those of `vlmrl.train`; None where
    no environment is named: policies from outside are then measured in that of the first run.
    """

    runs: tuple[str, ...]
    policy: tuple[str, ...]
    algorithm: str | None
    scene: SceneConfig | None
    episodes: Count
    n_envs: Count
    seed: Natural
    device: str
    threads: Natural
    video: bool
    video_episodes: Count
    progress_bar: bool
    run_dir: str
    video_dir: str
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_device(self.device)
        if not (self.runs or self.policy) or not all(run.strip() for run in self.runs):
            raise UserError("runs is empty: name one or more run folders, runs=[runs/<...>/<time>], or runs=last.")
        if not all(policy.strip() for policy in self.policy):
            raise UserError("policy holds an empty name: give the zip of a policy, module:attribute, random or zero.")
        if self.policy and not self.runs and self.scene is None:
            raise UserError(
                f"policy={self.policy[0]} comes without an environment: name one as for training, env=<name>, or a run "
                "whose environment it is measured in, runs=last."
            )

    def plain(self) -> dict[str, Any]:
        """Return plain values in the form of the yaml file; `evaluate_settings` reads them."""
        values = asdict(self)
        del values["scene"]
        return values | (self.scene.plain() if self.scene is not None else {})


def evaluate_settings(values: Mapping[str, Any], given: Iterable[str] = ()) -> EvaluateConfig:
    """Check the settings of `vlmrl.evaluate`.

    Args:
        values: Plain values in the form of `configs/evaluate.yaml`.
        given: Keys that the command names, to refuse those that would be passed over.

    Raises:
        UserError: A key, type or value is wrong.
    """
    import_plugins(values.get("plugins"))
    own = {key: value for key, value in values.items() if key not in (*SCENE_KEYS, "agent")}
    scene = {key: values[key] for key in SCENE_KEYS if key in values}
    if own.get("policy") is None:
        own["policy"] = []
    if own.get("runs") is None:
        own["runs"] = [] if own["policy"] else ["last"]
    for key in given:
        group = key.partition(".")[0]
        if group == "agent":
            raise UserError(f"{key}= means nothing to evaluate: it measures what is trained, runs=... and policy=...")
        if group in SCENE_KEYS and not own["policy"]:
            raise UserError(f"{key}= is for a policy from outside, policy=...; a run has settings of its own.")
        if group in SCENE_KEYS and "env" not in scene:
            raise UserError(f"{key}= needs the environment that it goes with, env=<name>.")
    return typed(
        EvaluateConfig,
        {**own, "scene": typed(SceneConfig, {**scene, **_chosen(scene)}) if "env" in scene else None},
    )


@dataclass(frozen=True)
class AuditConfig:
    """Settings of `vlmrl.audit`; `configs/audit.yaml` says what each key means.

    `run_dir` is the folder of this audit here. `scene` holds the keys that are those of `vlmrl.train`. `encoders` is
    empty where the scene's own is the only one.
    """

    scene: SceneConfig
    encoders: tuple[Choice, ...]
    prompts: tuple[str, ...]
    alphas: tuple[Share, ...]
    frames: str | None
    states: Count
    seed: Natural
    device: str
    threads: Natural
    progress_bar: bool
    run_dir: str
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_device(self.device)
        scene = self.scene
        if self.frames is None and scene.task.name == NO_TASK:
            raise UserError(
                "An audit must know in which states the task is done, and there is no check (task=none). Keep a task's "
                "check and try sentences of your own on it, task=<name> prompts=['...']; or bring labelled pictures, "
                "frames=<folder with subfolders true and false>."
            )
        if not all(prompt.strip() for prompt in self.prompts):
            raise UserError("prompts holds an empty sentence; write words, or leave the key out.")
        if self.prompts and not scene.reads_words:
            raise UserError(f"prompts: reward={scene.reward.name} reads no words; leave prompts out.")
        if self.encoders and not scene.reward.config.uses_encoder:
            raise UserError(f"encoders: reward={scene.reward.name} looks at no pictures; leave encoders out.")
        if self.frames is not None and not scene.reward.config.uses_encoder:
            raise UserError(
                f"frames= are pictures, and reward={scene.reward.name} looks at none. Take one in words, reward=clip."
            )
        if self.alphas and "alpha" not in {entry.name for entry in fields(scene.reward.config)}:
            raise UserError(f"alphas: reward={scene.reward.name} has no alpha; leave alphas out, or take reward=clip.")

    def plain(self) -> dict[str, Any]:
        """Return plain values in the form of the yaml file; `audit_settings` reads them."""
        values = asdict(self)
        values["encoders"] = [{"name": choice["name"], **choice["config"]} for choice in values["encoders"]]
        scene = self.scene.plain()
        return {key: value for key, value in values.items() if key != "scene"} | {
            key: scene[key] for key in AUDIT_SCENE_KEYS
        }


AUDIT_SCENE_KEYS = ("env", "task", "reward", "encoder", "goal", "baseline")  # an audit encodes here, every frame


def audit_settings(values: Mapping[str, Any]) -> AuditConfig:
    """Check the settings of `vlmrl.audit`.

    Args:
        values: Plain values in the form of `configs/audit.yaml`.

    Raises:
        UserError: A key, type or value is wrong, or they contradict each other.
    """
    import_plugins(values.get("plugins"))
    own = {key: value for key, value in values.items() if key not in (*AUDIT_SCENE_KEYS, "agent")}
    scene = {key: values[key] for key in AUDIT_SCENE_KEYS if key in values}
    scene |= {"scorer": {"name": "local"}, "score_every": 1}
    for key in ("encoders", "prompts", "alphas"):
        given = own.get(key)
        own[key] = [] if given is None else given if isinstance(given, list | tuple) else [given]
    own["encoders"] = [_named_encoder(given) for given in own["encoders"]]
    return typed(AuditConfig, {**own, "scene": typed(SceneConfig, {**scene, **_chosen(scene)})})


def _named_encoder(given: Any) -> Choice:
    """Read an encoder in a list: a mapping with its name and settings, or a name as tables show it.

    Raises:
        UserError: There is no such encoder.
    """
    if isinstance(given, Mapping):
        return choose(ENCODERS, given)
    name = str(given)
    if name in ENCODERS:
        return choose(ENCODERS, {"name": name})
    if Path(name).is_dir():
        return choose(ENCODERS, {"name": "mini", "path": name})
    model, slash, pretrained = name.partition("/")
    if slash:
        return choose(ENCODERS, {"name": "open_clip", "model": model, "pretrained": pretrained})
    raise UserError(
        f"encoders: '{name}' is none of {', '.join(ENCODERS)}, no folder of weights, and no model of open_clip, which "
        "is written as architecture/tag, such as ViT-B-32/openai. With settings: encoders=[{name: mini, path: x}]."
    )


@dataclass(frozen=True)
class FitConfig:
    """Settings of `vlmrl.fit`; `configs/fit.yaml` and `configs/fit/<encoder>.yaml` say what each key means.

    `run_dir` is the run's own folder here, and `fit` holds the keys of the encoder's own recipe.
    """

    encoder: str
    fit: dict[str, Any]
    seed: Natural
    device: str
    threads: Natural
    progress_bar: bool
    out: str | None
    run_dir: str

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.encoder not in RECIPES:
            raise UserError(f"Encoder '{self.encoder}' has no training recipe. Available: {', '.join(RECIPES)}.")
        self.recipe  # noqa: B018  (raises what is wrong with it)

    @property
    def recipe(self) -> Any:
        """The recipe's own settings, a dataclass of `RECIPES`.

        Raises:
            UserError: One of them is wrong.
        """
        shared = {
            "out": self.out or self.run_dir,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "progress": self.progress_bar,
        }
        return typed(RECIPES.load(self.encoder), {**self.fit, **shared}, "fit")


def fit_settings(values: Mapping[str, Any]) -> FitConfig:
    """Check the settings of `vlmrl.fit`.

    Raises:
        UserError: The encoder has no recipe, or a key, type or value is wrong.
    """
    recipe = {key: value for key, value in values.get("fit", {}).items() if key != "name"}
    return typed(FitConfig, {**values, "encoder": values["encoder"]["name"], "fit": recipe})
