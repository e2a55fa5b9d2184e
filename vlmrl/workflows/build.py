"""From settings to the objects that a run is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from vlmrl.encoders.base import Encoder
from vlmrl.encoders.device import find_device
from vlmrl.envs.lazy_rewards import Between, LazyRewards, RewardScale, RowListener
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.program_scene import ProgramScene
from vlmrl.envs.shaping import Shaping
from vlmrl.errors import UserError
from vlmrl.judges.desk import Desk
from vlmrl.reward_models.base import RewardModel, Words, in_background, is_movable
from vlmrl.serving.settings import Service
from vlmrl.workflows.config.scene import NO_ENV, Choice, SceneConfig

S = TypeVar("S", bound=SceneConfig)


@dataclass(frozen=True)
class Parts:
    """What the settings of a run stand for.

    Attributes:
        env: Which environment to build, with its task.
        encoder: None where the reward looks at no picture.
        model: The reward model.
        service: Where the encoder runs; None without one.
        between: What the steps between two scored frames get, see `LazyRewards`.
        scene: What a reward that is a program is written for; None for other rewards.
    """

    env: EnvSettings
    encoder: Encoder | None
    model: RewardModel
    service: Service | None
    between: Between = "hold"
    scene: ProgramScene | None = None

    def rewards(
        self,
        scale: RewardScale | None = None,
        shaping: Shaping | None = None,
        n_envs: int | None = None,
        listener: RowListener | None = None,
    ) -> LazyRewards:
        """Make a source of rewards with a scorer of its own; all of them share one encoder.

        Args:
            scale: See `LazyRewards`.
            shaping: See `LazyRewards`.
            n_envs: Environments of a learner that may leave its newest steps alone until their rewards are there; None
                where each step waits for its reward.
            listener: See `LazyRewards`.
        """
        every, lag = self.env.score_every, 0
        if self.service is None:
            if n_envs is not None and in_background(self.model):
                lag = self.model.delay
            return LazyRewards(self.model, None, scale, shaping, every, self.between, lag, listener)
        if n_envs is not None:
            lag = self.service.lag(n_envs * len(self.env.task.cameras) / every)
        return LazyRewards(self.model, self.service.scorer(), scale, shaping, every, self.between, lag, listener)

    def close(self) -> None:
        """Stop the encoder, wherever it runs, and what the reward model may have started."""
        if self.service is not None:
            self.service.close()
        close = getattr(self.model, "close", None)
        if close is not None:
            close()


def build_parts(settings: SceneConfig, device: str, with_encoder: bool = False) -> Parts:
    """Load the encoder if the reward needs one, make the reward model, and say which environment to build.

    Args:
        settings: Settings of a run.
        device: "cpu", "cuda" or "cuda:<n>".
        with_encoder: Load the encoder also where the reward does not need it, for somebody who looks at its pictures.

    Raises:
        UserError: What is wrong with weights, words or environment.
    """
    if settings.env.name == NO_ENV:
        raise UserError("env=none names no environment, so nothing can act. Name the one that is meant: env=<name>.")
    needed = settings.reward.config.uses_encoder or with_encoder
    service = settings.scorer.config.build(settings.encoder.config, device) if needed else None
    encoder = service.encoder if service is not None else None
    if encoder is not None:
        encoder.check_env(settings.env.name)
    height, width = encoder.image_size if encoder is not None else (224, 224)
    env = EnvSettings(
        id=settings.env.id,
        task=settings.make_task(),
        height=settings.env.height or height,
        width=settings.env.width or width,
        profile=settings.env.profile,
        score_every=settings.score_every,
        max_episode_steps=settings.env.max_episode_steps,
        kwargs=settings.env.kwargs,
    )
    # A reward that is a program is written for an environment and tried on its states.
    uses_scene = getattr(settings.reward.config, "uses_scene", False)
    scene = ProgramScene(env, open_desk(settings, device)) if uses_scene else None
    model = build_model(settings.reward.config, settings.words, encoder, scene)
    if encoder is not None and getattr(model, "head", None) is not None:
        _check_shape(env, encoder)
    if is_movable(model):
        model.to(device)
    return Parts(env, encoder, model, service, settings.between, scene)


def _check_shape(env: EnvSettings, encoder: Encoder) -> None:
    """Refuse pictures that are wider or higher than those that a head for clips was trained on.

    An encoder cuts off what does not fit, and the head has never seen what is left: it would say nothing and be wrong.

    Raises:
        UserError: Their height and width are not in the encoder's proportion.
    """
    height, width = encoder.image_size
    if env.height * width != env.width * height:
        raise UserError(
            f"env.height={env.height} env.width={env.width}: the head for clips knows pictures of {height} x {width} "
            f"(height x width), and {encoder.name} would cut these to fit. Leave env.height and env.width out."
        )


def build_model(config: Any, words: Words | None, encoder: Encoder | None, scene: ProgramScene | None) -> RewardModel:
    """Make a reward model of its settings.

    Args:
        config: Settings of the reward.
        words: What it is told; None where it reads none.
        encoder: None where it looks at no picture.
        scene: None where it is no program.

    Raises:
        UserError: It cannot be made of these.
    """
    return config.build(words, encoder, **({"scene": scene} if scene is not None else {}))


def settled(settings: S, model: RewardModel) -> S:
    """Return settings with which the same reward model is built again: what it has found out stands in them."""
    if not getattr(settings.reward.config, "uses_scene", False):
        return settings
    program: Any = model
    return replace(settings, reward=Choice(settings.reward.name, program.config))


def open_desk(settings: SceneConfig, device: str, store: Path | None = None) -> Callable[[], Desk] | None:
    """Return what opens the desk of the command's judge; None where it has no judge.

    Args:
        settings: Settings of a run.
        device: Where a judge runs that is a model here.
        store: Answer store; None takes one that all runs of a folder share, because the run's own folder is made when
            all is known to be right.
    """
    judge, run_dir = getattr(settings, "judge", None), getattr(settings, "run_dir", None)
    if judge is None or run_dir is None:
        return None
    place = store or Path(run_dir).parent.parent / "answers.sqlite"
    return lambda: judge.config.open_desk(None, device, place)


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" or "cpu".

    Raises:
        UserError: The device is not there.
    """
    return str(find_device(device))
