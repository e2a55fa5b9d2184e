"""The exam: states with labels from the tasks' predicates, fixed before training, and sentences outside the grammar.

    python -m vlmrl.workflows.mini.exam --path <folder>

measures an encoder on it. What it holds: for each task that one picture can tell, states in which its predicate holds
and twice as many in which it does not, half of these near its limits. Up to a quarter of the humanoid's states come
from episodes of trained and random policies, from seeds of their own; the others are drawn around the poses that the
predicates were checked with (`vlmrl.envs.humanoid_poses`), which training never sees. `data/exam.json` has the digest
of `data/exam.npz`.

    python -m vlmrl.workflows.mini.exam --make runs/<run> runs/<run>

makes another one; encoders that were measured on the old one must then be measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.envs.humanoid import Humanoid
from vlmrl.envs.humanoid_poses import NEGATIVE, POSITIVE, Pose, joint_angles, put
from vlmrl.envs.tasks import PREDICATES, Condition, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.stats import auroc, spearman
from vlmrl.workflows.mini.scenes import SCENES
from vlmrl.workflows.mini.states import DATA, load_states, visited_episodes
from vlmrl.workflows.report import tracked

EXAM, MANIFEST = DATA / "exam.npz", DATA / "exam.json"
SEEN_POSES = ("kneeling", "lotus", "standing", "arms_raised", "splits", "one_leg")
UNSEEN_POSES = ("hands_on_hips", "arms_crossed")  # of which no training sentence speaks
OTHERS = (
    "cartpole/balance",
    "mountaincar/climb",
    *(f"{env}/{task}" for env in ("hopper", "walker2d", "halfcheetah", "ant") for task in ("stand", "jump")),
)
TASKS = (*(f"humanoid/{pose}" for pose in (*SEEN_POSES, *UNSEEN_POSES)), *OTHERS)
POSITIVES, NEAR, FAR = 120, 120, 120  # states of each kind a task
ON_POLICY = 0.25  # share of the humanoid's states that come from policies
NEAR_LIMIT = 0.25  # near: no condition is further outside its limit than this share of its scale
KINDS = ("positive", "near", "far")
FIRST_SEED = 5_000_000  # of the exam's episodes; training has others


def make_exam(runs: Sequence[str], seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """Draw the states and write archive and manifest.

    Args:
        runs: Run folders of the humanoid, whose policies are played.
        seed: Seed of everything.
        progress: Show progress bars.

    Returns:
        The manifest: `sha256` of the archive, `seed`, `phrasings` {pose: sentences} as they were, and `states`
        {task: {kind: number, "on policy": number}}.
    """
    rng = np.random.default_rng([seed, FIRST_SEED])
    played = visited_episodes(runs, 45, FIRST_SEED, every=2, progress=progress) if runs else []
    pool = np.concatenate([*played, _random_policy(rng, 600)])
    columns: dict[str, np.ndarray] = {}
    counts: dict[str, dict[str, int]] = {}
    judge = Judge()
    for task in tracked(TASKS, desc="exam", unit="task", show=progress):
        env, _, name = task.partition("/")
        found = _draw(judge, task, _poses(rng, name) if env == "humanoid" else _broad(rng, env), pool, rng)
        states, kinds, on_policy = found
        columns |= {f"{task}/states": states, f"{task}/kinds": kinds, f"{task}/on_policy": on_policy}
        counts[task] = {kind: int((kinds == i).sum()) for i, kind in enumerate(KINDS)}
        counts[task]["on policy"] = int(on_policy.sum())
    judge.close()
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(EXAM, **columns)  # type: ignore[arg-type]  # its stubs take any keyword for `allow_pickle`
    manifest = read_manifest() | {
        "sha256": hashlib.sha256(EXAM.read_bytes()).hexdigest(),
        "seed": seed,
        "states": counts,
    }
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest() -> dict[str, Any]:
    """Return what `make_exam` wrote."""
    manifest: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return manifest


def take_exam(encoder: Encoder, progress: bool = True) -> dict[str, Any]:
    """Measure an encoder.

    Args:
        encoder: The encoder, as it will be used.
        progress: Show a progress bar.

    Returns:
        `tasks`: {task: {"auroc" of the task's own goal, "near" the same with near negatives alone, "outside": mean over
        the phrasings outside the grammar, or None, "phrasings": {sentence: auroc}}}; `summary`: mean and worst AUROC
        over the seen poses, with the tasks' words and with outside phrasings, and means over unseen poses and others.
        Mountain car is measured in both looks, `mountaincar/climb` and `mountaincar/climb (plain)`.

    Raises:
        UserError: The archive is not the one of the manifest.
    """
    manifest = read_manifest()
    digest = hashlib.sha256(EXAM.read_bytes()).hexdigest()
    if digest != manifest["sha256"]:
        raise UserError(f"'{EXAM}' has SHA-256 {digest}, and its manifest says {manifest['sha256']}.")
    tasks: dict[str, dict[str, Any]] = {}
    with np.load(EXAM) as archive:
        for task in tracked(TASKS, desc="exam", unit="task", show=progress):
            env, _, name = task.partition("/")
            states = archive[f"{task}/states"].astype(np.float64)
            kinds = archive[f"{task}/kinds"]
            for look in ("textured", "plain") if env == "mountaincar" else ("",):
                embeddings = encoder.encode_images(pictures(env, states, encoder.image_size[0], look))
                phrasings = manifest["phrasings"].get(name, [])
                with warnings.catch_warnings():  # words that nobody taught it are what the exam asks for
                    warnings.simplefilter("ignore", UserWarning)
                    texts = encoder.encode_texts([task_goal(name), *phrasings])
                scores = embeddings @ texts.T
                near = kinds != KINDS.index("far")
                outside = [float(auroc(column, kinds == 0)[0]) for column in scores.T[1:]]
                tasks[task + (" (plain)" if look == "plain" else "")] = {
                    "auroc": float(auroc(scores[:, 0], kinds == 0)[0]),
                    "near": float(auroc(scores[near, 0], kinds[near] == 0)[0]),
                    "outside": float(np.mean(outside)) if outside else None,
                    "phrasings": dict(zip(phrasings, outside, strict=True)),
                }
    return {"sha256": digest, "tasks": tasks, "summary": _summary(tasks)}


def on_visited(encoder: Encoder, archive: str | Path, n: int = 1_500) -> dict[str, dict[str, float | None]]:
    """Measure an encoder on the held-out states that agents visited: what an adversarial round is about.

    Args:
        encoder: The encoder, as it will be used.
        archive: See `states.load_states`.
        n: Number of states, drawn from the held-out part; all of them where there are fewer.

    Returns:
        {pose: {"rank": Spearman's correlation of the cosine with the task's own goal and the task's dense ground truth
        (`tasks.dense_reward`), NaN where that does not vary; "true": number of states in which the predicate holds;
        "auroc" of the cosine, where at least 20 states fulfil the predicate and 20 do not, else None}}, of the seen
        poses.
    """
    held_out = load_states(archive, "held out")
    rng = np.random.default_rng(0)
    states = held_out[np.sort(rng.permutation(len(held_out))[:n])]
    embeddings = encoder.encode_images(pictures("humanoid", states, encoder.image_size[0]))
    judge = Judge()
    figures: dict[str, dict[str, float | None]] = {}
    for pose in SEEN_POSES:
        conditions = [judge.conditions(f"humanoid/{pose}", state) for state in states]
        scores = embeddings @ encoder.encode_texts([task_goal(pose)])[0]
        true = np.array([holds(found) for found in conditions])
        enough = min(true.sum(), (~true).sum()) >= 20
        figures[pose] = {
            "rank": spearman(scores, np.array([dense_reward(found) for found in conditions])),
            "true": int(true.sum()),
            "auroc": float(auroc(scores, true)[0]) if enough else None,
        }
    judge.close()
    return figures


def task_goal(name: str) -> str:
    """Return the first goal of a task's words in `configs/task`."""
    import yaml

    import vlmrl

    words = yaml.safe_load((Path(vlmrl.__file__).parent / "configs" / "task" / f"{name}.yaml").read_text())
    goal = words["goal"]
    return str(goal if isinstance(goal, str) else goal[0])


def pictures(env: str, states: np.ndarray, size: int, look: str = "") -> np.ndarray:
    """Take pictures of states as the tasks see them, (n, size, size, 3) uint8."""
    stage: Any = SCENES[env].stage(size)
    try:
        looks = {"look": look} if look else {}
        return np.stack([stage.shoot(state, **looks)["pixels"] for state in states])
    finally:
        stage.close()


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures in plain text."""
    lines = [f"{'task':28s} {'AUROC':>6s} {'near':>6s} {'outside':>8s}"]
    for task, row in figures["tasks"].items():
        lines.append(f"{task:28s} {row['auroc']:6.3f} {row['near']:6.3f} " + _cell(row["outside"]))
    lines += [f"{name}: {value:.3f}" for name, value in figures["summary"].items()]
    return "\n".join(lines)


class Judge:
    """Sets states up and asks the tasks' predicates."""

    def __init__(self) -> None:
        self._stages: dict[str, Any] = {}

    def conditions(self, task: str, state: np.ndarray) -> dict[str, Condition]:
        """Return the conditions of a task's predicate in a state at rest."""
        import gymnasium as gym
        import mujoco

        import vlmrl  # noqa: F401  (registers the environments)

        name = task.split("/")[0]
        if name not in self._stages:
            self._stages[name] = gym.make(_id(name)).unwrapped
            self._stages[name].reset(seed=0)
        env = self._stages[name]
        if name == "cartpole":
            env.state = np.array([state[0], 0.0, state[1], 0.0])
        elif name == "mountaincar":
            env.state = np.array([state[0], 0.0])
        else:
            mujoco.mj_resetData(env.model, env.data)
            env.data.qpos[:] = state
            mujoco.mj_forward(env.model, env.data)
        conditions: dict[str, Condition] = PREDICATES.load(task)(env.simulator_state())
        return conditions

    def kind(self, task: str, state: np.ndarray) -> int:
        """Return the index in `KINDS` of a state."""
        conditions = self.conditions(task, state)
        if holds(conditions):
            return 0
        return 1 if min(c.margin / c.scale for c in conditions.values()) >= -NEAR_LIMIT else 2

    def close(self) -> None:
        """Free the environments."""
        for env in self._stages.values():
            env.close()


def _draw(
    judge: Judge, task: str, source: Iterator[np.ndarray], pool: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill the quotas of a task: (states, kinds, on policy)."""
    wanted = np.array([POSITIVES, NEAR, FAR])
    kept: list[list[np.ndarray]] = [[], [], []]
    policy: list[list[bool]] = [[], [], []]
    if task.startswith("humanoid/"):
        quota = (wanted * ON_POLICY).astype(int)
        for i in rng.permutation(len(pool)):
            kind = judge.kind(task, rounded := _rounded(pool[i]))
            if len(kept[kind]) < quota[kind]:
                kept[kind].append(rounded)
                policy[kind].append(True)
            if all(len(states) >= most for states, most in zip(kept, quota, strict=True)):
                break
    for tries, state in enumerate(source):
        kind = judge.kind(task, rounded := _rounded(state))
        if len(kept[kind]) < wanted[kind]:
            kept[kind].append(rounded)
            policy[kind].append(False)
        if all(len(states) >= most for states, most in zip(kept, wanted, strict=True)):
            break
        if tries > 60_000:
            raise RuntimeError(f"{task}: only {[len(states) for states in kept]} states of {KINDS} were found.")
    states = np.concatenate([np.stack(part) for part in kept])
    return (
        states.astype(np.float16),
        np.repeat(np.arange(3, dtype=np.uint8), [len(part) for part in kept]),
        np.array([flag for part in policy for flag in part]),
    )


def _rounded(state: np.ndarray) -> np.ndarray:
    """Round as the archive does: a label belongs to the state that is kept."""
    return np.asarray(state, dtype=np.float16).astype(np.float64)


def _poses(rng: np.random.Generator, name: str) -> Iterator[np.ndarray]:
    """Draw states around the poses that a humanoid predicate was checked with, and between those and others."""
    env = Humanoid()
    env.reset(seed=0)
    own = list(POSITIVE[name].values())
    others = [pose for poses in POSITIVE.values() for pose in poses.values()] + [pose for pose, _ in NEGATIVE.values()]
    try:
        while True:
            if rng.random() < 0.1:
                env.np_random = np.random.default_rng(int(rng.integers(2**31)))
                env.fall()
                yield env.data.qpos.copy()
                continue
            pose = own[rng.integers(len(own))]
            if rng.random() < 0.75:  # part of the way to another pose, mostly a small one
                other = others[rng.integers(len(others))]
                pose = _between(env, pose, other, float(rng.random() ** 2))
            yield _jittered(env, pose, rng)
    finally:
        env.close()


def _between(env: Humanoid, pose: Pose, other: Pose, part: float) -> Pose:
    names = [env.model.joint(i).name for i in range(1, env.model.njnt)]
    angles = np.rad2deg((1 - part) * joint_angles(env, pose) + part * joint_angles(env, other))
    return Pose(
        dict(zip(names, angles.tolist(), strict=True)),
        (1 - part) * pose.pitch + part * other.pitch,
        (1 - part) * pose.roll + part * other.roll,
    )


def _jittered(env: Humanoid, pose: Pose, rng: np.random.Generator) -> np.ndarray:
    """Put a pose with noise on its joints, tilt and place, turned a little, its lowest point on the floor."""
    import mujoco

    from vlmrl.envs.mujoco_scene import lowest_point

    put(env, pose)
    qpos = env.data.qpos
    low, high = env.model.jnt_range[1:].T
    qpos[7:] = np.clip(qpos[7:] + np.deg2rad(rng.choice([2, 5, 9])) * rng.standard_normal(17), low, high)
    for axis, spread in (((0.0, 0.0, 1.0), 15), ((0.0, 1.0, 0.0), 4), ((1.0, 0.0, 0.0), 3)):
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.array(axis), np.deg2rad(spread) * rng.standard_normal())
        mujoco.mju_mulQuat(qpos[3:7], turn, qpos[3:7].copy())
    qpos[:2] = 0.1 * rng.standard_normal(2)
    mujoco.mj_forward(env.model, env.data)
    qpos[2] -= lowest_point(env.model, env.data)
    state: np.ndarray = qpos.copy()
    return state


def _broad(rng: np.random.Generator, env: str) -> Iterator[np.ndarray]:
    """Draw states of another environment: half from its broad distribution, half from a random policy."""
    drawn, played = SCENES[env].states(rng), SCENES[env].random_policy(rng)
    while True:
        yield next(drawn)[1]
        yield next(played)


def _random_policy(rng: np.random.Generator, n: int) -> np.ndarray:
    states = SCENES["humanoid"].random_policy(rng)
    return np.stack([next(states) for _ in range(n)]).astype(np.float32)


def _id(env: str) -> str:
    import yaml

    import vlmrl

    return str(yaml.safe_load((Path(vlmrl.__file__).parent / "configs" / "env" / f"{env}.yaml").read_text())["id"])


def _summary(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    seen = [tasks[f"humanoid/{pose}"] for pose in SEEN_POSES]
    unseen = [tasks[f"humanoid/{pose}"] for pose in UNSEEN_POSES]
    others = [row for task, row in tasks.items() if not task.startswith("humanoid/")]
    return {
        "seen poses, mean": float(np.mean([row["auroc"] for row in seen])),
        "seen poses, worst": float(min(row["auroc"] for row in seen)),
        "seen poses, outside phrasings, mean": float(np.mean([row["outside"] for row in seen])),
        "unseen poses, mean": float(np.mean([row["auroc"] for row in unseen])),
        "other environments, mean": float(np.mean([row["auroc"] for row in others])),
        "other environments, worst": float(min(row["auroc"] for row in others)),
    }


def _cell(value: float | None) -> str:
    return f"{'-':>8s}" if value is None else f"{value:8.3f}"


def main() -> None:
    """Measure an encoder on the exam, or make another exam."""
    from vlmrl.encoders.mini import MiniConfig

    parser = argparse.ArgumentParser(description="Measure the embedded encoder on states that it was not trained on.")
    parser.add_argument("--path", default="", help="folder with other weights of the kind; empty: the embedded ones")
    parser.add_argument("--make", nargs="*", metavar="RUN", help="make another exam, with the policies of these runs")
    parser.add_argument("--visited", nargs="*", default=[], metavar="ARCHIVE", help="also measure on states of agents")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    if given.make is not None:
        print(json.dumps(make_exam(given.make), indent=2))
        return
    encoder = MiniConfig(path=given.path).build("cpu")
    figures = take_exam(encoder)
    figures["visited"] = {archive: on_visited(encoder, archive) for archive in given.visited}
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(table(figures))
    for archive, poses in figures["visited"].items():
        print(f"\nheld-out states of '{archive}'\n{'pose':12s} {'rank':>6s} {'AUROC':>6s} {'true':>5s}")
        for pose, row in poses.items():
            area = f"{'-':>6s}" if row["auroc"] is None else f"{row['auroc']:6.3f}"
            print(f"{pose:12s} {row['rank']:6.3f} {area} {row['true']:5d}")


if __name__ == "__main__":
    main()
