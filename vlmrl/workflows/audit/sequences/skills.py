"""Skills that are acted one after the other in one episode, and a log of predicates that says what really happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from vlmrl.errors import UserError

HOLD = 10  # steps in a row that a predicate must hold before it is logged: who only passes has not arrived
LONGEST = 300  # steps that a skill may take
REST = (30, 60)  # steps that are played on where a skill has arrived
TRIES = 20  # episodes that may come out otherwise than was planned

Predicate = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Skill:
    """Something to do, and how to tell that it was done.

    Attributes:
        caption: What is to be seen then.
        act: (environment, rng) -> a function from the environment to an action, for one go.
        holds: Whether it is done, from simulator state.
    """

    caption: str
    act: Callable[[Any, np.random.Generator], Callable[[Any], Any]]
    holds: Predicate


@dataclass(frozen=True)
class Stage:
    """An environment with skills.

    Attributes:
        id: What Gymnasium calls it.
        skills: {name: skill}.
        start: (environment, rng) -> puts it where none of the skills is done.
    """

    id: str
    skills: Mapping[str, Skill]
    start: Callable[[Any, np.random.Generator], None]


@dataclass(frozen=True)
class Logged:
    """An episode of several skills.

    Attributes:
        plan: Names of the skills in the order in which the log has them.
        states: (T, S) float64, states of the simulator from the start on.
        borders: (n,) int, the number of the last state of each skill.
        arrived: (n,) int, the number of the state at which the log has it.
    """

    plan: tuple[str, ...]
    states: np.ndarray
    borders: np.ndarray
    arrived: np.ndarray


class PredicateLog:
    """Notes which skill's predicate has held for `HOLD` steps, once until another one has.

    Args:
        skills: {name: skill}.

    Attributes:
        events: (name, number of the state) in order of time.
    """

    def __init__(self, skills: Mapping[str, Skill]):
        self._skills = skills
        self._held = dict.fromkeys(skills, 0)
        self.events: list[tuple[str, int]] = []

    def note(self, number: int, state: Mapping[str, Any]) -> None:
        """Look at a state."""
        for name, skill in self._skills.items():
            self._held[name] = self._held[name] + 1 if skill.holds(state) else 0
            if self._held[name] >= HOLD and (not self.events or self.events[-1][0] != name):
                self.events.append((name, number))


def play(stage: Stage, env: Any, plan: Sequence[str], rng: np.random.Generator) -> Logged:
    """Act skills one after the other, until the log says that they happened in this order and nothing else did.

    Args:
        stage: Environment and skills.
        env: The environment.
        plan: Names of skills; no two neighbours are the same.
        rng: Of starts, goals and rests.

    Raises:
        UserError: It never came out so.
    """
    for _ in range(TRIES):
        logged = _once(stage, env, plan, rng)
        if logged is not None:
            return logged
    raise UserError(f"The skills of {stage.id} did not come to {' -> '.join(plan)} in {TRIES} episodes.")


def _once(stage: Stage, env: Any, plan: Sequence[str], rng: np.random.Generator) -> Logged | None:
    env.reset(seed=int(rng.integers(2**31)))
    stage.start(env.unwrapped, rng)
    log = PredicateLog(stage.skills)
    states, borders, arrived = [np.array(env.unwrapped.state, dtype=np.float64)], [], []
    for number, name in enumerate(plan):
        policy = stage.skills[name].act(env.unwrapped, rng)
        rest = int(rng.integers(*REST))
        for _ in range(LONGEST + rest):
            env.unwrapped.step(policy(env.unwrapped))
            states.append(np.array(env.unwrapped.state, dtype=np.float64))
            log.note(len(states) - 1, env.unwrapped.simulator_state())
            if len(log.events) > number and len(states) - 1 >= log.events[number][1] + rest:
                break
        if [event for event, _ in log.events] != list(plan[: number + 1]):
            return None
        borders.append(len(states) - 1)
        arrived.append(log.events[number][1])
    return Logged(tuple(plan), np.stack(states), np.array(borders), np.array(arrived))


# The mountain car. Its engine (0.0015 m a step squared) can hold it where the slope is flat enough: at the flag, and up
# to 0.2 m from the bottom.
GRAVITY, ENGINE = 0.0025, 0.0015  # of Gymnasium's Continuous_MountainCarEnv
STILL = 0.006  # m a step


def _drive_to(place: float) -> Callable[[Any, np.random.Generator], Callable[[Any], Any]]:
    """Drive to a place (m) on the flat part and stay, by proportional-derivative control with gravity taken off."""

    def start(env: Any, rng: np.random.Generator) -> Callable[[Any], Any]:
        goal = place + rng.uniform(-0.02, 0.02)

        def act(env: Any) -> np.ndarray:
            x, speed = env.state
            push = 0.006 * (goal - x) - 0.13 * speed + GRAVITY * np.cos(3 * x)
            return np.clip([push / ENGINE], -1, 1).astype(np.float32)

        return act

    return start


@cache
def _climber() -> Any:
    from vlmrl.agents.reference_policies import find

    return find("mountaincar", "climb").load()


def _climb(env: Any, rng: np.random.Generator) -> Callable[[Any], Any]:
    """Drive to the flag as the reference policy does, which was trained to."""
    policy = _climber()
    return lambda env: policy.predict(np.array(env.state, dtype=np.float32), deterministic=True)[0]


def _near(place: float) -> Predicate:
    return lambda state: abs(float(state["x"]) - place) < 0.05 and abs(float(state["speed"])) < STILL


def _on_the_left(env: Any, rng: np.random.Generator) -> None:
    env.state = np.array([rng.uniform(-1.15, -1.0), 0.0])


STAGES = {
    "mountaincar": Stage(
        "vlmrl/MountainCar-v0",
        {
            "flag": Skill(
                "a car at the peak of the mountain, next to the yellow flag",
                _climb,
                lambda state: float(state["x"]) >= 0.45,  # the predicate of the task climb
            ),
            "valley": Skill("a car at the bottom of the valley", _drive_to(-0.52), _near(-0.52)),
            "left": Skill("a car on the left slope", _drive_to(-0.70), _near(-0.70)),
            "right": Skill("a car on the right slope", _drive_to(-0.34), _near(-0.34)),
        },
        _on_the_left,
    ),
}
