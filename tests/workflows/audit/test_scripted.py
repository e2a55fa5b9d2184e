"""Clips that a script plays: what they are called is what the game counted, and rewards are measured on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.reward_models.test_video import WORDS, WaveEncoder, made_head, waves
from tests.toys import BrightnessEncoder, PixelReward
from vlmrl.audit import _audited, main
from vlmrl.commands import compose, for_hydra, plain
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel
from vlmrl.reward_models.roboclip import RoboClipReward
from vlmrl.reward_models.video import VideoReward
from vlmrl.workflows.audit.by_task import by_task, lines_of, means
from vlmrl.workflows.audit.candidates import MOST
from vlmrl.workflows.audit.films import film_rows, film_score, why_no_film
from vlmrl.workflows.audit.preflight import preflight_line, tell
from vlmrl.workflows.audit.run import _play, audit, short_audit, short_preflight
from vlmrl.workflows.audit.scripted import FRAMES, LabelledClips, ScriptedClips, enough, play_scripted
from vlmrl.workflows.build import build_parts
from vlmrl.workflows.config.audit import AuditConfig, audit_settings
from vlmrl.workflows.config.train import train_settings
from vlmrl.workflows.video.play import NAMES, scenes


def settings(tmp_path: Path, *overrides: str, given: tuple[str, ...] = ()) -> AuditConfig:
    values = plain(compose("audit", for_hydra([*overrides, "progress_bar=false", "threads=1", "device=cpu"])))
    return audit_settings({**values, "run_dir": str(tmp_path / "audit")}, given)


def one_scene(at: int | None, about: str, length: int = 30, tone: float = 0.0) -> tuple[np.ndarray, str, dict]:
    """A scene that is dark until the task is done, and bright from then on."""
    brightness = np.full(length, tone)
    done = np.zeros(length, dtype=bool)
    if at is not None:
        done[at] = True
        brightness[at:] = 1.0
    return waves(brightness), about, {"task": done, "other": np.zeros(length, dtype=bool)}


def made(scenes_of: list[tuple[np.ndarray, str, dict]]) -> ScriptedClips:
    embeddings, about, done = zip(*scenes_of, strict=True)
    thumbs = [np.zeros((len(own), 64, 64, 3), np.uint8) for own in embeddings]
    return ScriptedClips("front", embeddings, thumbs, about, done)


def test_a_clip_shows_what_was_done_in_its_first_half() -> None:
    clips = made([one_scene(10, "task")]).labelled("task", 0)
    # Clips begin at 0, 4, 8 and 12. In those from 4 and 8 the task is done in frames 1 to 8, in the one from 12 it was
    # done before, and in the one from 0 it is done too late.
    starts = {"done": [4, 8], "nearly": [12]}
    assert (clips.done.sum(), (clips.kind == "nearly").sum()) == (2, 1)
    frames = clips.clips["front"]
    scene = one_scene(10, "task")[0]
    wanted = [scene[first : first + FRAMES] for first in (*starts["done"], *starts["nearly"])]
    np.testing.assert_array_equal(frames, np.stack(wanted))
    assert clips.truth.tolist() == [1.0] * 2 + [0.5]


def test_kinds_come_in_their_shares_and_another_scene_is_not_nearly_done() -> None:
    several = [one_scene(10, "task") for _ in range(6)] + [one_scene(None, "task") for _ in range(6)]
    clips = made([*several, *(one_scene(None, "other") for _ in range(8))]).labelled("task", 0)
    kinds = clips.kind.tolist()
    assert [kinds.count(kind) for kind in ("done", "nearly", "not done")] == [12, 9, 9]
    assert {clips.source[i] for i, kind in enumerate(kinds) if kind == "not done"} == {"other"}
    assert enough(clips) and not enough(made(several[1:]).labelled("task", 0))
    again = made([*several, *(one_scene(None, "other") for _ in range(8))]).labelled("task", 0)
    np.testing.assert_array_equal(clips.group, again.group)
    assert clips.frames["front"].shape == (30, 128, 128, 3)


def rewards() -> dict[str, RewardModel]:
    encoder, head = WaveEncoder(), made_head(dim=8)
    return {
        "direct": VideoReward(WORDS, encoder, head),
        "delta": VideoReward(WORDS, encoder, head, kind="delta"),
        "whole": RoboClipReward(WORDS, encoder, head),
    }


@pytest.mark.parametrize("name", ["direct", "delta", "whole"])
def test_a_clip_earns_what_an_episode_that_looks_so_would(name: str) -> None:
    model = rewards()[name]
    clips = made([one_scene(10, "task"), one_scene(None, "task", tone=0.3)]).labelled("task", 0)
    scores = clips.score(model, clips.embed(WaveEncoder(), False))
    for i, own in enumerate(clips.clips["front"]):
        paid = np.asarray(model(film_rows(model, {"front": own})))
        assert scores[i] == pytest.approx(paid[-1] if name == "whole" else paid.mean(), abs=1e-6)
    assert np.ptp(scores) > 1e-4


def test_a_reward_that_reads_more_than_pictures_is_no_judge_of_clips() -> None:
    model = PixelReward()
    assert why_no_film(model) == ""
    model.needs = frozenset({"embeddings", "text"})  # type: ignore[misc]
    assert why_no_film(model) == "it reads text, which clips do not hold"
    assert film_score(PixelReward(), np.array([1.0, 3.0])) == 2.0


def test_what_is_audited_was_never_learned_from_and_comes_out_the_same_again() -> None:
    encoder = BrightnessEncoder()
    first, again = (play_scripted("crafter", "collect_wood", 8, (32, 32), "front", encoder, 0, own=4) for _ in "ab")
    # Scenes in which the player soon died are left out.
    assert first.about.count("collect_wood") >= 1 and set(first.about) <= {*NAMES[:6], "collect_wood"}
    for one, other in zip(first.embeddings, again.embeddings, strict=True):
        np.testing.assert_array_equal(one, other)
    learned = {scene.frames[0].tobytes() for scene in scenes(8, (64, 64), 0)}
    assert not learned & {thumbs[0].tobytes() for thumbs in first.thumbs}


def test_an_audit_of_clips_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = audit(settings(tmp_path, "env=crafter", "reward=clip4mc", "task=wake_up", "scenes=40"))
    assert isinstance(entry.states, LabelledClips) and entry.figures.auroc.value > 0.9
    assert entry.verdict is not None and len(entry.controls) == 2 + MOST
    said = " ".join(capsys.readouterr().out.split())
    assert "clips of random play and of a script" in said and "Clips in which the task is done get more" in said
    assert "every task of the environment" in said and "you wake up" in said and "too few" in said
    result = json.loads((tmp_path / "audit" / "result.json").read_text())
    assert len(result["tasks"]) == 22 and result["preflight"]["told"]["auroc"]["value"] > 0.9
    assert result["tasks"]["wake_up"]["figures"]["auroc"] == result["rewards"][0]["auroc"]
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "Every task" in page and "Wrong clips with the highest rewards" in page and "reward of a clip" in page
    assert cv2.imread(str(tmp_path / "audit" / "wrong_frames.jpg")) is not None


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmrl.workflows.audit.run.SHORT_SCENES", 28)


def test_rewards_of_single_pictures_and_of_whole_episodes_are_asked_the_same(tmp_path: Path, few_scenes: None) -> None:
    for reward in ("clip", "roboclip"):
        given = ("env=crafter", f"reward={reward}", "task=wake_up")
        scene = settings(tmp_path, *given).scene
        parts = build_parts(scene, "cpu")
        found = short_audit(scene, parts, 0)
        assert found is not None and isinstance(found.states, LabelledClips)
        tasks = by_task(scene, parts, _play(scene, parts, 28, 0, own=2), 0)
        assert len(tasks) == 22 and [entry.task for entry in tasks if entry.figures is not None][-1] == "wake_up"
        assert lines_of(tasks)[-1][2] == f"{means(tasks)['auroc']:.2f}"


def test_before_training_it_is_said_what_was_looked_at(tmp_path: Path, few_scenes: None) -> None:
    scene = train_settings(plain(compose("train", ["env=crafter", "reward=clip4mc", "task=wake_up"])))
    parts = build_parts(scene, "cpu")
    found = short_preflight(scene, parts, 0)
    assert found.word == "SEES" and found.told is not None and found.told.auroc.low > 0.8 and not found.doubtful
    assert "random play and of a script" in preflight_line(found)
    # The same model under the words of something else sees as much, and not the task.
    with torch.no_grad():
        model = parts.model
        assert isinstance(model, VideoReward)
        model._texts = model._texts[[1, 0, *range(2, len(model._texts))]]
    other = short_preflight(scene, parts, 0)
    assert other.word == "UNSURE" and other.doubtful and "do NOT surely get more" in other.reason


def test_told_counts_scenes_and_not_clips() -> None:
    model = rewards()["direct"]
    clips = made([one_scene(10, "task")] * 6 + [one_scene(None, "other")] * 6).labelled("task", 0)
    found = tell(model, clips)  # type: ignore[arg-type]
    assert (found.done, found.others) == (12, int((~clips.done).sum())) and 8 <= found.scenes <= 12
    assert found.auroc.high - found.auroc.low > 0.2  # of 12 clips that are the same it would be narrower


def test_what_contradicts_clips_is_said_at_start(tmp_path: Path) -> None:
    for overrides, said in (
        (["env=humanoid", "clips=true"], "there is none for env=humanoid \\(there is: crafter\\)"),
        (["env=crafter", "clips=true", "reward=ground_truth"], "reward=ground_truth looks at none"),
        (["env=crafter", "clips=true", "frames=x", "task=none", "goal=y"], "leave one of them out"),
        (["sequences=mountaincar", "clips=true"], "leave frames, dataset and clips out"),
    ):
        with pytest.raises(UserError, match=said):
            settings(tmp_path, *overrides)
    assert not settings(tmp_path, "env=crafter", "reward=ground_truth").plays_clips
    assert not settings(tmp_path, "env=crafter", "clips=false", "reward=clip").plays_clips
    with pytest.raises(UserError, match="cannot be audited: it looks at all rows|it looks at episode rows"):
        audit(settings(tmp_path, "env=crafter", "clips=false", "reward=roboclip"))
    with pytest.raises(UserError, match="In 4 scenes the task is done .* Ask for more, scenes=<n>"):
        audit(settings(tmp_path, "env=crafter", "reward=clip4mc", "task=make_iron_sword", "scenes=4"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["env=humanoid"], "are films of env=mountaincar, and env=humanoid is another; leave env out"),
        (["task=kneeling"], "captions of its own"),
        (["goal=a car"], "captions of its own"),
    ],
)
def test_films_are_of_their_own_environment(
    overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["audit", "sequences=mountaincar", *overrides])
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err


def test_the_folder_of_an_audit_says_what_was_audited() -> None:
    assert _audited("mountaincar", None, "humanoid", "kneeling") == "mountaincar-sequences"
    assert _audited(None, "data/my_clips", "humanoid", "kneeling") == "my_clips"
    assert _audited(None, None, "humanoid", "kneeling") == "humanoid-kneeling"
