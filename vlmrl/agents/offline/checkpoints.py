"""Checkpoints of learners of recorded data: the algorithm, its generator in it, and the global random numbers."""

from __future__ import annotations

import pickle
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from vlmrl.agents import checkpoints
from vlmrl.agents.checkpoints import Checkpoint, random_state, set_random_state
from vlmrl.agents.offline.algorithm import OfflineAlgorithm


def save(model: OfflineAlgorithm, folder: Path) -> Checkpoint:
    """Write `checkpoints/<updates>` whole or not at all; see `vlmrl.agents.checkpoints.save`."""

    def write(checkpoint: Checkpoint) -> None:
        model.save(checkpoint.model)
        checkpoint.state.write_bytes(pickle.dumps(random_state()))

    return checkpoints.write_whole(folder, model.num_timesteps, write)


def restore(model_class: type[OfflineAlgorithm], checkpoint: Checkpoint, device: str) -> OfflineAlgorithm:
    """Load an algorithm and put everything random back to where it was; it then needs its dataset.

    Raises:
        UserError: A file of the checkpoint is missing or broken.
    """
    with checkpoints.reading(checkpoint):
        model = model_class.load(checkpoint.model, device=device)
        state = pickle.loads(checkpoint.state.read_bytes())
    set_random_state(state)
    return model


class OfflineCheckpoints(BaseCallback):
    """Saves after every so many updates, at the end of the block in which they are complete.

    Args:
        folder: The folder `checkpoints`.
        every: Updates between checkpoints.
    """

    model: OfflineAlgorithm

    def __init__(self, folder: Path, every: int):
        super().__init__()
        self._folder, self._every = folder, every
        self._due = 0

    def _on_training_start(self) -> None:
        self._due = (self.num_timesteps // self._every + 1) * self._every

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._due:
            save(self.model, self._folder)
            self._due = (self.num_timesteps // self._every + 1) * self._every
        return True
