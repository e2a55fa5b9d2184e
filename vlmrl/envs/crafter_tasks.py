"""Success predicates of Crafter: an achievement was unlocked in this episode.

What counts is the package's own count of each achievement (`crafter.objects.Player.achievements`), which never goes
down within an episode: once is enough. The dense ground truth is 0 before and 1 from then on: it says how early.
"""

from __future__ import annotations

from functools import partial

from vlmrl.envs.crafter_text import ACHIEVEMENTS
from vlmrl.envs.tasks import Condition, Predicate, State, above


def unlocked(state: State, name: str) -> dict[str, Condition]:
    """An achievement was unlocked at least once.

    Args:
        state: `simulator_state()` of Crafter.
        name: One of `ACHIEVEMENTS`.
    """
    count = state["achievements"][list(ACHIEVEMENTS).index(name)]
    return {"unlocked": above(count, 1, scale=1)}


def __getattr__(name: str) -> Predicate:
    """Return the predicate of an achievement, by which the registry of tasks finds it here."""
    if name not in ACHIEVEMENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(unlocked, name=name)
