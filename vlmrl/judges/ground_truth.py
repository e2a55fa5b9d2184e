"""A scripted teacher that reads the ground truth: the ceiling of what preferences can teach, and its noisy relatives.

The irrationalities are those of B-Pref (Lee, Smith, Dragan, Abbeel 2021, "B-Pref: Benchmarking Preference-Based
Reinforcement Learning", section 3). Two things differ: thresholds are rewards a step and not multiples of an average
return that changes while an agent learns, and what is drawn at random depends on the question alone, so that a teacher
asked twice says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.judges.base import Answer, Calls, Comparison, Question, Verdict
from vlmrl.judges.settings import JudgeSettings
from vlmrl.typed import Natural, Positive, Share


@dataclass(frozen=True, kw_only=True)
class GroundTruthConfig(JudgeSettings):
    """Settings of `judge=ground_truth`; the defaults are B-Pref's oracle, which makes no mistake.

    Attributes:
        beta: Rationality: the left clip is preferred with probability sigmoid(beta (R_left - R_right)), with R the sum
            of the (discounted) rewards of a clip; None is the limit, the greater sum always.
        gamma: Myopia: a reward k steps before the end of its clip counts gamma^k of the last one.
        mistake: Probability that the answer is exchanged.
        skip_below: Abstains where neither clip has a mean reward a step of at least this; None never does.
        equal_within: Says tie where the mean rewards a step differ by less than this.
        seed: Of what is drawn at random.
    """

    reads_truth: ClassVar[bool] = True

    beta: Positive | None = None
    gamma: Share = 1.0
    mistake: Share = 0.0
    skip_below: float | None = None
    equal_within: float = 0.0
    seed: Natural = 0

    def __post_init__(self) -> None:
        if self.equal_within < 0:
            raise UserError(f"judge.equal_within is {self.equal_within}; it must be at least 0.")

    def build(self, encoder: Encoder | None = None, device: str = "cpu") -> GroundTruthJudge:
        """See `JudgeSettings.build`."""
        return GroundTruthJudge(self)


class GroundTruthJudge:
    """See this module and `base.Judge`.

    Args:
        config: How it errs.
    """

    name = "ground_truth"
    kinds = frozenset({"comparison"})
    reads_truth = True

    def __init__(self, config: GroundTruthConfig | None = None):
        self._config = config or GroundTruthConfig()
        settings = asdict(self._config)
        self.fingerprint = repr({key: settings[key] for key in sorted(settings.keys() - {"store", "keep_clips"})})

    def ask(self, questions: Sequence[Question], calls: Calls) -> Iterator[tuple[int, Answer]]:
        """See `base.Judge.ask`.

        Raises:
            UserError: A comparison brings no ground truth.
        """
        for i, question in enumerate(questions):
            assert isinstance(question, Comparison)
            verdict, confidence = self._verdict(question)
            yield i, Answer(verdict, judge=self.name, confidence=confidence)

    def _verdict(self, question: Comparison) -> tuple[Verdict, float | None]:
        if question.left_truth is None or question.right_truth is None:
            raise UserError(
                "judge=ground_truth needs the ground-truth reward of each step, and this comparison brings none: the "
                "environment has no task, or the data no rewards. Take a judge that looks at pictures, judge=encoder."
            )
        config = self._config
        left, right = (np.asarray(truth, dtype=np.float64) for truth in (question.left_truth, question.right_truth))
        if config.skip_below is not None and max(left.mean(), right.mean()) < config.skip_below:
            return "abstain", None
        if abs(left.mean() - right.mean()) < config.equal_within:
            return "tie", None
        # Drawn before anything depends on it: a teacher with and one without mistakes draw the same preferences.
        digest = int.from_bytes(question.digest(with_truth=True)[:8], "little")
        draws = np.random.default_rng([config.seed, digest]).random(2)
        gap = _discounted(left, config.gamma) - _discounted(right, config.gamma)
        if config.beta is None and gap == 0:
            return "tie", None
        if config.beta is None:
            prefers_left, sure = gap > 0, 1.0
        else:
            chance = float(0.5 * (1 + np.tanh(0.5 * config.beta * gap)))  # the logistic function, without overflow
            prefers_left, sure = draws[0] < chance, max(chance, 1 - chance)
        if draws[1] < config.mistake:
            prefers_left = not prefers_left
        return "left" if prefers_left else "right", sure


def _discounted(truth: np.ndarray, gamma: float) -> float:
    """Return the sum of gamma^(T - 1 - t) r_t of a clip's rewards, (T,)."""
    return float(truth @ gamma ** np.arange(len(truth) - 1, -1, -1, dtype=np.float64))
