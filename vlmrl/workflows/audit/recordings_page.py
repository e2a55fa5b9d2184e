"""The page of an audit of clips: figures, and every curve over the film strip of its clip, in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from vlmrl.workflows.audit.clips import THUMB, Clip
from vlmrl.workflows.audit.findings import Findings, lines_of
from vlmrl.workflows.audit.page import STYLE

MOST = 24  # clips on the page
WIDTH, HEIGHT = 720, 120  # of a curve, pixels
COLOURS = {"PASS": "#2a9d55", "WEAK": "#b8860b", "FAIL": "#b03030"}
OUTCOMES = {True: ("success", "#2a9d55"), False: ("failure", "#c0504d"), None: ("outcome unknown", "#555")}


def write_page(path: Path, title: str, clips: Sequence[Clip], found: Sequence[Findings], notes: Sequence[str]) -> None:
    """Write the page.

    Args:
        path: The file.
        title: What was audited.
        clips: The clips.
        found: What was found out about the reward, then about what it is compared with.
        notes: What a person should know.
    """
    reward = found[0]
    body = [f"<h1>Reward audit on clips: {escape(title)}</h1>"]
    body += [f"<p>{_badge(entry.word)} {escape(entry.name)}: {escape(entry.reason)}</p>" for entry in found]
    body += [f"<p class=quiet>Note: {escape(note)}</p>" for note in notes]
    for heading, lines in lines_of(found).items():
        heads = "".join(f"<th class=n>{escape(entry.name)}" for entry in found)
        rows = "".join(
            f"<tr><td>{escape(name)}" + "".join(f"<td class=n>{escape(cell)}" for cell in cells)
            for name, cells in lines
        )
        body.append(f"<h2>{escape(heading[0].upper() + heading[1:])}</h2><table><tr><th>{heads}{rows}</table>")
    body.append(
        "<p class=quiet>A clock that looks at nothing has a value-order correlation of 1: no correlation with time "
        "shows that a reward sees anything. The controls do: a clip that was tampered with must end lower than the "
        "true one. 95&nbsp;% intervals.</p>"
    )
    order = worst_first(clips, reward)
    body.append(f"<h2>Clips, worst first ({min(len(order), MOST)} of {len(order)})</h2>")
    body.append("<p class=quiet>Failures that end high and successes that end low come first. All on one scale.</p>")
    values = np.concatenate(reward.curves)
    scale = float(values.min()), float(values.max())
    threshold = reward.detection.threshold if reward.detection is not None else None
    body += [_clip(clips[i], reward.curves[i], scale, threshold) for i in order[:MOST]]
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Reward audit: {escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n",
        encoding="utf-8",
    )


def worst_first(clips: Sequence[Clip], reward: Findings) -> list[int]:
    """Return the numbers of the clips by how far their ends mislead, those of unknown outcome last."""
    ends = np.array([curve[-1] for curve in reward.curves], dtype=np.float64)
    middle = reward.detection.threshold if reward.detection is not None else float(np.median(ends))
    wrong = [
        -np.inf if clip.label.success is None else (middle - end if clip.label.success else end - middle)
        for clip, end in zip(clips, ends, strict=True)
    ]
    return np.argsort(-np.array(wrong), kind="stable").tolist()


def _clip(clip: Clip, curve: np.ndarray, scale: tuple[float, float], threshold: float | None) -> str:
    outcome, colour = OUTCOMES[clip.label.success]
    text = f" · “{escape(clip.text)}”" if clip.text else ""
    return (
        f'<h3>{escape(clip.name)} <span style="color:{colour}">{outcome}</span>{text}</h3>'
        f"{curve_svg(clip, curve, scale, threshold)}{_strip(clip)}"
    )


def curve_svg(clip: Clip, curve: np.ndarray, scale: tuple[float, float], threshold: float | None) -> str:
    """Draw a clip's values as an SVG, with the threshold and the frame at which the task was done."""
    low, high = scale if scale[1] > scale[0] else (scale[0] - 0.5, scale[0] + 0.5)
    x = np.linspace(0, WIDTH, len(curve))
    y = 8 + (high - np.asarray(curve, dtype=np.float64)) / (high - low) * (HEIGHT - 16)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    shapes = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#f6f6f6"/>']
    if threshold is not None:
        at = 8 + (high - float(np.clip(threshold, low, high))) / (high - low) * (HEIGHT - 16)
        shapes.append(f'<line x1="0" x2="{WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#888" stroke-dasharray="4"/>')
    if clip.label.done_at is not None:
        at = x[min(clip.label.done_at, len(curve) - 1)]
        shapes.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}" stroke="#2a9d55"/>')
    shapes.append(f'<polyline points="{points}" fill="none" stroke="#224488" stroke-width="1.5"/>')
    shapes.append(f'<text x="4" y="14" font-size="11" fill="#555">{high:.3g}</text>')
    shapes.append(f'<text x="4" y="{HEIGHT - 4}" font-size="11" fill="#555">{low:.3g}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="Values of {escape(clip.name)}" xmlns="http://www.w3.org/2000/svg">{"".join(shapes)}</svg>'
    )


def _strip(clip: Clip) -> str:
    """Put the pictures under the part of the curve that they belong to, (THUMB, WIDTH) pixels in one picture."""
    strip = np.full((THUMB, WIDTH, 3), 255, dtype=np.uint8)
    room = WIDTH // max(len(clip.strip), 1)
    for i, (_, picture) in enumerate(clip.strip):
        width = min(picture.shape[1], room - 2)
        left = (picture.shape[1] - width) // 2
        strip[:, i * room : i * room + width] = picture[:, left : left + width]
    encoded = cv2.imencode(".jpg", strip[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}">'


def _badge(word: str) -> str:
    return f'<b class=verdict style="background:{COLOURS[word]}">{word}</b>'
