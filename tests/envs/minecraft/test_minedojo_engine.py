"""MineDojo's own engine up to the socket of its game: everything but Java runs here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlmrl.envs.minecraft import java
from vlmrl.envs.minecraft import minedojo as engine
from vlmrl.envs.minecraft.engine import ACTIONS, CRAFTS, SIZE, SLOTS, VECTORS, observation
from vlmrl.envs.minecraft.tasks import SHIPPED
from vlmrl.envs.minedojo import MineDojo
from vlmrl.errors import UserError

TASK = SHIPPED["milk_cow"]


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minedojo", None)
    with pytest.raises(UserError, match="make minedojo.*requirements-minedojo.txt.*engine=fake"):
        engine.make(TASK.minedojo_id, 0)


class Bridge:
    """Stands where MineDojo speaks to the game; answers as Malmo does, and fills the bucket at the third step."""

    is_terminated = False

    def __init__(self) -> None:
        self.sent: list[str] = []

    def reset(self, episode: str, missions: list[Any]) -> list[dict[str, Any]]:
        return [self.answer()]

    def step(self, commands: list[str]) -> Any:
        from minedojo.sim.bridge.bridge_env.bridge_env import StepTuple

        self.sent += commands
        return StepTuple(True, {0: self.answer()})

    def close(self) -> None:
        self.sent.append("closed")

    def answer(self) -> dict[str, Any]:
        held = "milk_bucket" if len([line for line in self.sent if "forward 1" in line]) >= 2 else "bucket"
        slot = {"inventory": "inventory", "variant": 0, "max_durability": -1, "cur_durability": -1}
        slots = [slot | {"name": held, "quantity": 1}] + [slot | {"name": "air", "quantity": 0} for _ in range(40)]
        picture = np.zeros((*SIZE, 3), np.uint8)
        picture[-1, 0] = 1, 2, 3  # the game draws from the bottom
        block = ["grass", 0, True, False, False, False, True, False, False, 0.5]
        place = {"xpos": 1.0, "ypos": 64.0, "zpos": 2.0, "yaw": 90.0, "pitch": 10.0}
        tools = {"nearby_crafting_table": False, "nearby_furnace": True}
        body = {"pov": picture.tobytes(), "inventory": slots, "voxels": block * 27, "life": 18.0, "food": 20}
        return body | place | tools


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> tuple[MineDojo, Bridge]:
    pytest.importorskip("minedojo", reason="make test-minedojo")
    monkeypatch.setattr(java, "java_version", lambda: 8)
    env = MineDojo(engine="minedojo", render_mode="rgb_array")
    bridge = Bridge()
    env._engine._env.unwrapped._bridge_env = bridge  # type: ignore[attr-defined]
    return env, bridge


def test_an_episode_through_all_its_wrappers(live: tuple[MineDojo, Bridge]) -> None:
    env, bridge = live
    observed, info = env.reset(seed=0)
    assert env.observation_space.contains(observed) and info["items"] == {"bucket": 1} and not info["success"]
    assert env.render()[0, 0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(observed["view"], [1, 0, np.sin(np.deg2rad(10)), np.cos(np.deg2rad(10))], atol=1e-6)
    assert observed["life_stats"][0] == 18 and observed["nearby_tools"].tolist() == [0, 1]
    assert observed["voxels"].reshape(3, 27).mean(axis=1).tolist() == [1, 0, 1]  # solid, liquid, collidable
    bridge.sent.clear()
    still = np.array([0, 0, 0, 12, 12, 6, 0, 5])  # place what is in an empty slot: the package raises an error for it
    _, reward, terminated, truncated, _ = env.step(still)
    assert (reward, terminated, truncated) == (0.0, False, False)
    env.step(np.array([1, 0, 0, 12, 14, 0, 0, 0]))
    assert "forward 1" in bridge.sent[-1] and "camera 0.0 30.0" in bridge.sent[-1]
    _, reward, terminated, _, info = env.step(np.array([1, 0, 0, 12, 12, 1, 0, 0]))
    assert (reward, terminated, info["success"], info["items"]) == (1.0, True, True, {"milk_bucket": 1})
    assert env.simulator_state()["success"] == 1
    env.close()
    assert bridge.sent[-1] == "closed"


def test_its_spaces_are_the_suites() -> None:
    pytest.importorskip("minedojo", reason="make test-minedojo")
    env = engine.make(TASK.minedojo_id, 0)
    assert tuple(env.action_space.nvec) == ACTIONS
    spaces = env.observation_space.spaces
    assert spaces["rgb"].shape == (3, *SIZE) and spaces["rgb"].dtype == np.uint8
    masks = spaces["masks"].spaces
    assert {name: masks[name].shape for name in ("action_type", "craft_smelt", "equip", "place", "destroy")} == {
        "action_type": (8,), "craft_smelt": (CRAFTS,), "equip": (SLOTS,), "place": (SLOTS,), "destroy": (SLOTS,)
    }  # fmt: skip
    assert all(VECTORS[f"mask_{name}"][0] == np.prod(masks[name].shape) for name in masks if name != "action_arg")
    assert spaces["inventory"].spaces["quantity"].shape == (SLOTS,)
    # What an engine leaves out reads 0, in the same space.
    assert set(observation(engine.Snapshot(np.zeros((*SIZE, 3), np.uint8)))) == {"rgb", *VECTORS}


def test_a_task_can_be_made_more_than_once() -> None:
    """The package takes a task out of its own table when it makes it."""
    pytest.importorskip("minedojo", reason="make test-minedojo")
    for task in (*SHIPPED.values(), TASK, TASK):
        assert engine.make(task.minedojo_id, 0).action_space.shape == (8,)
    with pytest.raises(UserError, match="cannot make the task 'nothing'"):
        engine.make("nothing", 0)


def test_java_8_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minedojo", reason="make test-minedojo")
    monkeypatch.setattr(java, "java_version", lambda: 17)
    with pytest.raises(UserError, match="'minedojo' needs Java 8, and this is Java 17.*engine=fake"):
        MineDojo(engine="minedojo")
