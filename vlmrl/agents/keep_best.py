"""The best policy of a run, kept while it trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import fmean

from stable_baselines3.common.callbacks import BaseCallback

WINDOW = 20  # episodes whose mean return is one score; a policy that lasts shorter is lost in their noise


class KeepBest(BaseCallback):
    """Saves the policy whenever the episodes since the last score earned more than those of any score before.

    A score is the mean return of at least `window` episodes of training, exploration included; it costs no step.
    Each episode counts in one score, so that a lucky one cannot lift several. Off-policy learners change their policy
    while these episodes run: what is saved is the policy at their end.

    Args:
        path: The zip to write.
        window: Least number of episodes a score.
        truth: Score by the environment's own return (`info["episode"]`) instead of what `add` is given.

    Attributes:
        best: Score of the policy that is saved; None before the first score.
        at: Step at which it was saved.
    """

    def __init__(self, path: Path, window: int = WINDOW, truth: bool = False):
        super().__init__()
        self.path, self.window, self.truth = path, window, truth
        self.best: float | None = None
        self.at = 0
        self._returns: list[float] = []

    def add(self, episode_return: float) -> None:
        """Take in the return of an episode that was completed."""
        self._returns.append(episode_return)

    def _on_step(self) -> bool:
        if self.truth:
            for info in self.locals["infos"]:
                if "episode" in info:
                    self.add(float(info["episode"]["r"]))
        return True

    def _on_rollout_end(self) -> None:
        # Here an on-policy learner still has the policy that earned the newest returns.
        if len(self._returns) < self.window:
            return
        score = fmean(self._returns)
        self._returns.clear()
        if self.best is None or score > self.best:
            self.best, self.at = score, self.num_timesteps
            self.model.save(self.path)

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what a resumed run goes on with: the scores and the policy."""
        state = {"best": self.best, "at": self.at, "returns": self._returns}
        folder.joinpath("best.json").write_text(json.dumps(state))
        if self.best is not None:
            shutil.copyfile(self.path, folder / "best.zip")

    def restore(self, folder: Path) -> None:
        """Take over what `save` wrote; a policy that was saved after that checkpoint is forgotten."""
        state = json.loads(folder.joinpath("best.json").read_text())
        self.best, self.at, self._returns = state["best"], state["at"], state["returns"]
        if self.best is not None:
            shutil.copyfile(folder / "best.zip", self.path)
        else:
            self.path.unlink(missing_ok=True)
