"""The page of an audit: one HTML file with its pictures and drawings inside it, which needs nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vlmrl.workflows.audit.by_task import HEADERS, ByTask, lines_of
from vlmrl.workflows.audit.results import Audited, cell
from vlmrl.workflows.audit.states import MIX, counts
from vlmrl.workflows.audit.verdict import fails
from vlmrl.workflows.predicates import grid

THUMB = 144  # pixels
WRONG, MISSED = 24, 12  # frames on the sheet: not done with the highest rewards, done with the lowest
BINS = 40
KINDS = {"done": "#2a9d55", "nearly": "#e0a020", "not done": "#c0504d"}
COLOURS = {"GOOD": "#2a9d55", "WEAK": "#b8860b", "USELESS": "#b03030"}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; white-space: nowrap; }
.verdict { color: #fff; padding: .15rem .6rem; border-radius: .3rem; }
.frames { display: flex; flex-wrap: wrap; gap: .4rem; } figure { margin: 0; width: min-content; }
figcaption { font-size: 12px; color: #555; } img { display: block; } .quiet { color: #555; }
"""


def write_page(
    path: Path,
    title: str,
    best: Audited,
    results: Sequence[Audited],
    notes: Sequence[str],
    tasks: Sequence[ByTask] = (),
) -> None:
    """Write the page.

    Args:
        path: The file.
        title: What was audited.
        best: The reward whose verdict comes first.
        results: Every reward; those with a verdict get a section each.
        notes: What encoders warned of.
        tasks: How the best one's way to reward does on every task; empty where that was not asked.
    """
    assert best.verdict is not None
    noun = best.states.noun
    body = [
        f"<h1>Reward audit: {escape(title)}</h1>",
        f"<p>{_badge(best)} {escape(best.candidate.letter)}: {escape(best.verdict.reason)}</p>",
        f"<p>{escape(best.verdict.advice)}</p>" if best.verdict.advice else "",
        *(f"<p class=quiet>Note: {escape(note)}</p>" for note in notes),
        "<h2>Rewards</h2>",
        _rewards(results),
        f"<p class=quiet>AUROC: chance that a {noun} in which the task is done gets more than one in which it is not; "
        f"beside it, the same against {noun}s in which it is nearly done. Pearson: correlation with the label. EPIC "
        "distance: &radic;((1 &minus; Pearson) / 2), 0 is the label itself. Precision and recall: above a threshold "
        f"chosen on other {noun}s, at this mix of {noun}s. 95&nbsp;% intervals. * is the best of its encoder.</p>",
        *(section for entry in results if entry.verdict is not None for section in _section(entry)),
        *(["<h2>Every task</h2>", _tasks(tasks)] if tasks else []),
        f"<h2>{noun.capitalize()}s</h2>",
        _states(best),
    ]
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Reward audit: {escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body></html>\n",
        encoding="utf-8",
    )


def contact_sheet(entry: Audited) -> np.ndarray | None:
    """Show the highest-scoring wrong frames, best first, in rows of eight.

    Returns:
        (rows * THUMB, 8 * views * THUMB, 3) uint8 RGB; None where no pictures were looked at.
    """
    if not entry.states.frames:
        return None
    return grid([_picture(entry, i) for i in _wrong(entry)], 8)


def _section(entry: Audited) -> list[str]:
    letter, verdict = escape(entry.candidate.letter), entry.verdict
    shown = "frames" if entry.states.noun == "state" else f"{entry.states.noun}s"
    assert verdict is not None
    parts = [
        f"<h2>{letter}: {escape(entry.candidate.title)}</h2>",
        f"<p>{_badge(entry)} {escape(verdict.reason)}</p>",
        histogram(entry),
        "<table><tr><th>control<th class=n>AUROC<th class=n>lead of the reward<th>",
        *(
            f"<tr><td>{escape(control.name)}<td class=n>{cell(control.auroc)}<td class=n>{cell(control.lead)}"
            f"<td>{'fails' if fails(control) else '<b>does as well</b>'}"
            for control in entry.controls
        ),
        "</table>",
    ]
    if entry.states.frames:
        parts += [
            f"<h3>Wrong {shown} with the highest rewards</h3>",
            "<p class=quiet>The task is not done here. This is where an agent will go.</p>",
            _figures(entry, _wrong(entry)),
            f"<h3>Right {shown} with the lowest rewards</h3>",
            _figures(entry, _missed(entry)),
        ]
    return parts


def histogram(entry: Audited) -> str:
    """Draw the rewards of the measured states as an SVG: a curve for each kind, each of height 1, and the threshold."""
    scores = entry.scores[entry.judge.measured].astype(np.float64)
    kinds = entry.states.kind[entry.judge.measured]
    low, high = float(scores.min()), float(scores.max())
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, BINS + 1)
    width, height, left = 640, 180, 10
    step = (width - 2 * left) / BINS
    shapes = []
    for kind, colour in KINDS.items():
        numbers = np.histogram(scores[kinds == kind], edges)[0]
        if not numbers.any():
            continue
        tops = height - 30 - numbers / numbers.max() * (height - 50)
        points = [f"{left:.1f},{height - 30}"]
        for i, top in enumerate(tops):
            points += [f"{left + i * step:.1f},{top:.1f}", f"{left + (i + 1) * step:.1f},{top:.1f}"]
        points.append(f"{width - left:.1f},{height - 30}")
        shapes.append(f'<polygon points="{" ".join(points)}" fill="{colour}" fill-opacity=".35" stroke="{colour}"/>')
    for i, (kind, colour) in enumerate(KINDS.items()):
        number = int((kinds == kind).sum())
        shapes.append(f'<text x="{left + 110 * i}" y="12" font-size="12" fill="{colour}">{kind} ({number})</text>')
    place = left + (float(np.clip(entry.figures.threshold, low, high)) - low) / (high - low) * (width - 2 * left)
    shapes += [
        f'<line x1="{place:.1f}" x2="{place:.1f}" y1="18" y2="{height - 30}" stroke="#222" stroke-dasharray="4"/>',
        _text(place + 4, 28, f"threshold {entry.figures.threshold:.4g}"),
        _text(left, height - 14, f"{low:.4g}"),
        _text(width - left, height - 14, f"{high:.4g}", "end"),
        _text(width / 2, height - 2, f"reward of a {entry.states.noun}", "middle"),
    ]
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Histogram of the rewards of {entry.states.noun}s" xmlns="http://www.w3.org/2000/svg">{"".join(shapes)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="#555" text-anchor="{anchor}">{text}</text>'


def _rewards(results: Sequence[Audited]) -> str:
    heads = "".join(
        f"<th class=n>{name}" for name in ("AUROC", "… nearly done", "Pearson", "EPIC distance", "precision", "recall")
    )
    lines = [f"<table><tr><th><th>reward{heads}"]
    for entry in results:
        figures = entry.figures
        cells = (figures.auroc, figures.nearly, figures.pearson, figures.epic, figures.precision, figures.recall)
        chosen = "*" if entry.verdict is not None and len(results) > 1 else ""
        lines.append(
            f"<tr><td>{escape(entry.candidate.letter)}{chosen}<td>{escape(entry.candidate.title)}"
            + "".join(f"<td class=n>{cell(figure)}" for figure in cells)
        )
    return "\n".join([*lines, "</table>"])


def _tasks(tasks: Sequence[ByTask]) -> str:
    lines = ["<table><tr>" + "".join(f"<th{' class=n' if i else ''}>{name}" for i, name in enumerate(HEADERS))]
    for first, *others in lines_of(tasks):
        lines.append(f"<tr><td>{escape(first)}" + "".join(f"<td class=n>{escape(other)}" for other in others))
    return "\n".join([*lines, "</table>"])


def _states(entry: Audited) -> str:
    lines = ["<table><tr><th>from" + "".join(f"<th class=n>{kind}" for kind in MIX)]
    for source, numbers in counts(entry.states).items():
        lines.append(f"<tr><td>{escape(source)}" + "".join(f"<td class=n>{numbers[kind]}" for kind in MIX))
    return "\n".join([*lines, "</table>"])


def _wrong(entry: Audited) -> list[int]:
    """Numbers of the measured states in which the task is not done, highest reward first."""
    return _extreme(entry, ~entry.states.done, -entry.scores)[:WRONG]


def _missed(entry: Audited) -> list[int]:
    """Numbers of the measured states in which the task is done, lowest reward first."""
    return _extreme(entry, entry.states.done, entry.scores)[:MISSED]


def _extreme(entry: Audited, chosen: np.ndarray, order: np.ndarray) -> list[int]:
    numbers = np.flatnonzero(chosen & entry.judge.measured)
    return numbers[np.argsort(order[numbers], kind="stable")].tolist()


def _figures(entry: Audited, numbers: Sequence[int]) -> str:
    figures = [
        f'<figure><img alt="" src="data:image/jpeg;base64,{_jpeg(_picture(entry, i))}"><figcaption>'
        f"{entry.scores[i]:.4g} {escape(entry.states.source[i])}</figcaption></figure>"
        for i in numbers
    ]
    return f"<div class=frames>{''.join(figures)}</div>"


def _picture(entry: Audited, i: int) -> np.ndarray:
    """Show all views of a state side by side, each fitted into a square, (THUMB, views * THUMB, 3) uint8 RGB."""
    return np.hstack([_fitted(views[i]) for views in entry.states.frames.values()])


def _fitted(picture: Any) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = THUMB / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = np.full((THUMB, THUMB, 3), 255, dtype=np.uint8)
    top, left = (THUMB - size[1]) // 2, (THUMB - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def _jpeg(picture: np.ndarray) -> str:
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return base64.b64encode(encoded.tobytes()).decode()


def _badge(entry: Audited) -> str:
    assert entry.verdict is not None
    return f'<b class=verdict style="background:{COLOURS[entry.verdict.word]}">{entry.verdict.word}</b>'
