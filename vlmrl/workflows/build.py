"""From settings to the objects that a run is made of."""

from __future__ import annotations

from dataclasses import dataclass

from vlmrl.encoders.base import Encoder
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.make import EnvSettings
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel
from vlmrl.serving.scorer import LocalScorer
from vlmrl.workflows.config import SceneConfig


@dataclass(frozen=True)
class Parts:
    """What the settings of a run stand for.

    Attributes:
        env: Which environment to build, with its task.
        encoder: None where the reward looks at no picture.
        model: The reward model.
        batch_size: Frames that a scorer encodes at once.
    """

    env: EnvSettings
    encoder: Encoder | None
    model: RewardModel
    batch_size: int

    def rewards(self, scale: RewardScale | None = None) -> LazyRewards:
        """Make a source of rewards with a scorer of its own."""
        scorer = LocalScorer(self.encoder, self.batch_size) if self.encoder is not None else None
        return LazyRewards(self.model, scorer, scale)


def build_parts(settings: SceneConfig, device: str) -> Parts:
    """Load the encoder if the reward needs one, make the reward model, and say which environment to build.

    Args:
        settings: Settings of a run.
        device: "cpu", "cuda" or "cuda:<n>".

    Raises:
        UserError: What is wrong with weights, words or environment.
    """
    encoder = settings.encoder.config.build(device) if settings.reward.config.uses_encoder else None
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
    return Parts(env, encoder, settings.reward.config.build(settings.words, encoder), settings.scorer.batch_size)


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
