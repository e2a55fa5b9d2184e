"""What is asked of an engine of Minecraft, and the spaces of MineDojo that all engines share.

Source: Fan et al.: "MineDojo: Building Open-Ended Embodied Agents with Internet-Scale Knowledge", 2022 (arXiv
2206.08853) and its package `minedojo` 0.1, whose action space this is and whose observations these are, less names in
text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import gymnasium as gym
import numpy as np

SIZE = (160, 256)  # height and width of a picture in pixels, those that MineCLIP looks at
SLOTS = 36  # of the inventory
CRAFTS = 244  # things that can be crafted or smelted
CAMERA_STEP = 15  # degrees from one number of the camera to the next
CAMERA_STILL = 12  # the number at which the camera stays

# The parts of an action: move (1 forward, 2 back), strafe (1 left, 2 right), posture (1 jump, 2 sneak, 3 sprint), pitch
# and yaw (12 stays, else 15 degrees a number), function, what to craft, which slot.
ACTIONS = (3, 3, 4, 25, 25, 8, CRAFTS, SLOTS)
NO_OP, USE, DROP, ATTACK, CRAFT, EQUIP, PLACE, DESTROY = range(8)  # the functions
FUNCTION, CRAFT_ARGUMENT, SLOT_ARGUMENT = 5, 6, 7  # places of an action's parts

# Numbers of an observation beside its picture: {name: (length, lowest, highest)}.
VECTORS = {
    "life_stats": (6, 0.0, 1395.0),  # life, food, saturation, oxygen, armor, xp
    "position": (3, -640000.0, 640000.0),  # x, y (up), z, in blocks
    "view": (4, -1.0, 1.0),  # sine and cosine of yaw, and of pitch
    "surroundings": (6, 0.0, 15.0),  # light_level, sky_light_level, sun_brightness, rainfall, temperature, is_raining
    "voxels": (81, 0.0, 1.0),  # is_solid, is_liquid, is_collidable of the 3 x 3 x 3 blocks around the agent
    "inventory": (SLOTS, 0.0, 64.0),  # how many of what lies in each slot
    "nearby_tools": (2, 0.0, 1.0),  # table, furnace
    "mask_action_type": (8, 0.0, 1.0),  # functions that can be used now
    "mask_craft_smelt": (CRAFTS, 0.0, 1.0),  # what can be crafted now
    "mask_equip": (SLOTS, 0.0, 1.0),  # slots that can be equipped from, placed from, destroyed
    "mask_place": (SLOTS, 0.0, 1.0),
    "mask_destroy": (SLOTS, 0.0, 1.0),
}


@dataclass
class Snapshot:
    """What an engine says of one tick.

    Attributes:
        rgb: (160, 256, 3) uint8.
        vectors: {name of `VECTORS`: float32}; a name that an engine knows nothing of is left out and reads 0.
        items: {item: how many the agent has}, such as {"milk_bucket": 1}.
        kills: {mob: how many the agent has killed since the game began}.
        dead: Whether the agent has died.
        success: Whether the engine's own check holds; None where it has none, and the task's `target` is looked at.
    """

    rgb: np.ndarray
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)
    kills: Mapping[str, int] = field(default_factory=dict)
    dead: bool = False
    success: bool | None = None


class Engine(Protocol):
    """A running game, or what stands for one. Made of a task and the seed of the world."""

    def reset(self, rng: np.random.Generator) -> Snapshot:
        """Begin an episode, drawing what is random about it; the game starts at the first one."""
        ...

    def step(self, action: np.ndarray) -> Snapshot:
        """Act for one tick: (8,) int64 of `ACTIONS`, its arguments allowed by the masks of the last snapshot."""
        ...

    def close(self) -> None:
        """End the game."""
        ...


def observation_space() -> gym.spaces.Dict:
    """Return the space of observations: "rgb" (3, 160, 256) uint8 as in MineDojo, and `VECTORS`."""
    spaces: dict[str, gym.Space] = {"rgb": gym.spaces.Box(0, 255, (3, *SIZE), np.uint8)}
    spaces |= {name: gym.spaces.Box(low, high, (n,), np.float32) for name, (n, low, high) in VECTORS.items()}
    return gym.spaces.Dict(spaces)


def observation(snapshot: Snapshot) -> dict[str, np.ndarray]:
    """Return the observation of a snapshot, numbers within their bounds."""
    found = {"rgb": np.ascontiguousarray(snapshot.rgb.transpose(2, 0, 1))}
    for name, (n, low, high) in VECTORS.items():
        values = snapshot.vectors.get(name)
        found[name] = np.zeros(n, np.float32) if values is None else np.clip(values, low, high).astype(np.float32)
    return found


def allowed(action: np.ndarray, vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return an action, (8,) int64, whose function does nothing where the masks say that it cannot be done.

    MineDojo raises an error for these, which a random agent meets in its first steps.
    """
    action = np.array(action, dtype=np.int64)
    function = int(action[FUNCTION])
    masks = {
        CRAFT: ("mask_craft_smelt", CRAFT_ARGUMENT),
        EQUIP: ("mask_equip", SLOT_ARGUMENT),
        PLACE: ("mask_place", SLOT_ARGUMENT),
        DESTROY: ("mask_destroy", SLOT_ARGUMENT),
    }
    if function in masks:
        name, argument = masks[function]
        mask = vectors.get(name)
        if mask is None or not mask[action[argument]]:
            action[FUNCTION] = NO_OP
    return action


def compass(yaw: float, pitch: float) -> np.ndarray:
    """Return the "view" of an observation for angles in degrees, (4,) float32."""
    angles = np.deg2rad([yaw, pitch])
    return np.array([np.sin(angles[0]), np.cos(angles[0]), np.sin(angles[1]), np.cos(angles[1])], dtype=np.float32)
