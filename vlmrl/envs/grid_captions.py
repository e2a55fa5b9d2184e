"""What happens in a MiniGrid world, in sentences: the text that language-model rewards read.

MiniGrid itself says nothing but its mission. Here the change from one state to the next is put into words, as an agent
would be told it: what it takes up, opens, walks through or bumps into, and what comes into its view. A sentence says
what happened and not whether that was wanted, so no reward leaks into it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

THINGS = ("ball", "box", "key")  # can be carried
NOTABLE = (*THINGS, "door")  # standing before one is worth a sentence
NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class GridCaptions:
    """Follows one episode of a `MiniGridEnv` and puts each step into words.

    Call `start` after a reset, then `before` and `after` around each step. What happened comes first, what came into
    view last; a thing is new to the eye once an episode, by its description. A step at which nothing happens has the
    empty text.
    """

    def start(self, env: Any, image: np.ndarray) -> str:
        """Begin an episode.

        Args:
            env: The `MiniGridEnv`, after its reset.
            image: (n, n, 3) uint8, what the agent sees: type, colour and state of each cell.

        Returns:
            What is in view from the start.
        """
        self._seen: set[str] = set()
        self.before(env)
        return _joined(self._sights(env, image))

    def before(self, env: Any) -> None:
        """Remember what the next step may change."""
        self._position = tuple(env.agent_pos)
        self._carried = env.carrying
        self._front = env.grid.get(*env.front_pos)
        self._front_state = _state(self._front)

    def after(self, env: Any, image: np.ndarray, action: int) -> str:
        """Say what the step has changed.

        Args:
            env: The `MiniGridEnv`, after its step.
            image: (n, n, 3) uint8, what the agent sees now.
            action: What it did, an action of MiniGrid.

        Returns:
            Sentences without capitals, joined by "; ".
        """
        events = [*self._hands(env), *self._toggled(env, action), *self._walked(env, action), *self._facing(env)]
        return _joined([*events, *self._sights(env, image)])

    def _hands(self, env: Any) -> list[str]:
        """What was picked up or put down."""
        if env.carrying is self._carried:
            return []
        if env.carrying is not None:
            return [f"you pick up the {_name(env.carrying)}"]
        x, y = env.front_pos
        beside = [
            env.grid.get(x + dx, y + dy)
            for dx, dy in NEIGHBOURS
            if 0 <= x + dx < env.grid.width and 0 <= y + dy < env.grid.height
        ]
        names = sorted({f"the {_name(thing)}" for thing in beside if thing is not None and thing.type in NOTABLE})
        where = f" next to {' and '.join(names)}" if names else ""
        return [f"you put down the {_name(self._carried)}{where}"]

    def _toggled(self, env: Any, action: int) -> list[str]:
        """What became of a door or a box."""
        if action != env.actions.toggle or self._front is None:
            return []
        name = _name(self._front)
        if self._front.type == "box":
            inside = self._front.contains
            return [f"you open the {name}: it holds {_a(inside)}" if inside else f"you open the {name}: it is empty"]
        if self._front.type != "door":
            return []
        before, now = self._front_state, _state(self._front)
        if before == now:
            return [f"the {name} is locked"]
        if before == "locked":
            return [f"you unlock the {name} with the {_name(env.carrying)}"]
        return [f"you {'open' if now == 'open' else 'close'} the {name}"]

    def _walked(self, env: Any, action: int) -> list[str]:
        """Where a step forward led, where it led to something."""
        if action != env.actions.forward:
            return []
        if tuple(env.agent_pos) == self._position:
            obstacle = self._front or env.grid.get(*env.front_pos)
            return [f"{_a(obstacle)} is in your way"] if obstacle is not None else []
        cell = env.grid.get(*env.agent_pos)
        if cell is None:
            return []
        sentences = {
            "door": f"you walk through the {_name(cell)}",
            "goal": f"you reach the {_name(cell)}",
            "lava": "you fall into the lava",
        }
        return [sentences[cell.type]] if cell.type in sentences else []

    def _facing(self, env: Any) -> list[str]:
        """What the agent now stands before, unless it did so already or put it there."""
        front = env.grid.get(*env.front_pos)
        if front is None or front is self._front or front is self._carried or front.type not in NOTABLE:
            return []
        return [f"you stand before the {_name(front)}"]

    def _sights(self, env: Any, image: np.ndarray) -> list[str]:
        """What is in view for the first time in this episode, in the order of the alphabet."""
        from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

        seen = image.copy()
        seen[image.shape[0] // 2, image.shape[1] - 1] = 0  # the agent's own cell shows what it carries
        things = set()
        for kind, colour, state in {tuple(cell) for cell in seen.reshape(-1, 3).tolist()}:
            name = IDX_TO_OBJECT[kind]
            if name == "lava":
                things.add("lava")
            elif name == "door":
                things.add(f"a {IDX_TO_COLOR[colour]} door that is {('open', 'closed', 'locked')[state]}")
            elif name == "goal" or name in THINGS:
                things.add(f"a {IDX_TO_COLOR[colour]} {name}")
        # A door that the agent has seen is no news when it opens: that has a sentence of its own.
        new = sorted(thing for thing in things if thing.split(" that is ")[0] not in self._seen)
        self._seen |= {thing.split(" that is ")[0] for thing in new}
        return [f"you see {thing}" for thing in new]


def _name(thing: Any) -> str:
    """Name a thing, such as "red key"; walls and lava are of one colour and need none."""
    return thing.type if thing.type in ("wall", "lava") else f"{thing.color} {thing.type}"


def _a(thing: Any) -> str:
    return "lava" if thing.type == "lava" else f"a {_name(thing)}"


def _state(cell: Any) -> str:
    """Say how a door stands: "open", "closed" or "locked"; empty for anything else."""
    if cell is None or cell.type != "door":
        return ""
    return "open" if cell.is_open else "locked" if cell.is_locked else "closed"


def _joined(sentences: list[str]) -> str:
    return "; ".join(sentences)
