"""The grammar: sentences for statements, with paraphrases and conjunctions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SUBJECTS = (
    "a humanoid robot",
    "a robot",
    "the robot",
    "a humanoid",
    "a humanoid figure",
    "an orange humanoid robot",
    "the humanoid robot",
)
FRAMES = (
    "{}",
    "a picture of {}",
    "a photo of {}",
    "an image of {}",
    "{} in simulation",
    "{} on a checkered floor",
    "a rendering of {}",
)

# Statement -> phrases that follow the subject. The first is the plainest.
HUMANOID: dict[str, tuple[str, ...]] = {
    "robot": ("",),
    "standing": (
        "standing up",
        "standing",
        "standing upright",
        "standing on both feet",
        "standing tall",
        "standing still on its two feet",
        "upright on straight legs",
        "on its feet",
    ),
    "knees bent": ("standing with bent knees", "with slightly bent knees", "half squatting", "with its knees bent"),
    "legs apart": ("standing with its legs apart", "in a wide stance", "standing with feet wide apart"),
    "legs together": ("standing with its legs together", "standing with feet together"),
    "one leg": (
        "standing up on one leg",
        "standing on one leg",
        "balancing on one foot",
        "with one leg lifted",
        "on one leg",
    ),
    "kneeling": (
        "kneeling",
        "on its knees",
        "kneeling on the floor",
        "on both knees",
        "kneeling down",
        "kneeling on the ground",
        "kneeling on both knees",
        "with both knees on the floor and its trunk upright",
        "down on its knees",
    ),
    "kneeling tall": ("kneeling tall", "kneeling upright with straight hips", "kneeling up high on its knees"),
    "kneeling on heels": (
        "kneeling on its heels",
        "sitting on its heels",
        "in seiza",
        "kneeling and sitting back on its heels",
    ),
    "one knee": ("kneeling on one knee", "down on one knee", "half kneeling", "genuflecting"),
    "squatting": (
        "squatting",
        "crouching",
        "in a deep squat",
        "crouching down on its feet",
        "squatting low",
        "crouched",
    ),
    "bowing": (
        "bowing",
        "bending forward at the waist",
        "bent over",
        "leaning forward over its legs",
        "touching its toes",
    ),
    "leaning back": ("leaning back", "leaning backwards", "bent backwards"),
    "falling": ("falling", "falling over", "losing its balance", "tipping over", "toppling"),
    "falling forward": ("falling forward", "falling on its face", "tipping over forwards"),
    "falling backward": ("falling backward", "falling on its back", "tipping over backwards"),
    "in the air": ("in the air", "jumping", "off the ground", "floating above the floor", "leaping"),
    "sitting": ("sitting", "sitting on the floor", "seated", "seated down", "sitting down on the ground"),
    "sitting, legs forward": (
        "sitting with its legs stretched out",
        "sitting with straight legs in front of it",
        "in an L-sit on the floor",
    ),
    "sitting, knees up": ("sitting with its knees up", "sitting with its knees drawn up", "sitting with bent legs"),
    "lotus": (
        "seated down, meditating in the lotus position",
        "sitting cross-legged",
        "meditating in the lotus position",
        "in the lotus position",
        "sitting in lotus pose",
    ),
    "splits": (
        "practicing gymnastics, doing the side splits",
        "doing the splits",
        "doing the side splits",
        "with its legs spread wide in a split",
        "in a straddle split",
    ),
    "lying": ("lying down", "lying on the floor", "lying flat", "lying on the ground", "stretched out on the floor"),
    "lying on back": ("lying on its back", "lying face up", "on its back"),
    "lying on front": ("lying on its front", "lying face down", "lying on its belly", "prone on the floor"),
    "lying on side": ("lying on its side", "on its side on the floor"),
    "fallen": (
        "fallen down",
        "collapsed",
        "collapsed on the floor",
        "that has fallen over",
        "in a heap on the floor",
        "fallen to the ground",
    ),
    "hands on floor": (
        "with its hands on the floor",
        "touching the floor with a hand",
        "supporting itself on its hands",
    ),
    "all fours": ("on all fours", "crawling", "on its hands and knees"),
    "upside down": ("upside down", "doing a headstand", "head over heels"),
    "both arms raised": (
        "with both arms raised",
        "raising both arms",
        "with its hands above its head",
        "with its hands up",
        "reaching up",
    ),
    "one arm raised": ("with one arm raised", "raising one arm", "waving", "with one hand up"),
    "hands on hips": ("with hands on hips", "with its hands on its hips", "with arms akimbo"),
    "arms crossed": ("with its arms crossed", "with arms folded", "with crossed arms", "crossing its arms"),
    "arms down": ("with its arms hanging down", "with its arms at its sides", "with arms down"),
    "arms out": ("with its arms stretched out to the sides", "in a T-pose", "with arms spread"),
    "arms forward": ("reaching forward", "with its arms stretched out in front", "with arms extended forward"),
    "from the front": ("facing the camera", "seen from the front"),
    "from behind": ("facing away", "seen from behind", "with its back to the camera"),
    "from the side": ("seen from the side", "in profile"),
}

# Whole sentences: a cart and pole have no one subject.
CARTPOLE: dict[str, tuple[str, ...]] = {
    "pole and cart": (
        "pole and cart",
        "a pole on a cart",
        "a cart with a pole",
        "a cart and a pole",
        "a picture of a cart and pole",
    ),
    "upright": (
        "pole vertically upright on top of the cart",
        "a pole standing upright on a cart",
        "a cart balancing a vertical pole",
        "a vertical pole on a cart",
        "the pole is upright",
        "pole balanced upright on the cart",
        "an upright pole on top of a cart",
    ),
    "tilted": (
        "a tilted pole on a cart",
        "the pole leans",
        "a pole leaning on a cart",
        "pole tilted on top of the cart",
    ),
    "tilted left": ("a pole tilted to the left on a cart", "pole leaning left", "the pole falls to the left"),
    "tilted right": ("a pole tilted to the right on a cart", "pole leaning right", "the pole falls to the right"),
    "horizontal": ("a horizontal pole on a cart", "pole lying horizontally beside the cart", "the pole is horizontal"),
    "hanging": (
        "a pole hanging down from a cart",
        "pole hanging below the cart",
        "the pole points downwards",
        "a fallen pole under the cart",
    ),
    "cart left": ("a cart on the left", "the cart is on the left side", "a pole and a cart at the left"),
    "cart right": ("a cart on the right", "the cart is on the right side", "a pole and a cart at the right"),
    "cart centred": (
        "a cart in the middle",
        "the cart is in the centre",
        "a pole and a cart in the middle of the track",
    ),
    "cart at the edge": ("a cart at the edge", "the cart is at the end of its track"),
}

# What may be said together with a posture.
POSTURES = (
    "standing",
    "one leg",
    "kneeling",
    "kneeling tall",
    "kneeling on heels",
    "one knee",
    "squatting",
    "sitting",
    "lotus",
    "splits",
    "lying",
)
MODIFIERS = (
    "both arms raised",
    "one arm raised",
    "hands on hips",
    "arms crossed",
    "arms down",
    "arms out",
    "arms forward",
    "from the front",
    "from behind",
    "from the side",
    "legs apart",
)

# Mirrored left to right, a picture keeps all its statements but these.
MIRRORED = {
    "tilted left": "tilted right",
    "tilted right": "tilted left",
    "cart left": "cart right",
    "cart right": "cart left",
}


class Caption(NamedTuple):
    """A sentence and the statements that it makes: it is as true as their product."""

    text: str
    statements: tuple[str, ...]


def draw_captions(rng: np.random.Generator, conjunctions: int = 24) -> list[Caption]:
    """Draw one sentence for each statement and some conjunctions.

    Args:
        rng: Source of everything that is random.
        conjunctions: Number of sentences that say a posture and something beside it.
    """
    captions = [Caption(_about_robot(rng, rng.choice(HUMANOID[name])), (name,)) for name in HUMANOID]
    captions += [Caption(str(rng.choice(CARTPOLE[name])), (name,)) for name in CARTPOLE]
    for _ in range(conjunctions):
        posture, beside = str(rng.choice(POSTURES)), str(rng.choice(MODIFIERS))
        join = ", " if rng.random() < 0.5 else " "
        captions.append(
            Caption(
                _about_robot(rng, rng.choice(HUMANOID[posture]) + join + rng.choice(HUMANOID[beside])),
                (posture, beside),
            )
        )
    return captions


def truth_of(captions: list[Caption], truths: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return how true each sentence is of each frame, (frames, sentences) float32, given the statements' degrees."""
    return np.stack([np.prod([truths[name] for name in caption.statements], axis=0) for caption in captions], axis=1)


def all_texts() -> list[str]:
    """Return every subject, frame and phrase, for what a training run needs to know of the words that it uses."""
    phrases = [phrase for table in (HUMANOID, CARTPOLE) for choices in table.values() for phrase in choices]
    return [*SUBJECTS, *(frame.format("") for frame in FRAMES), *phrases]


def _about_robot(rng: np.random.Generator, phrase: str) -> str:
    subject = SUBJECTS[0] if rng.random() < 0.5 else str(rng.choice(SUBJECTS))
    frame = FRAMES[0] if rng.random() < 0.6 else str(rng.choice(FRAMES))
    return frame.format(f"{subject} {phrase}".strip())
