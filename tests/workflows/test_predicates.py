from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlmrl.envs.humanoid import Humanoid
from vlmrl.envs.humanoid_poses import Pose, put
from vlmrl.envs.tasks import PREDICATES, holds
from vlmrl.workflows.predicates import TASKS, WAYS, between, draw_states, grid, limit_sheet, main, near_view

LABELS = Path(__file__).parents[1] / "envs" / "humanoid_labels_held_out.json"


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in WAYS for name in WAYS[task]])
def test_a_way_leads_across_its_limit(task: str, name: str) -> None:
    env = Humanoid()
    env.reset(seed=0)
    predicate = PREDICATES.load(f"humanoid/{task}")
    inside, outside = WAYS[task][name]
    put(env, inside)
    assert holds(predicate(env.simulator_state()))
    put(env, outside)
    assert predicate(env.simulator_state())[name].margin < 0


def test_every_task_has_a_sheet() -> None:
    assert set(WAYS) == set(TASKS)
    folder = Path(__file__).parents[2] / "docs" / "predicates"
    assert {path.stem for path in folder.glob("*.jpg")} == set(TASKS)
    assert max(path.stat().st_size for path in folder.glob("*.jpg")) <= 150_000


def test_between_two_poses_are_poses() -> None:
    a, b = Pose({"knee": -100, "shoulder1": 40}, pitch=10), Pose({"right_knee": -20}, roll=-4)
    half = between(a, b, 0.5)
    assert half.joints == {"right_knee": -60, "left_knee": -50, "right_shoulder1": 20, "left_shoulder1": -20}
    assert (half.pitch, half.roll) == (5, -2)


def test_a_limit_sheet_has_a_row_for_each_way() -> None:
    env = near_view(32)
    sheet = limit_sheet(env, "arms_raised")
    assert sheet.shape == (32, 6 * 64, 3) and sheet.std() > 10
    env.close()


def test_grid_fills_up_with_black() -> None:
    cells = [np.full((2, 3, 3), i + 1, np.uint8) for i in range(3)]
    sheet = grid(cells, 2)
    assert sheet.shape == (4, 6, 3) and sheet[3, 2, 0] == 3 and sheet[3, 3, 0] == 0


def test_the_labelled_states_can_be_drawn_anew() -> None:
    kept = np.array([frame["qpos"] for frame in json.loads(LABELS.read_text())["frames"]])
    drawn = draw_states(75, 7)
    # Falls and motion go through the simulator, whose versions differ; most states are geometry only.
    assert np.isclose(drawn, kept, atol=2e-4).all(axis=1).mean() > 0.7


def test_sheets_of_states_are_written(tmp_path: Path) -> None:
    states = tmp_path / "states.json"
    frames = json.loads(LABELS.read_text())["frames"][:16]
    states.write_text(json.dumps({"frames": frames}))
    main([str(tmp_path / "sheets"), str(states)])
    assert [cv2.imread(str(path)).shape for path in sorted((tmp_path / "sheets").iterdir())] == [
        (1250, 1500, 3),
        (250, 1500, 3),
    ]
    with pytest.raises(SystemExit):
        main([])
