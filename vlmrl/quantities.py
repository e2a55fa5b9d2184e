"""What programs may read of a simulator: named, typed numbers with units, and how they lie in one flat vector.

An environment describes itself as a tree of groups (`state.bodies.torso.position`); a row carries the numbers of all of
them in one float64 vector, and whoever runs a program finds each by its place there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

Path = tuple[str, ...]


@dataclass(frozen=True)
class Quantity:
    """A number, vector or matrix of the simulator.

    Attributes:
        name: Its name within its group, a Python identifier.
        meaning: What it is and in which unit, in words.
        shape: Shape for one environment: () a number, (3,) a vector, (3, 3) a matrix.
        start: Where it begins in the flat vector.
    """

    name: str
    meaning: str
    shape: tuple[int, ...] = ()
    start: int = 0

    @property
    def size(self) -> int:
        """How many numbers it is made of."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Group:
    """Quantities that belong together: a body, a joint, all bodies.

    Attributes:
        name: Its name within the group above.
        kind: Name of its class; groups of one kind have members of the same names and shapes.
        meaning: What this one is.
        members: What it holds.
    """

    name: str
    kind: str
    meaning: str
    members: tuple[Group | Quantity, ...]


@dataclass(frozen=True)
class Abstraction:
    """All that a program is told of an environment, and nothing of the environment's own reward.

    Attributes:
        name: Id of the environment, such as "vlmrl/Humanoid-v0".
        dt: Seconds of a time step; None where the environment counts steps only.
        state: The tree.
        action: A line for each entry of an action.
        notes: Sentences on axes, the start of an episode, and the like.
        size: Length of the flat vector.
    """

    name: str
    dt: float | None
    state: Group
    action: tuple[str, ...]
    notes: tuple[str, ...]
    size: int

    def leaves(self) -> Iterator[tuple[Path, Quantity]]:
        """Yield every quantity with its path, such as ("bodies", "torso", "position")."""
        yield from _leaves(self.state, ())

    def narrowed(self, paths: Collection[Path]) -> tuple[Abstraction, np.ndarray]:
        """Return the abstraction of some of the quantities, in the same order, in a shorter vector of their own.

        Args:
            paths: Paths of leaves, as `leaves` gives them.

        Returns:
            The abstraction, and for each place of its vector the place in this one, (size,) int64.
        """
        chosen = sorted((leaf.start, leaf.size, path) for path, leaf in self.leaves() if path in paths)
        starts, size = {}, 0
        for _, length, path in chosen:
            starts[path], size = size, size + length
        places = [place for start, length, _ in chosen for place in range(start, start + length)]
        return replace(self, state=_narrowed(self.state, (), starts), size=size), np.array(places, dtype=np.int64)

    @property
    def signature(self) -> str:
        """SHA-256, hex, of all names and shapes: a program that fits one environment fits all with this signature."""
        names = sorted((list(path), list(leaf.shape)) for path, leaf in self.leaves())
        return hashlib.sha256(json.dumps([names, len(self.action)]).encode()).hexdigest()

    def text(self) -> str:
        """Write the tree as typed Python classes, for a prompt; classes that others use come first."""
        classes: dict[str, Group] = {}
        _collect(self.state, classes)
        return "\n\n".join(_class_text(group) for group in classes.values())


def _leaves(group: Group, path: Path) -> Iterator[tuple[Path, Quantity]]:
    for member in group.members:
        if isinstance(member, Group):
            yield from _leaves(member, (*path, member.name))
        else:
            yield (*path, member.name), member


def _narrowed(group: Group, path: Path, starts: dict[Path, int]) -> Group:
    """Return a group with the leaves that have a start, and without the groups that are left empty."""
    members: list[Group | Quantity] = []
    for member in group.members:
        own = (*path, member.name)
        if isinstance(member, Group):
            inner = _narrowed(member, own, starts)
            members += [inner] if inner.members else []
        elif own in starts:
            members.append(replace(member, start=starts[own]))
    return replace(group, members=tuple(members))


def _collect(group: Group, classes: dict[str, Group]) -> None:
    for member in group.members:
        if isinstance(member, Group):
            _collect(member, classes)
    classes.setdefault(group.kind, group)


def _class_text(group: Group) -> str:
    lines = [f"class {group.kind}:"]
    for member in group.members:
        kind = member.kind if isinstance(member, Group) else "np.ndarray"
        shape = "" if isinstance(member, Group) else f"({', '.join(['N', *map(str, member.shape)])}{_comma(member)}) "
        lines.append(f"    {member.name}: {kind}  # {shape}{member.meaning}")
    return "\n".join(lines)


def _comma(quantity: Quantity) -> str:
    return "," if not quantity.shape else ""
