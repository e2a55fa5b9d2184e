"""What a language model is asked about texts, how its answer is read, and labels that come with the suite.

What is labelled is an item: one text (does it say that the agent gets on?), or two (which of them says more so?). A
label is a probability, that the text is helpful or that the first of two is the better one.

The questions ask for what ONI and Motif ask for (Zheng et al.: "Online Intrinsic Rewards for Decision Making Agents
from Large Language Model Feedback", arXiv 2410.23022; Klissarov et al.: "Motif: Intrinsic Motivation from Artificial
Intelligence Feedback", ICLR 2024, arXiv 2310.00166), in words of this suite.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Message, TextQuestion
from vlmrl.judges.prompts import Unreadable, short

Item = tuple[str, ...]  # one text, or two
PromptName = Literal["word", "reason"]

VERSION = 1  # raise it when a sentence below changes: the digests of recorded labels go with it
RECORDED = Path(__file__).with_name("recorded_labels")
PROGRESS = "getting on in the game: staying alive, exploring, finding and gaining what is of use, going further"
WORDS = {1: ("yes", "no"), 2: ("1", "2", "equal")}
VALUES = {"yes": 1.0, "no": 0.0, "1": 1.0, "2": 0.0, "equal": 0.5}
LEAST_TOKENS = 2  # the word, and the token that ends it where an endpoint counts that one
REASON_TOKENS = 512

_JUDGE = (
    "You judge, as somebody who knows the game well and plays it well, what the messages of a game say of the one who "
    "plays. Be helpful and honest."
)
_ABOUT = {
    1: "The game is {about}. The player's aim is this: {goal}.\nAt one step of play the game showed this message:\n\n"
    "{first}\n\n",
    2: "The game is {about}. The player's aim is this: {goal}.\nAt two different steps of play the game showed these "
    "messages:\n\nMessage 1: {first}\n\nMessage 2: {second}\n\n",
}
_WORD = {
    1: "Does the message say that something was just done or found that clearly helps towards the aim? What is "
    "neutral, routine or harmful does not help. Answer with one word and nothing else: yes or no.",
    2: "Which of the two tells of more progress towards the aim? Answer with one word and nothing else: 1, 2, or "
    "equal.",
}
_REASON = {
    1: "First say what you know of what the message speaks of. Then say in one sentence whether something was just "
    "done or found that clearly helps towards the aim; what is neutral, routine or harmful does not help. End with a "
    "line of its own: label: yes, or label: no.",
    2: "First say what you know of what each message speaks of. Then say in one sentence which of the two tells of "
    "more progress towards the aim. End with a line of its own: label: 1, label: 2, or label: equal.",
}


@dataclass(frozen=True)
class LabelQuestions:
    """Makes questions of items and labels of answers.

    Attributes:
        goal: What the agent is to do, a sentence.
        about: What the texts are from, such as "NetHack".
        prompt: "word": one word is the answer, with its probability where the model tells; "reason": the model first
            says what it knows and thinks.
    """

    goal: str
    about: str
    prompt: PromptName = "word"

    def question(self, item: Item, attempt: int = 0) -> TextQuestion:
        """Return the question about an item.

        Args:
            item: One text, or two.
            attempt: How many answers to it could not be read. Each attempt has a seed of its own and is another
                question to the answer store, so that an unreadable answer is kept, too, and never asked for again.
        """
        second = item[1] if len(item) == 2 else ""
        about = _ABOUT[len(item)].format(about=self.about, goal=self.goal, first=item[0], second=second)
        word = self.prompt == "word"
        return TextQuestion(
            (Message("system", (_JUDGE,)), Message("user", (about + (_WORD if word else _REASON)[len(item)],))),
            # ONI samples its reasoning at 0.1; a word is taken as it is, and drawn anew only if it was unreadable.
            temperature=0.0 if word and attempt == 0 else 0.1,
            max_tokens=LEAST_TOKENS if word else REASON_TOKENS,
            seed=attempt,
            choices=WORDS[len(item)] if word else (),
        )

    def read(self, item: Item, answer: Answer) -> float:
        """Return the label that an answer gives.

        Args:
            item: What was asked about.
            answer: No error.

        Returns:
            Probability, 0 to 1. Of one word the probability of "yes" against "no" (of "1" against "2", and half of that
            of "equal") where the model tells all of them, else 1, 0 or 1/2.

        Raises:
            Unreadable: It holds no label.
        """
        words = WORDS[len(item)]
        if self.prompt == "reason":
            return VALUES[_last_label(answer.texts[0], words)]
        if answer.logprobs is not None and set(words) <= set(answer.logprobs):
            chances = {word: math.exp(answer.logprobs[word]) for word in words}
            total = sum(chances.values())
            if total > 0:
                return sum(VALUES[word] * chance for word, chance in chances.items()) / total
        return VALUES[answer.texts[0]]


def prompt_digest(goal: str, about: str) -> str:
    """Return the SHA-256, hex, of the words with which one text is asked about; the text itself is left open."""
    messages = LabelQuestions(goal, about).question(("<text>",)).messages
    parts = [part for message in messages for part in message.content]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _last_label(reply: str, words: Sequence[str]) -> str:
    """Return the word of the last line "label: <word>".

    Raises:
        Unreadable: There is none.
    """
    found = re.findall(r"^\W*label\W*:\W*([\w]+)\W*$", reply, flags=re.IGNORECASE | re.MULTILINE)
    word = found[-1].lower() if found else ""
    if word not in words:
        raise Unreadable(f"no label in: {short(reply)}")
    return word


@dataclass(frozen=True)
class LabelTable:
    """Labels that were written down.

    Attributes:
        name: Where they are from.
        goal: What was the aim when they were given.
        about: What the texts are from.
        labels: {text: probability that it is helpful}.
        joined_by: What stands between the sentences of a text; empty where texts are known as a whole only.
        context: How the first sentence begins where it says what the others are about, such as a mission; these are
            then known together with it. Empty where there is none.
    """

    name: str
    goal: str
    about: str
    labels: Mapping[str, float]
    joined_by: str = ""
    context: str = ""

    def label_of(self, text: str) -> float | None:
        """Return the label of a text: its own, else by its sentences.

        One that helps is enough for the whole to help. Where none of those that are known does, all must be known.
        """
        if text in self.labels or not self.joined_by:
            return self.labels.get(text)
        sentences = [sentence.strip() for sentence in text.split(self.joined_by)]
        if self.context and sentences[0].startswith(self.context):
            sentences = [f"{sentences[0]}{self.joined_by}{sentence}" for sentence in sentences[1:]]
        known = [self.labels[sentence] for sentence in sentences if sentence in self.labels]
        best = max(known, default=0.0)
        return best if best > 0.5 or (known and len(known) == len(sentences)) else None

    def label(self, item: Item) -> float | None:
        """Return the label of an item, None where a text is not known; two are compared by their labels."""
        found = [self.label_of(text) for text in item]
        known = [value for value in found if value is not None]
        if len(known) < len(item):
            return None
        return known[0] if len(item) == 1 else 0.5 + (known[0] - known[1]) / 2

    def save(self, path: Path) -> None:
        """Write a file that `read_table` reads: lists of helpful and other texts; soft labels by themselves."""
        kinds = {"helpful": 1.0, "other": 0.0}
        plain = {kind: sorted(text for text, p in self.labels.items() if p == value) for kind, value in kinds.items()}
        soft = {text: p for text, p in sorted(self.labels.items()) if p not in kinds.values()}
        about = {"goal": self.goal, "about": self.about, "joined_by": self.joined_by, "context": self.context}
        values: dict[str, Any] = {**about, **plain, "soft": soft}
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_table(path: Path) -> LabelTable:
    """Read a table of labels.

    JSON with `goal`, `about`, the texts `helpful` and `other`, `soft` ({text: probability}), `joined_by` and `context`;
    but for the first two all may be missing.

    Raises:
        UserError: There is no such file, or it is none of these.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        labels = {str(text): float(p) for text, p in values.get("soft", {}).items()}
        for kind, value in (("helpful", 1.0), ("other", 0.0)):
            labels |= dict.fromkeys(map(str, values.get(kind, ())), value)
        joined_by, context = str(values.get("joined_by", "")), str(values.get("context", ""))
        table = LabelTable(str(path), str(values["goal"]), str(values["about"]), labels, joined_by, context)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"reward.table: '{path}' is no table of labels ({type(error).__name__}: {error}). It is JSON with goal, "
            "about, and lists helpful and other of texts; a run with reward=oni writes one, labels.json."
        ) from error
    if not labels or not all(0 <= p <= 1 for p in labels.values()):
        raise UserError(f"reward.table: '{path}' holds no labels, or one that is no probability, 0 to 1.")
    return table


def recorded_tables() -> dict[str, str]:
    """Return {environment: file} of the tables that come with the suite."""
    index = json.loads(RECORDED.joinpath("index.json").read_text(encoding="utf-8"))
    return {env: entry["file"] for entry in index for env in entry["envs"]}


def find_table(name: str) -> LabelTable:
    """Return the table in a file, or the one that comes with the suite for an environment of this name.

    Raises:
        UserError: There is neither.
    """
    shipped = recorded_tables()
    if name in shipped:
        return read_table(RECORDED / shipped[name])
    if not Path(name).is_file():
        if Path(name).suffix or len(Path(name).parts) > 1:  # no environment's name looks so
            raise UserError(
                f"reward.table: there is no file '{name}'. A run with reward=oni writes one, labels.json; "
                f"reward.table=<environment> takes the one that comes with the suite for {', '.join(sorted(shipped))}."
            )
        raise UserError(
            f"reward=oni: no labels come with the suite for '{name}'; for {', '.join(sorted(shipped))} they do. Have "
            "the texts labelled by a model (reward.labels=judge judge=openai), or give a table of your own: "
            "reward.table=<file>."
        )
    return read_table(Path(name))
