"""The arithmetic of docs/scaling.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import scaling
from benchmarks.scaling import CONSTANTS, MODELS, Model, encoders, many_runs, measured, one_run, relabelling, slowest
from tests.benchmarks.test_reward_pipeline import made_up

EASY = {name: replace(constant, value=1e12) for name, constant in CONSTANTS.items()} | {
    "matrix rate": replace(CONSTANTS["matrix rate"], value=1e12)
}
ENCODER = Model("a model", 10.0, 0.5)  # 50 frames a second on a GPU of 1e12


def test_an_encoder_alone_scales_with_gpus_and_with_pictures_left_out() -> None:
    assert encoders(EASY, ENCODER) == pytest.approx(50)
    assert slowest(one_run(EASY, ENCODER, 1, 1)) == ("encoders", pytest.approx(50))
    assert slowest(one_run(EASY, ENCODER, 8, 4)) == ("encoders", pytest.approx(1600))
    assert slowest(relabelling(EASY, ENCODER, 64)) == ("encoders", pytest.approx(3200))


def test_one_learner_does_not_scale_and_many_do() -> None:
    slow = EASY | {"learner": replace(EASY["learner"], value=10)}
    assert slowest(one_run(slow, ENCODER, 64, 1, steps_an_update=1)) == ("learner", 10)
    assert slowest(one_run(slow, ENCODER, 64, 1, steps_an_update=8)) == ("learner", 80)
    assert slowest(many_runs(slow | {"learner": replace(slow["learner"], value=1)}, ENCODER, 64, 1)) == ("learner", 512)


def test_environments_take_a_core_for_physics_and_for_every_kth_picture() -> None:
    slow = EASY | {"physics": replace(EASY["physics"], value=1000), "render": replace(EASY["render"], value=250)}
    slow |= {"cores": replace(EASY["cores"], value=2)}
    assert one_run(slow, ENCODER, 1, 1)["environments"] == pytest.approx(2 / 5e-3)
    assert one_run(slow, ENCODER, 3, 4)["environments"] == pytest.approx(6 / 2e-3)


def test_machines_of_eight_gpus_share_a_network() -> None:
    slow = EASY | {"network": replace(EASY["network"], value=7)}
    assert [relabelling(slow, ENCODER, n)["network"] for n in (1, 8, 9, 64)] == [7, 7, 14, 56]


def test_measured_figures_take_the_place_of_published_ones_and_say_so() -> None:
    taken = measured(CONSTANTS, made_up())
    assert taken["transport"].value == 1e5  # of "submit, 150 kB"
    assert taken["transport"].source.startswith("measured on a <cpu>")
    assert taken["learner"] == CONSTANTS["learner"]  # no GPU was there


def test_the_page_is_what_the_script_writes(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    page, (begin, end) = tmp_path / "scaling.md", scaling.MARKS
    page.write_text(f"before\n{begin}old\n{end}\nafter\n")
    monkeypatch.setattr(scaling, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["scaling", "--docs"])
    scaling.main()
    assert page.read_text() == f"before\n{begin}\n{scaling.tables(CONSTANTS)}\n\n{end}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has lost its marks"):
        scaling.main()
    real = (scaling.Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    assert all(model.name in real for model in MODELS)
