from __future__ import annotations

import numpy as np
import pytest

from vlmrl.envs.humanoid import Humanoid
from vlmrl.envs.paper_look import skin, sky, tiles


def test_the_sky_has_no_seams_and_is_blue_above() -> None:
    picture = sky(64).astype(int)
    assert picture.shape == (6 * 64, 64, 3)
    right, left, up, down, front, back = picture.reshape(6, 64, 64, 3)
    # Neighbouring faces share an edge: side by side their colours differ no more than neighbours within a face do.
    within = max(np.abs(np.diff(face, axis=1)).max() for face in (right, left, front, back))
    for a, b in ((front, right), (right, back), (back, left), (left, front)):
        assert np.abs(a[:, -1] - b[:, 0]).max() <= 2 * within
    assert np.abs(up[-1] - front[0]).max() <= 2 * within
    assert up[..., 2].mean() > up[..., 0].mean() + 10  # blue above
    assert (down == down[0, 0]).all()  # one colour below the horizon


def test_tiles_repeat_without_seams_and_the_skin_has_six_faces() -> None:
    floor = tiles(100).astype(int)
    assert floor.shape == (100, 100, 3) and floor.std() > 10
    assert floor[0].mean() == pytest.approx(floor[50].mean(), abs=5)  # both are joints
    assert skin(50).shape == (300, 50, 3)


def test_the_look_changes_no_physics_and_the_floor_mirrors_nothing() -> None:
    states = []
    for profile in ("lean", "paper"):
        env = Humanoid(render_mode="rgb_array", width=32, height=32, profile=profile)
        env.reset(seed=0)
        env.render()
        rng = np.random.default_rng(0)
        for _ in range(30):
            env.step(rng.uniform(-0.4, 0.4, 17))
        states.append(env.data.qpos.copy())
        if profile == "paper":
            assert env.model.mat("MatPlane").reflectance[0] == 0
            assert (env.model.geom_rgba == 1).all()
        env.close()
    np.testing.assert_array_equal(*states)
