"""Which backend draws."""

from __future__ import annotations

import os

import pytest

from vlmrl.envs.gl import choose_backend


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_without_a_display_pygame_looks_for_none_whatever_draws_mujoco(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", backend)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "")  # so that what is set here is taken back
    monkeypatch.delenv("SDL_VIDEODRIVER")
    assert choose_backend() == backend
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"


def test_with_a_display_pygame_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    assert choose_backend() == "glfw"
    assert "SDL_VIDEODRIVER" not in os.environ
