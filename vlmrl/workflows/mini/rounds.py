"""Adversarial rounds: train an agent on an encoder's reward and keep the states that it reached.

An agent that is paid by an encoder looks for whatever the encoder gets wrong. Its states, rendered and captioned
like all others and added to the training frames, are what the next encoder learns most from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from vlmrl.agents.callbacks import RewardLog
from vlmrl.agents.sac import SacConfig
from vlmrl.encoders.mini import MiniConfig
from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
from vlmrl.envs.make import EnvSettings, make_vec_env
from vlmrl.envs.tasks import PREDICATES, Task
from vlmrl.reward_models.clip import ClipReward
from vlmrl.serving.scorer import LocalScorer
from vlmrl.workflows.mini.measure import TASK_WORDS
from vlmrl.workflows.mini.states import save_states


def play_round(
    path: str,
    task: str,
    out: Path,
    *,
    steps: int = 60_000,
    n_envs: int = 8,
    every: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Train SAC on the cosine with a task's words and save the states that it went through.

    Args:
        path: Folder of the encoder's weights; empty takes the embedded ones.
        task: Name of a humanoid task of `TASK_WORDS`, such as "humanoid/kneeling".
        out: Archive to write, see `states.save_states`.
        steps: Steps to train for.
        n_envs: Environments that step together.
        every: One state in so many steps is kept.
        seed: Seed of the agent and of its episodes.
        progress: Show a progress bar and how things stand.

    Returns:
        `states` (number kept) and `predicate_fraction` (mean of the last tenth of the episodes).
    """
    encoder = MiniConfig(path=path).build("cpu")
    height, width = encoder.image_size
    goal = Task(task.split("/")[1], TASK_WORDS[task], baseline="", predicate=PREDICATES.load(task))
    rewards = LazyRewards(
        ClipReward(goal.goal, encoder=encoder), LocalScorer(encoder), RewardScale(enabled=True, centre=True)
    )
    env = make_vec_env(EnvSettings("vlmrl/Humanoid-v0", goal, height, width), rewards, n_envs, seed)
    settings = SacConfig(
        learning_rate=6e-4,
        learning_rate_schedule="constant",
        buffer_size=steps,
        learning_starts=min(4000, steps // 2),
        batch_size=256,
        tau=0.005,
        gamma=0.95,
        train_freq=1,
        gradient_steps=2,
        n_steps=1,
        ent_coef="auto",
        use_sde=False,
        net_arch=(256, 256),
    )
    diary = _Diary(every)
    try:
        model = settings.build(env, seed, "cpu")
        model.learn(
            steps, callback=[RewardLog(rewards, 20 if progress else 0), diary], log_interval=1000, progress_bar=progress
        )
    finally:
        env.close()
    last = diary.fractions[-max(1, len(diary.fractions) // 10) :]
    return {"states": save_states(out, diary.episodes, seed), "predicate_fraction": float(np.mean(last))}


class _Diary(BaseCallback):
    """Keeps the humanoid's `qpos` every few steps, by episode."""

    def __init__(self, every: int):
        super().__init__()
        self._every = every
        self._open: list[list[np.ndarray]] = []
        self.episodes: list[np.ndarray] = []
        self.fractions: list[float] = []

    def _on_training_start(self) -> None:
        self._open = [[] for _ in range(self.training_env.num_envs)]

    def _on_step(self) -> bool:
        if self.n_calls % self._every == 0:
            for states, state in zip(self._open, self.training_env.env_method("simulator_state"), strict=True):
                states.append(state["qpos"])
        for i, (done, info) in enumerate(zip(self.locals["dones"], self.locals["infos"], strict=True)):
            if done:
                self.fractions.append(info["predicate_fraction"])
                if self._open[i]:
                    self.episodes.append(np.stack(self._open[i]))
                    self._open[i] = []
        return True
