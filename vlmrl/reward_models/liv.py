"""LIV's reward: the cosine of picture and goal as a value, or what a step adds to it.

Source: Ma et al.: "LIV: Language-Image Representations and Rewards for Robotic Control", 2023 (arXiv 2306.00958). With
S = cosine / (1 - gamma), equation 2 rewards a step by S(o', goal) - S(o, goal). The released `get_reward` returns the
cosine of o' and the goal itself. Both are here under their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError, unknown
from vlmrl.reward_models.base import Views, Words, combine_views, or_embedded, sentences
from vlmrl.reward_models.fitted import check_file
from vlmrl.rows import Rows

Kind = Literal["value", "difference"]


class LivReward:
    """How much closer to the goal a picture is, as a value or as a step's difference of values.

    Any encoder will do, but cosines are values only where one was trained so: `vlmrl.fit reward=liv`.

    Args:
        goal: A sentence or several, the mean of whose embeddings counts; empty with a picture of the goal.
        encoder: None takes the embedded one.
        kind: "value": the cosine, -1 to 1. "difference": (cosine - the cosine before) / (1 - gamma), 0 at an episode's
            first row.
        gamma: Discount of the value, 0 to 1, 1 excluded.
        goal_image: Picture of the goal, (H, W, 3) uint8 RGB, instead of words.
        views: How the values of several cameras become one: "mean" or "min".

    Raises:
        UserError: There is no goal or there are two, or a setting is out of range.
    """

    needs = frozenset({"embeddings"})
    retains: frozenset[str] = frozenset()
    requires_sync = False

    def __init__(
        self,
        goal: str | Sequence[str] = (),
        encoder: Encoder | None = None,
        kind: Kind = "value",
        gamma: float = 0.98,
        goal_image: np.ndarray | None = None,
        views: Views = "mean",
    ):
        if kind not in ("value", "difference"):
            raise unknown("kind of LIV's reward:", kind, ("value", "difference"))
        if not 0 <= gamma < 1:
            raise UserError(f"reward.gamma is {gamma}; it goes from 0 to 1, 1 excluded.")
        if goal_image is not None and sentences(goal):
            raise UserError("The goal is a picture and a sentence; give one of them.")
        encoder = or_embedded(encoder)
        self.kind, self.gamma, self.views, self.encoder = kind, gamma, views, encoder
        self.context = 1 if kind == "difference" else 0
        if goal_image is not None:
            target = encoder.encode_images(goal_image[None])[0]
        else:
            target = encoder.encode_texts(Words(sentences(goal)).goal).mean(axis=0)
        self._goal = target / max(float(np.linalg.norm(target)), 1e-12)

    @property
    def no_potential(self) -> str:
        """Why the reward cannot be taken for a potential; empty where it can."""
        if self.kind == "value":
            return ""
        return "reward.kind=difference is the change of a value. Take the value: reward.kind=value."

    def values(self, rows: Rows) -> np.ndarray:
        """Return the cosine of each row with the goal, (n,) float32, whatever the kind."""
        pictures = rows["embeddings"].values()
        return combine_views([np.asarray(view) @ self._goal for view in pictures], self.views).astype(np.float32)

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32; see `kind`."""
        values = self.values(rows)
        if self.kind == "value":
            return values
        scaled = values.astype(np.float64) / (1 - self.gamma)
        return np.diff(scaled, prepend=scaled[:1]).astype(np.float32)


@dataclass(frozen=True)
class LivRewardConfig:
    """Settings of `reward=liv`.

    Attributes:
        kind: "value" or "difference"; see `LivReward`.
        gamma: Discount that the value was trained with.
        goal_image: Path of a picture of the goal; empty takes the words.
        views: How the values of several cameras become one.

    Raises:
        UserError: A setting is out of range, or there is no such picture.
    """

    kind: Kind = "value"
    gamma: float = 0.98
    goal_image: str = ""
    views: Views = "mean"

    uses_encoder: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < 1:
            raise UserError(f"reward.gamma is {self.gamma}; it goes from 0 to 1, 1 excluded.")
        check_file("reward.goal_image", self.goal_image)

    @property
    def uses_words(self) -> bool:
        """Whether the goal is said in words."""
        return not self.goal_image

    def build(self, words: Words | None, encoder: Encoder) -> LivReward:
        """Make the reward model.

        Raises:
            UserError: The picture of the goal cannot be read.
        """
        picture = _read(self.goal_image) if self.goal_image else None
        goal = words.goal if words is not None and picture is None else ()
        return LivReward(goal, encoder, self.kind, self.gamma, picture, self.views)


def _read(path: str) -> np.ndarray:
    """Read a picture, (H, W, 3) uint8 RGB."""
    import cv2

    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"reward.goal_image: '{path}' is not a picture.")
    return np.ascontiguousarray(picture[..., ::-1])
