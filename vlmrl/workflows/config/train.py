"""Settings of `vlmrl.train`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, typed
from vlmrl.workflows.config.scene import (
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
    return typed(TrainConfig, {**values, **chosen(values)})


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
