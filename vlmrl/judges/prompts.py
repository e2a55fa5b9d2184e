"""How a comparison is put to a model in words, and how its reply is read.

Three ways. "analyse", two requests, as in RL-VLM-F (Wang et al. 2024, "RL-VLM-F: Reinforcement Learning from Vision
Language Foundation Model Feedback", section 4.1): first a description of both clips from the pictures, then a verdict
from the description alone. "single": a verdict at once. "critique": one request whose reply says what is good and bad
about each clip and ends with a verdict.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmrl.judges.base import Answer, Comparison, Message, TextQuestion, Verdict

PromptName = Literal["analyse", "single", "critique"]
VERSION = 1  # goes into the key of every answer: raise it when a sentence below changes
CHOICES = ("1", "2", "equal", "unsure")
VERDICTS: dict[str, Verdict] = {"1": "left", "2": "right", "equal": "tie", "unsure": "abstain"}
CRITIQUE_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "clip_1": {"type": "string"},
        "clip_2": {"type": "string"},
        "verdict": {"type": "string", "enum": list(CHOICES)},
        "confidence": {"type": "number"},
    },
    "required": ["clip_1", "clip_2", "verdict", "confidence"],
    "additionalProperties": False,
}
WORTH = (
    "What counts is how close the agent comes to the goal at the end of its clip, not how well the pictures are lit or "
    "framed."
)
MEANINGS = (
    "1 if clip 1 comes closer to the goal, 2 if clip 2 does, equal if both come equally close, unsure if the pictures "
    "do not tell."
)


class Unreadable(ValueError):
    """A reply that holds no verdict."""


@dataclass(frozen=True)
class Reading:
    """What a prompt got out of a model.

    Attributes:
        verdict: Left is the clip that was shown first.
        confidence: 0.5 to 1, or None.
        raw: Replies, one after the other.
    """

    verdict: Verdict
    confidence: float | None
    raw: str


@dataclass(frozen=True)
class Prompt:
    """A way to ask.

    Attributes:
        name: Which of the three.
        frames_per_clip: Pictures that are shown of a clip, evenly spaced, its last one always among them.
        temperature: Of the sampling.
        max_tokens: Length at which a description or critique is cut off.
        seed: Of the sampling.
    """

    name: PromptName = "analyse"
    frames_per_clip: int = 4
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int | None = None

    def read(self, question: Comparison, ask: Callable[[TextQuestion], Answer]) -> Reading:
        """Put a comparison to a model in the order that it has.

        Args:
            question: Which clips.
            ask: Puts a text question to the model; raises for what has no answer.

        Raises:
            Unreadable: The last reply holds no verdict.
        """
        if self.name == "critique":
            reply = ask(self._question(self._shown(question, _CRITIQUE), schema=CRITIQUE_SCHEMA)).texts[0]
            verdict, confidence = read_critique(reply)
            return Reading(verdict, confidence, reply)
        if self.name == "single":
            answer = ask(self._question(self._shown(question, _SINGLE), choices=CHOICES))
            return Reading(VERDICTS[answer.texts[0]], _confidence(answer), answer.texts[0])
        analysis = ask(self._question(self._shown(question, _ANALYSE))).texts[0]
        if not analysis.strip():
            raise Unreadable("the description is empty")
        text = _VERDICT.format(goal=question.goal, analysis=analysis.strip(), worth=WORTH, meanings=MEANINGS)
        answer = ask(self._question((text,), choices=CHOICES))
        return Reading(VERDICTS[answer.texts[0]], _confidence(answer), f"{analysis}\n\n{answer.texts[0]}")

    def _question(
        self,
        content: tuple[str | np.ndarray, ...],
        choices: tuple[str, ...] = (),
        schema: dict[str, object] | None = None,
    ) -> TextQuestion:
        return TextQuestion(
            (Message("user", content),),
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=self.seed,
            choices=choices,
            schema=schema,
        )

    def _shown(self, question: Comparison, text: str) -> tuple[str | np.ndarray, ...]:
        """Return both clips with their captions, and what is asked about them."""
        content: list[str | np.ndarray] = []
        for number, clip in ((1, question.left), (2, question.right)):
            frames = spaced(clip, self.frames_per_clip)
            kind = "one picture" if len(frames) == 1 else f"{len(frames)} pictures in order of time"
            content += [f"Clip {number}, {kind}:", *frames]
        return (*content, text.format(goal=question.goal, worth=WORTH, meanings=MEANINGS))


_ANALYSE = (
    "Both clips show an agent that is to reach this goal: {goal}.\n"
    "Say in a few sentences what clip 1 shows, then what clip 2 shows, and then in what they differ as far as the goal "
    "is concerned. {worth}"
)
_VERDICT = (
    "Somebody compared two clips of an agent that is to reach this goal: {goal}. This is what they wrote:\n\n{analysis}"
    "\n\n{worth} Going by this alone, which clip comes closer to the goal? Answer with one word and nothing else: "
    "{meanings}"
)
_SINGLE = (
    "Both clips show an agent that is to reach this goal: {goal}.\n{worth} Which clip comes closer to the goal? Answer "
    "with one word and nothing else: {meanings}"
)
_CRITIQUE = (
    "Both clips show an agent that is to reach this goal: {goal}.\n"
    "First say of each clip what brings it closer to the goal and what keeps it from it, then give a verdict. {worth}\n"
    'Answer with one JSON object and nothing else: {{"clip_1": "...", "clip_2": "...", "verdict": "...", '
    '"confidence": ...}}. The verdict is {meanings} The confidence is the probability that your verdict is right, '
    "0.5 to 1."
)


def spaced(clip: np.ndarray, n: int) -> list[np.ndarray]:
    """Return n evenly spaced frames of a clip, (T, H, W, 3), the last one among them; all where it has no more."""
    count = min(n, len(clip))
    return [clip[i] for i in np.linspace(len(clip) - 1, 0, count).round().astype(int)[::-1]]


def read_critique(reply: str) -> tuple[Verdict, float | None]:
    """Read the JSON object of a critique, which may stand between other words.

    Returns:
        Its verdict, and its confidence where that is a number from 0.5 to 1.

    Raises:
        Unreadable: There is no such object, or its verdict is none of `CHOICES`.
    """
    found = re.search(r"\{.*\}", reply, flags=re.DOTALL)
    try:
        values = json.loads(found.group()) if found else None
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise Unreadable(f"no JSON object in: {short(reply)}")
    verdict = VERDICTS.get(str(values.get("verdict", "")).strip().lower())
    if verdict is None:
        raise Unreadable(f"no verdict in: {short(reply)}")
    confidence = values.get("confidence")
    known = isinstance(confidence, int | float) and not isinstance(confidence, bool) and 0.5 <= confidence <= 1
    return verdict, float(confidence) if known and verdict != "abstain" else None  # type: ignore[arg-type]


def read_choice(reply: str, choices: tuple[str, ...]) -> str:
    """Read which choice a reply is: the choice and nothing else but quotes and punctuation, in any case.

    Raises:
        Unreadable: It is none of them.
    """
    plain = reply.strip().strip("'\"`*.!() \n").lower()
    for choice in choices:
        if plain == choice.lower():
            return choice
    raise Unreadable(f"none of {', '.join(choices)}: {short(reply)}")


def short(text: str) -> str:
    """Return text in quotes, on one line, cut where it is long."""
    line = " ".join(text.split())
    return f"'{line}'" if len(line) <= 120 else f"'{line[:117]}...'"


def _confidence(answer: Answer) -> float | None:
    """Return the probability of the verdict among "1" and "2", where the model says how likely they were."""
    if answer.logprobs is None or answer.texts[0] not in ("1", "2"):
        return None
    one, two = (math.exp(answer.logprobs.get(choice, -math.inf)) for choice in ("1", "2"))
    return max(one, two) / (one + two) if one + two > 0 else None
