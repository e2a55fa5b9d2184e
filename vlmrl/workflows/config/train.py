"""Settings of `vlmrl.train`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmrl.errors import UserError
from vlmrl.reward_models import REWARDS
from vlmrl.typed import Count, Natural, Positive, typed
from vlmrl.workflows.config.scene import (
    NO_ENV,
    Choice,
    SceneConfig,
    check_device,
    chosen,
    import_plugins,
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(SceneConfig):
    """Settings of `vlmrl.train`; `configs/train.yaml` says what each key means.

    `run_dir` is the run's own folder here.

    Raises:
        UserError: The settings contradict each other.
    """

    agent: Choice
    judge: Choice | None = None
    dataset: str | None = None
    total_timesteps: Count
    n_envs: Count
    seed: Natural
    device: str
    threads: Natural
    standardize: bool
    centre: bool
    use_as: Literal["reward", "potential", "bonus"] = "reward"
    shaping_weight: Positive = 1.0
    keep: Literal["last", "best"] = "last"
    audit: bool = True
    eval_episodes: Count
    eval_deterministic: bool = True
    video: bool
    log_interval: Count
    checkpoint_every: Count
    resume: str | None
    progress_bar: bool
    run_dir: str
    video_dir: str
    video_length: Count = 1000
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_device(self.device)
        self._check_source()
        super().__post_init__()
        if self.use_as == "potential":
            self.gamma  # noqa: B018  (raises that there is none)
        if self.learns_reward:
            self._check_learned_reward()
        if self.rewards_at_collection:
            self._check_collection()

    @property
    def learns_from(self) -> str:
        """What the reward is learned from as the agent learns, "comparisons" or "texts"; empty where it is not."""
        return str(getattr(self.reward.config, "learns_from", ""))

    @property
    def learns_reward(self) -> bool:
        """Whether the reward is learned as the agent learns."""
        return bool(self.learns_from)

    @property
    def asks_judge(self) -> bool:
        """Whether a judge is asked while the agent learns."""
        return self.learns_reward and bool(self.reward.config.asks_judge)

    def _check_learned_reward(self) -> None:
        """See that a reward that is learned as the agent learns can be.

        Raises:
            UserError: Nobody can be asked, or what is kept of the replay would be too large.
        """
        name, config = self.reward.name, self.reward.config
        if self.learns_from == "comparisons" and not self.asks_judge and not config.weights:
            raise UserError(
                f"reward={name} with reward.max_queries=0 asks nobody, so it needs reward.weights=<run folder>/"
                "reward_model.safetensors."
            )
        if self.asks_judge and self.judge is None:
            raise UserError(f"reward={name} needs a judge: judge=encoder, or another; --help lists them.")
        asks_texts = self.asks_judge and self.learns_from == "texts"
        if asks_texts and self.judge is not None and not self.judge.config.answers_texts:
            raise UserError(
                f"reward={name} asks about texts, and judge={self.judge.name} answers no questions about texts. "
                "Take judge=openai or judge=transformers, or labels that were recorded: reward.labels=recorded."
            )
        if self.asks_judge and self.words is None:
            raise UserError(f"reward={name} asks a judge about a goal: goal='...', or a task.")
        if self.keep == "best":
            raise UserError(
                f"keep=best compares what episodes earned, and reward={name} changes what they earn as it learns. Use "
                "keep=last."
            )
        buffer_size = getattr(self.agent.config, "buffer_size", 0)
        if getattr(config, "field", "") == "frames" and buffer_size > config.largest_replay:
            raise UserError(
                f"reward.input={config.input} keeps a picture with every transition, and agent.buffer_size is "
                f"{buffer_size}: at most {config.largest_replay} are kept. agent.buffer_size={config.largest_replay}, "
                "or reward.input=embeddings, which keeps any number."
            )

    @property
    def offline(self) -> bool:
        """Whether the agent learns from `dataset` and not from what it does itself."""
        return bool(getattr(self.agent.config, "offline", False))

    @property
    def rewards_at_collection(self) -> bool:
        """Whether the agent's workers reward steps where they take them."""
        return bool(getattr(self.agent.config, "rewards_at_collection", False))

    def _check_collection(self) -> None:
        """See that steps can be rewarded in worker processes, with nothing filled in later.

        Raises:
            UserError: They cannot.
        """
        name, config = self.agent.name, self.reward.config
        if not getattr(config, "at_collection", False):
            fitting = [entry for entry in REWARDS if getattr(REWARDS.load(entry), "at_collection", False)]
            raise UserError(
                f"agent={name} rewards each step where it is taken, in processes that hold no encoder and no program, "
                f"and reward={self.reward.name} cannot be had there. Take reward={' or reward='.join(fitting)}, or "
                "another agent, such as agent=ppo."
            )
        if reason := getattr(config, "not_at_collection", ""):
            raise UserError(
                f"agent={name} rewards each step where it is taken, and {reason}. Take agent=ppo, or another."
            )
        for key, value, other in (
            ("use_as", self.use_as, "reward"),
            ("keep", self.keep, "last"),
            ("score_every", self.score_every, 1),
        ):
            if value != other:
                raise UserError(
                    f"{key}={value} is not for agent={name}, whose workers reward every step. Leave {key} away."
                )
        self.agent.config.check(self.n_envs)

    def _check_source(self) -> None:
        """See that there is something to learn from: recordings for some agents, an environment for the others.

        Raises:
            UserError: It is missing, or it is of the other kind.
        """
        name = self.agent.name
        if not self.offline:
            if self.dataset is not None:
                raise UserError(
                    f"dataset= is for agents that learn from recordings, agent=iql and agent=bc; agent={name} learns "
                    "from what it does itself."
                )
            if self.env.name == NO_ENV:
                raise UserError(
                    f"agent={name} needs an environment to learn in: env=<name>. env=none goes with agent=iql or "
                    "agent=bc and dataset=<recordings>."
                )
            return
        if self.dataset is None:
            raise UserError(
                f"agent={name} learns from recordings: dataset=<id or path>. vlmrl.collect makes some, vlmrl.relabel "
                "gives them rewards; env= only says where the policy is measured."
            )
        for key, value, other in (("use_as", self.use_as, "reward"), ("keep", self.keep, "last")):
            if value != other:
                raise UserError(
                    f"{key}={value} is for agents that act while they learn; agent={name} learns from the rewards in "
                    f"the dataset. Leave {key} away."
                )

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
    return typed(TrainConfig, {**values, **chosen(values)})


# What may change when a run is resumed; everything else would make it another run.
RESUME_MAY_CHANGE = (
    "total_timesteps",
    "eval_episodes",
    "eval_deterministic",
    "video",
    "progress_bar",
    "threads",
    "device",
    "video_dir",
    "video_length",
)


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
