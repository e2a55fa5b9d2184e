"""Conditions that the tasks of the running robots are made of; angles in degrees, lengths in m, speeds in m/s."""

from __future__ import annotations

import numpy as np

from vlmrl.envs.tasks import Condition, State, above, below


def upright(state: State, degrees: float, scale: float = 0.8) -> dict[str, Condition]:
    """Trunk within an angle of how it starts: upright for hopper and walker, level for cheetah and ant."""
    return {"trunk upright": above(state["torso_up"][2], np.cos(np.deg2rad(degrees)), scale)}


def running(state: State, speed: float) -> dict[str, Condition]:
    """Forward, along x, at least at this speed; the dense reward is 0 at rest."""
    return {"fast": above(state["velocity"][0], speed, speed)}


def in_place(state: State, speed: float) -> dict[str, Condition]:
    """Slower than this in every direction."""
    return {"in place": below(float(np.linalg.norm(state["velocity"])), speed, 2.0)}


def high(state: State, height: float, scale: float) -> dict[str, Condition]:
    """Torso at least this high."""
    return {"torso high": above(state["torso"][2], height, scale)}


def feet_down(state: State, height: float) -> dict[str, Condition]:
    """No foot's centre above this height."""
    return {"feet down": below(state["feet"].max(), height, 0.5)}


def off_the_floor(state: State, clearance: float) -> dict[str, Condition]:
    """Every part of the body at least this far off the floor; the dense reward is 0 on it."""
    return {"off the floor": above(state["lowest"], clearance, clearance)}


def turned_over(state: State, height: float) -> dict[str, Condition]:
    """A whole turn since the start less 40 degrees, either way, then within 40 degrees of upright and off the floor.

    The torso must be at `height` or higher: a body that rolls on the floor turns as well.
    """
    whole = 2 * np.pi - np.deg2rad(40)
    # The turn counts from the start on. Its way leads upside down and low: the scales leave a reward there.
    return {
        "turned": above(abs(state["pitch"]), whole, whole),
        **upright(state, 40, scale=3.0),
        **high(state, height, scale=3.0),
    }
