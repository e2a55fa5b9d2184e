"""What a gradient step of SAC and CrossQ costs: the suite's (`agent.fast_update=true`) and others'.

    python -m benchmarks.updates --docs                               # against Stable-Baselines3 and SB3-Contrib
    python -m benchmarks.updates --arms compiled sbx --parts steps    # also torch.compile, and SBX (pip install sbx-rl)

Networks and batches are those of the humanoid (45 observations, 17 actions). Arms take turns block by block, and ratios
are of neighbouring blocks. Then, over several seeds, a pendulum is learned with both ways, and the curves are shown.

Figures go to JSON; `--docs` also writes them into docs/performance.md, and `--docs --read <file>` does only that.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console

from benchmarks.blocks import Arm, Block, Comparison, compare, parser
from benchmarks.pipeline_report import DOCS, figure, fill_page
from benchmarks.reward_pipeline import machine
from vlmrl.workflows.run_folder import versions

ALGORITHMS = ("sac", "crossq")
BATCHES = (64, 256)
OBSERVATIONS, ACTIONS = 45, 17  # of the suite's humanoid
TRANSITIONS = 2000  # in the buffer
OURS, PLAIN = "fast_update", "plain"
PARTS = ("steps", "curves")
CURVE_STEPS, CURVE_EVERY = 5000, 1000  # of the pendulum
# Small networks do for a pendulum; CrossQ's critics are still wider than its actor.
CURVE_SETTINGS = {"batch_size": 64, "learning_starts": 500, "learning_rate": 1e-3, "net_arch": [64, 64]}
CURVE_SETTINGS |= {"critic_arch": [256, 256]}
MARKS = "<!-- updates: written by benchmarks.updates -->\n", "<!-- updates: end -->"


class Noise(gym.Env):
    """An environment of the humanoid's sizes in which nothing means anything."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACTIONS,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        return self.np_random.normal(size=OBSERVATIONS).astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """See `gymnasium.Env.step`."""
        return self.np_random.normal(size=OBSERVATIONS).astype(np.float32), float(action.sum()), False, False, {}


def make_update(algorithm: str, arm: str, batch_size: int, device: str) -> Block:
    """Make a block of gradient steps.

    Args:
        algorithm: "sac" or "crossq".
        arm: "fast_update", "plain" (SB3's or SB3-Contrib's), "compiled" (fast_update in torch.compile) or "sbx" (JAX).
        batch_size: Transitions a step.
        device: Torch device; SBX chooses its own.
    """
    import torch

    torch.set_num_threads(1)
    if arm == "sbx":
        import sbx

        made = {"sac": sbx.SAC, "crossq": sbx.CrossQ}[algorithm]
        model = made("MlpPolicy", Noise(), learning_starts=10**9, buffer_size=TRANSITIONS, seed=0)
    else:
        model = _agent(algorithm, arm != PLAIN, batch_size=batch_size, learning_starts=10**9).build(
            _vector(Noise), 0, device
        )
    model.learn(TRANSITIONS)
    if arm == "compiled":
        model._step = torch.compile(model._step)

    def block(steps: int) -> float:
        began = time.perf_counter()
        model.train(steps, batch_size)
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return block


def learn(algorithm: str, fast: bool, seed: int) -> list[float]:
    """Learn to swing a pendulum up; return the mean return of ten episodes after every thousand steps."""
    import torch
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    model = _agent(algorithm, fast, **CURVE_SETTINGS).build(_vector(lambda: gym.make("Pendulum-v1")), seed, "cpu")
    curve = []
    for _ in range(CURVE_STEPS // CURVE_EVERY):
        model.learn(CURVE_EVERY, reset_num_timesteps=False)
        held_out = _vector(lambda: gym.make("Pendulum-v1"))
        held_out.seed(1000 + seed)
        curve.append(float(evaluate_policy(model, held_out, n_eval_episodes=10, warn=False)[0]))
    return curve


def _agent(algorithm: str, fast: bool, **settings: Any) -> Any:
    """Return the settings of an agent: those of its yaml file, but for what every arm has alike."""
    from vlmrl.agents import AGENTS
    from vlmrl.commands import compose, plain
    from vlmrl.typed import typed

    values = plain(compose("train", [f"agent={algorithm}"]))["agent"]
    values |= {"fast_update": fast, "buffer_size": 10_000, "n_steps": 1, "train_freq": 1, "gradient_steps": 1}
    values |= {key: value for key, value in settings.items() if key in values}
    return typed(AGENTS.load(values.pop("name")), values, "agent")


def _vector(make: Any) -> Any:
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([lambda: Monitor(make())])


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "updates", steps=100)
    arguments.add_argument("--device", default="cpu", help="of the learner (default %(default)s)")
    arguments.add_argument("--algorithms", nargs="*", choices=ALGORITHMS, default=ALGORITHMS, help="default: both")
    arguments.add_argument("--batches", nargs="*", type=int, default=BATCHES, help="transitions a step (default: both)")
    arguments.add_argument("--arms", nargs="*", choices=["compiled", "sbx"], default=[], help="what else to measure")
    arguments.add_argument("--seeds", type=int, default=5, help="of the learning curves (default %(default)s)")
    arguments.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    arguments.add_argument("--docs", action="store_true", help="write the figures into docs/performance.md as well")
    arguments.add_argument("--read", type=Path, help="take these figures, and measure nothing")
    settings = arguments.parse_args()
    if settings.read is not None:
        result = json.loads(settings.read.read_text())
    else:
        result = measure(settings)
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(tables(result), markup=False, soft_wrap=True)
    if settings.docs:
        fill_page(DOCS / "performance.md", MARKS, tables(result))


def measure(settings: Any) -> dict[str, Any]:
    """Run the comparisons and return all figures."""
    comparisons: list[Comparison] = []
    if "steps" in settings.parts:
        for algorithm in settings.algorithms:
            for batch_size in settings.batches:
                same = {"algorithm": algorithm, "batch_size": batch_size, "device": settings.device}
                arms = {
                    arm: (Arm(arm, make_update, arm=arm, **same), settings.steps)
                    for arm in (OURS, PLAIN, *settings.arms)
                }
                comparisons.append(compare(f"{algorithm}, batch {batch_size}", arms, settings.blocks))
    curves = []
    if "curves" in settings.parts:
        for seed in range(settings.seeds):
            for algorithm in settings.algorithms:
                curves += [
                    {"algorithm": algorithm, "seed": seed, "arm": arm, "returns": learn(algorithm, arm == OURS, seed)}
                    for arm in (OURS, PLAIN)
                ]
    return {
        "benchmark": "updates",
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(settings).items()},
        "machine": machine(settings.device),
        "versions": versions(),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "curves": curves,
    }


def tables(result: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    about = result["machine"]
    lines = [f"Measured on: {about['gpu'] or about['cpu']}, {about['cores']} cores, load {about['load']:.1f}.", ""]
    if result["comparisons"]:
        lines += [
            "| | arm | ms a gradient step | `fast_update` is so many times as fast |",
            "| --- | --- | --- | --- |",
        ]
        for comparison in result["comparisons"]:
            for arm, speeds in comparison["per_second"].items():
                ratio = figure(comparison["ratios"][arm]["blocks"]) if arm != OURS else ""
                lines.append(f"| {comparison['name']} | {arm} | {1000 / np.median(speeds):.1f} | {ratio} |")
    for algorithm in dict.fromkeys(curve["algorithm"] for curve in result["curves"]):
        mine = [curve for curve in result["curves"] if curve["algorithm"] == algorithm]
        steps = [CURVE_EVERY * (i + 1) for i in range(len(mine[0]["returns"]))]
        seeds = len({curve["seed"] for curve in mine})
        lines += [
            "",
            f"`agent={algorithm}` on `Pendulum-v1`, batch 64, {seeds} seeds: mean return after so many steps.",
            "",
        ]
        lines += ["| | " + " | ".join(f"{step:,}" for step in steps) + " |", "| --- |" + " --- |" * len(steps)]
        for arm in (OURS, PLAIN):
            returns = np.array([curve["returns"] for curve in mine if curve["arm"] == arm])
            lines.append(f"| {arm} | " + " | ".join(str(figure(column)) for column in returns.T) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
