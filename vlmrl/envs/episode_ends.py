"""Episodes that a reward model ends."""

from __future__ import annotations

import time
from typing import Any

from stable_baselines3.common.monitor import Monitor


class EndableMonitor(Monitor):
    """SB3's Monitor, whose episode can also be ended from outside, after its last step.

    A reward model sees a step only after it has been taken, so its end comes after the environment has said that the
    episode goes on.
    """

    def end_episode(self) -> dict[str, Any]:
        """Write down the running episode as one that has ended.

        Returns:
            What the `info` of its last step lacks: `episode`, as Monitor writes it, and the closing figures of
            `TaskReward` below.
        """
        closing: dict[str, Any] = self.env.get_wrapper_attr("closing_figures")()
        self.needs_reset = True
        total, seconds = float(sum(self.rewards)), time.time() - self.t_start
        record = {"r": round(total, 6), "l": len(self.rewards), "t": round(seconds, 6)}
        self.episode_returns.append(total)
        self.episode_lengths.append(len(self.rewards))
        self.episode_times.append(seconds)
        if self.results_writer:
            self.results_writer.write_row(record)
        return {**closing, "episode": record}
