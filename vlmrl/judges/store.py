"""Everything that judges were asked and answered, in one SQLite file: nothing is asked twice.

The file holds answers by the content of their question, replies of models by the content of the request, the ledger
of what was spent, and the questions that wait for people, with their clips. A process that is killed loses nothing that
was answered, and several processes may use the file (not on a network file system: SQLite's write-ahead log needs
shared memory).
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, ChatModel, Comparison, Question, Source, TextQuestion, Verdict, clip_digest

VERSION = 1  # of the tables below, in SQLite's user_version
TIMEOUT = 60.0  # seconds to wait while another process writes
CHUNK = 500  # keys a query; SQLite's default limit of variables was 999 for long
SCHEMA = """
CREATE TABLE IF NOT EXISTS questions (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, judge TEXT NOT NULL,
    fingerprint TEXT NOT NULL, goal TEXT NOT NULL, "left" BLOB, "right" BLOB, messages TEXT, created REAL NOT NULL,
    raters INTEGER, gold TEXT, hint TEXT);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, verdict TEXT, answer TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, answer TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, count INTEGER NOT NULL, error TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    entry INTEGER PRIMARY KEY, created REAL NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL,
    calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL NOT NULL,
    seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS clips (digest BLOB PRIMARY KEY, frames INTEGER NOT NULL, png BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ratings (
    entry INTEGER PRIMARY KEY, key TEXT NOT NULL, rater TEXT NOT NULL, verdict TEXT NOT NULL, seconds REAL NOT NULL,
    created REAL NOT NULL, UNIQUE (key, rater));
"""


@dataclass(frozen=True)
class Budget:
    """What may be spent through one store, ever; None sets no limit.

    Attributes:
        calls: Requests to models.
        tokens: Tokens read and written by them.
        cost: Money, in the currency of the models' prices.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Spent:
    """What was spent through one store; `seconds` is the time that models took, added up."""

    calls: int = 0
    failed_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def reaches(self, budget: Budget) -> str:
        """Return which limit allows no further call, in words, or an empty string."""
        tokens = self.prompt_tokens + self.completion_tokens
        if budget.calls is not None and self.calls >= budget.calls:
            return f"{self.calls} of {budget.calls} calls are spent"
        if budget.tokens is not None and tokens >= budget.tokens:
            return f"{tokens} of {budget.tokens} tokens are spent"
        if budget.cost is not None and self.cost >= budget.cost:
            return f"{self.cost:.4g} of {budget.cost:g} in money is spent"
        return ""


@dataclass(frozen=True)
class Stored:
    """A question in a store.

    Attributes:
        position: Its number, in the order in which questions came.
        key: See `base.question_key`.
        kind: "comparison" or "text".
        judge: Name of the judge that it was put to.
        goal: Of a comparison.
        left: Digest of the clip, 32 bytes.
        right: Digest of the other clip.
        created: Seconds since 1970.
        raters: People that are to answer it; None where none is.
        gold: The answer known to be right, of a control question.
        hint: What an automatic judge thought.
        answer: None while there is none.
    """

    position: int
    key: str
    kind: str
    judge: str
    goal: str
    left: bytes | None
    right: bytes | None
    created: float
    raters: int | None
    gold: Verdict | None
    hint: Answer | None
    answer: Answer | None


class AnswerStore:
    """The file; see this module. May be used by several threads.

    Args:
        path: The file; made, with its folder, if it is not there.
        create: Whether it may be made.

    Raises:
        UserError: The file cannot be used, or is no answer store.
    """

    def __init__(self, path: Path | str, create: bool = True):
        self.path = Path(path)
        self._lock = threading.RLock()
        if not create and not self.path.is_file():
            raise UserError(f"There is no answer store '{self.path}'. Give the answers.sqlite of a run folder.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, TIMEOUT, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the newest, and breaks nothing
            with self._transaction() as database:
                version = int(database.execute("PRAGMA user_version").fetchone()[0])
                tables = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
                if version != VERSION and tables:
                    raise UserError(
                        f"'{self.path}' is no answer store that this version reads (its version is {version}, this is "
                        f"{VERSION}). Give another file."
                    )
                for statement in SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"The answer store '{self.path}' cannot be used: {error}. Give another file.") from error

    # Answers

    def add_question(self, key: str, question: Question, judge: Source) -> None:
        """Write down that a question was asked; one that is known stays as it is."""
        goal, left, right, messages = "", None, None, None
        if isinstance(question, Comparison):
            goal, left, right = question.goal, clip_digest(question.left), clip_digest(question.right)
        else:
            messages = json.dumps(_readable(question))
        self._write(
            'INSERT OR IGNORE INTO questions (key, kind, judge, fingerprint, goal, "left", "right", messages, created) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, question.kind, judge.name, judge.fingerprint, goal, left, right, messages, time.time()),
        )

    def answers(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Return {key: answer} of those questions that are answered."""
        return self._known("answers", keys)

    def add_answer(self, key: str, answer: Answer) -> None:
        """Keep an answer for good; the first one stays.

        Raises:
            ValueError: It is an error, which is no answer.
        """
        if answer.is_error:
            raise ValueError(f"An error is not kept as an answer: {answer.error}")
        self._write(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", (key, answer.verdict, _dump(answer), time.time())
        )

    def add_failure(self, key: str, error: str) -> None:
        """Count an attempt that brought no answer."""
        self._write(
            "INSERT INTO failures VALUES (?, 1, ?, ?) ON CONFLICT (key) DO UPDATE SET count = count + 1, "
            "error = excluded.error, created = excluded.created",
            (key, error, time.time()),
        )

    def forget_failures(self, keys: Sequence[str]) -> None:
        """Count attempts that brought no answer from 0 again."""
        for key in keys:
            self._write("DELETE FROM failures WHERE key = ?", (key,))

    def failures(self, keys: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Return {key: (attempts that brought no answer, last error)} of questions that have any."""
        rows = self._select("SELECT key, count, error FROM failures WHERE key IN ({})", keys)
        return {key: (count, error) for key, count, error in rows}

    # Replies of models, and what they cost

    def reply(self, key: str) -> Answer | None:
        """Return what a model replied to a request, or None where it was not made yet."""
        return self._known("replies", [key]).get(key)

    def forget_reply(self, key: str) -> None:
        """Drop a reply that cannot be read; what it cost stays in the ledger."""
        self._write("DELETE FROM replies WHERE key = ?", (key,))

    def largest_prompt(self, model: ChatModel) -> int | None:
        """Return the most tokens that a prompt to this model has taken, or None where it has answered none."""
        with self._lock:
            (tokens,) = self._database.execute(
                "SELECT MAX(prompt_tokens) FROM ledger WHERE model = ? AND outcome = 'answered'", (model.name,)
            ).fetchone()
        return tokens

    def reserve(self, model: ChatModel, question: TextQuestion, budget: Budget) -> int | str:
        """Enter a request into the ledger before it is made, for the most that it can take.

        In one transaction with the look at what is left, so that several processes together keep to the budget. What
        the prompt takes is not known before; the largest one of this model so far stands for it, and the budget can be
        overdrawn by what the first one takes.

        Returns:
            The entry's number; or, in words, why the budget does not allow the request.
        """
        with self._transaction() as database:
            prompt = self.largest_prompt(model) or 0
            completion = question.max_tokens * question.n
            estimate = Spent(1, 0, prompt, completion, model.cost(prompt, completion))
            reached = self._spent(database).reaches(budget) or _would_exceed(self._spent(database), estimate, budget)
            if reached:
                return reached
            cursor = database.execute(
                "INSERT INTO ledger (created, model, outcome, calls, prompt_tokens, completion_tokens, cost, seconds) "
                "VALUES (?, ?, 'under way', 1, ?, ?, ?, 0)",
                (time.time(), model.name, prompt, completion, estimate.cost),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def settle(self, entry: int, key: str, answer: Answer) -> None:
        """Replace a reservation by what the request took, and keep the reply if there is one."""
        with self._transaction() as database:
            database.execute(
                "UPDATE ledger SET outcome = ?, calls = ?, prompt_tokens = ?, completion_tokens = ?, cost = ?, "
                "seconds = ? WHERE entry = ?",
                (
                    "failed" if answer.is_error else "answered",
                    max(1, answer.calls),
                    answer.prompt_tokens,
                    answer.completion_tokens,
                    answer.cost,
                    answer.seconds,
                    entry,
                ),
            )
            if not answer.is_error:
                row = (key, answer.model, _dump(answer), time.time())
                database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", row)

    def spent(self) -> Spent:
        """Return what was spent so far; requests under way, or cut off with their process, count for their most."""
        with self._lock:
            return self._spent(self._database)

    # Questions for people

    def enqueue(self, key: str, raters: int, gold: Verdict | None = None, hint: Answer | None = None) -> None:
        """Let a question that was added wait for people.

        Args:
            key: The question's.
            raters: Ratings that are wanted.
            gold: The right answer, where it is a control question.
            hint: What an automatic judge thought.
        """
        self._write(
            "UPDATE questions SET raters = ?, gold = COALESCE(gold, ?), hint = ? WHERE key = ?",
            (raters, gold, None if hint is None else _dump(hint), key),
        )

    def add_clips(self, question: Comparison) -> None:
        """Keep the clips of a comparison, as PNG without loss; a clip that is there is not written again."""
        for clip in (question.left, question.right):
            digest = clip_digest(clip)
            with self._lock:
                known = self._database.execute("SELECT 1 FROM clips WHERE digest = ?", (digest,)).fetchone()
            if not known:
                self._write("INSERT OR IGNORE INTO clips VALUES (?, ?, ?)", (digest, len(clip), _pack(clip)))

    def clip(self, digest: bytes) -> np.ndarray | None:
        """Return a clip, (T, H, W, 3) uint8 RGB, or None where it was not kept."""
        with self._lock:
            row = self._database.execute("SELECT frames, png FROM clips WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else _unpack(*row)

    def kept_clips(self) -> set[bytes]:
        """Return the digests of all clips that are here."""
        with self._lock:
            return {row[0] for row in self._database.execute("SELECT digest FROM clips")}

    def set_gold(self, key: str, verdict: Verdict) -> None:
        """Make a question a control question, by its right answer."""
        self._write("UPDATE questions SET gold = ? WHERE key = ?", (verdict, key))

    def questions(self, kind: str | None = None, waiting: bool = False) -> list[Stored]:
        """Return what was asked, in order.

        Args:
            kind: Only questions of this kind.
            waiting: Only questions that were put to people.
        """
        conditions = ["1"] + ["kind = ?"] * (kind is not None) + ["raters IS NOT NULL"] * waiting
        with self._lock:
            rows = self._database.execute(
                'SELECT position, q.key, kind, judge, goal, "left", "right", q.created, raters, gold, hint, answer '
                f"FROM questions q LEFT JOIN answers a ON a.key = q.key WHERE {' AND '.join(conditions)} "
                "ORDER BY position",
                () if kind is None else (kind,),
            ).fetchall()
        answers = [[None if text is None else _load(text) for text in row[10:]] for row in rows]
        return [Stored(*row[:10], *loaded) for row, loaded in zip(rows, answers, strict=True)]

    def rate(self, key: str, rater: str, verdict: Verdict, seconds: float) -> None:
        """Write down what a person says; a second time replaces the first."""
        self._write(
            "INSERT INTO ratings (key, rater, verdict, seconds, created) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (key, rater) DO UPDATE SET verdict = excluded.verdict, seconds = excluded.seconds, "
            "created = excluded.created",
            (key, rater, verdict, seconds, time.time()),
        )

    def take_back(self, rater: str) -> str | None:
        """Drop a person's newest rating, unless it has been used already.

        Returns:
            The key of its question, or None where there is nothing to take back.
        """
        with self._transaction() as database:
            row = database.execute(
                "SELECT entry, key FROM ratings WHERE rater = ? ORDER BY created DESC, entry DESC LIMIT 1", (rater,)
            ).fetchone()
            if row is None or database.execute("SELECT 1 FROM answers WHERE key = ?", (row[1],)).fetchone():
                return None
            database.execute("DELETE FROM ratings WHERE entry = ?", (row[0],))
            return str(row[1])

    def ratings(self, keys: Sequence[str] | None = None) -> dict[str, dict[str, Verdict]]:
        """Return {key: {rater: verdict}}, ratings in the order in which they came; of all questions or of some."""
        if keys is None:
            with self._lock:
                rows = self._database.execute(
                    "SELECT key, rater, verdict FROM ratings ORDER BY created, entry"
                ).fetchall()
        else:
            rows = self._select(
                "SELECT key, rater, verdict FROM ratings WHERE key IN ({}) ORDER BY created, entry", keys
            )
        found: dict[str, dict[str, Verdict]] = {}
        for key, rater, verdict in rows:
            found.setdefault(key, {})[rater] = verdict
        return found

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    # How

    def _known(self, table: str, keys: Sequence[str]) -> dict[str, Answer]:
        rows = self._select(f"SELECT key, answer FROM {table} WHERE key IN ({{}})", keys)
        return {key: _load(answer) for key, answer in rows}

    def _select(self, query: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with self._lock:
            for start in range(0, len(keys), CHUNK):
                chunk = list(keys[start : start + CHUNK])
                rows += self._database.execute(query.format(",".join("?" * len(chunk))), chunk).fetchall()
        return rows

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._transaction() as database:
            database.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the file for writing; all that is done in the block is kept, or nothing."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @staticmethod
    def _spent(database: sqlite3.Connection) -> Spent:
        row = database.execute(
            "SELECT SUM(calls), SUM(outcome = 'failed'), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost), "
            "SUM(seconds) FROM ledger"
        ).fetchone()
        return Spent(*(value or 0 for value in row))


def _would_exceed(spent: Spent, estimate: Spent, budget: Budget) -> str:
    """Return which limit the most that a request can take would break, in words, or an empty string."""
    tokens = spent.prompt_tokens + spent.completion_tokens
    wanted = estimate.prompt_tokens + estimate.completion_tokens
    if budget.tokens is not None and tokens + wanted > budget.tokens:
        return f"{tokens} of {budget.tokens} tokens are spent, and a call may take {wanted}"
    if budget.cost is not None and spent.cost + estimate.cost > budget.cost:
        return f"{spent.cost:.4g} of {budget.cost:g} in money is spent, and a call may take {estimate.cost:.4g}"
    return ""


def _readable(question: TextQuestion) -> list[dict[str, Any]]:
    """Return messages for a person who looks into the file; pictures by their digest."""
    return [
        {
            "role": message.role,
            "content": [
                item if isinstance(item, str) else f"<picture {clip_digest(item[None]).hex()}>"
                for item in message.content
            ],
        }
        for message in question.messages
    ]


def _dump(answer: Answer) -> str:
    return json.dumps(asdict(answer))


def _load(text: str) -> Answer:
    values = json.loads(text)
    return Answer(**{**values, "texts": tuple(values["texts"])})


def _pack(clip: np.ndarray) -> bytes:
    """Return a clip's frames below each other as one PNG."""
    import cv2

    frames, height, width, _ = clip.shape
    done, data = cv2.imencode(".png", clip.reshape(frames * height, width, 3)[:, :, ::-1])
    assert done
    return data.tobytes()


def _unpack(frames: int, png: bytes) -> np.ndarray:
    import cv2

    picture = cv2.imdecode(np.frombuffer(png, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[:, :, ::-1]).reshape(frames, -1, picture.shape[1], 3)
