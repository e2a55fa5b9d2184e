"""What a question, an answer and a judge are.

A question is texts and pictures; its answer says which of two clips is better (`Comparison`) or is text
(`TextQuestion`: ratings, yes or no, programs, labels of messages). Whoever has questions puts them to a
`vlmrl.judges.desk.Desk`, which knows the answers that were given before, the budget, and what went wrong; a judge only
answers.

Left and right are words and never numbers: 0 and 1 mean opposite things in the label files of B-Pref and of imitation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import numpy as np

Verdict = Literal["left", "right", "tie", "abstain", "error"]
"""What came of a comparison, five different things.

left, right: this clip is better. tie: the judge says that they are equally good. abstain: the judge was asked and will
not say (unsure, skipped, contradicts itself). error: there is no answer (endpoint, budget, a reply that cannot be
read); never a preference, and asked again when the question comes again.
"""
PREFERENCES = ("left", "right", "tie")  # verdicts that a reward model can learn from

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Which of two clips is better, given the goal?

    Attributes:
        goal: What the agent should do, a sentence.
        left: (T, H, W, 3) uint8 RGB in order of time, T >= 1; a picture is a clip of one frame.
        right: The same for the other clip; its length and size may differ.
        left_truth: (T,) float, ground-truth reward of each step, for judges that read it (`Judge.reads_truth`).
        right_truth: The same for the other clip.

    Raises:
        ValueError: A clip is not (T, H, W, 3) uint8, or only one truth is given.
    """

    kind: ClassVar[str] = "comparison"
    goal: str
    left: np.ndarray
    right: np.ndarray
    left_truth: np.ndarray | None = None
    right_truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        for clip in (self.left, self.right):
            if clip.ndim != 4 or clip.shape[0] == 0 or clip.shape[3] != 3 or clip.dtype != np.uint8:
                raise ValueError(f"Expected a clip (T, H, W, 3) uint8, got {clip.shape} {clip.dtype}.")
        if (self.left_truth is None) != (self.right_truth is None):
            raise ValueError("Either both clips have a ground truth, or neither.")

    def digest(self, with_truth: bool = False) -> bytes:
        """Return the SHA-256 of goal and clips in their order, and of the truths if asked; 32 bytes."""
        parts = [self.goal.encode(), clip_digest(self.left), clip_digest(self.right)]
        if with_truth and self.left_truth is not None and self.right_truth is not None:
            parts += [np.asarray(truth, dtype="<f8").tobytes() for truth in (self.left_truth, self.right_truth)]
        return _digest(self.kind, parts)

    def swapped(self) -> Comparison:
        """Return the same question with left and right exchanged."""
        return replace(self, left=self.right, right=self.left, left_truth=self.right_truth, right_truth=self.left_truth)


@dataclass(frozen=True, eq=False)
class Message:
    """A turn of a conversation.

    Attributes:
        role: Who speaks.
        content: Sentences and pictures, (H, W, 3) uint8 RGB, in the order in which they are read.
    """

    role: Role
    content: tuple[str | np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class TextQuestion:
    """What comes next in a conversation?

    Attributes:
        messages: The conversation so far.
        temperature: Of the sampling; 0 takes the likeliest token.
        max_tokens: Length at which an answer is cut off.
        n: Answers wanted.
        seed: Of the sampling, where the model takes one; also tells two samples of the same question apart.
        choices: If given, the answer is one of these, such as ("yes", "no") or ("0", "1", "2"); `Answer.logprobs` then
            says how likely each was, where the model tells.
        schema: JSON schema that the answer should keep to, for models that can be held to one.

    Raises:
        ValueError: There is no message, or choices are empty or not different.
    """

    kind: ClassVar[str] = "text"
    messages: tuple[Message, ...]
    temperature: float = 0.0
    max_tokens: int = 1024
    n: int = 1
    seed: int | None = None
    choices: tuple[str, ...] = ()
    schema: dict[str, object] | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("A question needs at least one message.")
        if len(set(self.choices)) < len(self.choices) or any(not choice.strip() for choice in self.choices):
            raise ValueError(f"Choices must be different and not empty, got {self.choices}.")

    def digest(self, with_truth: bool = False) -> bytes:
        """Return the SHA-256 of messages and parameters; 32 bytes. There is no truth here."""
        settings = [self.temperature, self.max_tokens, self.n, self.seed, self.choices, self.schema]
        parts = [json.dumps(settings, sort_keys=True).encode()]
        for message in self.messages:
            parts.append(message.role.encode())
            for item in message.content:
                if isinstance(item, str):
                    parts.append(b"text:" + item.encode())
                else:
                    parts.append(b"picture:" + clip_digest(item[None]))
            parts.append(b"end of message")
        return _digest(self.kind, parts)


Question = Comparison | TextQuestion


@dataclass(frozen=True)
class Answer:
    """What a judge answered, and what it took when it was asked (an answer from the store takes nothing again).

    Attributes:
        verdict: Of a comparison; "error" also of a text question that got no answer; None of one that did.
        texts: Answers to a text question, n of them unless the model gave fewer.
        judge: Name of the judge.
        model: Which model answered, as it calls itself; empty where there is none.
        raw: What it wrote, all stages one after the other.
        confidence: Of a comparison, 0.5 to 1: probability that the verdict is right, where the judge has one.
        consistent: Of a comparison that was asked in both orders: whether both gave the same.
        logprobs: Of a text question with choices: {choice: natural logarithm of its probability}, where known.
        calls: Requests to a model.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        cost: Money, in the currency of the judge's prices; 0 where no prices are set.
        seconds: Time it took.
        error: Why there is no answer.
    """

    verdict: Verdict | None
    texts: tuple[str, ...] = ()
    judge: str = ""
    model: str = ""
    raw: str = ""
    confidence: float | None = None
    consistent: bool | None = None
    logprobs: dict[str, float] | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    error: str = ""

    @property
    def is_error(self) -> bool:
        """Whether there is no answer."""
        return self.verdict == "error"

    @property
    def is_preference(self) -> bool:
        """Whether a reward model can learn from it."""
        return self.verdict in PREFERENCES


@dataclass(frozen=True)
class Waiting:
    """People will answer this comparison at the page of `vlmrl.label`, later.

    Attributes:
        raters: How many of them are wanted.
        gold: The answer that is known to be right, where this is a control question.
        hint: What an automatic judge thought of it, for the record.
    """

    raters: int = 1
    gold: Verdict | None = None
    hint: Answer | None = None


class ChatModel(Protocol):
    """A model that continues conversations, wherever it runs.

    Attributes:
        name: As it is asked for, such as "gpt-4o-mini".
        fingerprint: Names all that its replies depend on, beside the question.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def complete(self, question: TextQuestion) -> Answer:
        """Answer a question; whatever goes wrong outside of this program is an "error" and raises nothing."""
        ...

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost, in the currency of the model's prices."""
        ...


class Calls(Protocol):
    """The way to a model that leads through the store, the ledger and the budget; a `Desk` gives it to its judge."""

    def complete(self, model: ChatModel, question: TextQuestion) -> Answer:
        """Ask a model, unless it was asked this before or the budget does not allow it ("error" then)."""
        ...

    def reject(self, model: ChatModel, question: TextQuestion) -> None:
        """Forget the reply to a question, because it cannot be read: the model is asked again next time."""
        ...


class Source(Protocol):
    """Where answers are from, as far as their keys depend on it; see `Judge`."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def reads_truth(self) -> bool: ...  # noqa: D102


class Judge(Source, Protocol):
    """Answers questions.

    Attributes:
        name: As in `JUDGES`, such as "openai".
        fingerprint: Names all that its answers depend on, beside the question: model, prompt, parameters.
        kinds: Kinds of questions that it answers: "comparison", "text".
        reads_truth: Whether its answers depend on the ground truth in a comparison.
    """

    @property
    def kinds(self) -> frozenset[str]: ...  # noqa: D102

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer | Waiting]]:
        """Answer questions, several at a time where that is faster.

        What goes wrong with one question is its answer ("error") and raises nothing: a run must not end for it.

        Args:
            questions: Of the judge's `kinds`.
            calls: Through which every request to a model is made.

        Yields:
            (index of the question, its answer or that people will answer it), each as soon as it is known, in any
            order, each index once.
        """
        ...


def clip_digest(clip: np.ndarray) -> bytes:
    """Return the SHA-256 of a clip's shape and pixels, (T, H, W, 3) uint8; 32 bytes."""
    digest = hashlib.sha256(repr(clip.shape).encode())
    digest.update(np.ascontiguousarray(clip).data)
    return digest.digest()


def question_key(question: Question, judge: Source) -> str:
    """Return the key of an answer: SHA-256, hex, of all that it depends on."""
    parts = [question.digest(judge.reads_truth), judge.name.encode(), judge.fingerprint.encode()]
    return _digest("answer", parts).hex()


def call_key(question: TextQuestion, model: ChatModel) -> str:
    """Return the key of a model's reply: SHA-256, hex, of all that it depends on."""
    return _digest("call", [question.digest(), model.name.encode(), model.fingerprint.encode()]).hex()


def _digest(kind: str, parts: Sequence[bytes]) -> bytes:
    """Return the SHA-256 of parts, each with its length so that no two lists of parts look the same."""
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
