"""A judge that is a model one talks to: asks it in words, in both orders, several questions at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Calls, ChatModel, Question, TextQuestion
from vlmrl.judges.prompts import VERSION, Prompt, PromptName, Reading, Unreadable
from vlmrl.judges.settings import JudgeSettings
from vlmrl.judges.store import Budget
from vlmrl.typed import Count, Natural, Range


@dataclass(frozen=True, kw_only=True)
class ChatSettings(JudgeSettings):
    """What judges share that talk to a model.

    Attributes:
        prompt: How a comparison is put in words, see `vlmrl.judges.prompts`.
        swap: Ask in both orders; where the two contradict each other, the judge abstains.
        frames_per_clip: Pictures of a clip that the model sees.
        temperature: Of the sampling; 0 takes the likeliest token.
        max_tokens: Length at which a reply is cut off.
        seed: Of the sampling, where the model takes one.
        attempts: How often a question is asked that brings errors.
        max_calls: Requests that may be made through the store, ever; None sets no limit. So below.
        max_total_tokens: Tokens that may be read and written.
        max_cost: Money that may be spent, in the currency of the prices.
        prompt_price: Price of a million tokens read.
        completion_price: Price of a million tokens written.
    """

    answers_texts: ClassVar[bool] = True

    prompt: PromptName = "analyse"
    swap: bool = True
    frames_per_clip: Count = 4
    temperature: Annotated[float, Range(0, 2)] = 0.0
    max_tokens: Count = 512
    seed: Natural | None = None
    attempts: Count = 3
    max_calls: Natural | None = None
    max_total_tokens: Natural | None = None
    max_cost: Annotated[float, Range(0)] | None = None
    prompt_price: Annotated[float, Range(0)] = 0.0
    completion_price: Annotated[float, Range(0)] = 0.0

    def __post_init__(self) -> None:
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            raise UserError(
                "judge.max_cost is set and no price is, so that nothing would ever cost anything. Give "
                "judge.prompt_price and judge.completion_price, money a million tokens."
            )

    @property
    def budget(self) -> Budget:
        """See `JudgeSettings.budget`."""
        return Budget(self.max_calls, self.max_total_tokens, self.max_cost)

    @property
    def max_attempts(self) -> int:
        """See `JudgeSettings.max_attempts`."""
        return self.attempts

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6

    @property
    def asked(self) -> Prompt:
        """How comparisons are put in words."""
        return Prompt(self.prompt, self.frames_per_clip, self.temperature, self.max_tokens, self.seed)


class ChatJudge:
    """See this module and `base.Judge`.

    Args:
        name: As in `JUDGES`.
        model: Who answers.
        prompt: How comparisons are put in words.
        swap: Whether they are asked in both orders.
        concurrency: Questions that are under way at the same time.
    """

    kinds = frozenset({"comparison", "text"})
    reads_truth = False

    def __init__(self, name: str, model: ChatModel, prompt: Prompt, swap: bool, concurrency: int = 1):
        self.name = name
        self.model = model
        self._prompt = prompt
        self._swap = swap
        self._concurrency = concurrency

    @property
    def fingerprint(self) -> str:
        """Names the model, the prompt with its parameters, and whether both orders are asked."""
        return f"{self.model.name} {self.model.fingerprint} {VERSION} {self._prompt} {self._swap}"

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer]]:
        """See `base.Judge.ask`."""
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix=self.name)
        try:
            futures = {pool.submit(self._answer, question, calls): i for i, question in enumerate(questions)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # also when whoever asks stops listening, such as at Ctrl-C
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Close what the model holds open."""
        close = getattr(self.model, "close", None)
        if close is not None:
            close()

    def _answer(self, question: Question, calls: Calls) -> Answer:
        if isinstance(question, TextQuestion):
            return replace(calls.complete(self.model, question), judge=self.name)
        start = time.monotonic()
        conversation = _Conversation(self.model, calls)
        try:
            first = self._prompt.read(question, conversation.ask)
            second = self._prompt.read(question.swapped(), conversation.ask) if self._swap else None
        except _NoAnswer as error:
            return self._taken(conversation, start, Answer("error", error=str(error)))
        except Unreadable as error:
            conversation.reject_last()
            return self._taken(conversation, start, Answer("error", error=f"unreadable: {error}"))
        return self._taken(conversation, start, combine(first, second))

    def _taken(self, conversation: _Conversation, start: float, answer: Answer) -> Answer:
        """Add who answered and what it took."""
        answers = conversation.answers
        return replace(
            answer,
            judge=self.name,
            model=answers[-1].model if answers else self.model.name,
            calls=sum(answer.calls for answer in answers),
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            completion_tokens=sum(answer.completion_tokens for answer in answers),
            cost=sum(answer.cost for answer in answers),
            seconds=time.monotonic() - start,
        )


class _NoAnswer(Exception):
    """A request that failed."""


class _Conversation:
    """The requests that one comparison takes.

    Args:
        model: Who is asked.
        calls: The way to it.
    """

    def __init__(self, model: ChatModel, calls: Calls):
        self._model = model
        self._calls = calls
        self._last: TextQuestion | None = None
        self.answers: list[Answer] = []

    def ask(self, question: TextQuestion) -> Answer:
        answer = self._calls.complete(self._model, question)
        if answer.is_error:
            raise _NoAnswer(answer.error)
        self._last = question
        self.answers.append(answer)
        return answer

    def reject_last(self) -> None:
        if self._last is not None:
            self._calls.reject(self._model, self._last)


def combine(first: Reading, second: Reading | None) -> Answer:
    """Make one answer of a reading in the order of the question and one in the other.

    Args:
        first: Its left is the question's left.
        second: Its left is the question's right; None where only one order was asked.

    Returns:
        What both say; "abstain" where they say different things.
    """
    if second is None:
        return Answer(first.verdict, raw=first.raw, confidence=first.confidence)
    turned = {"left": "right", "right": "left"}.get(second.verdict, second.verdict)
    raw = f"{first.raw}\n\n--- the other way round ---\n\n{second.raw}"
    if first.verdict != turned:
        return Answer("abstain", raw=raw, consistent=False)
    both = [reading.confidence for reading in (first, second) if reading.confidence is not None]
    return Answer(first.verdict, raw=raw, confidence=sum(both) / len(both) if both else None, consistent=True)
