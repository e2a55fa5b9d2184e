"""OpenSimplex noise for many points at once, as the package `opensimplex` gives it for one.

Source: Kurt Spencer's OpenSimplex noise (2014), whose constants and permutations come from the package. Noise at a
point is the sum over vertices of a lattice, each a gradient times the way to it, weighted by (2 - distance^2)^4 where
that is positive. Which vertices count is part of the definition: those of the cell (4 or 6), and 2 others that are
chosen by where in the cell the point is. Where several choices tie, the first in the package's order of asking is
taken: points on the diagonals of a map tie all the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

UNIT = np.eye(3, dtype=np.int64)
# Vertices of a cell, in the order of their three regions: near (0, 0, 0), in between, near (1, 1, 1).
NEAR = np.concatenate([np.zeros((1, 3), dtype=np.int64), UNIT])
FAR = 1 - NEAR
BETWEEN = np.concatenate([UNIT, 1 - UNIT])


def noise3(noise: Any, points: np.ndarray) -> np.ndarray:
    """Evaluate noise.

    Args:
        noise: An `opensimplex.OpenSimplex`.
        points: (n, 3) float64.

    Returns:
        (n,) float64, about -1 to 1; equal to `noise.noise3` of each point but for the last digits.
    """
    from opensimplex.constants import GRADIENTS3, NORM_CONSTANT3, SQUISH_CONSTANT3, STRETCH_CONSTANT3

    stretched = points + (points.sum(axis=1) * STRETCH_CONSTANT3)[:, None]
    cell = np.floor(stretched).astype(np.int64)
    inside = stretched - cell
    away = points - (cell + (cell.sum(axis=1) * SQUISH_CONSTANT3)[:, None])
    permutation, starts = noise._perm, noise._perm_grad_index3  # the package has no other way to them
    gradients = GRADIENTS3

    total = inside.sum(axis=1)
    value = np.zeros(len(points))
    for region, cells, further in (
        (total <= 1, NEAR, _beyond_near),
        ((total > 1) & (total < 2), BETWEEN, _beyond_between),
        (total >= 2, FAR, lambda part: [1 - vertices for vertices in _beyond_near(1 - part)]),
    ):
        where = np.flatnonzero(region)
        origins, ways = cell[where].T.copy(), away[where].T.copy()  # by axis: numpy is slow along short rows
        sums = np.zeros(len(where))
        for vertices in [*cells, *further(inside[where])]:
            steps = np.broadcast_to(vertices, (len(where), 3)).T
            back = steps.sum(axis=0) * SQUISH_CONSTANT3
            x, y, z = (ways[k] - (steps[k] + back) for k in range(3))
            reach = 2 - x * x - y * y - z * z
            near = np.flatnonzero(reach > 0)
            i, j, k = origins[:, near] + steps[:, near]
            chosen = starts[(permutation[(permutation[i & 255] + j) & 255] + k) & 255]
            slope = gradients[chosen] * x[near] + gradients[chosen + 1] * y[near] + gradients[chosen + 2] * z[near]
            sums[near] += np.square(np.square(reach[near])) * slope
        value[where] = sums
    value /= NORM_CONSTANT3
    # At vertices noise is 0, and the side of 0 on which its last digits fall makes a tree: there the package decides.
    for i in np.flatnonzero(np.abs(value) < 1e-9).tolist():
        value[i] = noise.noise3(*points[i].tolist())
    return value


def _beyond_near(inside: np.ndarray) -> list[np.ndarray]:
    """Choose two more vertices for points near (0, 0, 0) of their cell, each (n, 3) int64.

    Args:
        inside: (n, 3) float64, where in the cell they are, 0 to 1, summing up to at most 1.
    """
    least = np.array([2, 1, 0])[inside[:, [2, 1, 0]].argmin(axis=1)]
    most = np.array([0, 2, 1])[inside[:, [0, 2, 1]].argmax(axis=1)]
    second = np.sort(inside, axis=1)[:, 1]
    origin_counts = (1 - inside.sum(axis=1) > second)[:, None]
    others = np.array([[1, 2], [0, 2], [0, 1]])[most]
    along = [UNIT[most] - UNIT[others[:, i]] for i in range(2)]
    across = [1 - UNIT[least], 1 - 2 * UNIT[least]]
    return [np.where(origin_counts, a, b) for a, b in zip(along, across, strict=True)]


def _beyond_between(inside: np.ndarray) -> list[np.ndarray]:
    """Choose two more vertices for points in between; see `_beyond_near`."""
    x, y, z = inside.T
    pairs = np.stack([y + z, x + z, x + y], axis=1)  # entry k without axis k
    is_far: np.ndarray = np.asarray(pairs > 1)
    scores = np.abs(pairs - 1)
    left_out = np.array([0, 2, 1])[scores[:, [0, 2, 1]].argmin(axis=1)]
    kept = np.array([[1, 2], [0, 2], [0, 1]])[left_out]
    rows = np.arange(len(inside))
    far = np.stack([is_far[rows, kept[:, i]] for i in range(2)], axis=1)
    both, neither = (far.sum(axis=1)[:, None] == count for count in (2, 0))
    farther, nearer = (np.where(side, kept[:, 0], kept[:, 1]) for side in (far[:, 0], ~far[:, 0]))
    first = np.where(both, 1, np.where(neither, 0, 1 - 2 * UNIT[farther]))
    second = np.where(both, 2 * UNIT[left_out], np.where(neither, 1 - 2 * UNIT[left_out], 2 * UNIT[nearer]))
    return [first, second]
