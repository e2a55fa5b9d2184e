"""Answers from and for other projects: label files of B-Pref and Uni-RLHF in, parquet out, preferences for imitation.

Their numbers mean different things, which is why there are none in this suite: in B-Pref and Uni-RLHF 0 says that the
first clip is better and 1 that the second is; in imitation a number is the probability that the *first* is.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from vlmrl.errors import UserError, require, unknown
from vlmrl.judges.base import Answer, Comparison, Verdict, question_key
from vlmrl.judges.desk import Desk
from vlmrl.judges.prompts import short
from vlmrl.judges.store import AnswerStore

LOG = logging.getLogger(__name__)
Convention = Literal["b_pref", "uni_rlhf", "imitation"]
# Numbers that a file may hold: 0, 1 and -1 in B-Pref (`get_label` of its reward model) and Uni-RLHF (its
# `load_queries_with_indices`), a probability in imitation.
_MEANINGS: dict[str, dict[float, Verdict]] = {
    "b_pref": {0: "left", 1: "right", -1: "tie"},
    "uni_rlhf": {0: "left", 1: "right", -1: "tie"},
    "imitation": {1: "left", 0: "right", 0.5: "tie"},
}
# What a pickle of numbers is made of; anything else in such a file could run code.
_HARMLESS = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class Labelled:
    """Two segments of a dataset, and which is better.

    Attributes:
        left: First row of the segment.
        right: First row of the other segment.
        verdict: "left", "right" or "tie".
    """

    left: int
    right: int
    verdict: Verdict


def verdicts(labels: Any, convention: Convention) -> list[Verdict]:
    """Say what numbers mean.

    Args:
        labels: (n,) or (n, 1) numbers.
        convention: Whose numbers they are; see this module.

    Raises:
        UserError: There is no such convention, or a number means nothing in it.
    """
    if convention not in get_args(Convention):
        raise unknown("convention of labels:", convention, get_args(Convention))
    meanings = _MEANINGS[convention]
    numbers = np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
    if numbers.shape[1] != 1 or (wrong := set(numbers[:, 0]) - set(meanings)):
        found = f"the shape {numbers.shape}" if numbers.shape[1] != 1 else str(sorted(map(float, wrong)))
        raise UserError(f"Labels of {convention} are {sorted(meanings)}, one a comparison; these have {found}.")
    return [meanings[number] for number in numbers[:, 0]]


def read_uni_rlhf(folder: Path | str) -> list[Labelled]:
    """Read the crowd's labels of one dataset of Uni-RLHF.

    Args:
        folder: With one file each that begins with `human_label`, `indices_1` and `indices_2`.

    Raises:
        UserError: A file is missing, double, of another length, or holds more than numbers.
    """
    arrays = []
    for start in ("human_label", "indices_1", "indices_2"):
        files = sorted(Path(folder).glob(f"{start}_*.pkl"))
        if len(files) != 1:
            raise UserError(f"'{folder}' must hold one file {start}_*.pkl, and holds {len(files)}.")
        arrays.append(read_numbers(files[0]))
    labels, left, right = arrays
    if not len(labels) == len(left) == len(right):
        raise UserError(f"'{folder}': {len(labels)} labels, but {len(left)} and {len(right)} segments.")
    return [
        Labelled(int(a), int(b), verdict)
        for a, b, verdict in zip(left.ravel(), right.ravel(), verdicts(labels, "uni_rlhf"), strict=True)
    ]


def read_numbers(file: Path | str) -> np.ndarray:
    """Read an array of numbers from a .npy file or a pickle, of which nothing else is let in.

    Raises:
        UserError: It is neither, or holds something else.
    """
    try:
        if Path(file).suffix == ".npy":
            return np.load(file, allow_pickle=False)
        with open(file, "rb") as opened:
            return np.asarray(_Numbers(opened).load(), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"'{file}' cannot be read as an array of numbers: {short(str(error))}.") from error


class _Numbers(pickle.Unpickler):
    """Reads pickles of lists and arrays, and refuses all others before anything in them runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no number")
        return super().find_class(module, name)


def add_labels(
    store: AnswerStore, goal: str, labels: Iterable[Labelled], clip: Callable[[int], np.ndarray], source: str
) -> int:
    """Put labels into an answer store, from which `judge=replay` gives them and `vlmrl.label questions=all` shows them.

    Args:
        store: Where they go.
        goal: What the comparisons were about, a sentence.
        labels: See `read_uni_rlhf`.
        clip: Renders the segment that begins at a row: -> (T, H, W, 3) uint8 RGB.
        source: Whose labels they are; the judge's name in the store.

    Returns:
        How many are new.
    """
    judge = _Source(source)
    new = 0
    for label in labels:
        question = Comparison(goal, clip(label.left), clip(label.right))
        key = question_key(question, judge)
        new += not store.answers([key])
        store.add_question(key, question, judge)
        store.add_clips(question)
        store.add_answer(key, Answer(label.verdict, judge=source))
    return new


@dataclass(frozen=True)
class _Source:
    """Who answered elsewhere; it can be asked nothing."""

    name: str
    fingerprint: str = "imported"
    reads_truth: bool = False


def export_parquet(store: AnswerStore, file: Path | str) -> int:
    """Write every question of a store into a parquet file, a row each, with its answer, ratings and clips.

    Columns: position, key, kind, judge, model, goal, left and right (digests of clips, hex), created (seconds since
    1970), gold, verdict (left, right, tie, abstain; null while there is none), texts, confidence,
    consistent, raw, calls, prompt_tokens, completion_tokens, cost, seconds, ratings (JSON, {person: verdict}),
    left_frames and right_frames (a PNG a frame; null where clips were not kept).

    Args:
        store: What is written.
        file: Replaced if it is there.

    Returns:
        The number of rows.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be written.
    """
    pa = require("pyarrow", extra="robotics")
    parquet = require("pyarrow.parquet", extra="robotics")
    ratings = store.ratings()
    text, number, frames = pa.string(), pa.int64(), pa.list_(pa.binary())
    schema = pa.schema(
        {"position": number, "key": text, "kind": text, "judge": text, "model": text, "goal": text, "left": text}
        | {"right": text, "created": pa.float64(), "gold": text, "verdict": text, "texts": pa.list_(text)}
        | {"confidence": pa.float64(), "consistent": pa.bool_(), "raw": text, "calls": number, "prompt_tokens": number}
        | {"completion_tokens": number, "cost": pa.float64(), "seconds": pa.float64(), "ratings": text}
        | {"left_frames": frames, "right_frames": frames}
    )
    questions = store.questions()
    try:
        with parquet.ParquetWriter(file, schema) as writer:
            for start in range(0, len(questions), 64):  # a group at a time: clips are large
                rows = []
                for entry in questions[start : start + 64]:
                    answer = {} if entry.answer is None else asdict(entry.answer)
                    row = {name: answer.get(name) for name in schema.names} | {
                        name: getattr(entry, name) for name in ("position", "key", "kind", "judge", "goal", "created")
                    }
                    row |= {"gold": entry.gold, "ratings": json.dumps(ratings.get(entry.key, {}))}
                    for side, digest in (("left", entry.left), ("right", entry.right)):
                        row[side] = None if digest is None else digest.hex()
                        row[f"{side}_frames"] = None if digest is None else _pngs(store.clip(digest))
                    rows.append(row)
                writer.write_table(pa.Table.from_pylist(rows, schema))
    except OSError as error:
        raise UserError(f"'{file}' cannot be written ({error.strerror or error}).") from error
    return len(questions)


def _pngs(clip: np.ndarray | None) -> list[bytes] | None:
    import cv2

    if clip is None:
        return None
    return [cv2.imencode(".png", frame[:, :, ::-1])[1].tobytes() for frame in clip]


class JudgePreferenceGatherer:
    """A judge where imitation's `PreferenceComparisons` wants a `PreferenceGatherer`.

    It has its interface and does not inherit from it: imitation 1.0 needs Gymnasium 0.29 and Stable-Baselines3 2.2, and
    cannot be installed beside this suite's. Use it from an environment of its own that has this package without its
    dependencies, or copy answers over with `export_parquet`.

    imitation knows no answer "none": what a judge abstains from, or fails to answer, is 0.5, and is logged.

    Args:
        desk: Where questions are put; a judge that answers at once.
        goal: What the agent should do.
        clip: Renders a fragment; by default its frames come from `infos[t]["rendered_img"]`, where imitation's
            `RenderImageInfoWrapper` puts them.
    """

    def __init__(self, desk: Desk, goal: str, clip: Callable[[Any], np.ndarray] | None = None):
        self._desk = desk
        self._goal = goal
        self._clip = clip or rendered_frames

    def __call__(self, fragment_pairs: Sequence[tuple[Any, Any]]) -> np.ndarray:
        """Return the probability that the first fragment of each pair is preferred, (n,) float32: 1, 0 or 0.5."""
        questions = [
            Comparison(
                self._goal, self._clip(first), self._clip(second), np.asarray(first.rews), np.asarray(second.rews)
            )
            for first, second in fragment_pairs
        ]
        answers = self._desk.ask(questions)
        silent = sum(not answer.is_preference for answer in answers)
        if silent:
            LOG.warning("%d of %d comparisons have no preference; imitation counts them as ties.", silent, len(answers))
        numbers = {"left": 1.0, "right": 0.0}
        return np.array([numbers.get(str(answer.verdict), 0.5) for answer in answers], dtype=np.float32)


def rendered_frames(fragment: Any) -> np.ndarray:
    """Return the frames of a fragment of imitation, (T, H, W, 3) uint8 RGB.

    Raises:
        UserError: Its infos hold none.
    """
    infos = fragment.infos
    if infos is None or any("rendered_img" not in info for info in infos):
        raise UserError(
            "The fragments hold no pictures: wrap the environment in imitation's RenderImageInfoWrapper and keep "
            "infos, or say with clip=... how to draw one."
        )
    return np.stack([np.asarray(info["rendered_img"], dtype=np.uint8) for info in infos])
