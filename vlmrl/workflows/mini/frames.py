"""Renders the data: pictures of the suite's environments and the geometry that their captions are written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlmrl.envs.cameras import Camera, MujocoFrames
from vlmrl.envs.cartpole import CartPole
from vlmrl.envs.humanoid import CAMERAS, Humanoid
from vlmrl.workflows.mini.captions import CARTPOLE, HUMANOID
from vlmrl.workflows.mini.poses import PoseSampler, lowest_point
from vlmrl.workflows.mini.truths import cartpole_truths, humanoid_truths

SIZE = 112  # pixels, both ways


@dataclass
class Frames:
    """Pictures and what is true of them.

    Attributes:
        pixels: (n, 112, 112, 3) uint8 RGB.
        truths: {statement: (n,) float32, 0 to 1}; statements about the other environment are 0.
        source: (n,) str, how each state came about: "pose", "between", "random", "controlled", "torques", "policy",
            "visited" (by an agent) or "cartpole".
        camera: (n,) str, "front", "side", "diagonal" or "moved".
        state: Simulator state by name with a leading axis of n, for whoever judges; zero where an environment lacks it.
    """

    pixels: np.ndarray
    truths: dict[str, np.ndarray]
    source: np.ndarray
    camera: np.ndarray
    state: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.pixels)

    def save(self, path: Path) -> None:
        """Write to a numpy archive."""
        columns = {f"state/{k}": v for k, v in self.state.items()} | {f"truth/{k}": v for k, v in self.truths.items()}
        columns |= {"pixels": self.pixels, "source": self.source, "camera": self.camera}
        np.savez(path, **columns)  # type: ignore[arg-type]  # its stubs take any keyword for `allow_pickle`

    def __add__(self, other: Frames) -> Frames:
        """Both sets, one after the other; state that only one of them has is zero in the other's rows."""

        def joined(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            shapes = {name: column.shape[1:] for name, column in (*mine.items(), *theirs.items())}
            return {
                name: np.concatenate(
                    [
                        part.get(name, np.zeros((n, *shape), dtype=np.float32))
                        for part, n in ((mine, len(self)), (theirs, len(other)))
                    ]
                )
                for name, shape in shapes.items()
            }

        columns = [
            np.concatenate(pair)
            for pair in ((self.pixels, other.pixels), (self.source, other.source), (self.camera, other.camera))
        ]
        return Frames(
            columns[0], joined(self.truths, other.truths), columns[1], columns[2], joined(self.state, other.state)
        )

    @classmethod
    def load(cls, path: Path) -> Frames:
        """Read what `save` wrote."""
        with np.load(path) as archive:
            tables: dict[str, dict[str, np.ndarray]] = {"state": {}, "truth": {}}
            for key in archive.files:
                if "/" in key:
                    table, name = key.split("/", 1)
                    tables[table][name] = archive[key]
            return cls(archive["pixels"], tables["truth"], archive["source"], archive["camera"], tables["state"])


def render_frames(
    n: int,
    seed: int,
    *,
    cartpole: float = 0.15,
    policy_only: bool = False,
    visited: np.ndarray | None = None,
    vary: bool = True,
    progress: bool = True,
) -> Frames:
    """Draw states, take one picture of each and work out what is true of it.

    Args:
        n: Number of pictures.
        seed: Seed; the same one gives the same pictures on the same machine.
        cartpole: Part of the pictures that show the cart and pole.
        policy_only: Take the humanoid's states from episodes of a random policy and no others.
        visited: (k, 24) float, `qpos` of humanoid states to take and no others; see `PoseSampler.revisit`.
        vary: Also vary camera, light and colour; otherwise everything is seen as a task sees it.
        progress: Show a progress bar.
    """
    rng = np.random.default_rng(seed)
    of_cart = round(n * cartpole)
    bar = tqdm(total=n, desc="rendering", unit="frame", disable=not progress, mininterval=1)
    humanoid = _collect(_humanoid(rng, policy_only, visited, vary), n - of_cart, bar)
    cart = _collect(_cartpole(rng), of_cart, bar)
    bar.close()
    return _joined(humanoid, cart)


def _collect(stream: Iterator[dict], n: int, bar: tqdm) -> list[dict]:
    rows = []
    for _, row in zip(range(n), stream, strict=False):
        rows.append(row)
        bar.update()
    return rows


def _humanoid(rng: np.random.Generator, policy_only: bool, visited: np.ndarray | None, vary: bool) -> Iterator[dict]:
    env = Humanoid()
    env.reset(seed=int(rng.integers(2**31)))
    sampler, look, pictures = PoseSampler(env, rng), _Look(env), MujocoFrames(env.model, SIZE, SIZE)
    if visited is not None:
        states = sampler.revisit(visited)
    else:
        states = sampler.random_policy() if policy_only else sampler.stream()
    try:
        for source in states:
            name, camera = _camera(rng) if vary else ("front", CAMERAS["front"])
            if vary:
                look.change(rng)
            azimuth = np.deg2rad(camera.azimuth)
            yield {
                "pixels": pictures.render(env.data, camera),
                "source": source,
                "camera": name,
                **env.simulator_state(),
                "lowest": np.float32(lowest_point(env.model, env.data)),
                "view": np.array([np.cos(azimuth), np.sin(azimuth), 0], dtype=np.float32),
            }
    finally:
        pictures.close()
        env.close()


def _cartpole(rng: np.random.Generator) -> Iterator[dict]:
    env = CartPole(render_mode="rgb_array", width=SIZE, height=SIZE)
    env.reset(seed=0)
    while True:
        angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.6 else np.deg2rad(15) * rng.standard_normal()
        env.state = np.array([rng.uniform(-2.4, 2.4), 0.0, angle, 0.0])
        yield {"pixels": env.render(), "source": "cartpole", "camera": "front", **env.simulator_state()}


def _camera(rng: np.random.Generator) -> tuple[str, Camera]:
    """Mostly VLM-RM's view; now and then another one or a moved one."""
    kind = rng.choice(4, p=[0.72, 0.06, 0.07, 0.15])
    if kind < 3:
        name = ("front", "side", "diagonal")[kind]
        return name, CAMERAS[name]
    front = CAMERAS["front"]
    moved = replace(
        front,
        distance=front.distance * rng.uniform(0.85, 1.2),
        elevation=front.elevation + rng.uniform(-8, 6),
        azimuth=rng.uniform(0, 360) if rng.random() < 0.5 else front.azimuth + rng.uniform(-25, 25),
        lookat=(front.lookat[0], front.lookat[1], front.lookat[2] + rng.uniform(-0.15, 0.15)),
    )
    return "moved", moved


class _Look:
    """Light and colours of the scene, drawn anew for a third of the pictures."""

    def __init__(self, env: Humanoid):
        self._model = env.model
        names = ("light_diffuse", "light_dir", "geom_rgba")
        self._arrays = {name: getattr(env.model, name) for name in names}
        self._own = {name: array.copy() for name, array in self._arrays.items()}

    def change(self, rng: np.random.Generator) -> None:
        for name, array in self._arrays.items():
            array[:] = self._own[name]
        if rng.random() < 0.33:
            self._arrays["light_diffuse"][:] *= rng.uniform(0.6, 1.1)
            self._arrays["light_dir"][:, :2] += rng.uniform(-0.6, 0.6, 2)
            self._arrays["geom_rgba"][0, :3] *= rng.uniform(0.7, 1.2, 3)
            self._arrays["geom_rgba"][1:, :3] *= rng.uniform(0.75, 1.2, 3)


def _joined(humanoid: list[dict], cart: list[dict]) -> Frames:
    rows = humanoid + cart
    own = ("pixels", "source", "camera")
    columns = [
        {name: np.stack([row[name] for row in part]) for name in part[0]} if part else {} for part in (humanoid, cart)
    ]
    truths = {name: np.zeros(len(rows), dtype=np.float32) for name in (*HUMANOID, *CARTPOLE)}
    state: dict[str, np.ndarray] = {}
    for part, where, truth in (
        (columns[0], slice(0, len(humanoid)), humanoid_truths),
        (columns[1], slice(len(humanoid), None), cartpole_truths),
    ):
        if part:
            for name, degree in truth(part).items():
                truths[name][where] = degree
        for name, values in part.items():
            if name not in own:
                state.setdefault(name, np.zeros((len(rows), *values.shape[1:]), dtype=np.float32))[where] = values
    return Frames(
        np.stack([row["pixels"] for row in rows]),
        truths,
        np.array([row["source"] for row in rows]),
        np.array([row["camera"] for row in rows]),
        state,
    )
