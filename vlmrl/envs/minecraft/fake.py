"""A stand-in for the game: a meadow, one animal or monster, and the rules that the suite's tasks need.

It has the spaces of the live engines and needs no game, so that whatever is trained there can be tried and tested here.
It is drawn in flat colours and is no Minecraft: what a model says of its pictures means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vlmrl.envs.minecraft.engine import ATTACK, CAMERA_STEP, CAMERA_STILL, FUNCTION, SIZE, SLOTS, USE, Snapshot, compass
from vlmrl.envs.minecraft.tasks import MinecraftTask
from vlmrl.errors import UserError

EYE = 1.62  # blocks above the ground
FOCAL = 0.5 * SIZE[0] / np.tan(np.deg2rad(35))  # pixels, of the game's field of view of 70 degrees
WALK, SPRINT, SNEAK = 0.216, 0.281, 0.065  # blocks a tick
REACH = 3.0  # blocks, of what can be used or hit
COOLDOWN = 10  # ticks in which a mob that was hit cannot be hit again
ITEMS = ("air", "bucket", "milk_bucket", "shears", "wool", "wooden_sword", "beef", "leather")
DAMAGE = {"wooden_sword": 4.0}  # of a hit with it; 1 by hand


@dataclass(frozen=True)
class Kind:
    """A kind of mob: its health, half its width and its height in blocks, its colours, speed and what a bite takes."""

    health: float
    half_width: float
    height: float
    body: tuple[int, int, int]
    head: tuple[int, int, int]
    speed: float
    bite: float = 0.0


KINDS = {
    "cow": Kind(10.0, 0.45, 1.4, (70, 50, 38), (150, 145, 140), 0.05),
    "sheep": Kind(8.0, 0.45, 1.3, (225, 222, 215), (190, 150, 130), 0.05),
    "spider": Kind(16.0, 0.7, 0.9, (45, 38, 34), (120, 20, 20), 0.12, 2.0),
    "zombie": Kind(20.0, 0.3, 1.95, (40, 110, 120), (70, 120, 60), 0.1, 3.0),
}


class FakeEngine:
    """See this module and `engine.Engine`.

    Args:
        task: One of the suite's own.
        world_seed: Seed of the meadow: its colours and trees.

    Raises:
        UserError: The task needs the game.
    """

    def __init__(self, task: MinecraftTask, world_seed: int = 0):
        if task.goal is None or task.mob not in KINDS:
            raise UserError(
                f"The engine 'fake' knows the suite's own tasks, and '{task.id}' is one of MineDojo's: it needs the "
                "game, env.kwargs.engine=minedojo."
            )
        self._task = task
        self._kind = KINDS[task.mob]
        world = np.random.default_rng(world_seed)
        self._tint = world.integers(-12, 13, (64, 64, 1)).astype(np.float32)
        self._trees = world.uniform(-24, 24, (12, 2))
        self._trees = self._trees[np.linalg.norm(self._trees, axis=1) > 4]
        self._kills = 0

    def reset(self, rng: np.random.Generator) -> Snapshot:
        """Put the agent in the middle of the meadow and the mob some blocks off, in any direction."""
        self._rng = rng
        self._place = np.zeros(2)  # x and z
        self._yaw, self._pitch = float(rng.integers(24)) * CAMERA_STEP, 0.0
        bearing, distance = rng.uniform(0, 2 * np.pi), rng.uniform(4, 8)
        self._mob = distance * np.array([np.sin(bearing), np.cos(bearing)])
        self._heading = rng.uniform(0, 2 * np.pi)
        self._health, self._mob_health = 20.0, self._kind.health
        self._shorn = False
        self._tick = self._last_hit = 0
        self._items = {self._task.tool: 1} if self._task.tool else {}
        return self._snapshot()

    def step(self, action: np.ndarray) -> Snapshot:
        """Turn, walk, use or attack; then the mob moves."""
        self._tick += 1
        self._pitch = float(np.clip(self._pitch + (action[3] - CAMERA_STILL) * CAMERA_STEP, -90, 90))
        self._yaw = (self._yaw + (action[4] - CAMERA_STILL) * CAMERA_STEP) % 360
        ahead = np.array([np.sin(np.deg2rad(self._yaw)), np.cos(np.deg2rad(self._yaw))])
        right = np.array([ahead[1], -ahead[0]])
        speed = {2: SNEAK, 3: SPRINT}.get(int(action[2]), WALK)
        self._place = self._place + speed * ((0, 1, -1)[action[0]] * ahead + (0, -1, 1)[action[1]] * right)
        if self._mob_health > 0:
            if self._aimed(ahead):
                self._act(int(action[FUNCTION]))
            self._move_mob()
        return self._snapshot()

    def close(self) -> None:
        """There is nothing to end."""

    def _aimed(self, ahead: np.ndarray) -> bool:
        """Whether the mob is within reach and under the cross-hairs."""
        offset = self._mob - self._place
        distance = float(np.linalg.norm(offset))
        if distance > REACH:
            return False
        across = abs(float(offset[0] * ahead[1] - offset[1] * ahead[0]))
        along = float(offset @ ahead)
        height = EYE - max(along, 0.1) * np.tan(np.deg2rad(self._pitch))  # of the line of sight there; down is positive
        return along > 0 and across < self._kind.half_width + 0.15 and -0.3 < height < self._kind.height + 0.5

    def _act(self, function: int) -> None:
        task = self._task
        if function == USE and task.goal == "item" and task.tool in self._items:
            if task.mob == "cow":
                self._items = {"milk_bucket": 1}
            elif not self._shorn:
                self._shorn = True
                self._items = {**self._items, "wool": 1 + int(self._rng.integers(3))}
        if function == ATTACK and self._tick - self._last_hit >= COOLDOWN:
            self._last_hit = self._tick
            self._mob_health -= DAMAGE.get(task.tool, 1.0)
            if self._mob_health <= 0:
                self._kills += 1

    def _move_mob(self) -> None:
        kind, offset = self._kind, self._place - self._mob
        distance = float(np.linalg.norm(offset))
        if kind.bite and distance > 1.2:
            self._mob = self._mob + kind.speed * offset / distance
        elif kind.bite:
            if self._tick % 20 == 0:
                self._health -= kind.bite * (0.7 if self._task.armor else 1.0)
        elif self._mob_health > 0:
            if self._rng.uniform() < 0.02:
                self._heading = self._rng.uniform(0, 2 * np.pi)
            self._mob = self._mob + kind.speed * np.array([np.sin(self._heading), np.cos(self._heading)])

    def _snapshot(self) -> Snapshot:
        slots = np.zeros(SLOTS, np.float32)
        for i, count in enumerate(self._items.values()):
            slots[i] = count
        held = (slots > 0).astype(np.float32)
        light = 4.0 if self._task.night else 15.0
        solid = np.zeros((3, 3, 3), np.float32)
        solid[:, 0] = 1.0  # the ground
        vectors = {
            "life_stats": np.array([max(self._health, 0), 20, 5, 300, 7 if self._task.armor else 0, 0]),
            "position": np.array([self._place[0], 64, self._place[1]]),
            "view": compass(self._yaw, self._pitch),
            "surroundings": np.array([light, light / 15, light / 15, 0.4, 0.8, 0]),
            "voxels": np.concatenate([solid.ravel(), np.zeros(27), solid.ravel()]),
            "inventory": slots,
            "mask_action_type": np.array([1, 1, 1, 1, 0, held.any(), 0, held.any()]),
            "mask_equip": held,
            "mask_destroy": held,
        }
        return Snapshot(self._draw(), vectors, dict(self._items), {self._task.mob: self._kills}, dead=self._health <= 0)

    def _draw(self) -> np.ndarray:
        """Draw the meadow as the agent sees it, (160, 256, 3) uint8 RGB."""
        height, width = SIZE
        across = (np.arange(width, dtype=np.float32) - width / 2 + 0.5) / np.float32(FOCAL)
        down = (np.arange(height, dtype=np.float32)[:, None] - height / 2 + 0.5) / np.float32(FOCAL)
        pitch, yaw = np.deg2rad(self._pitch), np.deg2rad(self._yaw)
        forward = (np.cos(pitch) - down * np.sin(pitch)).astype(np.float32)
        sink = (np.sin(pitch) + down * np.cos(pitch)).astype(np.float32)
        ground = sink[:, 0] > 0.01  # rows of the picture
        far = np.float32(EYE) / np.where(ground[:, None], sink, 1.0)  # blocks from the eye, (height, 1)
        x = self._place[0] + far * (forward * np.sin(yaw) + across * np.cos(yaw))
        z = self._place[1] + far * (forward * np.cos(yaw) - across * np.sin(yaw))
        tint = self._tint[np.floor(x).astype(np.int16) % 64, np.floor(z).astype(np.int16) % 64]
        grass = (np.array([92, 142, 60], np.float32) + tint) * np.exp(-np.minimum(far, 60) / 90)[..., None]
        sky = np.array([120, 167, 255], np.float32) * np.linspace(0.8, 1, height, dtype=np.float32)[:, None, None]
        dark = 0.35 if self._task.night else 1.0
        picture = dark * np.where(ground[:, None, None], grass, sky)
        canvas = np.ascontiguousarray(picture.astype(np.uint8))
        things = [(place, 0.4, 4.5, (102, 81, 50), (58, 95, 30)) for place in self._trees]
        if self._mob_health > 0:
            kind = self._kind
            things.append((self._mob, kind.half_width, kind.height, kind.body, kind.head))
        for place, half, tall, body, head in sorted(things, key=lambda t: -float(np.sum((t[0] - self._place) ** 2))):
            self._draw_thing(canvas, place, half, tall, body, head, dark)
        for i, item in enumerate(self._items):
            shade = 255 - 24 * ITEMS.index(item)
            cv2.rectangle(canvas, (110 + 14 * i, 148), (120 + 14 * i, 158), (shade, shade, 160), -1)
        cv2.line(canvas, (width // 2 - 4, height // 2), (width // 2 + 4, height // 2), (255, 255, 255), 1)
        cv2.line(canvas, (width // 2, height // 2 - 4), (width // 2, height // 2 + 4), (255, 255, 255), 1)
        return canvas

    def _draw_thing(
        self,
        canvas: np.ndarray,
        place: np.ndarray,
        half: float,
        tall: float,
        body: tuple[int, int, int],
        head: tuple[int, int, int],
        dark: float,
    ) -> None:
        """Draw something upright as two rectangles that face the agent: the upper third is its head, or its leaves."""
        yaw, pitch = np.deg2rad(self._yaw), np.deg2rad(self._pitch)
        offset = place - self._place
        along = float(offset[0] * np.sin(yaw) + offset[1] * np.cos(yaw))
        across = float(offset[0] * np.cos(yaw) - offset[1] * np.sin(yaw))

        def project(rightward: float, upward: float) -> tuple[int, int] | None:
            sink = EYE - upward
            depth = along * np.cos(pitch) + sink * np.sin(pitch)
            if depth < 0.2:
                return None
            lower = sink * np.cos(pitch) - along * np.sin(pitch)
            column, row = SIZE[1] / 2 + FOCAL * rightward / depth, SIZE[0] / 2 + FOCAL * lower / depth
            return int(np.clip(column, -2000, 2000)), int(np.clip(row, -2000, 2000))

        for bottom, top, widened, colour in ((0.0, 0.67 * tall, half, body), (0.67 * tall, tall, 0.8 * half, head)):
            corners = project(across - widened, top), project(across + widened, bottom)
            if corners[0] is not None and corners[1] is not None:
                cv2.rectangle(canvas, corners[0], corners[1], tuple(int(dark * part) for part in colour), -1)
