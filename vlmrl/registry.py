"""A table from names to "module:attribute" that imports an entry only when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from vlmrl.errors import unknown


class Registry:
    """Names of one kind of thing (environments, rewards, agents, encoders) and where each is defined.

    Example:
        >>> rewards = Registry("reward", {"clip": "vlmrl.reward_models.clip:ClipReward"})
        >>> "clip" in rewards
        True
    """

    def __init__(self, kind: str, entries: dict[str, str]):
        self.kind = kind
        self._entries = dict(entries)

    def register(self, name: str, target: str) -> None:
        """Add an entry, `target` being "module:attribute".

        Raises:
            ValueError: The name is taken by another target, or `target` has no colon.
        """
        if ":" not in target:
            raise ValueError(f"{self.kind} '{name}': expected 'module:attribute', got '{target}'.")
        if self._entries.get(name, target) != target:
            raise ValueError(f"{self.kind} '{name}' is already registered as '{self._entries[name]}'.")
        self._entries[name] = target

    def load(self, name: str) -> Any:
        """Import and return the entry.

        Raises:
            UserError: No such name; the message lists the names and the nearest one.
        """
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        module, attribute = self._entries[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def names_in(self, module: str) -> list[str]:
        """Return the names of entries that a module defines, sorted; nothing is imported."""
        return sorted(name for name, target in self._entries.items() if target.partition(":")[0] == module)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
