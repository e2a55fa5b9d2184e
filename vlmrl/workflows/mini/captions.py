"""The grammar: sentences for statements, with paraphrases and conjunctions, and how true each is of a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from vlmrl.workflows.mini.scenes import SCENES, Scene

FORMS = (
    "{}",
    "a picture of {}",
    "a photo of {}",
    "an image of {}",
    "{} in simulation",
    "{} on a checkered floor",
    "a rendering of {}",
    "there is {}",
)
LINKS = ("{} {}", "{} that is {}", "{} is {}")  # subject and phrase
CLAUSE_LINKS = ("{} {}", "{} that {}", "{} which {}")  # subject and clause
JOINS = (", ", " ", " and ", " while ")
FILLER = "zzz"  # a word that is not taught; see `with_filler`


class Caption(NamedTuple):
    """A sentence and the statements that it makes: it is as true as their product."""

    text: str
    statements: tuple[str, ...]


def statements() -> tuple[str, ...]:
    """Return all statements of all scenes."""
    return tuple(dict.fromkeys(name for scene in SCENES.values() for name in (*scene.identities, *scene.phrases)))


def joined_statements() -> tuple[tuple[str, str], ...]:
    """Return all pairs of statements that a sentence may join."""
    return tuple(dict.fromkeys(pair for scene in SCENES.values() for pair in scene.joined()))


def all_truths(scene: Scene, truths: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Complete a scene's degrees: {statement: (n,) float32}, NaN where the scene says nothing of it.

    Identities of other scenes are false here, and so is what only scenes of another kind say: a cart does not kneel.
    """
    kinds = set(scene.identities)
    table = {}
    for name in statements():
        if name in truths:
            table[name] = truths[name]
            continue
        speakers = [other for other in SCENES.values() if name in other.phrases or name in other.identities]
        related = name not in _identities() and any(kinds & set(other.identities) for other in speakers)
        table[name] = np.full(n, np.nan if related else 0.0, dtype=np.float32)
    return table


def draw_captions(rng: np.random.Generator, singles: int = 48, conjunctions: int = 40) -> list[Caption]:
    """Draw sentences that make one statement, and sentences that join two.

    Args:
        rng: Source of everything that is random.
        singles: Number of the former; statements that tasks are about come more often.
        conjunctions: Number of the latter.
    """
    table = [(scene, name, scene.weights.get(name, 1.0)) for scene in SCENES.values() for name in scene.phrases]
    weights = np.array([weight for *_, weight in table])
    chosen = rng.choice(len(table), singles, replace=False, p=weights / weights.sum())
    captions = [_single(rng, *table[i][:2]) for i in chosen]
    pairs = [(scene, *pair) for scene in SCENES.values() for pair in scene.joined()]
    likely = np.array([scene.weights.get(a, 1.0) * scene.weights.get(b, 1.0) for scene, a, b in pairs])
    for i in rng.choice(len(pairs), conjunctions, p=likely / likely.sum()):
        captions.append(_pair(rng, *pairs[i]))
    return captions


def truth_of(captions: Iterable[Caption], truths: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return how true each sentence is of each frame, (frames, sentences) float32, NaN where that is unknown.

    A sentence is as true as the product of its statements: false as soon as one of them is, whatever is unknown.
    """
    columns = []
    for caption in captions:
        parts = np.stack([truths[name] for name in caption.statements])
        columns.append(np.where((parts == 0).any(axis=0), 0.0, np.prod(parts, axis=0)))
    return np.stack(columns, axis=1).astype(np.float32)


def with_filler(rng: np.random.Generator, text: str) -> str:
    """Put a word that is not taught somewhere into a sentence, so that such words are learnt to be passed over."""
    words = text.split()
    words.insert(int(rng.integers(len(words) + 1)), FILLER)
    return " ".join(words)


def all_texts() -> Iterator[str]:
    """Yield all parts of sentences, for what a training run needs to know of the words that it uses."""
    for form in (*FORMS, *LINKS, *CLAUSE_LINKS):
        yield form.replace("{}", " ")
    yield from JOINS
    for scene in SCENES.values():
        yield from scene.subjects
        for table in (scene.phrases, scene.clauses):
            for choices in table.values():
                yield from choices


def _identities() -> set[str]:
    return {name for scene in SCENES.values() for name in scene.identities}


def _single(rng: np.random.Generator, scene: Scene, name: str) -> Caption:
    if not scene.subjects:
        return Caption(str(rng.choice(scene.phrases[name])), (*scene.identities, name))
    subject, identity = _subject(rng, scene)
    if name in scene.clauses and rng.random() < 0.25:
        text = str(rng.choice(CLAUSE_LINKS)).format(subject, rng.choice(scene.clauses[name]))
    else:
        text = _linked(rng, subject, str(rng.choice(scene.phrases[name])))
    return Caption(_formed(rng, text), (identity, name))


def _pair(rng: np.random.Generator, scene: Scene, first: str, second: str) -> Caption:
    subject, identity = _subject(rng, scene)
    join = str(rng.choice(JOINS, p=[0.4, 0.3, 0.2, 0.1]))
    one, other = (first, second) if rng.random() < 0.85 else (second, first)
    if one in scene.clauses and other in scene.clauses and rng.random() < 0.2:
        text = f"{subject} {rng.choice(scene.clauses[one])} and {rng.choice(scene.clauses[other])}"
    elif one in scene.clauses and rng.random() < 0.15:
        text = f"{subject} {rng.choice(scene.clauses[one])}{join}{rng.choice(scene.phrases[other])}"
    else:
        text = _linked(rng, subject, str(rng.choice(scene.phrases[one]))) + join + str(rng.choice(scene.phrases[other]))
    return Caption(_formed(rng, text), (identity, first, second))


def _subject(rng: np.random.Generator, scene: Scene) -> tuple[str, str]:
    subjects = list(scene.subjects)
    # The first one is what the tasks say.
    subject = subjects[0] if rng.random() < 0.45 else str(rng.choice(subjects))
    return subject, scene.subjects[subject]


def _linked(rng: np.random.Generator, subject: str, phrase: str) -> str:
    if not phrase:
        return subject
    link = LINKS[0] if phrase.startswith("that ") or rng.random() < 0.75 else str(rng.choice(LINKS))
    return link.format(subject, phrase)


def _formed(rng: np.random.Generator, text: str) -> str:
    form = FORMS[0] if rng.random() < 0.7 else str(rng.choice(FORMS))
    return form.format(text)
