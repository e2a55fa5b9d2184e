"""The reward wrapper for a single Gymnasium environment and any RL library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from warnings import warn

import gymnasium as gym
import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards
from vlmrl.envs.row_writer import ROW, RowWriter
from vlmrl.envs.shaping import Shaping
from vlmrl.errors import UserError
from vlmrl.reward_models.base import EpisodeEndingModel, RewardModel, awaits_end, called, quantities_of, sentences
from vlmrl.rows import RowKey
from vlmrl.serving.scorer import LocalScorer

OWN = "vlmrl/"  # what the ids of the suite's own environments begin with


class ModelRewardWrapper(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Replaces the reward of an environment by that of a reward model.

    Example:
        >>> env = ModelRewardWrapper(
        ...     gym.make("vlmrl/Humanoid-v0", render_mode="rgb_array", width=112, height=112),
        ...     ClipReward("a humanoid robot kneeling", baseline="a humanoid robot"),
        ... )  # doctest: +SKIP

    `info["original_reward"]` keeps what the environment gave, `info["vlm_reward"]` is the new reward. Each step waits
    for its reward; the vector path of the commands does not. A model that ends episodes terminates them. Where the
    model's encoder was made for other environments (the embedded one, away from the suite's own) it warns.

    Args:
        env: Made with `render_mode="rgb_array"` if the model looks at frames.
        model: The reward model.
        camera: Camera that it looks through, or several, where the environment has named ones.
        shaping: Let the model's reward shape the environment's own, or add to it, instead of replacing it.
    """

    def __init__(
        self,
        env: gym.Env,
        model: RewardModel,
        camera: str | Sequence[str] = "front",
        shaping: Shaping | None = None,
    ):
        # The model itself and no copy: it may hold an encoder of gigabytes.
        gym.utils.RecordConstructorArgs.__init__(
            self, _disable_deepcopy=True, model=model, camera=camera, shaping=shaping
        )
        if awaits_end(model):
            raise UserError(
                f"{called(model)} rewards the steps of an episode when it has ended, and a wrapper must reward "
                "each at once. Train with vlmrl.train and an agent with a replay buffer, or relabel recordings."
            )
        scorer = None
        if "embeddings" in model.needs:
            scorer = LocalScorer(model.encoder)  # type: ignore[attr-defined]
            _warn_of_strange_pictures(env, model.encoder)  # type: ignore[attr-defined]
        self._rewards = LazyRewards(model, scorer, shaping=shaping)
        rows = RowWriter(
            env, model.needs, sentences(camera), self._rewards.reads_reset, quantities=quantities_of(model)
        )
        gym.Wrapper.__init__(self, rows)
        self._episode, self._t = -1, 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(**kwargs)
        if self._episode >= 0:
            self._rewards.cut(RowKey(0, self._episode, self._t))
        self._episode, self._t = self._episode + 1, 0
        self._rewards.observe([(RowKey(0, self._episode, 0), info.pop(ROW))])
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step and reward the state that was reached."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._t += 1
        key = RowKey(0, self._episode, self._t)
        self._rewards.observe([(key, info.pop(ROW))])
        ours = float(self._rewards.fill(np.array([key], dtype=KEY_DTYPE))[0])
        model = self._rewards.model
        if model.requires_sync and cast(EpisodeEndingModel, model).ends(np.array([ours], dtype=np.float32))[0]:
            if not (terminated or truncated):
                self._rewards.end(key)
            terminated = True
        info["original_reward"], info["vlm_reward"] = float(info.get("original_reward", reward)), ours
        return observation, ours, terminated, truncated, info


def _warn_of_strange_pictures(env: gym.Env, encoder: Encoder) -> None:
    """Say that rewards mean nothing where the commands would refuse: a program may have its reasons."""
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    if name.startswith(OWN):  # vlmrl/CartPole-v0 is what the commands and the cards of encoders call cartpole
        name = name.removeprefix(OWN).rpartition("-v")[0].lower()
    try:
        encoder.check_env(name)
    except UserError as error:
        warn(
            f"{error} In a program: give the reward model encoder=OpenClipConfig(model, pretrained).build(device), or "
            "an embedded encoder that was built with any_env=True.",
            stacklevel=3,
        )
