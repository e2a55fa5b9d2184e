"""Where questions are put: known answers come from the store, the others from the judge, within the budget.

Whoever asks sees one thing, whatever the judge: `submit` questions, `collect` answers. A model answers before `submit`
returns; people answer at the page of `vlmrl.label` whenever they like. Nothing that goes wrong outside (an endpoint
that is dead, slow, limited or talks nonsense, a budget that is spent) raises: it is an "error" answer, which is no
preference and is not kept, so that the question is asked again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from vlmrl.errors import UserError
from vlmrl.judges.base import (
    Answer,
    ChatModel,
    Comparison,
    Judge,
    Question,
    TextQuestion,
    Waiting,
    call_key,
    question_key,
)
from vlmrl.judges.raters import from_ratings
from vlmrl.judges.store import AnswerStore, Budget, Spent

LOG = logging.getLogger(__name__)
IN_A_ROW = 5  # requests that fail one after the other before an endpoint counts as down
PAUSE = 60.0  # seconds for which one that is down is left alone


class Desk:
    """See this module. `submit` and `collect` are for one thread; `ask` and `known` may be called from several.

    Args:
        judge: Who answers.
        store: What was answered before, and where new answers go.
        budget: What may be spent through the store, ever.
        attempts: How often a question is asked that brings errors, before its answer is an error for good; None never
            gives one up.
        keep_clips: Whether the clips of comparisons are kept in the store also where no person needs them.
        min_gold_accuracy: Share of control questions that a person must get right to be counted, see
            `raters.distrusted`.
    """

    def __init__(
        self,
        judge: Judge,
        store: AnswerStore,
        budget: Budget | None = None,
        attempts: int | None = 3,
        keep_clips: bool = False,
        min_gold_accuracy: float = 0.0,
    ):
        self.judge = judge
        self.store = store
        self._attempts = attempts
        self._keep_clips = keep_clips
        self._min_gold_accuracy = min_gold_accuracy
        self._calls = CallsThroughStore(store, budget or Budget())
        self._open: dict[str, Question | None] = {}  # in the order of submission; None where the store has all of it
        self._settled: dict[str, Answer] = {}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions now, in their order.

        Those for people are errors, "waits for people"; they go to the page all the same.

        Raises:
            UserError: The judge answers no such questions.
        """
        keys = self._check(questions)
        known = self.store.answers(keys)
        todo = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        known |= self._ask(todo)
        return [known.get(key) or self._error("waits for people") for key in keys]

    def known(self, questions: Sequence[Question]) -> list[Answer | None]:
        """Return what the store has answered before, None where it has nothing; nobody is asked.

        Raises:
            UserError: The judge answers no such questions.
        """
        keys = self._check(questions)
        answers = self.store.answers(keys)
        return [answers.get(key) for key in keys]

    def submit(self, questions: Sequence[Question]) -> list[str]:
        """Put questions, and ask those anew that brought errors before.

        Returns:
            Their keys, by which `collect` names the answers.

        Raises:
            UserError: The judge answers no such questions.
        """
        keys = self._check(questions)
        self._open |= {key: question for key, question in zip(keys, questions, strict=True) if key not in self._settled}
        known = self.store.answers(list(self._open))
        todo = {key: question for key, question in self._open.items() if question is not None and key not in known}
        known |= self._ask(todo)
        failures = self.store.failures([key for key, answer in known.items() if answer.is_error])
        for key in [key for key in self._open if key in known]:
            answer, count = known[key], failures.get(key, (0, ""))[0]
            if not answer.is_error or self._gives_up(count) or self.exhausted:
                self._settle(key, answer)
        for key in todo:
            if key not in known:
                self._open[key] = None  # waits for people; the store has its clips
        return keys

    def collect(self) -> list[tuple[str, Answer]]:
        """Return (key, answer) of what was submitted and has come in since the last time, in order of submission."""
        waiting = [key for key, question in self._open.items() if question is None]
        for key, answer in self._from_people(waiting).items():
            self._settle(key, answer)
        settled, self._settled = self._settled, {}
        return list(settled.items())

    def forget_failures(self, questions: Sequence[Question]) -> None:
        """Let questions be asked anew that were given up.

        For who ends with an error because of them: started again, when what was wrong is put right, they are asked.
        """
        self.store.forget_failures([question_key(question, self.judge) for question in questions])

    @property
    def pending(self) -> int:
        """Questions that were submitted and have no answer yet."""
        return len(self._open)

    @property
    def exhausted(self) -> str:
        """Why the budget allows no further request, in words; empty while it does."""
        return self._calls.exhausted

    @property
    def spent(self) -> Spent:
        """What was spent through the store so far."""
        return self.store.spent()

    def close(self) -> None:
        """Close the store, and what the judge holds open."""
        close = getattr(self.judge, "close", None)
        if close is not None:
            close()
        self.store.close()

    def _check(self, questions: Sequence[Question]) -> list[str]:
        for question in questions:
            if question.kind not in self.judge.kinds:
                raise UserError(
                    f"judge={self.judge.name} answers questions of the kind {' and '.join(sorted(self.judge.kinds))}, "
                    f"and this is a {question.kind}. Texts are answered by judge=openai and judge=transformers."
                )
        return [question_key(question, self.judge) for question in questions]

    def _ask(self, questions: dict[str, Question]) -> dict[str, Answer]:
        """Ask the judge; what it answers goes into the store at once, what people will answer into their queue."""
        keys = list(questions)
        failures = self.store.failures(keys)
        answers = {
            key: self._error(f"given up after {count} attempts, the last one: {error}")
            for key, (count, error) in failures.items()
            if self._gives_up(count)
        }
        keys = [key for key in keys if key not in answers]
        for key in keys:
            self.store.add_question(key, questions[key], self.judge)
        for i, answer in self.judge.ask([questions[key] for key in keys], self._calls):
            key, question = keys[i], questions[keys[i]]
            if isinstance(question, Comparison) and (self._keep_clips or isinstance(answer, Waiting)):
                self.store.add_clips(question)
            if isinstance(answer, Waiting):
                self.store.enqueue(key, answer.raters, answer.gold, answer.hint)
                continue
            if not answer.is_error:
                self.store.add_answer(key, answer)
            elif not self._calls.was_refused(answer):
                self.store.add_failure(key, answer.error)
            answers[key] = answer
        return answers | self._from_people([key for key in keys if key not in answers])

    def _from_people(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Return the answers that people's ratings make, which are then kept: nothing is taken back any more."""
        if not keys:
            return {}
        answers = from_ratings(self.store, keys, self.judge.name, self._min_gold_accuracy)
        for key, answer in answers.items():
            self.store.add_answer(key, answer)
        return answers

    def _gives_up(self, failures: int) -> bool:
        return self._attempts is not None and failures >= self._attempts

    def _settle(self, key: str, answer: Answer) -> None:
        self._settled[key] = answer
        del self._open[key]

    def _error(self, why: str) -> Answer:
        return Answer("error", judge=self.judge.name, error=why)


class CallsThroughStore:
    """The way to a model: what it replied before, what may be spent, and a pause when it is down. See `base.Calls`.

    Args:
        store: Where replies and the ledger are.
        budget: What may be spent.
    """

    def __init__(self, store: AnswerStore, budget: Budget):
        self._store = store
        self._budget = budget
        self._lock = threading.Lock()
        self._first = threading.Lock()
        self._failed_in_a_row = 0
        self._down_until = 0.0
        self._refused: str = ""

    @property
    def exhausted(self) -> str:
        """Why no further request is allowed, in words; empty while it is."""
        return self._refused or self._store.spent().reaches(self._budget)

    def was_refused(self, answer: Answer) -> bool:
        """Return whether a request was not even made, so that its failure says nothing of the question."""
        return answer.error.startswith(("budget: ", "down: "))

    def complete(self, model: ChatModel, question: TextQuestion) -> Answer:
        """See `base.Calls.complete`."""
        key = call_key(question, model)
        reply = self._store.reply(key)
        if reply is not None:
            return reply
        with self._lock:
            wait = self._down_until - time.monotonic()
        if wait > 0:
            return self._error(
                model, f"down: {model.name} failed {IN_A_ROW} times in a row; left alone for {wait:.0f} s"
            )
        if self._store.largest_prompt(model) is None:
            with self._first:  # one alone, which says what a prompt takes; the others keep to the budget by it
                return self._request(model, question, key)
        return self._request(model, question, key)

    def _request(self, model: ChatModel, question: TextQuestion, key: str) -> Answer:
        entry = self._store.reserve(model, question, self._budget)
        if isinstance(entry, str):
            if not self._refused:
                LOG.warning("The judge is asked no more: %s. What it answered goes on being used.", entry)
            self._refused = entry
            return self._error(model, f"budget: {entry}")
        answer = model.complete(question)
        self._store.settle(entry, key, answer)
        self._note(model, answer)
        return answer

    def reject(self, model: ChatModel, question: TextQuestion) -> None:
        """See `base.Calls.reject`."""
        self._store.forget_reply(call_key(question, model))

    def _note(self, model: ChatModel, answer: Answer) -> None:
        with self._lock:
            self._failed_in_a_row = self._failed_in_a_row + 1 if answer.is_error else 0
            if self._failed_in_a_row >= IN_A_ROW:
                self._down_until = time.monotonic() + PAUSE
                LOG.warning("%s is left alone for %.0f s: %s", model.name, PAUSE, answer.error)

    @staticmethod
    def _error(model: ChatModel, why: str) -> Answer:
        return Answer("error", model=model.name, error=why)
