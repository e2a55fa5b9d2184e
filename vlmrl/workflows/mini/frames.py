"""Renders the data: pictures of the suite's environments and the simulator state that captions are written from."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmrl.workflows.mini.scenes import SCENES
from vlmrl.workflows.report import tracked

SIZE = 112  # pixels, both ways
PART = 1000  # frames rendered in one go: what an interruption loses
# The part of a seed that differs by kind; other numbers would draw other frames than the embedded weights learned from.
KINDS = {"varied": 6, "visited": 7, "policy": 8}


@dataclass
class Frames:
    """Pictures of one scene and what the simulator knew of them.

    Attributes:
        scene: Name of the scene.
        pixels: (n, 112, 112, 3) uint8 RGB.
        source: (n,) str, how each state came about, such as "pose", "torques", "visited" (by an agent) or "policy".
        camera: (n,) str, camera or look.
        state: Columns that truths, geometry and predicates read, each with a leading axis of n.
    """

    scene: str
    pixels: np.ndarray
    source: np.ndarray
    camera: np.ndarray
    state: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.pixels)

    def truths(self) -> dict[str, np.ndarray]:
        """Return {statement: (n,) float32 degree, 0 to 1}."""
        return SCENES[self.scene].truths(self.state)

    def save(self, path: Path) -> None:
        """Write to a numpy archive, which is there whole or not at all."""
        columns = {f"state/{key}": value for key, value in self.state.items()}
        columns |= {"scene": np.array(self.scene), "pixels": self.pixels, "source": self.source, "camera": self.camera}
        unfinished = path.with_suffix(".new.npz")
        np.savez(unfinished, **columns)  # type: ignore[arg-type]  # its stubs take any keyword for `allow_pickle`
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Frames:
        """Read what `save` wrote."""
        with np.load(path) as archive:
            state = {key.removeprefix("state/"): archive[key] for key in archive.files if key.startswith("state/")}
            return cls(str(archive["scene"]), archive["pixels"], archive["source"], archive["camera"], state)

    @classmethod
    def joined(cls, parts: Sequence[Frames]) -> Frames:
        """Put parts of one scene one after the other."""
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("pixels", "source", "camera")]
        state = {name: np.concatenate([part.state[name] for part in parts]) for name in parts[0].state}
        return cls(parts[0].scene, columns[0], columns[1], columns[2], state)


@dataclass(frozen=True)
class Order:
    """Frames to render.

    Attributes:
        scene: Name of the scene.
        n: How many.
        seed: Seed; the same one gives the same frames on the same machine, on however many processes.
        kind: One of `KINDS`: "varied" draws states from the scene's broad distribution, "policy" from episodes of a
            random policy, "visited" from `states`; all but "varied" ones are called by that name in `Frames.source`.
        vary: Also vary camera, light, texture and colour; otherwise everything is seen as the task sees it.
        states: (k, size) state vectors for "visited", each drawn as often as others, in a random order.
    """

    scene: str
    n: int
    seed: int
    kind: str = "varied"
    vary: bool = True
    states: np.ndarray | None = None


def render(order: Order) -> Frames:
    """Draw states, take one picture of each and note what the simulator knows of it."""
    rng = np.random.default_rng(order.seed)
    scene = SCENES[order.scene]
    stage = scene.stage(SIZE)
    rows, sources = [], []
    try:
        for source, state in _states(order, rng):
            rows.append(stage.shoot(state, rng if order.vary else None))
            sources.append(source)
            if len(rows) == order.n:
                break
    finally:
        stage.close()
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Frames(order.scene, columns.pop("pixels"), np.array(sources), columns.pop("camera"), columns)


def render_all(
    orders: Mapping[str, Sequence[Order]], folder: Path, workers: int, progress: bool = True
) -> dict[str, Frames]:
    """Render parts in several processes; parts that are in the folder already are read.

    Args:
        orders: {scene: parts}.
        folder: Where parts are kept.
        workers: Number of processes.
        progress: Show a progress bar.

    Returns:
        {scene: its frames}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = {folder / f"{name}_{_digest(order)}.npz": order for name, parts in orders.items() for order in parts}
    missing = {path: order for path, order in jobs.items() if not path.exists()}
    bar = tracked(
        total=sum(order.n for order in jobs.values()),
        initial=sum(order.n for path, order in jobs.items() if path not in missing),
        desc="rendering",
        unit="frame",
        show=progress,
        mininterval=1,
    )
    # A fresh interpreter each: torch and an OpenGL context of this process must not be copied into another one.
    with bar, ProcessPoolExecutor(max(1, workers), multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_render_to, order, path): order for path, order in missing.items()}
        for done in as_completed(running):
            done.result()
            bar.update(running[done].n)
    return {
        name: Frames.joined([Frames.load(folder / f"{name}_{_digest(order)}.npz") for order in parts])
        for name, parts in orders.items()
    }


def parts_of(
    scene: str, n: int, seed: int, kind: str = "varied", vary: bool = True, states: np.ndarray | None = None
) -> list[Order]:
    """Divide an order of `n` frames into parts with seeds of their own."""
    seeds = np.random.SeedSequence([seed, list(SCENES).index(scene), KINDS[kind]]).generate_state(-(-n // PART))
    sizes = [min(PART, n - start) for start in range(0, n, PART)]
    return [Order(scene, size, int(own), kind, vary, states) for size, own in zip(sizes, seeds.tolist(), strict=True)]


def training_orders(
    n: int, seed: int, visited: Sequence[np.ndarray] = (), n_visited: int = 0
) -> dict[str, list[Order]]:
    """Return the parts of a training set.

    Args:
        n: Number of frames of the broad distributions, divided among the scenes by their shares.
        seed: Seed of everything.
        visited: Sets of `qpos` of the humanoid that agents reached.
        n_visited: Further frames, which show them; each set has the same number.
    """
    total = sum(scene.share for scene in SCENES.values())
    orders = {name: parts_of(name, round(n * scene.share / total), seed) for name, scene in SCENES.items()}
    for i, states in enumerate(visited):
        orders["humanoid"] += parts_of("humanoid", -(-n_visited // len(visited)), seed + 1 + i, "visited", True, states)
    return orders


def _states(order: Order, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    scene = SCENES[order.scene]
    if order.kind == "varied":
        yield from scene.states(rng)
    elif order.kind == "policy":
        for state in scene.random_policy(rng):
            yield "policy", state
    else:
        assert order.states is not None
        while True:
            for i in rng.permutation(len(order.states)):
                yield "visited", order.states[i]


def _render_to(order: Order, path: Path) -> None:
    render(order).save(path)


def _digest(order: Order) -> str:
    told = f"{order.scene} {order.n} {order.seed} {order.kind} {order.vary}".encode()
    return hashlib.sha256(told + (b"" if order.states is None else order.states.tobytes())).hexdigest()[:16]
