"""What the embedded encoder is taught about: one scene for each visual environment of the suite."""

from __future__ import annotations

from vlmrl.workflows.mini.scenes.cartpole import CartPoleScene
from vlmrl.workflows.mini.scenes.humanoid import HumanoidScene
from vlmrl.workflows.mini.scenes.mountaincar import MountainCarScene
from vlmrl.workflows.mini.scenes.runners import ANT, HALFCHEETAH, HOPPER, WALKER2D
from vlmrl.workflows.mini.scenes.scene import Scene

SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (HumanoidScene(), CartPoleScene(), MountainCarScene(), HOPPER, WALKER2D, HALFCHEETAH, ANT)
}

__all__ = ["SCENES", "Scene"]
