"""Crafter's game without the waiting: the same worlds, rules and pictures as the package `crafter`, many times as fast.

Where the package's time goes, and what is done about it here:

| what | the package | here |
| --- | --- | --- |
| a world | 27,000 points of noise, one by one in Python: most of the time of random play | all at once |
| a picture a step | 63 tiles cut, blended and written one by one, seen or not | drawn when asked for, of kept tiles |
| what moves | a distance in numpy for each object of the map | all distances at once |
| balance | two grids built for each chunk and kind of creature | built where a creature is to come |

The rules themselves (`crafter.objects`) are the package's. Random numbers are drawn in its order, those of the
picture's noise at night among them, so that a seed and actions give the same episode. One thing is not the same: which
of several creatures disappears follows, in the package, from an order of objects by their addresses in memory, so that
its own episodes cannot be repeated in another process. Here it is the order in which they came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import opensimplex
from crafter import constants, engine, objects
from crafter import env as package

from vlmrl.envs.crafter_noise import noise3

VIEW = (9, 9)  # tiles of a picture, of which the two lower rows are the inventory
LOCAL = (9, 7)
STANDARD = (64, 64)  # pixels of the package's picture, whose noise at night is drawn from the game's random numbers
NEAR = 2 * max(VIEW)  # tiles up to which things move, |dx| + |dy|


class OrderedSet(dict[Any, None]):
    """A set that keeps the order in which its members came."""

    def add(self, member: Any) -> None:
        """Add a member; one that is there keeps its place."""
        self[member] = None

    def remove(self, member: Any) -> None:
        """Remove a member.

        Raises:
            KeyError: It is not there.
        """
        del self[member]


class World(engine.World):
    """A world whose chunks keep the order of their objects, and whose tiles are looked up faster."""

    def reset(self, seed: int | None = None) -> None:
        """Empty it."""
        super().reset(seed)
        self._chunks: defaultdict[tuple[int, ...], OrderedSet] = defaultdict(OrderedSet)

    def __getitem__(self, place: Any) -> tuple[Any, Any]:
        x, y = place
        if 0 <= x < self.area[0] and 0 <= y < self.area[1]:
            return self._mat_names[self._mat_map[x, y]], self._objects[self._obj_map[x, y]]
        return None, None

    def seen(self, centre: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, Any]]]:
        """Return what lies around a place.

        Args:
            centre: (2,) int, the player's place.

        Returns:
            (9, 7) int64 numbers of materials, -1 beyond the edge of the world, and the objects there, each with its
            column and row, in the order of columns.
        """
        (x0, y0), (w, h) = centre - np.array(LOCAL) // 2, LOCAL
        left, top = max(x0, 0), max(y0, 0)
        right, bottom = min(x0 + w, self.area[0]), min(y0 + h, self.area[1])
        materials = np.full(LOCAL, -1, dtype=np.int64)
        materials[left - x0 : right - x0, top - y0 : bottom - y0] = self._mat_map[left:right, top:bottom]
        there = self._obj_map[left:right, top:bottom]
        found = [
            (int(x) + left - x0, int(y) + top - y0, self._objects[there[x, y]])
            for x, y in zip(*there.nonzero(), strict=True)
        ]
        return materials, found


class LocalView(engine.LocalView):
    """The upper part of a picture, put together from tiles that were drawn once.

    Args:
        world: The world.
        textures: The package's textures.
    """

    def __init__(self, world: World, textures: engine.Textures):
        super().__init__(world, textures, LOCAL)
        self._tiles: dict[tuple[Any, ...], np.ndarray] = {}
        self.noise: np.ndarray | None = None  # (63, 49) float64, of the standard picture; None by day

    def __call__(self, player: Any, unit: Any) -> np.ndarray:
        """Draw what is around the player.

        Args:
            player: The player.
            unit: (2,) int, pixels of a tile.

        Returns:
            (9 unit, 7 unit, 3) float64, columns first, 0 to 255.
        """
        self._unit = unit = np.array(unit)
        size = (int(unit[0]), int(unit[1]))
        materials, found = self._world.seen(player.pos)
        tiles = self._materials(size)[materials]
        for x, y, thing in found:
            tiles[x, y] = self._thing(thing.texture, int(materials[x, y]), size)
        canvas = tiles.transpose(0, 2, 1, 3, 4).reshape(LOCAL[0] * size[0], LOCAL[1] * size[1], 3)
        canvas = self._light(canvas, self._world.daylight)
        return self._sleep(canvas) if player.sleeping else canvas

    def _materials(self, size: tuple[int, int]) -> np.ndarray:
        """Tiles of all materials by their numbers, the last one beyond the edge of the world."""
        if size not in self._tiles:
            names = self._world._mat_names
            tiles = np.full((len(names) + 1, *size, 3), 127, dtype=np.uint8)
            for number, name in names.items():
                tiles[number] = self._textures.get(name, size)[..., :3]
            self._tiles[size] = tiles
        return self._tiles[size]

    def _thing(self, texture: str, material: int, size: tuple[int, int]) -> np.ndarray:
        """A thing upon a material."""
        key = (texture, material, size)
        if key not in self._tiles:
            tile = self._materials(size)[material].copy()
            engine._draw_alpha(tile, np.zeros(2, dtype=int), self._textures.get(texture, size))
            self._tiles[key] = tile
        return self._tiles[key]

    def _noise(self, canvas: np.ndarray, amount: float, stddev: float) -> np.ndarray:
        """Darken a picture by night: the package's, with the noise that was drawn as the step was taken."""
        assert self.noise is not None
        standard = np.array(STANDARD) // VIEW
        # A larger picture has the same noise in larger dots.
        columns, rows = (
            np.arange(tiles * unit) * own // unit for tiles, unit, own in zip(LOCAL, self._unit, standard, strict=True)
        )
        mask = amount * self._vignette(canvas.shape, stddev)[..., None]
        return (1 - mask) * canvas + mask * self.noise[np.ix_(columns, rows)][..., None]


class ItemView(engine.ItemView):
    """The lower part of a picture: the inventory, each item and amount drawn once."""

    def __init__(self, textures: engine.Textures):
        super().__init__(textures, [VIEW[0], VIEW[1] - LOCAL[1]])
        self._one = engine.ItemView(textures, [1, 1])
        self._tiles: dict[tuple[str, int, int, int], np.ndarray] = {}

    def __call__(self, inventory: dict[str, int], unit: Any) -> np.ndarray:
        """Draw it, (9 unit, 2 unit, 3) uint8, columns first."""
        w, h = int(unit[0]), int(unit[1])
        canvas = np.zeros((self._grid[0] * w, self._grid[1] * h, 3), np.uint8)
        for index, (item, amount) in enumerate(inventory.items()):
            if amount < 1:
                continue
            key = (item, amount, w, h)
            if key not in self._tiles:
                self._tiles[key] = self._one({item: amount}, unit)
            row, column = divmod(index, int(self._grid[0]))
            canvas[column * w : (column + 1) * w, row * h : (row + 1) * h] = self._tiles[key]
        return canvas


class Game(package.Env):
    """The game; `crafter.Env` without the pictures that nobody asks for.

    Its length is not limited, and the rewards are the package's.
    """

    def __init__(self) -> None:
        super().__init__(area=(64, 64), view=VIEW, size=STANDARD, length=None, seed=0)
        self._world = World((64, 64), constants.materials, (12, 12))
        self._local_view = LocalView(self._world, self._textures)
        self._item_view = ItemView(self._textures)

    @property
    def world(self) -> World:
        """The world."""
        return self._world

    @property
    def player(self) -> Any:
        """The player, a `crafter.objects.Player`."""
        return self._player

    def start(self, seed: int) -> None:
        """Start the episode that is the first of `crafter.Env(seed=seed)`."""
        world = self._world
        centre = (world.area[0] // 2, world.area[1] // 2)
        self._step = 0
        world.reset(seed=hash((seed, 1)) % (2**31 - 1))
        self._update_time()
        self._player = objects.Player(world, centre)
        self._last_health = self._player.health
        world.add(self._player)
        self._unlocked: set[str] = set()
        generate_world(world, self._player)
        self._draw_noise()

    def advance(self, action: int) -> tuple[float, bool]:
        """Take a step.

        Args:
            action: 0 to 16, see `crafter.constants.actions`.

        Returns:
            The package's reward, and whether the player died.
        """
        self._step += 1
        self._update_time()
        player = self._player
        player.action = constants.actions[action]
        _, *others = self._world.objects  # the player is the first
        player.update()
        # Nothing but the player has moved, and what follows moves itself alone: places stay as they are until asked.
        places = np.array([thing.pos for thing in others]).reshape(-1, 2)
        near = np.abs(places - player.pos).sum(axis=1) < NEAR
        for thing, moves in zip(others, near.tolist(), strict=True):
            if moves:
                thing.update()
        if self._step % 10 == 0:
            for chunk, things in self._world.chunks.items():
                self._balance_chunk(chunk, things)
        self._draw_noise()
        reward = (player.health - self._last_health) / 10
        self._last_health = player.health
        unlocked = {name for name, count in player.achievements.items() if count > 0} - self._unlocked
        if unlocked:
            self._unlocked |= unlocked
            reward += 1.0
        return reward, player.health <= 0

    def set_clock(self, step: int) -> None:
        """Make it another time of the day, which has 300 steps; the night is at its end."""
        self._step = step
        self._update_time()
        self._draw_noise()

    def _draw_noise(self) -> None:
        """Draw the noise of a night's picture, as the package does with the picture of each step."""
        dark = self._world.daylight < 0.5
        shape = tuple(np.array(LOCAL) * (np.array(STANDARD) // VIEW))
        self._local_view.noise = self._world.random.uniform(32, 127, shape) if dark else None

    def _balance_object(
        self,
        chunk: tuple[int, int, int, int],
        objs: Iterable[Any],
        cls: type,
        material: str,
        span_dist: int,
        despan_dist: int,
        spawn_prob: float,
        despawn_prob: float,
        ctor: Any,
        target_fn: Any,
    ) -> None:
        """Let creatures come and go, as the package does."""
        world, random = self._world, self._world.random
        creatures = [thing for thing in objs if isinstance(thing, cls)]
        mask = world.mask(*chunk, material)
        least, most = target_fn(len(creatures), np.count_nonzero(mask))
        if len(creatures) < int(least) and random.uniform() < spawn_prob:
            columns, rows = mask.nonzero()
            i = random.randint(0, len(columns))
            place = np.array((columns[i] + chunk[0], rows[i] + chunk[2]))
            if world[place][1] is None and self._player.distance(place) >= span_dist:
                world.add(ctor(place))
        elif len(creatures) > int(most) and random.uniform() < despawn_prob:
            creature = creatures[random.randint(0, len(creatures))]
            if self._player.distance(creature.pos) >= despan_dist:
                world.remove(creature)


def generate_world(world: World, player: Any) -> None:
    """Fill a world as `crafter.worldgen.generate_world` does, with its noise computed at once.

    Args:
        world: An empty one, with the player in it.
        player: The player.
    """
    noise = opensimplex.OpenSimplex(seed=world.random.randint(0, 2**31 - 1))
    width, height = world.area
    xs, ys = (grid.reshape(-1) for grid in np.meshgrid(np.arange(width), np.arange(height), indexing="ij"))

    def layered(z: int, sizes: dict[float, float], x: np.ndarray = xs, y: np.ndarray = ys) -> np.ndarray:
        layers = [
            weight * noise3(noise, np.stack([x / size, y / size, np.full(len(x), float(z))], axis=1))
            for size, weight in sizes.items()
        ]
        return np.sum(layers, axis=0)

    far = np.sqrt((xs - player.pos[0]) ** 2 + (ys - player.pos[1]) ** 2)
    start = 1 / (1 + np.exp(-(4 - far + 2 * layered(8, {3: 1}))))
    water = layered(3, {15: 1, 5: 0.15}) + 0.1 - 2 * start
    mountain = layered(0, {15: 1, 5: 0.3}) / 1.3 - (4 * start + 0.3 * water)
    high = (start <= 0.5) & (mountain > 0.15)
    low = (start <= 0.5) & ~high

    def where(mask: np.ndarray, z: int, size: float, stretch: tuple[float, float] = (1, 1)) -> np.ndarray:
        """Noise at the tiles of a mask, 0 elsewhere."""
        values = np.zeros(len(xs))
        values[mask] = layered(z, {size: 1}, xs[mask] * stretch[0], ys[mask] * stretch[1])
        return values

    caves = high & (where(high, 6, 7) > 0.15) & (mountain > 0.3)
    across = high & ~caves & (where(high, 7, 3, (2, 1 / 5)) > 0.4)
    down = high & ~caves & ~across & (where(high, 7, 3, (1 / 5, 2)) > 0.4)
    tunnels = across | down
    rock = high & ~caves & ~tunnels
    sand = low & (water > 0.25) & (water <= 0.35) & (where(low, 4, 9) > -0.2)
    wet = low & ~sand & (water > 0.3)
    green = low & ~sand & ~wet
    woods = green & (where(green, 5, 7) > 0)

    number = world._mat_ids
    tiles = np.full(len(xs), number["grass"], dtype=np.uint8)
    tiles[caves | tunnels] = number["path"]
    tiles[sand], tiles[wet] = number["sand"], number["water"]
    coal, iron = where(rock, 1, 8) > 0, where(rock, 2, 6) > 0.4
    lava = (mountain > 0.3) & (where(rock, 6, 5) > 0.35)
    uniform = world.random.uniform
    for i in np.flatnonzero(rock | woods).tolist():  # tile by tile, so that random numbers come in the package's order
        if woods[i]:
            name = "tree" if uniform() > 0.8 else "grass"
        elif coal[i] and uniform() > 0.85:
            name = "coal"
        elif iron[i] and uniform() > 0.75:
            name = "iron"
        elif mountain[i] > 0.18 and uniform() > 0.994:
            name = "diamond"
        else:
            name = "lava" if lava[i] else "stone"
        tiles[i] = number[name]
    world._mat_map[:] = tiles.reshape(world.area)
    _add_creatures(world, player, tiles, far, tunnels)


def _add_creatures(world: World, player: Any, tiles: np.ndarray, far: np.ndarray, tunnels: np.ndarray) -> None:
    """Put cows, zombies and skeletons into a new world.

    Args:
        world: The world.
        player: The player.
        tiles: (n,) uint8 numbers of the materials of all tiles.
        far: (n,) float64 distances from the player.
        tunnels: (n,) bool, whether skeletons live there.
    """
    uniform = world.random.uniform
    number = world._mat_ids
    grass, path = tiles == number["grass"], tiles == number["path"]
    walkable = np.isin(tiles, [number[name] for name in constants.walkable])
    for i in np.flatnonzero(walkable).tolist():
        place = divmod(i, world.area[1])
        if far[i] > 3 and grass[i] and uniform() > 0.985:
            world.add(objects.Cow(world, place))
        elif far[i] > 10 and uniform() > 0.993:
            world.add(objects.Zombie(world, place, player))
        elif path[i] and tunnels[i] and uniform() > 0.95:
            world.add(objects.Skeleton(world, place, player))
