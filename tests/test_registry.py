from __future__ import annotations

import subprocess
import sys

import pytest

from vlmrl.errors import UserError
from vlmrl.registry import Registry


def test_an_entry_is_imported_only_when_it_is_loaded() -> None:
    code = (
        "import sys; from vlmrl.registry import Registry; "
        "r = Registry('colour', {'hls': 'colorsys:rgb_to_hls'}); "
        "assert 'colorsys' not in sys.modules; r.load('hls'); assert 'colorsys' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UserError, match="Unknown agent 'scc'. Did you mean 'sac'\\? Available: ppo, sac."):
        Registry("agent", {"sac": "json:loads", "ppo": "json:dumps"}).load("scc")


def test_names_come_sorted_and_can_be_asked_for() -> None:
    registry = Registry("agent", {"sac": "json:loads", "ppo": "json:dumps"})
    assert list(registry) == ["ppo", "sac"]
    assert len(registry) == 2
    assert "sac" in registry and "dqn" not in registry


def test_a_name_is_registered_once() -> None:
    registry = Registry("agent", {})
    registry.register("sac", "json:loads")
    registry.register("sac", "json:loads")  # again, as when a module is imported twice
    assert registry.load("sac")("[1]") == [1]
    with pytest.raises(ValueError, match="agent 'sac' is already registered as 'json:loads'"):
        registry.register("sac", "json:dumps")


def test_a_target_without_a_colon_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'module:attribute', got 'json.loads'"):
        Registry("agent", {}).register("sac", "json.loads")


def test_what_one_registry_learns_stays_in_it() -> None:
    entries = {"sac": "json:loads"}
    Registry("agent", entries).register("ppo", "json:dumps")
    assert entries == {"sac": "json:loads"}
