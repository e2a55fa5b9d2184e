"""The engine CraftGround up to the socket of its game: settings, commands and what its messages say."""

from __future__ import annotations

import numpy as np
import pytest

from vlmrl.envs.minecraft import java
from vlmrl.envs.minecraft.craftground import initial_config, snapshot, start_commands
from vlmrl.envs.minecraft.engine import ACTIONS, observation, observation_space
from vlmrl.envs.minecraft.tasks import SHIPPED, MinecraftTask
from vlmrl.envs.minedojo import MineDojo
from vlmrl.errors import UserError


def test_an_episode_is_set_up_by_commands_that_its_seed_decides() -> None:
    commands = start_commands(SHIPPED["combat_spider"], np.random.default_rng(0))
    assert commands == start_commands(SHIPPED["combat_spider"], np.random.default_rng(0))
    assert commands != start_commands(SHIPPED["combat_spider"], np.random.default_rng(1))
    assert commands[0] == "time set midnight" and commands[-1].startswith("summon minecraft:spider ~")
    assert "item replace entity @p weapon.mainhand with minecraft:wooden_sword" in commands
    assert len([command for command in commands if " armor." in command]) == 4
    cow = start_commands(SHIPPED["milk_cow"], np.random.default_rng(0))
    assert "item replace entity @p weapon.mainhand with minecraft:bucket" in cow and cow[0] == "time set noon"
    x, z = (float(part[1:]) for part in (cow[-1].split()[2], cow[-1].split()[4]))
    assert 4 <= np.hypot(x, z) <= 8.1


def test_what_its_messages_say() -> None:
    pytest.importorskip("craftground", reason="make test-minedojo")
    from craftground.environment.action_space import ActionSpaceVersion, declare_action_space
    from craftground.proto.observation_space_pb2 import ItemStack, ObservationSpaceMessage

    assert tuple(declare_action_space(ActionSpaceVersion.V1_MINEDOJO).nvec) == ACTIONS
    full = ObservationSpaceMessage(
        x=1.0, y=64.0, z=-2.0, yaw=90.0, pitch=0.0, health=17.0, food_level=20.0, is_dead=False
    )
    full.inventory.extend([
        ItemStack(translation_key="item.minecraft.shears", count=1),
        ItemStack(translation_key="block.minecraft.air", count=0),
        ItemStack(translation_key="block.minecraft.white_wool", count=2),
    ])  # fmt: skip
    full.killed_statistics["minecraft:cow"] = 3
    rgb = np.zeros((160, 256, 3), np.uint8)
    found = snapshot({"rgb": rgb, "full": full}, SHIPPED["shear_sheep"])
    assert found.items == {"shears": 1, "white_wool": 2, "wool": 2} and found.kills == {"cow": 3} and not found.dead
    observed = observation(found)
    assert observation_space().contains(observed)
    assert observed["inventory"][:3].tolist() == [1, 0, 2] and observed["life_stats"][0] == 17
    np.testing.assert_allclose(observed["view"], [1, 0, 0, 1], atol=1e-6)
    assert observed["mask_action_type"].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    with pytest.raises(RuntimeError, match=r"gave a picture \(3, 256, 160\)"):  # as its png encoding does
        snapshot({"rgb": rgb.transpose(2, 1, 0), "full": full}, SHIPPED["shear_sheep"])


def test_its_settings() -> None:
    pytest.importorskip("craftground", reason="make test-minedojo")
    message = initial_config(SHIPPED["hunt_cow"], 7).to_initial_environment_message()
    assert (message.imageSizeX, message.imageSizeY, message.seed) == (256, 160, "7")
    assert list(message.killedStatKeys) == ["minecraft:cow"]
    assert "gamerule doMobSpawning false" in list(message.initialExtraCommands)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "craftground", None)
    with pytest.raises(UserError, match=r"vlmrl\[craftground\]'. It also needs Java 21.*engine=fake"):
        MineDojo(engine="craftground")
    from vlmrl.envs.minecraft.craftground import CraftGroundEngine

    with pytest.raises(UserError, match="'creative:0' is one of MineDojo's: env.kwargs.engine=minedojo"):
        CraftGroundEngine(MinecraftTask("creative:0", "Explore.", minedojo_id="creative:0"))


def test_java_21_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("craftground", reason="make test-minedojo")
    monkeypatch.setattr(java, "java_version", lambda: None)
    with pytest.raises(UserError, match="'craftground' needs Java 21, and there is none.*engine=fake"):
        MineDojo(engine="craftground")


def test_a_game_that_does_not_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Gradle finds no network: the package says "Minecraft process failed to start"."""
    pytest.importorskip("craftground", reason="make test-minedojo")
    import craftground

    class Unbuilt:
        def reset(self, options: object) -> None:
            raise RuntimeError("Minecraft process failed to start")

    monkeypatch.setattr(java, "java_version", lambda: 21)
    monkeypatch.setattr(craftground, "make", lambda **settings: Unbuilt())
    with pytest.raises(UserError, match="could not start its game .Minecraft process failed to start.*a network and"):
        MineDojo(engine="craftground").reset(seed=0)
