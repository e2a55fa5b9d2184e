"""What `reward_pipeline` makes of its figures; how fast anything is, it measures itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import pipeline_report
from benchmarks.pipeline_arms import replayed
from benchmarks.pipeline_report import Speeds, fill_docs, goals, picture, tables
from benchmarks.reward_pipeline import encoder_settings, gflop, random_weights
from vlmrl.encoders.open_clip import OpenClipConfig

ROOT = Path(__file__).parents[2]


def made_up(gpu: str | None = None) -> dict[str, Any]:
    path = {"naive wrapper": [10.0, 20.0], "local, every frame": [100.0, 240.0], "thread, every frame": [110.0, 180.0]}
    limits = {"reward-free": [500.0, 400.0], "encoder alone": [120.0, 200.0]}
    kth = {"naive wrapper": [5.0, 5.0], "thread, every 4th frame": [100.0, 100.0], "reward-free": [200.0, 200.0]}
    sac = {"reward-free": [50.0, 50.0], "local, every 4th frame": [40.0, 40.0], "thread, every 4th frame": [48.0, 48.0]}
    stages = {"submit, 150 kB": [1e5, 1e5], "copy, 150 kB": [2e5, 2e5], "relabel": [1e5, 1e5]}
    last = {"encode, a batch, bf16": [500.0, 500.0], "matmul": [100.0, 100.0]}
    result = {
        "settings": {"every": 4, "model": None, "n_envs": 8, "blocks": 2, "steps": 9, "updates": "1", "device": "cpu"},
        "machine": {"cpu": "a <cpu>", "cores": 2, "gpu": gpu, "load": 0.5},
        "versions": {"torch": "2"},
        "gflop_per_frame": 0.1,
        "comparisons": [
            {"name": name, "per_second": speeds}
            for name, speeds in (
                ("path", path | limits), ("path", kth), ("learner", sac), ("stages", stages), ("stages", last),
            )
        ],
    }  # fmt: skip
    return result | {"goals": goals(result)}


def test_ratios_are_of_arms_that_took_turns() -> None:
    path = Speeds(made_up(), "path")
    assert path.times("local, every frame", "naive wrapper").mean == 11.0  # (10 + 12) / 2
    assert path.times("thread, every 4th frame", "naive wrapper").mean == 20.0  # with the wrapper of its own comparison
    assert path.suite(1) == ["local, every frame", "thread, every frame"]
    assert path.suite(4) == ["thread, every 4th frame"]


def test_goals_are_reached_by_the_worse_end_of_the_interval() -> None:
    held = {each["goal"].split(":")[0]: each for each in made_up(gpu="a GPU")["goals"]}
    assert held["local, every frame"]["reached"]  # 10 to 12 times as fast as the wrapper
    assert held["thread, every frame"]["value"].mean == pytest.approx((110 / 120 + 180 / 200) / 2)
    assert held["thread, every frame"]["reached"]
    by_goal = [(each["goal"], each["value"].mean, each["reached"]) for each in made_up()["goals"]]
    assert ("thread, every 4th frame: times as fast as the naive wrapper, at least", 20.0, False) in by_goal
    over = {goal.split(",")[0]: (value, reached) for goal, value, reached in by_goal if "SAC" in goal}
    assert over["local"] == (pytest.approx(25.0), False)
    assert over["thread"] == (pytest.approx(100 / 24), True)
    assert [value for goal, value, _ in by_goal if "transport" in goal] == [pytest.approx(5.0)]


def test_tables_and_picture_hold_every_arm() -> None:
    result = json.loads(json.dumps(made_up()))  # as from a file
    text, drawn = tables(result), picture(result)
    for arm in ("naive wrapper", "thread, every 4th frame", "encoder alone", "submit, 150 kB"):
        assert f"| {arm} |" in text
    assert "| thread, every 4th frame | 48.0 [48.0, 48.0] | 4.17 [4.17, 4.17] % | 1.20 [1.20, 1.20] |" in text
    share = 100 * 0.1e9 * 500 / (2 * 1024**3 * 100)
    assert f"{share:.1f}" in text
    assert drawn.count("<rect") == 1 + 6 + 3  # the ground, and a bar for each arm


def test_docs_are_filled_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())  # the real page has the marks
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(pipeline_report, "DOCS", tmp_path)
    before = page.read_text()
    fill_docs(made_up())
    once = page.read_text()
    assert "| local, every frame | 170 [100, 240] |" in once
    assert (tmp_path / "images" / "reward_pipeline_cpu.svg").is_file()
    fill_docs(made_up())
    assert page.read_text() == once
    fill_docs(made_up(gpu="a GPU"))
    assert "a GPU, 2 cores" in page.read_text()
    outside = before.partition("<!-- cpu")[0]
    assert page.read_text().startswith(outside) and page.read_text().endswith(before.rpartition("end -->")[2])
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has lost its marks"):
        fill_docs(made_up())


def test_all_arms_play_the_same_actions() -> None:
    first, again, other = replayed(0), replayed(0), replayed(1)
    actions = [next(first) for _ in range(3)]
    np.testing.assert_array_equal(actions, [next(again) for _ in range(3)])
    assert not np.array_equal(actions, [next(other) for _ in range(3)])


@pytest.mark.slow
def test_a_model_with_random_weights_can_be_loaded(tmp_path: Path) -> None:
    random_weights("ViT-S-32-alt", tmp_path)
    encoder = OpenClipConfig(f"local-dir:{tmp_path}").build("cpu")
    assert np.isfinite(encoder.encode_images(np.zeros((1, *encoder.image_size, 3), dtype=np.uint8))).all()
    # open_clip's docs/model_profile.csv, image_gflops
    assert gflop(OpenClipConfig(f"local-dir:{tmp_path}")) == pytest.approx(2.29, rel=0.05)


@pytest.mark.slow
def test_the_whole_of_it(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["--blocks", "1", "--steps", "4", "--n-envs", "2", "--batch-size", "4", "--scorers", "local", "thread"]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.reward_pipeline", "--out", str(out), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    read = json.loads(out.read_text())
    assert [each["name"] for each in read["comparisons"]] == 2 * ["path"] + 2 * ["learner"] + 2 * ["stages"]
    for each in read["comparisons"]:
        for speeds in each["per_second"].values():
            assert all(np.isfinite(speed) and speed > 0 for speed in speeds)
    assert tables(read).splitlines()[0] in result.stdout
    assert out.with_suffix(".svg").read_text().startswith("<svg")


def test_a_gpu_takes_bf16_and_a_cpu_fp32() -> None:
    class Settings:
        model, precision, batch_size, device = None, None, 8, "cpu"

    with encoder_settings(Settings) as encoder:
        assert encoder.precision == "fp32"
    Settings.device = "cuda"
    with encoder_settings(Settings) as encoder:
        assert encoder.precision == "bf16"
