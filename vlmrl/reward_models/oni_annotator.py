"""Has texts labelled by a judge while an agent learns, in threads of its own.

Nothing that happens here stops training or makes it wait: a server that is slow, dead or talks nonsense leaves texts
without labels. Each item is asked about once, however often its text is met; what the answer store knows is not asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmrl.judges.base import Answer
from vlmrl.judges.desk import Desk
from vlmrl.judges.process import JudgeProcess
from vlmrl.judges.prompts import Unreadable
from vlmrl.reward_models.oni_labels import Item, LabelQuestions

LOG = logging.getLogger(__name__)
Selection = Literal["frequency_uncertainty", "newest"]
PATIENCE = 5.0  # seconds before a server that failed is tried again
GRACE = 2.0  # seconds that requests under way have to end when the run does


@dataclass
class Counts:
    """What came of the items so far.

    Attributes:
        known: Labels that the answer store had.
        labelled: Labels that the judge gave.
        dropped: Items that fell out of the full queue.
        unreadable: Answers that held no label.
        given_up: Items whose answers could not be read `attempts` times.
        failed: Requests that brought no answer.
        waited: Seconds from an item's coming into the queue to its label, added up over `labelled`.
    """

    known: int = 0
    labelled: int = 0
    dropped: int = 0
    unreadable: int = 0
    given_up: int = 0
    failed: int = 0
    waited: float = 0.0


@dataclass
class _Waiting:
    """An item in the queue: how soon it should be asked about, and since when it waits."""

    priority: float
    since: float


class Annotator:
    """See this module.

    `known`, `offer` and `collect` are for one thread, that of the learner; they never wait for a model.

    Args:
        desk: Who is asked; beside a learner in a process of its own, which takes no time from it. It is closed with
            the annotator.
        questions: How.
        workers: Requests that may be under way at the same time.
        queue_size: Items that may wait; a further one takes the place of that which has waited longest.
        selection: Which of them is asked about next: the one with the highest priority, or the newest.
        attempts: Answers that cannot be read, after which an item stays without a label for good.
    """

    def __init__(
        self,
        desk: Desk | JudgeProcess,
        questions: LabelQuestions,
        workers: int = 4,
        queue_size: int = 1000,
        selection: Selection = "frequency_uncertainty",
        attempts: int = 3,
    ):
        self.counts = Counts()
        self._desk, self._questions = desk, questions
        self._queue_size, self._selection, self._attempts = queue_size, selection, attempts
        self._lock = threading.Condition()
        self._queue: dict[Item, _Waiting] = {}  # the newest last
        self._in_flight: dict[Item, float] = {}  # since when it waits
        self._settled: set[Item] = set()  # labelled, or given up
        self._unread: dict[Item, int] = {}  # answers that could not be read
        self._looked_up: set[Item] = set()
        self._done: list[tuple[Item, float]] = []
        self._newest = time.monotonic()  # when the last label came
        self._down = False  # the last request brought no answer
        self._spent = False  # the budget allows no further request
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"annotator-{i}", daemon=True) for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether somebody answers: the server is not down, the budget not spent, not all threads have ended."""
        return not self._down and not self._spent and any(thread.is_alive() for thread in self._threads)

    def known(self, items: Iterable[Item]) -> dict[Item, float]:
        """Return the labels of those items that the answer store has; nobody is asked."""
        open_items = [item for item in dict.fromkeys(items) if item not in self._settled]
        found: dict[Item, float] = {}
        while open_items:
            asked = [self._questions.question(item, self._unread.get(item, 0)) for item in open_items]
            unread = []
            try:
                answers = self._desk.known(asked)
            except ConnectionError:  # the judge's process has ended, of which its threads tell
                break
            for item, answer in zip(open_items, answers, strict=True):
                if answer is None:
                    continue
                label = self._read(item, answer)
                if label is not None:
                    found[item] = label
                elif item not in self._settled:
                    unread.append(item)
            open_items = unread
        return found

    def offer(self, items: Mapping[Item, float]) -> None:
        """Put items, {item: priority}, unless they are labelled, given up or under way; what the store has is done.

        Those that wait already get the new priority.
        """
        with self._lock:
            new = [item for item in items if item not in self._looked_up]
        known = self.known(new)
        with self._lock:
            self._looked_up.update(new)
            self._done += known.items()
            self._settled.update(known)
            self.counts.known += len(known)
            for item, priority in items.items():
                if item in self._queue:
                    self._queue[item].priority = priority
                elif item not in self._settled and item not in self._in_flight:
                    self._queue[item] = _Waiting(priority, time.monotonic())
            while len(self._queue) > self._queue_size:
                del self._queue[next(iter(self._queue))]
                self.counts.dropped += 1
            self._lock.notify_all()

    def collect(self) -> list[tuple[Item, float]]:
        """Return the labels that have come since the last call."""
        with self._lock:
            done, self._done = self._done, []
            return done

    def stats(self) -> dict[str, float]:
        """Return how things stand, ready for a log."""
        spent = self._desk.spent
        with self._lock:
            counts = self.counts
            return {
                "alive": float(self.alive),
                "queue": float(len(self._queue)),
                "in_flight": float(len(self._in_flight)),
                "known": float(counts.known),
                "labelled": float(counts.labelled),
                "dropped": float(counts.dropped),
                "unreadable": float(counts.unreadable),
                "given_up": float(counts.given_up),
                "failed": float(counts.failed),
                "wait_s": counts.waited / counts.labelled if counts.labelled else 0.0,
                "age_s": time.monotonic() - self._newest,
                "calls": float(spent.calls),
                "cost": spent.cost,
            }

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside the labels; what waits is offered again when it is met again."""
        with self._lock:
            return {"counts": dict(vars(self.counts)), "unread": dict(self._unread), "settled": set(self._settled)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        with self._lock:
            self.counts = Counts(**state["counts"])
            self._unread, self._settled = dict(state["unread"]), set(state["settled"])

    def close(self) -> None:
        """End the threads and close the desk; requests under way have `GRACE` seconds, then they are cancelled."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
        deadline = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._desk.close()
        for thread in self._threads:
            thread.join(GRACE)

    def _work(self) -> None:
        while (item := self._take()) is not None:
            try:
                (answer,) = self._desk.ask([self._questions.question(item, self._unread.get(item, 0))])
                self._settle(item, answer)
            except Exception:
                if self._stopped:  # the desk was closed under a request
                    return
                # Training goes on without labels, as it does without a server; annotator/alive tells.
                LOG.exception("An annotator thread ended.")
                with self._lock:
                    self._in_flight.pop(item, None)
                return

    def _take(self) -> Item | None:
        """Wait for an item, and take it out of the queue; None when all is over."""
        with self._lock:
            while not self._stopped:
                if self._queue and not self._spent:
                    item = self._next()
                    self._in_flight[item] = self._queue.pop(item).since
                    return item
                self._lock.wait(PATIENCE)
            return None

    def _next(self) -> Item:
        newest_first = reversed(self._queue)
        if self._selection == "newest":
            return next(newest_first)
        return max(newest_first, key=lambda item: self._queue[item].priority)

    def _settle(self, item: Item, answer: Answer) -> None:
        """Take note of what came of a request."""
        replied = not answer.is_error or bool(answer.raw) or answer.completion_tokens > 0
        label = self._read(item, answer) if replied else None
        with self._lock:
            since = self._in_flight.pop(item)
            self._down = not replied
            self._spent = self._spent or answer.error.startswith("budget: ")
            if label is not None:
                self._settled.add(item)
                self._done.append((item, label))
                self._newest = time.monotonic()
                self.counts.labelled += 1
                self.counts.waited += self._newest - since
            elif item not in self._settled:
                self._queue.setdefault(item, _Waiting(0.0, since))
            if not replied:
                self.counts.failed += answer.calls > 0  # else it was not even made
                self._lock.wait_for(lambda: self._stopped, PATIENCE)

    def _read(self, item: Item, answer: Answer) -> float | None:
        """Return the label in an answer; None where there is none to be read, which is counted."""
        if not answer.is_error:
            try:
                return self._questions.read(item, answer)
            except Unreadable:
                pass
        with self._lock:
            self.counts.unreadable += 1
            self._unread[item] = self._unread.get(item, 0) + 1
            if self._unread[item] >= self._attempts:
                self._settled.add(item)
                self.counts.given_up += 1
        return None
