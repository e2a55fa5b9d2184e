"""Pictures of the humanoid: the suite's lean profile against Gymnasium's own `env.render()` at the same size.

    python -m benchmarks.render

Only drawing is timed; the robot moves on between pictures.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.blocks import Arm, Block, compare, parser, report

GOAL = 8.0


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "render", steps=30)
    arguments.add_argument("--size", type=int, default=112, help="height and width in pixels (default %(default)s)")
    settings = arguments.parse_args()
    arms = {
        "lean": (Arm("lean", make_arm, env_id="vlmrl/Humanoid-v0", size=settings.size), 8 * settings.steps),
        "gymnasium": (Arm("gymnasium", make_arm, env_id="Humanoid-v5", size=settings.size), settings.steps),
    }
    comparisons = [compare(f"{settings.size} px", arms, settings.blocks)]
    report("render", vars(settings), GOAL, "gymnasium", comparisons, settings.out)


def make_arm(env_id: str, size: int) -> Block:
    """Make an environment and a function that draws it."""
    env = make_humanoid(env_id, size)
    env.reset(seed=0)
    env.action_space.seed(0)
    steps = 0

    def block(n: int) -> float:
        nonlocal steps
        seconds = 0.0
        for _ in range(n):
            if steps % 100 == 0:
                env.reset(seed=steps)
            env.step(env.action_space.sample())
            steps += 1
            started = time.perf_counter()
            frame = env.render()
            seconds += time.perf_counter() - started
            assert frame.shape == (size, size, 3)
        return seconds

    block.close = env.close  # type: ignore[attr-defined]
    return block


def make_humanoid(env_id: str, size: int | None) -> Any:
    """Make the humanoid, ours or Gymnasium's, that is not reset when it falls; None is Gymnasium's default size.

    Both draw with the same OpenGL backend and one thread: more make no picture of this size faster.
    """
    import gymnasium as gym
    import torch  # noqa: F401  (an OpenGL context that is older than triton crashes the process when triton comes)

    from vlmrl.envs.gl import choose_backend

    choose_backend()
    kwargs: dict[str, Any] = {} if size is None else {"width": size, "height": size}
    if not env_id.startswith("vlmrl/"):
        kwargs["terminate_when_unhealthy"] = False
    return gym.make(env_id, render_mode="rgb_array", disable_env_checker=True, **kwargs)


if __name__ == "__main__":
    main()
