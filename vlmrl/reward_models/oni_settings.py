"""Settings of the reward of `oni.py`, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from vlmrl.errors import UserError
from vlmrl.reward_models.oni_annotator import Selection
from vlmrl.reward_models.oni_labels import PromptName
from vlmrl.reward_models.oni_learner import Training
from vlmrl.reward_models.oni_networks import TextNetworkName
from vlmrl.typed import Count, Positive, Range

Variant = Literal["retrieval", "classification", "ranking", "embedding", "motif"]
# Of a label's probability; of the network's probability (ONI's eta); of a z-score (ONI's eps_threshold_quantile, which
# is one); of a cosine (ELLM); a quantile over the texts (Motif).
THRESHOLDS = {"retrieval": 0.5, "classification": 0.5, "ranking": -0.5, "embedding": 0.99, "motif": 0.5}


@dataclass(frozen=True)
class OniSettings:
    """What `reward=oni` is set to; `configs/reward/oni.yaml` says what each setting means.

    Raises:
        UserError: They contradict each other.
    """

    variant: Variant = "retrieval"
    extrinsic_coef: Annotated[float, Range(0)] = 1.0
    intrinsic_coef: Annotated[float, Range(0)] = 0.1
    beta: Annotated[float, Range(0)] = 3.0
    threshold: float | None = None
    soft_labels: bool = False
    labels: Literal["recorded", "judge"] = "recorded"
    table: str = ""
    preferences: str = ""
    about: str = ""
    prompt: PromptName = "word"
    selection: Selection = "frequency_uncertainty"
    queue_size: Count = 1000
    attempts: Count = 3
    pairs: Count = 32
    interact: Count = 5000
    network: TextNetworkName = "bag"
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Range(0)] = 0.01
    batch_size: Count = 128
    gradient_steps: Count = 400
    patience: Count = 100
    held_out: Annotated[float, Range(0, 0.5)] = 0.2
    weights: str = ""

    learns_from: ClassVar[str] = "texts"
    at_collection: ClassVar[bool] = True  # a worker can reward a step as it takes it, by scores

    def __post_init__(self) -> None:
        if self.extrinsic_coef == 0 and self.intrinsic_coef == 0:
            raise UserError("reward.extrinsic_coef and reward.intrinsic_coef are both 0: every reward would be 0.")
        if self.variant == "motif" and not self.preferences:
            raise UserError(
                "reward.variant=motif learns from comparisons that were made before: reward.preferences=<file>, lines "
                'of JSON {"first": "...", "second": "...", "better": "first" | "second" | "equal"}.'
            )
        if self.threshold is not None and self.variant != "ranking" and not 0 <= self.threshold <= 1:
            raise UserError(
                f"reward.threshold={self.threshold:g}; for reward.variant={self.variant} it is 0 to 1, for ranking a "
                "z-score."
            )

    @property
    def training(self) -> Training:
        """How a network is trained."""
        return Training(
            self.learning_rate,
            self.weight_decay,
            self.batch_size,
            self.gradient_steps,
            self.patience,
            self.held_out,
        )

    @property
    def not_at_collection(self) -> str:
        """Why a worker cannot reward the steps that it takes, in words; empty where it can."""
        if self.variant == "embedding":
            return "reward.variant=embedding counts the goals that were reached in an episode, and not its texts"
        return ""

    @property
    def asks_judge(self) -> bool:
        """Whether a judge is asked while the agent learns."""
        return self.labels == "judge" and self.variant not in ("embedding", "motif")

    @property
    def uses_encoder(self) -> bool:
        """Whether the encoder's text tower is needed."""
        return self.variant == "embedding"

    @property
    def uses_words(self) -> bool:
        """Whether it is made of sentences: recorded labels and preferences were given for theirs."""
        return self.asks_judge or self.variant == "embedding"
