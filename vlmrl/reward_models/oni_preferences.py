"""Files of comparisons between texts, from which `reward.variant=motif` learns before the agent does."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from vlmrl.errors import UserError
from vlmrl.reward_models.oni_labels import Item

TARGETS = {"first": 1.0, "second": 0.0, "equal": 0.5}


def read_preferences(path: Path) -> dict[Item, float]:
    """Read lines of JSON, {"first": text, "second": text, "better": "first", "second" or "equal"}.

    Returns:
        {(text, other text): mean over the lines of 1, 0 or 1/2}, the texts in order.

    Raises:
        UserError: There is no such file, a line is something else, or there is no line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"reward.preferences: '{path}' cannot be read: {error}.") from error
    found: defaultdict[Item, list[float]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            first, second, target = str(values["first"]), str(values["second"]), TARGETS[values["better"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"reward.preferences: line {number} of '{path}' is no comparison ({type(error).__name__}: {error}). A "
                'line is {"first": "...", "second": "...", "better": "first" | "second" | "equal"}.'
            ) from error
        found[(first, second) if first <= second else (second, first)].append(target if first <= second else 1 - target)
    if not found:
        raise UserError(f"reward.preferences: '{path}' holds no comparison.")
    return {item: sum(targets) / len(targets) for item, targets in found.items()}
