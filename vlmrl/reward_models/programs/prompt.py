"""What a language model is asked, in words of the suite's own.

The ingredients are those of Text2Reward (Xie et al., ICLR 2024): a role, the environment as typed classes, rules, the
task; and examples from other tasks. To them comes what Eureka (Ma et al., ICLR 2024) asks for: the terms of the reward
by name. A model sees names, shapes, units and ranges, never the environment's source or its own reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmrl.judges.base import Message
from vlmrl.quantities import Abstraction
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.confinement.runtime import CONSTANTS, NUMPY
from vlmrl.reward_models.confinement.worker import MOST_COMPONENTS
from vlmrl.reward_models.programs.contract import LARGEST
from vlmrl.reward_models.programs.grammar import Finding

SYSTEM = (
    "You design rewards for reinforcement learning. You are given an environment as typed Python classes and a task in "
    "words, and you write a dense reward as a numpy function. A learner that knows nothing at first maximises the "
    "discounted sum of your reward; it will find every way to earn it that you leave open."
)


@dataclass(frozen=True)
class Example:
    """A program for another task, shown to the model.

    Attributes:
        env: Name of its environment.
        goal: Its task in words.
        source: The program.
    """

    env: str
    goal: str
    source: str


def opening(
    abstraction: Abstraction, words: Words, episode: str, examples: Sequence[Example] = ()
) -> tuple[Message, ...]:
    """Write the first question.

    Args:
        abstraction: The environment.
        words: The task.
        episode: A sentence or two on how an episode starts and how long it is.
        examples: Programs for other tasks.
    """
    return (Message("system", (SYSTEM,)), Message("user", (_question(abstraction, words, episode, examples),)))


def _question(abstraction: Abstraction, words: Words, episode: str, examples: Sequence[Example]) -> str:
    parts = [f"# The environment\n\n{abstraction.name}. {_time(abstraction)}{episode}"]
    parts.append("\n".join(f"- {note}" for note in abstraction.notes))
    parts.append(
        "What the function reads. N environments come at once, in the first axis; all arrays are float64.\n\n"
        f"```python\n{abstraction.text()}\n```"
    )
    entries = "\n".join(f"- action[:, {i}]: {line}" for i, line in enumerate(abstraction.action))
    parts.append(f"action: (N, {len(abstraction.action)}), what the learner did to get to this state.\n\n{entries}")
    parts.append(f"# The task\n\n{_task(words)}")
    for example in examples:
        parts.append(
            f"# An example, of another task\n\nEnvironment {example.env}, task: {example.goal}\n\n"
            f"```python\n{example.source.strip()}\n```"
        )
    parts.append(f"# What to write\n\n{_rules()}")
    return "\n\n".join(part for part in parts if part)


def _time(abstraction: Abstraction) -> str:
    return f"A step takes {abstraction.dt:g} s. " if abstraction.dt is not None else ""


def _task(words: Words) -> str:
    lines = ["The agent should do what this says: " + "; ".join(words.goal) + "."]
    if words.negatives:
        lines.append(
            "These are not it, and the reward must be clearly lower there: " + "; ".join(words.negatives) + "."
        )
    return "\n".join(lines)


def _rules() -> str:
    names = ", ".join(sorted({*NUMPY, *CONSTANTS} - {"norm"}))
    return f"""\
First think in a few sentences: which quantities tell that the task is done, which tell that it comes nearer, how a lazy
learner might cheat. Then write one block of Python:

```python
def compute_dense_reward(state: State, action: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    ...
    return total, {{"name": term, ...}}
```

- `total` is (N,) float64 and is the sum of the terms. The terms are (N,) float64 too, 1 to {MOST_COMPONENTS} of
  them, always the same, with their weights in them; their names are identifiers.
- Give a reward on the way, not only at the goal: distances squashed by np.exp or np.clip to a range of about 0 to
  1. A term should not be so large that the others do not matter, and |total| must stay below {LARGEST:g}.
- The reward should be greatest where the task is done, and stay so while it remains done. Where several things must
  hold at once, multiply their terms into one; a sum pays for half of them. A product of many terms is flat where
  one of them is near zero, so leave each a gradient there.
- Penalties of effort, if any, are small. A constant bonus for being alive teaches nothing.
- Each row by itself: no mean or maximum over axis 0, no random numbers, no memory of earlier calls, nothing written
  into state or action.
- numpy is there as np, without import, with {names} and linalg.norm.
  Nothing else can be imported. No class, try, while, lambda, with or f-string; helper functions may stand beside
  the function.
- Use only attributes that the classes above have."""


def correction(findings: Sequence[Finding]) -> Message:
    """Write what was wrong with an answer, for the next round."""
    listed = "\n".join(f"- {finding}" for finding in findings)
    return Message(
        "user",
        (
            f"That program cannot be used:\n\n{listed}\n\nPut this right and write the whole function again, in one "
            "block of Python, by the same rules.",
        ),
    )


def text(messages: Sequence[Message]) -> str:
    """Return a conversation as text, for people and for digests."""
    return "\n\n".join(f"[{message.role}]\n{''.join(map(str, message.content))}" for message in messages)
