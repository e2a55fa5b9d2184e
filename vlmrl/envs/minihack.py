"""MiniHack: small levels of NetHack.

Source: Samvelyan et al.: "MiniHack the Planet: A Sandbox for Open-Ended Reinforcement Learning Research", NeurIPS 2021
(arXiv 2109.13202), package `minihack`.
"""

from __future__ import annotations

from typing import Any

from vlmrl.envs.nethack import NetHack


class MiniHack(NetHack):
    """A level of MiniHack, chosen by `level`: see `NetHack`, but for these.

    | what | value |
    | --- | --- |
    | action | those of the level: 8 directions, and what else it needs |
    | reward | 1 for the level's success, and NLE's penalty of 0.01 for steps in which no time passes |
    | termination | death, or success; truncated after the level's own number of steps |

    Version history:
        v0: first version.
    """

    default_level = "MiniHack-KeyRoom-S5-v0"
    prefixes = ("MiniHack-",)
    package = "minihack"
    limits = {}

    def _own_levels(self) -> dict[str, Any]:
        return {}
