"""What an audit of clips finds out about one way to value frames, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlmrl.workflows.audit.clips import Clip
from vlmrl.workflows.audit.detection import Detection, detect
from vlmrl.workflows.audit.progress import Correlation, OrderControl, Scorer, controls, correlations, in_order
from vlmrl.workflows.audit.results import cell
from vlmrl.workflows.audit.verdict import GOOD_AUROC


@dataclass(frozen=True)
class Findings:
    """What an audit of clips finds out about one way to value frames.

    Attributes:
        name: What it is.
        curves: Values of each clip.
        correlations: Along the clips in which the task was done.
        controls: Those clips tampered with.
        detection: Of success; None where outcomes are unknown or too few.
        word: "FAIL": a clip that was tampered with ends as high as the true one at least half of the time, or success
            is told no better than by chance. "PASS": every control is surely beaten and the lower bound of the AUROC is
            at least 0.9. "WEAK": anything between.
        reason: Why.
    """

    name: str
    curves: Sequence[np.ndarray]
    correlations: Sequence[Correlation]
    controls: Sequence[OrderControl]
    detection: Detection | None
    word: Literal["PASS", "WEAK", "FAIL"]
    reason: str

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "name": self.name,
            "verdict": self.word,
            "reason": self.reason,
            "correlations": [entry.plain() for entry in self.correlations],
            "controls": [entry.plain() for entry in self.controls],
            "detection": None if self.detection is None else self.detection.plain(),
        }


def examine(name: str, clips: Sequence[Clip], scorer: Scorer, told: bool, seed: int) -> Findings:
    """Find out about one way to value frames.

    Args:
        name: What it is.
        clips: At least one.
        scorer: Values frames.
        told: Whether it reads words.
        seed: Of shuffling, division and resampling.
    """
    curves = [scorer(clip, in_order(clip), False) for clip in clips]
    # Where nobody says, the task is taken for done.
    wins = [i for i, clip in enumerate(clips) if clip.label.success is not False]
    along = correlations([clips[i] for i in wins], [curves[i] for i in wins])
    tampered = controls([clips[i] for i in wins], scorer, told, seed)
    known = [i for i, clip in enumerate(clips) if clip.label.success is not None]
    detection = detect([clips[i] for i in known], [curves[i] for i in known], seed)
    word, reason = _verdict(tampered, detection)
    return Findings(name, curves, along, tampered, detection, word, reason)


def _verdict(
    tampered: Sequence[OrderControl], detection: Detection | None
) -> tuple[Literal["PASS", "WEAK", "FAIL"], str]:
    ties = [control.name for control in tampered if control.ties]
    if ties:
        return (
            "FAIL",
            f"Clips that are {_listed(ties)} end as high as the true ones, so the value does not say what happens.",
        )
    if detection is not None and detection.auroc.low <= 0.5:
        area = detection.auroc
        return "FAIL", f"AUROC of success {cell(area)}: the interval includes 0.5, which is chance, or lies below it."
    doubtful = [control.name for control in tampered if not control.beaten]
    if doubtful:
        return (
            "WEAK",
            f"True clips end higher than those that are {_listed(doubtful)}, but not surely; bring more clips.",
        )
    if detection is None:
        return "WEAK", "Every control is beaten. Whether success is told nobody knows: it takes clips of both outcomes."
    if detection.auroc.low < GOOD_AUROC:
        return "WEAK", f"AUROC of success {cell(detection.auroc)}: the lower bound is below {GOOD_AUROC}."
    return "PASS", f"Every control is beaten, and the AUROC of success is {cell(detection.auroc)}."


def _listed(names: Sequence[str]) -> str:
    names = [name if name != "wrong instruction" else "under a wrong instruction" for name in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def lines_of(found: Sequence[Findings]) -> dict[str, list[tuple[str, list[str]]]]:
    """Return {title: lines of (what it is, a cell for each way to value frames)}."""
    sections = {
        "along successful clips: mean of a correlation (and clips where it is undefined)": [
            (line[0].name, [f"{cell(entry.figure)} ({entry.undefined} of {entry.clips})" for entry in line])
            for line in zip(*(entry.correlations for entry in found), strict=True)
        ],
        "share in which the true clip ends higher than one that is …": [
            (control.name, [_wins(entry, control.name) for entry in found]) for control in found[0].controls
        ],
    }
    if any(entry.detection is not None for entry in found):
        sections["success, told by the last value on clips apart from those that chose the threshold"] = [
            (title, [_detected(entry.detection, name) for entry in found])
            for title, name in (
                ("AUROC", "auroc"),
                ("AUPRC", "auprc"),
                ("precision", "precision"),
                ("recall", "recall"),
                ("F1", "f1"),
                ("Brier score", "brier"),
                ("calibration error", "calibration_error"),
                ("fires early or falsely", "early"),
                ("delay, frames", "delay"),
                ("never fires", "missed"),
            )
        ]
    return sections


def _wins(entry: Findings, name: str) -> str:
    for control in entry.controls:
        if control.name == name:
            return f"{cell(control.wins)} {'beaten' if control.beaten else 'NO BETTER' if control.ties else 'unsure'}"
    return "reads no words"


def _detected(detection: Detection | None, name: str) -> str:
    if detection is None:
        return "too few clips"
    value = getattr(detection, name)
    if name == "missed":
        return f"{value} of {detection.timed}"
    return "undefined" if value is None else f"{value:.2f}" if isinstance(value, float) else cell(value)
