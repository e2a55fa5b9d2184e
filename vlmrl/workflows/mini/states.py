"""States that agents reached: what an encoder gets wrong is found by those who are rewarded for finding it.

    python -m vlmrl.workflows.mini.states runs/<run> runs/<run> --out visited.npz

plays the policies of run folders of `vlmrl.train` on the humanoid (the last one and those of the checkpoints) and
writes an archive of the states that they go through. `fit encoder=mini fit.states=[visited.npz]` trains on its training
part and measures on the rest. To train an agent on an encoder, find what it exploits and teach that to the next encoder
is one adversarial round.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlmrl.errors import UserError
from vlmrl.workflows.report import tracked
from vlmrl.workflows.run_folder import find

POSITIONS = 24  # numbers in the humanoid's `qpos`
DATA = Path(__file__).parent / "data"  # archives that come with the suite
# Share of an action's range that is added to it as Gaussian noise, beside the policy's own sampling; None: no sampling.
NOISES = (None, 0.0, 0.25)


def visited_episodes(
    runs: Sequence[str], episodes: int, seed: int, every: int = 4, progress: bool = True
) -> list[np.ndarray]:
    """Play the policies of runs and return the states of each episode.

    A run's policies are its last one and those of its checkpoints. Each plays without sampling, with its own sampling
    and with further noise on its actions, in turn.

    Args:
        runs: Run folders of the humanoid; one that is still under way gives the policies of its checkpoints.
        episodes: Episodes of each run, divided among its policies.
        seed: Seed of starts and noise. Episode i of a run starts from `seed + i`.
        every: One state in so many is kept.
        progress: Show a progress bar.

    Returns:
        [(steps, 24) float32 `qpos`].

    Raises:
        UserError: A folder holds no run of the humanoid, or no policy yet.
    """
    from vlmrl.envs.make import make_env
    from vlmrl.workflows.build import build_parts
    from vlmrl.workflows.config.train import train_settings
    from vlmrl.workflows.rollouts import batch_of_one

    played: list[np.ndarray] = []
    for name in tracked(runs, desc="visiting", unit="run", show=progress):
        folder = find(name)
        values = folder.read_config()
        if values["env"]["name"] != "humanoid":
            raise UserError(f"'{name}' is a run of '{values['env']['name']}'; states of the humanoid are wanted.")
        values["reward"], values["scorer"]["name"] = {"name": "ground_truth"}, "local"  # nothing is scored here
        settings = train_settings(values)
        # Checkpoints are folders named by their step; links beside them are one of these by another name.
        checkpoints = sorted(path for path in folder.checkpoints.glob("*/model.zip") if not path.parent.is_symlink())
        zips = [path for path in (*checkpoints, folder.model) if path.is_file()]
        if not zips:
            raise UserError(f"The run '{name}' has saved no policy yet.")
        policies = [settings.agent.config.algorithm().load(path, device="cpu") for path in zips]
        env: Any = make_env(build_parts(settings, "cpu").env)
        try:
            for i in range(episodes):
                policy, noise = policies[i % len(policies)], NOISES[i // len(policies) % len(NOISES)]
                rng = np.random.default_rng(seed + i)
                policy.set_random_seed(seed + i)
                observation, _ = env.reset(seed=seed + i)
                states, over = [], False
                while not over:
                    actions, _ = policy.predict(batch_of_one(observation), deterministic=noise is None)
                    action = actions[0]
                    if noise:
                        space = env.action_space
                        action = action + noise * (space.high - space.low) / 2 * rng.standard_normal(len(action))
                        action = np.clip(action, space.low, space.high).astype(space.dtype)
                    observation, _, terminated, truncated, _ = env.step(action)
                    states.append(env.unwrapped.simulator_state()["qpos"])
                    over = terminated or truncated
                played.append(np.stack(states[int(rng.integers(every)) :: every]))
        finally:
            env.close()
    return played


def save_states(path: Path, episodes: Sequence[np.ndarray], seed: int = 0) -> int:
    """Write an archive of states; whole episodes go to its training or its held-out part, one in five to the latter.

    Args:
        path: The archive, `.npz`.
        episodes: (steps, 24) float each, `qpos` of the humanoid (m, quaternion, rad); kept as float16.
        seed: Seed of the division.

    Returns:
        The number of states.
    """
    if len(episodes) < 2:
        raise UserError(
            f"{path}: {len(episodes)} episodes cannot be divided into a training and a held-out part; give at least 2."
        )
    order = np.random.default_rng(seed).permutation(len(episodes))
    held_out = set(order[: max(1, len(episodes) // 5)].tolist())
    parts = {
        name: np.concatenate(
            [np.asarray(e, dtype=np.float16) for i, e in enumerate(episodes) if (i in held_out) == wanted]
        )
        for name, wanted in (("train", False), ("held_out", True))
    }
    np.savez_compressed(path, train=parts["train"], held_out=parts["held_out"])
    return sum(len(part) for part in parts.values())


def load_states(path: str | Path, part: Literal["train", "held out"]) -> np.ndarray:
    """Read a part of an archive, (n, 24) float64.

    Args:
        path: The archive, or the name of one that comes with the suite, such as "visited".
        part: Which part.

    Raises:
        UserError: There is no such file, or it is not such an archive.
    """
    path = archive_path(path)
    try:
        with np.load(path) as archive:
            states = archive[part.replace(" ", "_")].astype(np.float64)
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"'{path}' is not an archive of states as `vlmrl.workflows.mini.states.save_states` writes it ({error})."
        ) from error
    if states.ndim != 2 or states.shape[1] != POSITIONS:
        raise UserError(f"'{path}': expected states (n, {POSITIONS}), got {states.shape}.")
    return states


def archive_path(name: str | Path) -> Path:
    """Return the path of an archive.

    Args:
        name: Its path, or the name of one that comes with the suite.

    Raises:
        UserError: There is no such file.
    """
    own = DATA / f"{name}.npz"
    path = own if own.is_file() else Path(name)
    if not path.is_file():
        come = ", ".join(sorted(file.stem for file in DATA.glob("visited*.npz")))
        raise UserError(
            f"There is no archive of states '{name}'. Give a path, or one that comes with the suite: {come}."
        )
    return path


def main() -> None:
    """Write an archive of the states that the policies of runs go through."""
    parser = argparse.ArgumentParser(description="Collect the states that trained policies of the humanoid go through.")
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="archive to write, .npz")
    parser.add_argument("--episodes", type=int, default=60, help="episodes of each run")
    parser.add_argument("--every", type=int, default=8, help="one state in so many is kept")
    parser.add_argument("--seed", type=int, default=0, help="seed of starts, noise and division")
    given = parser.parse_args()
    episodes = visited_episodes(given.runs, given.episodes, given.seed, given.every)
    print(f"{save_states(given.out, episodes, given.seed)} states of {len(episodes)} episodes: {given.out}")


if __name__ == "__main__":
    main()
