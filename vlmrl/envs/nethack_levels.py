"""Tasks of NetHack that others report figures on and that NLE does not have. Imports `nle`.

Source: Klissarov et al.: "Motif: Intrinsic Motivation from Artificial Intelligence Feedback", ICLR 2024 (arXiv
2310.00166), whose staircase tasks ONI uses as well (Zheng et al. 2024, arXiv 2410.23022).
"""

from __future__ import annotations

from typing import Any, ClassVar

from nle import nethack
from nle.env.tasks import NetHackStaircase

REWARD = 50.0  # for success, as in Motif


class NetHackStaircaseLvl3(NetHackStaircase):
    """Go down to the third level of the dungeon; 50 for that, 0 for all else, and the episode ends.

    Motif waits for a message that its own build of NetHack prints when stairs are taken down; here the depth alone
    counts, so that falling through a trapdoor counts too.
    """

    depth: ClassVar[int] = 3

    def _is_episode_end(self, observation: Any) -> Any:
        reached = observation[self._blstats_index][nethack.NLE_BL_DEPTH] >= self.depth
        return self.StepStatus.TASK_SUCCESSFUL if reached else self.StepStatus.RUNNING

    def _reward_fn(self, last_observation: Any, action: Any, observation: Any, end_status: Any) -> float:
        return REWARD if end_status == self.StepStatus.TASK_SUCCESSFUL else 0.0


class NetHackStaircaseLvl4(NetHackStaircaseLvl3):
    """Go down to the fourth level of the dungeon; see `NetHackStaircaseLvl3`."""

    depth = 4


LEVELS = {"NetHackStaircaseLvl3-v0": NetHackStaircaseLvl3, "NetHackStaircaseLvl4-v0": NetHackStaircaseLvl4}
