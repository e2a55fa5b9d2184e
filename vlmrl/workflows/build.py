"""From settings to the objects that a run is made of."""

from __future__ import annotations

from dataclasses import dataclass

from vlmrl.encoders.base import Encoder
from vlmrl.envs.lazy_rewards import Between, LazyRewards, RewardScale
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.shaping import PotentialShaping
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel
from vlmrl.serving.settings import Service
from vlmrl.workflows.config.scene import SceneConfig


@dataclass(frozen=True)
class Parts:
    """What the settings of a run stand for.

    Attributes:
        env: Which environment to build, with its task.
        encoder: None where the reward looks at no picture.
        model: The reward model.
        service: Where the encoder runs; None without one.
        between: What the steps between two scored frames get, see `LazyRewards`.
    """

    env: EnvSettings
    encoder: Encoder | None
    model: RewardModel
    service: Service | None
    between: Between = "hold"

    def rewards(
        self, scale: RewardScale | None = None, shaping: PotentialShaping | None = None, n_envs: int | None = None
    ) -> LazyRewards:
        """Make a source of rewards with a scorer of its own; all of them share one encoder.

        Args:
            scale: See `LazyRewards`.
            shaping: See `LazyRewards`.
            n_envs: Environments of a learner that may leave its newest steps alone until their rewards are there; None
                where each step waits for its reward.
        """
        every, lag = self.env.score_every, 0
        if self.service is None:
            return LazyRewards(self.model, None, scale, shaping, every, self.between)
        if n_envs is not None:
            lag = self.service.lag(n_envs * len(self.env.task.cameras) / every)
        return LazyRewards(self.model, self.service.scorer(), scale, shaping, every, self.between, lag)

    def close(self) -> None:
        """Stop the encoder, wherever it runs."""
        if self.service is not None:
            self.service.close()


def build_parts(settings: SceneConfig, device: str) -> Parts:
    """Load the encoder if the reward needs one, make the reward model, and say which environment to build.

    Args:
        settings: Settings of a run.
        device: "cpu", "cuda" or "cuda:<n>".

    Raises:
        UserError: What is wrong with weights, words or environment.
    """
    needed = settings.reward.config.uses_encoder
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
    model = settings.reward.config.build(settings.words, encoder)
    return Parts(env, encoder, model, service, settings.between)


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" or "cpu".

    Raises:
        UserError: The device is not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={device}: torch sees no CUDA device here. Use device=cpu or device=auto.")
    return device
