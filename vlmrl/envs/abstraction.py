"""The typed abstraction of an environment: what a reward program may read, with units, shapes and ranges.

For a MuJoCo environment it is generated from the model: bodies, joints, geoms, actuators. Any other environment
describes what its `simulator_state()` returns, with two class attributes:

    described_state = {"angle": ("rad from upright, -pi to pi", ()), "speed": ("rad/s, positive anticlockwise", ())}
    described_action = ("torque on the hinge in N m, -2 to 2",)

and, where it helps, `described_dt` (seconds a step) and `described_notes` (sentences). Neither the source of the
environment nor its reward is ever read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.errors import UserError
from vlmrl.quantities import Abstraction, Group, Path, Quantity

Read = Callable[[], np.ndarray]


class StateReader:
    """Reads the numbers of an abstraction from an environment.

    Args:
        env: The environment, wrapped or not.
        paths: Quantities to read, of those that the environment has; None reads all. What a program does not look at
            costs nothing.

    Attributes:
        abstraction: What the numbers mean.

    Raises:
        UserError: The environment is not made with MuJoCo and does not describe its state.
    """

    def __init__(self, env: gym.Env, paths: Collection[Path] | None = None):
        core = env.unwrapped
        if hasattr(core, "described_state"):
            self.abstraction, self._read = _described(core, paths)
        elif _is_mujoco(core):
            self.abstraction, self._read = _generated(core, paths)
        else:
            raise UserError(
                f"Programs cannot read {core}: it is not made with MuJoCo and does not say what its state means. Give "
                "its class simulator_state(), described_state and described_action, as docs/text2reward.md shows."
            )

    def __call__(self) -> np.ndarray:
        """Return the numbers of the present state, (abstraction.size,) float64."""
        return self._read()


def record(env: gym.Env, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Let an environment run with random actions and record what programs read.

    Args:
        env: The environment; it is reset and stepped.
        n: Number of states.
        seed: Of the first reset and of the actions.

    Returns:
        States (n, size) float64 and the actions that led to them (n, A) float64.
    """
    reader = StateReader(env)
    states, actions = np.empty((n, reader.abstraction.size)), []
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    for i in range(n):
        # The environment's own space is left alone: a learner's random actions must not depend on this.
        action = _random_action(env.action_space, rng)
        _, _, terminated, truncated, _ = env.step(action)
        states[i] = reader()
        actions.append(np.asarray(action, dtype=np.float64).reshape(-1))
        if terminated or truncated:
            env.reset()
    return states, np.stack(actions)


def _random_action(space: gym.Space, rng: np.random.Generator) -> Any:
    if isinstance(space, gym.spaces.Box):
        low, high = np.maximum(space.low, -10.0), np.minimum(space.high, 10.0)
        return rng.uniform(low, high).astype(space.dtype)
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start + rng.integers(space.n))
    raise UserError(f"Programs read actions that are numbers; the action space {space} is neither Box nor Discrete.")


# Environments that describe themselves


def _described(core: Any, paths: Collection[Path] | None) -> tuple[Abstraction, Read]:
    members: list[Group | Quantity] = []
    size = 0
    for name, (meaning, shape) in core.described_state.items():
        members.append(Quantity(name, meaning, tuple(shape), size))
        size += members[-1].size  # type: ignore[union-attr]
    if not hasattr(core, "simulator_state"):
        raise UserError(f"{core} has described_state but no simulator_state() that returns it.")
    spec = core.spec.id if core.spec is not None else type(core).__name__
    abstraction = Abstraction(
        name=spec,
        dt=getattr(core, "described_dt", None),
        state=Group("state", "State", "", tuple(members)),
        action=tuple(core.described_action),
        notes=tuple(getattr(core, "described_notes", ())),
        size=size,
    )
    if paths is not None:
        abstraction, _ = abstraction.narrowed(paths)
    places = [(leaf.name, leaf.start, leaf.start + leaf.size) for _, leaf in abstraction.leaves()]

    def read() -> np.ndarray:
        state, flat = core.simulator_state(), np.empty(abstraction.size)
        try:
            for name, start, stop in places:
                flat[start:stop] = np.asarray(state[name]).reshape(-1)
            return flat
        except KeyError as error:
            raise UserError(f"{core} describes {error}, but its simulator_state() does not return it.") from error

    return abstraction, read


# Environments made with MuJoCo


def _is_mujoco(core: Any) -> bool:
    from gymnasium.envs.mujoco import MujocoEnv

    return isinstance(core, MujocoEnv)


class _Block:
    """Hands out places in the flat vector."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, n: int) -> int:
        start, self.size = self.size, self.size + n
        return start


def _generated(core: Any, paths: Collection[Path] | None) -> tuple[Abstraction, Read]:
    """Describe a MuJoCo model, and read what it says of a state.

    Positions, rotations and velocities are those of MuJoCo's last forward pass, the beginning of the last simulation
    step; joints are those at its end.
    """
    import mujoco

    model = core.model
    start = mujoco.MjData(model)  # the state in which the model is drawn, without the noise of an episode's start
    start.qpos[:] = core.init_qpos
    mujoco.mj_forward(model, start)
    geoms = [i for i in range(model.ngeom) if model.geom_bodyid[i] > 0]
    floors = [i for i in range(model.ngeom) if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_PLANE]
    block = _Block()
    nb, ng = model.nbody - 1, len(geoms)
    at = {
        "position": block.take(3 * nb),
        "rotation": block.take(9 * nb),
        "velocity": block.take(3 * nb),
        "angular": block.take(3 * nb),
        "geoms": block.take(3 * ng),
        "contacts": block.take(ng),
        "qpos": block.take(model.nq),
        "qvel": block.take(model.nv),
    }
    members = (
        Group("bodies", "Bodies", "rigid bodies", tuple(_bodies(model, start, at))),
        Group("geoms", "Geoms", "shapes that the bodies are made of", tuple(_geoms(model, start, geoms, at))),
        Group("joints", "Joints", "how the bodies move against each other", tuple(_joints(model, start, at))),
    )
    notes = ["The world's z axis points up, against gravity; x and y are horizontal."]
    for floor in floors:
        notes.append(f"The floor is the plane z = {_number(start.geom_xpos[floor, 2])} m.")
    notes.append("Behind the names stand the values at which an episode starts, but for small noise.")
    abstraction = Abstraction(
        name=core.spec.id if core.spec is not None else type(core).__name__,
        dt=float(core.dt),
        state=Group("state", "State", "", members),
        action=tuple(_actuators(model)),
        notes=tuple([*notes, *getattr(core, "described_notes", ())]),
        size=block.size,
    )
    places = np.arange(block.size)
    if paths is not None:
        abstraction, places = abstraction.narrowed(paths)
    return abstraction, _mujoco_read(model, core.data, geoms, floors, at, places)


def _bodies(model: Any, start: Any, at: dict[str, int]) -> Iterable[Group]:
    used: set[str] = set()
    for i in range(1, model.nbody):
        place = f"on {_body(model, model.body_parentid[i])}, " if model.body_parentid[i] else ""
        yield Group(
            _identifier(_body(model, i), used),
            "Body",
            f"{place}mass {_number(model.body_mass[i])} kg, starts at {_vector(start.xpos[i])} m",
            (
                Quantity("position", "m, origin of the body, in the world", (3,), at["position"] + 3 * (i - 1)),
                Quantity(
                    "rotation",
                    "rotation matrix; rotation[:, :, 0], [:, :, 1] and [:, :, 2] are the body's own x, y and z axis, "
                    "unit vectors in the world",
                    (3, 3),
                    at["rotation"] + 9 * (i - 1),
                ),
                Quantity("velocity", "m/s, of the origin, in the world", (3,), at["velocity"] + 3 * (i - 1)),
                Quantity("angular_velocity", "rad/s, around the world's axes", (3,), at["angular"] + 3 * (i - 1)),
            ),
        )


def _geoms(model: Any, start: Any, geoms: list[int], at: dict[str, int]) -> Iterable[Group]:
    import mujoco

    used: set[str] = set()
    for n, i in enumerate(geoms):
        kind = mujoco.mjtGeom(model.geom_type[i]).name.removeprefix("mjGEOM_").lower()
        radius, half = _number(model.geom_size[i, 0]), _number(model.geom_size[i, 1])
        size = {"sphere": f" of radius {radius} m", "capsule": f" of radius {radius} m and half length {half} m"}
        body = _body(model, model.geom_bodyid[i])
        yield Group(
            _identifier(model.geom(i).name or f"geom_{i}", used),
            "Geom",
            f"{kind}{size.get(kind, '')}, part of {body}, starts at {_vector(start.geom_xpos[i])} m",
            (
                Quantity("position", "m, its centre, in the world", (3,), at["geoms"] + 3 * n),
                Quantity("floor_contact", "1 where it touches the floor, else 0", (), at["contacts"] + n),
            ),
        )


def _joints(model: Any, start: Any, at: dict[str, int]) -> Iterable[Group]:
    import mujoco

    used: set[str] = set()
    for i in range(model.njnt):
        q, v = at["qpos"] + int(model.jnt_qposadr[i]), at["qvel"] + int(model.jnt_dofadr[i])
        name = _identifier(model.joint(i).name or f"joint_{i}", used)
        body = _body(model, model.jnt_bodyid[i])
        begin = _number(start.qpos[model.jnt_qposadr[i]])
        low, high = model.jnt_range[i]
        limits = f"range {_number(low)} to {_number(high)}" if model.jnt_limited[i] else "no limits"
        if model.jnt_type[i] == mujoco.mjtJoint.mjJNT_FREE:
            yield Group(
                name,
                "FreeJoint",
                f"moves {body} freely",
                (
                    Quantity("position", "m, in the world", (3,), q),
                    Quantity("quaternion", "(w, x, y, z), unit", (4,), q + 3),
                    Quantity("velocity", "m/s, in the world", (3,), v),
                    Quantity("angular_velocity", "rad/s, around the body's own axes", (3,), v + 3),
                ),
            )
        elif model.jnt_type[i] == mujoco.mjtJoint.mjJNT_SLIDE:
            yield Group(
                name,
                "SlideJoint",
                f"moves {body} along {_vector(start.xaxis[i])}, {limits} m, starts at {begin} m",
                (Quantity("position", "m", (), q), Quantity("velocity", "m/s", (), v)),
            )
        elif model.jnt_type[i] == mujoco.mjtJoint.mjJNT_HINGE:
            counted = "" if model.jnt_limited[i] else ", whole turns are counted"
            yield Group(
                name,
                "HingeJoint",
                f"turns {body} around {_vector(start.xaxis[i])}, {limits} rad{counted}, starts at {begin} rad",
                (Quantity("angle", "rad", (), q), Quantity("velocity", "rad/s", (), v)),
            )
        else:
            yield Group(
                name,
                "BallJoint",
                f"turns {body} freely",
                (Quantity("quaternion", "(w, x, y, z), unit", (4,), q), Quantity("velocity", "rad/s", (3,), v)),
            )


def _actuators(model: Any) -> Iterable[str]:
    import mujoco

    for i in range(model.nu):
        low, high = model.actuator_ctrlrange[i]
        limits = f"{_number(low)} to {_number(high)}" if model.actuator_ctrllimited[i] else "no limits"
        on_joint = model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT
        target = model.joint(model.actuator_trnid[i, 0]).name if on_joint else model.actuator(i).name
        yield f"{target}, {limits}, times a gear of {_number(model.actuator_gear[i, 0])}"


def _mujoco_read(
    model: Any, data: Any, geoms: list[int], floors: list[int], at: dict[str, int], places: np.ndarray
) -> Read:
    """Return a function that gathers the numbers at these places of the flat vector, (n,) int in rising order.

    It copies each number once, into the vector that it returns; the views of `data` stay valid as long as the
    environment.
    """
    import mujoco

    cuts = [*np.searchsorted(places, list(at.values())).tolist(), len(places)]
    # For each kind of quantity its places within its own block, and where they go in the vector.
    own = {name: places[cuts[i] : cuts[i + 1]] - at[name] for i, name in enumerate(at)}
    into = {name: slice(cuts[i], cuts[i + 1]) for i, name in enumerate(at)}
    velocities = np.empty((model.nbody, 6))  # of each body: around the world's axes, then of its origin
    moving = sorted({1 + int(place) // 3 for place in own["velocity"]})
    rows, body_object = [(body, velocities[body]) for body in moving], mujoco.mjtObj.mjOBJ_XBODY
    # Sources and the places of them that are read; bodies are counted from the world, which is not among them.
    sources = {
        "position": (data.xpos, own["position"] + 3),
        "rotation": (data.xmat, own["rotation"] + 9),
        "velocity": (velocities, 6 * (1 + own["velocity"] // 3) + 3 + own["velocity"] % 3),
        # cvel is (angular, linear) velocity; the angular one is the same at every point of a body.
        "angular": (data.cvel, 6 * (1 + own["angular"] // 3) + own["angular"] % 3),
        "geoms": (data.geom_xpos, 3 * np.array(geoms, dtype=np.int64)[own["geoms"] // 3] + own["geoms"] % 3),
        "qpos": (data.qpos, own["qpos"]),
        "qvel": (data.qvel, own["qvel"]),
    }
    copies = [(source.reshape(-1), read, into[name]) for name, (source, read) in sources.items() if len(read)]
    touchable = {geoms[place]: into["contacts"].start + i for i, place in enumerate(own["contacts"].tolist())}
    is_floor = set(floors)

    def read() -> np.ndarray:
        for body, velocity in rows:
            mujoco.mj_objectVelocity(model, data, body_object, body, velocity, 0)
        flat = np.empty(len(places))
        for source, chosen, target in copies:
            source.take(chosen, out=flat[target], mode="clip")  # "raise" would go through a buffer
        if touchable:
            flat[into["contacts"]] = 0.0
            for first, second in data.contact.geom.tolist():
                if first in is_floor and second in touchable:
                    flat[touchable[second]] = 1.0
                if second in is_floor and first in touchable:
                    flat[touchable[first]] = 1.0
        return flat

    return read


def _body(model: Any, i: int) -> str:
    """Return the name of a body, made up where it has none."""
    return model.body(i).name or f"body_{i}"


def _identifier(name: str, used: set[str]) -> str:
    """Return a name that Python takes and that is not used yet."""
    wanted = re.sub(r"\W", "_", name)
    wanted = f"n_{wanted}" if not wanted[0].isalpha() else wanted
    while wanted in used:
        wanted += "_2"
    used.add(wanted)
    return wanted


def _number(value: float) -> str:
    """Write a number with two decimals, without a negative zero: other releases of MuJoCo round the last bits anew."""
    return f"{round(float(value), 2) + 0.0:.2f}"


def _vector(values: Iterable[float]) -> str:
    return f"({', '.join(_number(value) for value in values)})"
