"""What a confined reward program costs: steps of 8 humanoids with `reward=text2reward` against `reward=ground_truth`.

    python -m benchmarks.program_overhead

Both arms have the same environments, rows and fills, and no learner. The program's arm also gathers what programs read
at every step, and sends it to the confined process and the rewards back. Rewards are filled in after every vector step,
as a learner asks for them that updates at every step; and after every 8th. The third arm runs the program in this
process, not confined: what lies between the two is the price of the confinement.
"""

from __future__ import annotations
import __future__

import time
from typing import Any

import numpy as np

from benchmarks.blocks import Arm, Block, compare, parser, report

GOAL = 0.95


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "program_overhead", steps=1600)
    arguments.add_argument("--n-envs", type=int, default=8, help="environments (default %(default)s)")
    settings = arguments.parse_args()
    comparisons = []
    for every in (1, 8):
        arms = {
            name: (Arm(name, make_arm, reward=name, n_envs=settings.n_envs, fill_every=every), settings.steps)
            for name in ("confined", "ground truth", "in this process")
        }
        comparisons.append(compare(f"filled every {every} steps", arms, settings.blocks))
    report("program_overhead", vars(settings), GOAL, "ground truth", comparisons, settings.out)


def make_arm(reward: str, n_envs: int, fill_every: int) -> Block:
    """Make environments and a function that steps them and fills their rewards in."""
    import torch

    from vlmrl.commands import compose, plain
    from vlmrl.envs.make import make_vec_env
    from vlmrl.workflows.build import build_parts
    from vlmrl.workflows.config.train import train_settings

    torch.set_num_threads(1)
    name = "ground_truth" if reward == "ground truth" else "text2reward"
    parts = build_parts(train_settings(plain(compose("train", ["env=humanoid", f"reward={name}"]))), "cpu")
    if reward == "in this process":
        parts.model.__dict__["program"] = InProcess(parts.model)
    rewards = parts.rewards()
    env = make_vec_env(parts.env, rewards, n_envs, seed=0)
    env.reset()
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high

    def block(n: int) -> float:
        waiting: list[np.ndarray] = []
        started = time.perf_counter()
        for step in range(n // n_envs):
            env.step(rng.uniform(low, high, (n_envs, *low.shape)).astype(np.float32))
            waiting.append(env.keys)
            if (step + 1) % fill_every == 0:
                rewards.fill(np.concatenate(waiting))
                waiting = []
        if waiting:
            rewards.fill(np.concatenate(waiting))
        return time.perf_counter() - started

    def close() -> None:
        env.close()
        parts.close()

    block.close = close  # type: ignore[attr-defined]
    return block


class InProcess:
    """The same program without a process of its own; for this comparison only."""

    def __init__(self, model: Any):
        from vlmrl.reward_models.confinement.runtime import View, namespace, tree_of

        layout = [(list(path), leaf.start, list(leaf.shape)) for path, leaf in model.abstraction.leaves()]
        self._tree, self._view = tree_of(layout), View
        names = {**namespace(), "State": None}
        names["__builtins__"] = dict(names["__builtins__"])
        code = compile(model.source, "program", "exec", __future__.annotations.compiler_flag)
        exec(code, names)
        self._function = names["compute_dense_reward"]

    def __call__(self, states: np.ndarray, actions: np.ndarray) -> Any:
        """See `ConfinedProgram`."""
        return self._function(self._view("state", self._tree, states), actions)

    def close(self) -> None:
        """Nothing is open."""


if __name__ == "__main__":
    main()
