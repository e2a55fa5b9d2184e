"""Pictures of a text terminal."""

from __future__ import annotations

import functools

import cv2
import numpy as np

CELL = (16, 8)  # pixels of a character, height and width
FIRST, LAST = 33, 126  # the characters of ASCII that leave a mark
# The sixteen colours of a terminal as XTerm shows them, RGB; black is lifted, or dark things would not be seen.
COLOURS = np.array(
    [
        (85, 85, 85),
        (205, 0, 0),
        (0, 205, 0),
        (205, 205, 0),
        (92, 92, 255),
        (205, 0, 205),
        (0, 205, 205),
        (229, 229, 229),
        (127, 127, 127),
        (255, 0, 0),
        (0, 255, 0),
        (255, 255, 0),
        (124, 124, 255),
        (255, 0, 255),
        (0, 255, 255),
        (255, 255, 255),
    ],
    dtype=np.uint8,
)


def terminal_picture(characters: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Draw what a terminal shows, on black.

    Args:
        characters: (rows, columns) uint8, ASCII; what is none is left blank.
        colours: (rows, columns) integers; the lowest four bits are the colour, others are passed over.

    Returns:
        (16 * rows, 8 * columns, 3) uint8 RGB.
    """
    masks = _masks()[characters]  # (rows, columns, 16, 8)
    drawn = masks[..., None] * COLOURS[colours.astype(np.intp) & 15][:, :, None, None].astype(np.uint16) // 255
    rows, columns = characters.shape
    return drawn.astype(np.uint8).transpose(0, 2, 1, 3, 4).reshape(rows * CELL[0], columns * CELL[1], 3)


@functools.cache
def _masks() -> np.ndarray:
    """Return how much of each pixel a character covers, (256, 16, 8) uint16, 0 to 255."""
    height, width = CELL
    fine = 4  # drawn so many times as large and averaged
    masks = np.zeros((256, height, width), dtype=np.uint16)
    for code in range(FIRST, LAST + 1):
        canvas = np.zeros((height * fine, width * fine), dtype=np.uint8)
        (w, _), _ = cv2.getTextSize(chr(code), cv2.FONT_HERSHEY_SIMPLEX, 1.3, 4)
        cv2.putText(
            canvas,
            chr(code),
            ((width * fine - w) // 2, 12 * fine),
            cv2.FONT_HERSHEY_SIMPLEX,
            1.3,
            255,
            4,
            cv2.LINE_AA,
        )
        masks[code] = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return masks
