"""The page in a real browser, on a desk and on a phone: `make test-browser`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmrl.judges.base import Comparison
from vlmrl.judges.human import HumanConfig
from vlmrl.judges.store import AnswerStore
from vlmrl.workflows.label.desk import turned

pytestmark = pytest.mark.browser
GOAL = "a pole balanced upright on a cart"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("SCREENSHOTS")  # folder in which pictures of the page are kept, for docs/labelling.md


def falling_pole(angle: float, frames: int = 10) -> np.ndarray:
    """Draw a pole that falls from an angle (rad), (frames, 128, 128, 3) uint8."""
    import gymnasium as gym

    env = gym.make("vlmrl/CartPole-v0", render_mode="rgb_array", width=128, height=128)
    env.reset(seed=0)
    clip = []
    for t in range(frames):
        env.unwrapped.state = np.array([0.05 * t, 0.0, angle * (1 + t), 0.0])  # type: ignore[attr-defined]
        clip.append(np.asarray(env.render()))
    env.close()
    return np.stack(clip)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, AnswerStore, list[str]]]:
    """The command itself, over a store in which three comparisons wait; the less the pole falls, the better."""
    desk = HumanConfig(gold_gap=0.01, raters=2).open_desk(None, "cpu", tmp_path / "answers.sqlite")
    clips = {angle: falling_pole(angle) for angle in (0.0, 0.02, 0.05, 0.09)}
    pairs = [(0.0, 0.09), (0.05, 0.02), (0.02, 0.09)]
    questions = [Comparison(GOAL, clips[a], clips[b], np.array([-a]), np.array([-b])) for a, b in pairs]
    keys = desk.submit(questions)
    command = [sys.executable, "-m", "vlmrl.label", f"store={tmp_path / 'answers.sqlite'}", "port=0"]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        output = ""
        while not (found := re.search(r"http://\S+", output)):
            line = server.stdout.readline()
            assert line, output
            output += line
        assert "3 comparisons wait" in output
        yield found.group(), desk.store, keys
    finally:
        server.terminate()
        server.wait(20)
        desk.close()


@pytest.mark.parametrize(("device", "size"), [("desk", (1100, 800)), ("phone", (390, 800))])
def test_a_person_compares_clips(
    address: tuple[str, AnswerStore, list[str]], device: str, size: tuple[int, int]
) -> None:
    from playwright.sync_api import expect, sync_playwright

    assert CHROMIUM, "Chromium is not installed: apt-get install chromium, or name its program in CHROMIUM"
    url, store, keys = address
    phone = device == "phone"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        viewport: Any = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, has_touch=phone, is_mobile=phone, device_scale_factor=1)
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        page.get_by_label("Your name").fill("Ann")
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("heading")).to_have_text(GOAL)
        expect(page.locator("#progress")).to_have_text("0 answered by you, 3 to go; 0 of 3 settled")
        for side in ("left", "right"):
            expect(page.locator(f"#{side}")).to_have_js_property("naturalWidth", 128)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        buttons = page.locator(".answers button").all()
        assert all((box := button.bounding_box()) and box["y"] + box["height"] <= size[1] for button in buttons)
        if SCREENSHOTS:
            page.wait_for_timeout(1000)
            page.screenshot(path=f"{SCREENSHOTS}/label_{device}.png")

        # What is better, as it is seen: sides are drawn for each person.
        better = ["left", "right", "left"]
        seen = [
            {"left": "right", "right": "left"}[v] if turned(k, "Ann") else v for k, v in zip(keys, better, strict=True)
        ]

        def answer(name: str, side: str) -> None:
            if phone:
                page.locator(f".clip[data-verdict={side}]").tap()
            else:
                page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight"}[side])

        answer("first", seen[0])
        expect(page.locator("#progress")).to_contain_text("1 answered by you")
        page.get_by_role("button", name="Equal").click()
        expect(page.locator("#progress")).to_contain_text("2 answered by you")
        assert store.ratings()[keys[1]] == {"Ann": "tie"}
        if phone:
            page.get_by_role("button", name="Undo").tap()
        else:
            page.keyboard.press("u")
        expect(page.locator("#progress")).to_contain_text("1 answered by you")
        assert keys[1] not in store.ratings()
        answer("second", seen[1])
        expect(page.locator("#progress")).to_contain_text("2 answered by you")
        answer("third", seen[2])
        expect(page.get_by_text("Nothing is left for you")).to_be_visible()
        assert [store.ratings()[key]["Ann"] for key in keys] == better

        for key, verdict in zip(keys, ["left", "right", "right"], strict=True):
            store.rate(key, "Bob", verdict, 1.0)  # type: ignore[arg-type]
        page.get_by_text("People and agreement").click()
        expect(page.locator("#raters")).to_contain_text("3 of 3")
        expect(page.locator("#pairs")).to_contain_text("67 %")
        if SCREENSHOTS:
            page.screenshot(path=f"{SCREENSHOTS}/label_{device}_done.png")
        page.reload()
        expect(page.get_by_text("Nothing is left for you")).to_be_visible()  # it remembers who one is
        assert not problems
        assert all(request.startswith((url, "data:")) for request in asked)  # nothing from outside
        browser.close()
