"""Which of two success rates is higher: differences, tests, verdicts, and how many episodes it takes to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from vlmrl.stats.intervals import Interval, difference_interval, wilson

Word = Literal["BETTER", "WORSE", "SAME", "UNDERPOWERED"]
POWER = 0.8  # chance of a settled verdict that the episodes still needed are computed for
EXACT = 100_000  # tables that an exact test sums over
MOST = 1_000_000  # episodes beyond which nobody will go


@dataclass(frozen=True)
class Pairs:
    """Outcomes of two policies from the same starts.

    Attributes:
        both: Starts from which both succeeded.
        first: From which only the first did.
        second: From which only the second did.
        neither: From which none did.
    """

    both: int
    first: int
    second: int
    neither: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Pairs:
        """Count outcomes, (n,) bool each, entry i of both from the same start."""
        a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
        return cls(*(int(kind.sum()) for kind in (a & b, a & ~b, ~a & b, ~a & ~b)))

    def __len__(self) -> int:
        return self.both + self.first + self.second + self.neither


@dataclass(frozen=True)
class Verdict:
    """What is known of the difference of two rates, the first minus the second.

    Attributes:
        word: "BETTER": the interval lies above 0, and the test agrees. "WORSE": it lies below. "SAME": it holds 0 and
            stays within the margin. "UNDERPOWERED": anything else: more episodes are needed to know.
        difference: Estimate, -1 to 1.
        interval: Its interval.
        p_value: Of the test of equality, two-sided; None where the interval itself is the test.
        method: What interval and test are called.
        needed: Episodes of each policy, in all, after which a verdict other than UNDERPOWERED has a chance of 80 % if
            rates stay as they are; None where the verdict is settled, or no number below a million would do.
    """

    word: Word
    difference: float
    interval: Interval
    p_value: float | None
    method: str
    needed: int | None

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "verdict": self.word,
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
            "method": self.method,
            "episodes_needed": self.needed,
        }


def newcombe(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> Interval:
    """Interval of the difference of two independent success rates.

    Newcombe 1998 (Statistics in Medicine 17, 873), method 10: from the Wilson interval of each.

    Args:
        first: (successes, trials), at least one trial.
        second: What is taken away from it.
        confidence: Coverage, between 0 and 1.
    """
    (a, m), (b, n) = first, second
    return difference_interval((a / m, wilson(a, m, confidence)), (b / n, wilson(b, n, confidence)))


def newcombe_paired(pairs: Pairs, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two success rates that were measured from the same starts.

    Newcombe 1998 (Statistics in Medicine 17, 2635), method 10: Wilson intervals of both, and the correlation phi of the
    outcomes with a continuity correction.

    Args:
        pairs: Counts, at least one.
        confidence: Coverage, between 0 and 1.
    """
    e, f, g, h = pairs.both, pairs.first, pairs.second, pairs.neither
    n = len(pairs)
    one, other = (e + f) / n, (e + g) / n
    (one_low, one_high), (other_low, other_high) = wilson(e + f, n, confidence), wilson(e + g, n, confidence)
    below, above = one - one_low, one_high - one
    other_below, other_above = other - other_low, other_high - other
    margins = (e + f) * (g + h) * (e + g) * (f + h)
    concordance: float = e * h - f * g
    if concordance > 0:
        concordance = max(concordance - n / 2, 0)
    phi = concordance / math.sqrt(margins) if margins else 0.0
    low = math.sqrt(max(0.0, below**2 - 2 * phi * below * other_above + other_above**2))
    high = math.sqrt(max(0.0, above**2 - 2 * phi * above * other_below + other_below**2))
    return max(-1.0, one - other - low), min(1.0, one - other + high)


def mcnemar(pairs: Pairs) -> float:
    """Exact two-sided p-value of equal success rates from the same starts (McNemar 1947, exact binomial form).

    Only starts count from which one policy succeeded and the other did not; without any, p is 1.
    """
    discordant = pairs.first + pairs.second
    if discordant == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(pairs.first, discordant, 0.5).pvalue)


def barnard(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Exact two-sided p-value of equal success rates of independent episodes (Barnard 1947, pooled Wald statistic).

    Beyond `EXACT` tables, where the two agree, the statistic's normal limit takes the place of the sum over them.

    Args:
        first: (successes, trials), at least one trial.
        second: The other's.
    """
    (a, m), (b, n) = first, second
    if m * n > EXACT:
        pooled = (a + b) / (m + n)
        error = math.sqrt(pooled * (1 - pooled) * (1 / m + 1 / n))
        return 2 * NormalDist().cdf(-abs(a / m - b / n) / error) if error else 1.0
    from scipy.stats import barnard_exact

    return float(barnard_exact([[a, b], [m - a, n - b]], alternative="two-sided").pvalue)


def compare(first: tuple[int, int], second: tuple[int, int], margin: float, confidence: float = 0.95) -> Verdict:
    """Compare two success rates of independent episodes.

    Args:
        first: (successes, trials), at least one trial.
        second: What the first is compared with.
        margin: Differences smaller than this are of no consequence, above 0.
        confidence: Of the interval; the test's level is 1 minus it.
    """
    (a, m), (b, n) = first, second
    interval = newcombe(first, second, confidence)
    p_value = barnard(first, second)
    word = judge(interval, margin, p_value <= 1 - confidence)
    needed = None
    if word == "UNDERPOWERED":
        one, other = _inner(a, m), _inner(b, n)
        spread = one * (1 - one) + other * (1 - other)
        pooled = 2 * (one + other) / 2 * (1 - (one + other) / 2)
        needed = _needed(one - other, pooled, spread, margin, confidence, max(m, n))
    return Verdict(word, a / m - b / n, interval, p_value, "Newcombe interval, Barnard's exact test", needed)


def compare_paired(pairs: Pairs, margin: float, confidence: float = 0.95) -> Verdict:
    """Compare two success rates that were measured from the same starts.

    Args:
        pairs: Counts, at least one.
        margin: Differences smaller than this are of no consequence, above 0.
        confidence: Of the interval; the test's level is 1 minus it.
    """
    n = len(pairs)
    interval = newcombe_paired(pairs, confidence)
    p_value = mcnemar(pairs)
    word = judge(interval, margin, p_value <= 1 - confidence)
    needed = None
    if word == "UNDERPOWERED":
        # Half a start more of each discordant kind: without any, no number of episodes would follow.
        one, other = (pairs.first + 0.5) / (n + 1), (pairs.second + 0.5) / (n + 1)
        discordant = one + other
        needed = _needed(one - other, discordant, discordant - (one - other) ** 2, margin, confidence, n)
    difference = (pairs.first - pairs.second) / n
    return Verdict(word, difference, interval, p_value, "Newcombe interval for pairs, McNemar's exact test", needed)


def judge(interval: Interval, margin: float, differs: bool = True) -> Word:
    """Name what an interval of a difference says; see `Verdict`.

    Args:
        interval: Of the first minus the second.
        margin: Differences smaller than this are of no consequence.
        differs: Whether a test says so as well.
    """
    low, high = interval
    if (low > 0 or high < 0) and differs:
        return "BETTER" if low > 0 else "WORSE"
    if low <= 0 <= high and -margin < low and high < margin:
        return "SAME"
    return "UNDERPOWERED"


def _inner(successes: int, trials: int) -> float:
    """Agresti and Coull's estimate (1998): 0 of 10 does not mean that nothing will vary."""
    return (successes + 2) / (trials + 4)


def _needed(
    difference: float, null_spread: float, spread: float, margin: float, confidence: float, least: int
) -> int | None:
    """Return episodes of each policy that settle a comparison with a chance of `POWER`, the cheaper of two ways.

    To find a difference: n = (z_alpha sqrt(null_spread) + z_beta sqrt(spread))^2 / difference^2 (Fleiss 1981, eq. 3.14,
    for independent rates; Connor 1987, Biometrics 43, 207, eq. 1, for pairs). To show that it stays within the margin:
    n = spread ((z_alpha + z_beta) / (margin - |difference|))^2, where z_beta stands for half of the misses at
    difference 0 (Chow, Shao and Wang 2008, section 4.2.3).

    Args:
        difference: Estimate.
        null_spread: Variance of one episode's (or pair's) difference if rates were equal.
        spread: The same at the estimate.
        margin: See `judge`.
        confidence: Of the interval.
        least: Episodes that there are; they were not enough.
    """
    normal = NormalDist()
    z_alpha, z_beta = normal.inv_cdf(0.5 + confidence / 2), normal.inv_cdf(POWER)
    ways = []
    if difference:
        ways.append(((z_alpha * math.sqrt(null_spread) + z_beta * math.sqrt(spread)) / difference) ** 2)
    if abs(difference) < margin:
        z_half = normal.inv_cdf((1 + POWER) / 2)
        ways.append(spread * ((z_alpha + z_half) / (margin - abs(difference))) ** 2)
    episodes = min(ways, default=math.inf)
    return max(math.ceil(episodes), least + 1) if episodes < MOST else None
