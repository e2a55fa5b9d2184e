"""Noise that is added to actions while an off-policy agent learns, in the words of RL Baselines3 Zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from stable_baselines3.common.noise import ActionNoise
    from stable_baselines3.common.vec_env import VecEnv

NoiseType = Literal["none", "normal", "ornstein-uhlenbeck"]


def action_noise(noise_type: NoiseType, noise_std: float, noise_dt: float, env: VecEnv) -> ActionNoise | None:
    """Make SB3's noise for the actions of an environment, scaled to -1 to 1; None for "none".

    Args:
        noise_type: "normal" is drawn anew each step. "ornstein-uhlenbeck" (Uhlenbeck and Ornstein 1930; in DDPG,
            Lillicrap et al. 2015, section 3) pushes the same way for about 1 / (0.15 noise_dt) steps: for bodies with
            inertia.
        noise_std: Standard deviation of the normal, or sigma of the process.
        noise_dt: Time step of the process.
        env: Environments with continuous actions.
    """
    from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

    shape = env.action_space.shape
    assert shape is not None  # continuous actions have one
    mean, std = np.zeros(shape), np.full(shape, noise_std)
    if noise_type == "normal":
        return NormalActionNoise(mean, std)
    if noise_type == "ornstein-uhlenbeck":
        return OrnsteinUhlenbeckActionNoise(mean, std, dt=noise_dt)
    return None
