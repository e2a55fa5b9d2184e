"""Random play of Crafter: the suite's environment against the package `crafter`, deaths and new worlds included.

    python -m benchmarks.crafter

Both play the same actions. The package draws a picture of 64 x 64 pixels at each step; the suite does so where it is
asked to.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.blocks import Arm, Block, compare, parser, report

GOAL = 4.0
ACTIONS = 17


def main() -> None:
    """Measure, print, write."""
    settings = parser(__doc__, "crafter", steps=300).parse_args()
    comparisons = []
    for title, kwargs in (
        ("without pictures", {"observation": "symbolic"}),
        ("a picture a step", {"observation": "picture"}),
        ("a picture a step, no new worlds", {"observation": "picture", "immortal": True}),
    ):
        arms = {
            "vlmrl": (Arm("vlmrl", make_ours, **kwargs), 5 * settings.steps),
            "package": (Arm("package", make_package, immortal=kwargs.get("immortal", False)), settings.steps),
        }
        comparisons.append(compare(title, arms, settings.blocks))
    report("crafter", vars(settings), GOAL, "package", comparisons, settings.out)


def make_ours(observation: str, immortal: bool = False) -> Block:
    """Make the suite's environment and a function that plays it."""
    import gymnasium as gym

    import vlmrl  # noqa: F401  (registers environments)

    env = gym.make("vlmrl/Crafter-v0", observation=observation, disable_env_checker=True)
    env.reset(seed=0)
    player = (lambda: env.unwrapped.game.player) if immortal else None  # type: ignore[attr-defined]

    def step(action: int) -> bool:
        _, _, terminated, truncated, _ = env.step(action)
        return terminated or truncated

    return _block(step, env.reset, player)


def make_package(immortal: bool = False) -> Block:
    """Make the package's environment and a function that plays it."""
    import crafter

    env = crafter.Env(seed=0)
    env.reset()
    return _block(lambda action: bool(env.step(action)[2]), env.reset, (lambda: env._player) if immortal else None)


def _block(step: Any, reset: Any, player: Any) -> Block:
    """Return a function that takes random actions; with `player` in full health at each."""
    rng = np.random.default_rng(0)

    def block(n: int) -> float:
        actions = rng.integers(ACTIONS, size=n).tolist()
        started = time.perf_counter()
        for action in actions:
            if player is not None:
                player().inventory.update(health=9, food=9, drink=9, energy=9)
            if step(action):
                reset()
        return time.perf_counter() - started

    return block


if __name__ == "__main__":
    main()
