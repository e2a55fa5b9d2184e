"""Problem sets: films, and captions of which one is each film's own.

After ViSTa (Wybitul et al. 2024, arXiv 2411.13211): the level is the number of things that are done; in a permutation
set captions have the same things in other orders, in a remix some things are others. Here the simulator says what is
true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vlmrl.workflows.audit.sequences.skills import Logged, Stage, play

LEVELS = range(1, 9)
CAPTIONS = 4  # of a set, at most
FRAMES = 8  # of a skill, the way there and the rest after it
REMIX, PERMUTATION, EXACT = "remix", "permutation", "exact permutation"
KINDS = (REMIX, PERMUTATION, EXACT)


@dataclass(frozen=True)
class Film:
    """One film.

    Attributes:
        plan: Skills in the order in which they are seen.
        frames: (n, H, W, 3) uint8 RGB, n = `FRAMES` times their number.
    """

    plan: tuple[str, ...]
    frames: np.ndarray


@dataclass(frozen=True)
class ProblemSet:
    """Films and captions; film i is that of caption i.

    Attributes:
        level: Number of skills that are seen.
        kind: One of `KINDS`. In an exact permutation the films have the very same frames, cut where one skill ends and
            put together in other orders; in a permutation each order was acted.
        films: One for each caption, two or more.
    """

    level: int
    kind: str
    films: tuple[Film, ...]

    @property
    def plans(self) -> tuple[tuple[str, ...], ...]:
        """What the captions say, as names of skills."""
        return tuple(film.plan for film in self.films)


def draw_plan(names: Sequence[str], level: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw skills one after the other, none twice in a row; (level,) names."""
    plan: list[str] = []
    while len(plan) < level:
        name = names[int(rng.integers(len(names)))]
        if not plan or plan[-1] != name:
            plan.append(name)
    return tuple(plan)


def permutations_of(plan: Sequence[str], most: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return a plan and other orders of it, at most so many in all, in which nothing comes twice in a row."""
    found = {tuple(plan): None}
    for _ in range(50 * most):  # a plan such as a-b has only one other
        order = tuple(plan[i] for i in rng.permutation(len(plan)))
        if all(a != b for a, b in zip(order, order[1:], strict=False)):
            found[order] = None
        if len(found) == most:
            break
    return list(found)


def remixes_of(plan: Sequence[str], names: Sequence[str], most: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return a plan and others with some skills swapped for others, at most so many; no two have the same skills."""
    found = {tuple(sorted(plan)): tuple(plan)}
    for _ in range(50 * most):
        other = list(plan)
        for i in rng.permutation(len(plan))[: int(rng.integers(1, len(plan) + 1))]:
            other[i] = names[int(rng.integers(len(names)))]
        if all(a != b for a, b in zip(other, other[1:], strict=False)):
            found.setdefault(tuple(sorted(other)), tuple(other))
        if len(found) == most:
            break
    return list(found.values())


def problem_sets(
    stage: Stage, env: Any, levels: Sequence[int], sets: int, size: tuple[int, int], seed: int, progress: Any = iter
) -> list[ProblemSet]:
    """Act and film problem sets of each level: remixes from level 1 on, permutations of both kinds from level 2 on.

    Args:
        stage: Environment and skills.
        env: The environment, made with render_mode "rgb_array".
        levels: Numbers of skills.
        sets: Sets of each level and kind.
        size: (height, width) of the films in pixels.
        seed: Of everything.
        progress: Wraps what is gone through, as tqdm does.
    """
    names = list(stage.skills)
    found: list[ProblemSet] = []
    for level, number in progress([(level, number) for level in levels for number in range(sets)]):
        rng = np.random.default_rng((seed, level, number))  # a set is the same whatever others are asked for
        orders: list[tuple[str, ...]] = []
        while len(orders) < min(level, 2):  # a-b-a has no other order
            base = draw_plan(names, level, rng)
            orders = permutations_of(base, CAPTIONS, rng)

        def film(plan: Sequence[str], rng: np.random.Generator = rng) -> Film:
            return Film(tuple(plan), filmed(env, play(stage, env, plan, rng), size))

        mixes = remixes_of(base, names, CAPTIONS, rng)
        found.append(ProblemSet(level, REMIX, tuple(film(plan) for plan in mixes)))
        if level == 1:
            continue
        acted = tuple(film(plan) for plan in orders)
        found.append(ProblemSet(level, PERMUTATION, acted))
        found.append(ProblemSet(level, EXACT, tuple(spliced(acted[0], plan) for plan in orders)))
    return found


def filmed(env: Any, logged: Logged, size: tuple[int, int]) -> np.ndarray:
    """Draw `FRAMES` states of each skill, evenly spread up to its last, (n, H, W, 3) uint8 RGB."""
    starts = [0, *(logged.borders[:-1] + 1)]
    chosen = [int(round(t)) for a, b in zip(starts, logged.borders, strict=True) for t in np.linspace(a, b, FRAMES)]
    frames = []
    for t in chosen:
        env.unwrapped.state = logged.states[t]
        frame = env.render()
        fits = frame.shape[:2] == size
        frames.append(frame if fits else cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def spliced(film: Film, plan: Sequence[str]) -> Film:
    """Put the parts of a film together in another order of its skills; of equal skills the earlier part comes first."""
    parts = list(zip(film.plan, np.split(film.frames, len(film.plan)), strict=True))
    chosen = []
    for name in plan:
        place = next(i for i, (own, _) in enumerate(parts) if own == name)
        chosen.append(parts.pop(place)[1])
    return Film(tuple(plan), np.concatenate(chosen))
