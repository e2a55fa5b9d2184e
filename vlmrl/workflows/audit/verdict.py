"""GOOD, WEAK or USELESS, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlmrl.workflows.audit.scores import Control, Figures

GOOD_AUROC = 0.9  # that the lower bound of a good reward's AUROC must reach
USELESS = (
    "Do not train on it. Try other words (prompts=[...]) or another encoder (encoders=[...]), and see whether the "
    "pictures show the task at all."
)
ADVICE = {  # by what was scored
    "state": {
        "GOOD": "",
        "WEAK": "Look at the wrong frames; then try other words (prompts=[...]), alphas=[0,0.5,1], another camera or "
        "several (env.camera=[front,side]), reward=clip_contrastive with negatives, or a larger encoder.",
        "USELESS": USELESS,
    },
    "clip": {
        "GOOD": "",
        "WEAK": "Look at the wrong clips; then try other words (prompts=[...], task.negatives=[...]) or another head "
        "for clips (vlmrl.fit reward=clip4mc).",
        "USELESS": USELESS,
    },
}


@dataclass(frozen=True)
class Verdict:
    """What to think of a reward.

    Attributes:
        word: "GOOD": the AUROC's lower bound is at least 0.9 and every control fails. "USELESS": the interval holds 0.5
            or lies below it. "WEAK": anything between.
        reason: One sentence.
        advice: What to do; empty for a good reward.
    """

    word: Literal["GOOD", "WEAK", "USELESS"]
    reason: str
    advice: str

    def plain(self) -> dict[str, str]:
        """Return plain values, ready for JSON."""
        return {"verdict": self.word, "reason": self.reason, "advice": self.advice}


def fails(control: Control) -> bool:
    """Whether a control fails, as it should: it is not good itself, and the reward is surely better."""
    return control.auroc.low < GOOD_AUROC and control.lead.low > 0


def judge(figures: Figures, controls: Sequence[Control], noun: str = "state", more: str = "states=<n>") -> Verdict:
    """Judge a reward by its figures and its controls.

    Args:
        figures: Its figures.
        controls: What it was held against.
        noun: What it was measured on, as `LabelledStates` calls one of them.
        more: How one asks for more of them.
    """
    word, reason = _judged(figures, controls, noun, more)
    if word == "USELESS" and figures.auroc.value >= GOOD_AUROC:
        return Verdict(word, reason, f"It may be good; {noun}s are too few to tell. Measure on more first ({more}).")
    return Verdict(word, reason, ADVICE[noun][word])


def _judged(
    figures: Figures, controls: Sequence[Control], noun: str, more: str
) -> tuple[Literal["GOOD", "WEAK", "USELESS"], str]:
    area = figures.auroc
    measured = f"AUROC {area.value:.2f} [{_written(area.low)}, {area.high:.2f}]"
    passed = [control for control in controls if not fails(control)]
    if figures.pearson is None:
        return "USELESS", f"The reward is the same in all {noun}s."
    if area.high < 0.5:
        return "USELESS", f"{measured}: {noun}s in which the task is done get less than others."
    if area.low <= 0.5:
        return "USELESS", f"{measured}: the interval includes 0.5, which is chance."
    if area.low < GOOD_AUROC:
        wide = f", which more {noun}s may settle ({more})" if area.value >= GOOD_AUROC else ""
        return "WEAK", f"{measured}: the lower bound is below {GOOD_AUROC}{wide}.{_also(passed)}"
    if passed:
        return "WEAK", f"{measured}, but a control does as well: {_names(passed)}."
    return "GOOD", f"{measured}: the lower bound is at least {GOOD_AUROC}, and every control fails."


def _written(low: float) -> str:
    """Write a lower bound with two digits, or with as many as show on which side of `GOOD_AUROC` it lies."""
    digits = 2
    while digits < 6 and (round(low, digits) >= GOOD_AUROC) != (low >= GOOD_AUROC):
        digits += 1
    return f"{low:.{digits}f}"


def _also(passed: Sequence[Control]) -> str:
    return f" A control does as well: {_names(passed)}." if passed else ""


def _names(controls: Sequence[Control]) -> str:
    return ", ".join(f"{control.name} ({control.auroc.value:.2f})" for control in controls)
