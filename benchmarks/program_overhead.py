"""What a confined reward program costs: steps of 8 humanoids with `reward=text2reward` against `reward=ground_truth`.

    python -m benchmarks.program_overhead

Both arms have the same environments, rows and fills, and no learner. The program's arm also gathers what the program
reads at every step, and sends it to the confined process and the rewards back. Rewards are filled in after every vector
step, as a learner asks for them that updates at every step, and leaves the newest step alone; and after every 8th. The
third arm runs the program in this process, not confined.

Two clocks: the time that passes, of which a block is given that of its fastest quarter of steps, because what else goes
on on a machine interrupts some for many times what they take; and the processor time of this process, which is what
environments lose to the program where the confined process has a core of its own, however busy the machine is.
"""

from __future__ import annotations
import __future__

import time
from typing import Any

import numpy as np

from benchmarks.blocks import WARM_UP, Arm, Block, compare, parser, report

GOAL = 0.95
CASES = (("wall", 1), ("processor", 1), ("wall", 8))  # clock, and vector steps between two fills


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "program_overhead", steps=1600)
    arguments.add_argument("--n-envs", type=int, default=8, help="environments (default %(default)s)")
    settings = arguments.parse_args()
    # Even the block that warms up must hold one fill.
    least = WARM_UP * settings.n_envs * max(every for _, every in CASES)
    if settings.steps < least:
        arguments.error(f"--steps {settings.steps} is too few: with {settings.n_envs} environments at least {least}")
    comparisons = []
    for clock, every in CASES:
        arms = {
            name: (
                Arm(name, make_arm, reward=name, n_envs=settings.n_envs, fill_every=every, clock=clock),
                settings.steps,
            )
            for name in ("confined", "ground truth", "in this process")
        }
        comparisons.append(compare(f"{clock} time, filled every {every}", arms, settings.blocks))
    report("program_overhead", vars(settings), GOAL, "ground truth", comparisons, settings.out)


def make_arm(reward: str, n_envs: int, fill_every: int, clock: str) -> Block:
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
    rewards = parts.rewards(n_envs=n_envs)
    env = make_vec_env(parts.env, rewards, n_envs, seed=0)
    env.reset()
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high

    waiting: list[np.ndarray] = []
    now = time.perf_counter if clock == "wall" else time.process_time

    def block(n: int) -> float:
        times = []
        for _ in range(n // n_envs // fill_every):
            started = now()
            for _ in range(fill_every):
                env.step(rng.uniform(low, high, (n_envs, *low.shape)).astype(np.float32))
                waiting.append(env.keys)
            if len(waiting) > rewards.lag:
                rewards.fill(np.concatenate([waiting.pop(0) for _ in range(len(waiting) - rewards.lag)]))
            times.append(now() - started)
        return float(np.quantile(times, 0.25)) * n / n_envs / fill_every if clock == "wall" else sum(times)

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
        self._asked, self._answers = 0, dict[int, Any]()
        self._states: list[np.ndarray] = [np.empty((0, 0))]
        self._state = View("state", tree_of(layout), self._states)
        names = {**namespace(), "State": None}
        names["__builtins__"] = dict(names["__builtins__"])
        code = compile(model.source, "program", "exec", __future__.annotations.compiler_flag)
        exec(code, names)
        self._function = names["compute_dense_reward"]

    def __call__(self, states: np.ndarray, actions: np.ndarray) -> Any:
        """See `ConfinedProgram`."""
        self._states[0] = states
        return self._function(self._state, actions)

    def submit(self, states: np.ndarray, actions: np.ndarray) -> int:
        """See `ConfinedProgram`; here it is done at once."""
        self._asked += 1
        self._answers[self._asked] = self(states, actions)
        return self._asked

    def collect(self, number: int) -> Any:
        """See `ConfinedProgram`."""
        return self._answers.pop(number)

    def close(self) -> None:
        """Nothing is open."""


if __name__ == "__main__":
    main()
