"""The whole audit, from settings to page, with the embedded encoder on few states; the short one before training."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from vlmrl.commands import compose, for_hydra, plain
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.confinement.process import measured_level
from vlmrl.reward_models.programs.answers import code_in, recordings
from vlmrl.workflows.audit.candidates import wrong_words
from vlmrl.workflows.audit.run import audit, short_audit, verdict_line
from vlmrl.workflows.audit.states import draw_states, why_not
from vlmrl.workflows.build import build_parts
from vlmrl.workflows.config.audit import AuditConfig, audit_settings
from vlmrl.workflows.config.train import train_settings


def settings(tmp_path: Path, *overrides: str) -> AuditConfig:
    values = plain(compose("audit", for_hydra([*overrides, "progress_bar=false", "threads=1", "device=cpu"])))
    return audit_settings({**values, "run_dir": str(tmp_path / "audit")})


class Outside(HTMLParser):
    """Collects what a page would fetch, and what it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images: list[bytes] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("src", "href"):
                if value is not None and value.startswith("data:image/jpeg;base64,"):
                    self.images.append(base64.b64decode(value.partition(",")[2]))
                else:
                    self.found.append(f"{tag} {value}")
        if tag in ("script", "link", "iframe"):
            self.found.append(tag)


def test_an_audit_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = audit(settings(tmp_path, "env=cartpole", "states=90", "prompts=['pole and cart <b>']", "alphas=[0,1]"))
    output = capsys.readouterr().out
    assert [entry.candidate.letter for entry in results] == ["a", "b", "c", "d"]
    (best,) = [entry for entry in results if entry.verdict is not None]
    assert best.candidate.letter in "ab" and best.figures.auroc.value > 0.9
    assert best.verdict is not None and best.verdict.word in ("GOOD", "WEAK")
    assert max(entry.figures.auroc.value for entry in results[2:]) < best.figures.auroc.low
    for said in (
        "AUROC",
        "Pearson",
        "EPIC",
        "precision",
        "recall",
        "shuffled labels",
        "wrong words",
        best.verdict.word,
    ):
        assert said in output
    folder = tmp_path / "audit"
    result = json.loads((folder / "result.json").read_text())
    assert result["verdict"] == best.verdict.word and result["best"] == best.candidate.letter
    assert [reward["alpha"] for reward in result["rewards"]] == [0, 1, 0, 1]
    assert result["states"]["total"] == 90
    again = audit_settings({**plain(compose("audit", [])), **_yaml(folder / "config.yaml")})
    assert again.alphas == (0, 1) and again.scene.env.name == "cartpole"
    page = (folder / "audit.html").read_text()
    reader = Outside()
    reader.feed(page)
    assert reader.found == []
    assert 20 < len(reader.images) <= 36
    for image in reader.images:
        assert cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR).shape == (144, 144, 3)
    (svg,) = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    shapes = [child.tag.partition("}")[2] for child in ElementTree.fromstring(svg)]
    assert shapes.count("polygon") == 3 and "line" in shapes
    assert "pole and cart &lt;b&gt;" in page and "cart <b>" not in page
    assert cv2.imread(str(folder / "wrong_frames.jpg")).shape[1] == 8 * 144


def _yaml(path: Path) -> dict:
    import yaml

    return yaml.safe_load(path.read_text())


def test_the_wrong_frames_are_wrong_and_score_highest(tmp_path: Path) -> None:
    from vlmrl.workflows.audit.page import _missed, _wrong

    (entry,) = audit(settings(tmp_path, "env=cartpole", "states=90"))
    wrong, missed = _wrong(entry), _missed(entry)
    assert not entry.states.done[wrong].any() and entry.states.done[missed].all()
    assert (np.diff(entry.scores[wrong]) <= 0).all() and (np.diff(entry.scores[missed]) >= 0).all()
    others = entry.judge.measured & ~entry.states.done
    assert entry.scores[wrong].max() == entry.scores[others].max()


def test_encoders_side_by_side_each_have_a_verdict(tmp_path: Path) -> None:
    weights = Path(__file__).parents[3] / "vlmrl" / "encoders" / "mini_weights"
    first, second = audit(settings(tmp_path, "env=cartpole", "states=60", f"encoders=[mini,{weights}]"))
    assert first.verdict is not None and first.verdict == second.verdict  # they are the same weights
    assert (first.candidate.encoder, second.candidate.encoder) == ("mini", "mini/mini_weights")
    assert np.array_equal(first.scores, second.scores)


def test_the_truth_itself_is_good(tmp_path: Path) -> None:
    (entry,) = audit(settings(tmp_path, "env=cartpole", "reward=ground_truth", "states=150"))
    assert entry.verdict is not None and entry.verdict.word == "GOOD"
    assert {control.name for control in entry.controls} == {"constant reward", "shuffled labels"}
    assert not (tmp_path / "audit" / "wrong_frames.jpg").exists()


def test_pictures_of_ones_own_with_a_sentence_of_ones_own(tmp_path: Path) -> None:
    scene = settings(tmp_path, "env=cartpole").scene
    states = draw_states(build_parts(scene, "cpu").env, 60, 7, pictures=True)
    for i, (picture, done) in enumerate(zip(states.frames["front"], states.done, strict=True)):
        path = tmp_path / "mine" / str(bool(done)).lower() / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
    words = "goal=pole vertically upright on top of the cart"
    (entry,) = audit(settings(tmp_path, "env=gym", f"frames={tmp_path / 'mine'}", words, "encoder.any_env=true"))
    assert entry.figures.auroc.value > 0.9
    assert any(control.name == "wrong words: kneeling" or "wrong words" in control.name for control in entry.controls)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["goal=a robot"], "there is no check .task=none."),
        (["env=gym", "goal=a robot"], "frames=<folder with subfolders true and false>"),
        (["prompts=['']"], "prompts holds an empty sentence"),
        (["reward=ground_truth", "prompts=[up]"], "reads no words"),
        (["reward=ground_truth", "encoders=[mini]"], "looks at no pictures"),
        (["reward=ground_truth", "frames=x"], "looks at none"),
        (["reward=clip_contrastive", "alphas=[0]"], "has no alpha"),
        (["alphas=[2]"], r"alphas\[0\] is 2; it must be a number, 0 to 1"),
        (["encoders=[minni]"], "'minni' is none of .*mini, open_clip"),
        (["encoders=[{name: mini, pth: x}]"], "Unknown encoder key 'pth'. Did you mean 'path'?"),
        (["states=0"], "states is 0; it must be a whole number, at least 1"),
        (["frames=nowhere"], "there is no folder or file 'nowhere'"),
    ],
)
def test_mistakes_are_said(overrides: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        audit(settings(tmp_path, *overrides))
    assert not (tmp_path / "audit").exists()


def test_names_of_encoders_are_read_as_tables_show_them(tmp_path: Path) -> None:
    first, second, third = settings(
        tmp_path, f"encoders=[ViT-B-32/openai,{tmp_path},{{name: open_clip, model: RN50, pretrained: cc12m}}]"
    ).encoders
    assert (first.name, first.config.model, first.config.pretrained) == ("open_clip", "ViT-B-32", "openai")
    assert (second.name, second.config.path) == ("mini", str(tmp_path))
    assert (third.config.model, third.config.pretrained) == ("RN50", "cc12m")


def test_wrong_words_leave_out_what_entails_the_task(tmp_path: Path) -> None:
    scene = settings(tmp_path, "task=standing").scene
    state = {name: values[0] for name, values in _humanoid_state(scene).items()}
    names = {name.removeprefix("wrong words: ") for name in wrong_words(scene, state)}
    assert "kneeling" in names and "lotus" in names
    assert not names & {"standing", "arms_raised", "arms_crossed", "hands_on_hips"}
    kneeling = wrong_words(settings(tmp_path, "task=kneeling").scene, state)
    assert kneeling["wrong words: standing"].goal == ("a humanoid robot standing up",)


def _humanoid_state(scene) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    from vlmrl.envs.humanoid import Humanoid

    env = Humanoid()
    env.reset(seed=0)
    return {name: np.stack([value]) for name, value in env.simulator_state().items()}


def test_wrong_words_of_an_only_task_are_its_negatives(tmp_path: Path) -> None:
    found = wrong_words(settings(tmp_path, "env=cartpole").scene, None)
    assert found["wrong words: 'pole tilted to the side'"].goal == ("pole tilted to the side",)
    assert all(isinstance(words, Words) for words in found.values())


class LooksBack:
    needs, context, retains = frozenset({"embeddings"}), 3, frozenset()


class Acts:
    needs, context, retains = frozenset({"embeddings", "action"}), 0, frozenset()


def test_rewards_that_look_at_more_than_a_state_are_not_audited() -> None:
    assert "looks at earlier rows" in why_not(LooksBack())  # type: ignore[arg-type]
    assert "reads action" in why_not(Acts())  # type: ignore[arg-type]


def test_a_reward_program_is_audited_on_the_numbers_that_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    level = f"reward.confinement={measured_level()}"
    scene = ["env=hopper", "task=stand", "reward=text2reward", level, "states=60"]
    (entry,) = audit(settings(tmp_path / "a", *scene))
    assert entry.verdict is not None and entry.figures.auroc.value > 0.9
    # The controls are programs for other tasks of the same environment.
    assert {"wrong words: flip", "wrong words: jump", "wrong words: run"} <= {one.name for one in entry.controls}
    output = capsys.readouterr().out
    # A program that is there already reads no words, so none can be wrong; one with its sign turned is found out.
    turned = tmp_path / "turned.py"
    source = code_in(next(one for one in recordings() if (one.env, one.task) == ("hopper", "stand")).answer)
    turned.write_text(
        re.sub(r"return (.+), (\w+)$", r"return -(\1), {k: -v for k, v in \2.items()}", source, flags=re.M)
    )
    (entry,) = audit(settings(tmp_path / "b", *scene, f"reward.program={turned}"))
    assert entry.verdict is not None and entry.verdict.word == "USELESS"
    assert not any(one.name.startswith("wrong words") for one in entry.controls)
    assert "GOOD" in output or "WEAK" in output


def test_a_control_that_nobody_has_written_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    level = f"reward.confinement={measured_level()}"
    (entry,) = audit(settings(tmp_path, "env=cartpole", "reward=text2reward", level, "states=60"))
    assert not any(one.name.startswith("wrong words") for one in entry.controls)
    assert "no program was recorded for these words, so this control is left out" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_short_audit_judges_and_leaves_out_what_it_cannot_judge() -> None:
    for overrides, audited in (
        (["env=cartpole"], True),
        (["env=cartpole", "reward=ground_truth"], False),
        (["env=cartpole", "goal=pole vertically upright on top of the cart"], False),
    ):
        scene = train_settings(plain(compose("train", for_hydra(overrides))))
        parts = build_parts(scene, "cpu")
        result = short_audit(scene, parts, 0)
        parts.close()
        assert (result is not None) == audited
        if result is not None:
            assert len(result.states) == 200 and "GOOD" in verdict_line(result)
