"""The kitchen of FrankaKitchen: a Franka arm, a microwave, a kettle, cabinets, a light and an oven.

Source: Gupta et al.: "Relay Policy Learning: Solving Long-Horizon Tasks via Imitation and Reinforcement Learning", CoRL
2019 (arXiv 1910.11956), as `FrankaKitchen-v1` of `gymnasium-robotics` has it.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from vlmrl.envs.cameras import Camera
from vlmrl.envs.mujoco_scene import OLDER_MUJOCO, MujocoScene
from vlmrl.errors import require

# Joints of the things that can be moved, as they lie in `qpos` behind the arm's nine.
JOINTS = {
    "bottom_burner": (11, 12),
    "top_burner": (15, 16),
    "light_switch": (17, 18),
    "slide_cabinet": (19,),
    "hinge_cabinet": (20, 21),
    "microwave": (22,),
    "kettle": (23, 24, 25, 26, 27, 28, 29),
}


class Kitchen(MujocoScene, gym.Env, EzPickle):
    """A kitchen in which the task says what is to be moved, in episodes of 280 steps.

    | what | value |
    | --- | --- |
    | action | (9,) float32 in [-1, 1]: speeds of the arm's seven joints and two fingers, 1 is 2 rad/s or m/s |
    | observation | (59,) float64, noisy: arm (9 positions in rad and m, 9 speeds), things (21 positions, 20 speeds) |
    | reward | that of `FrankaKitchen-v1`: how many of its seven tasks are done |
    | start | everything closed and off, the arm before it; noise is in what is seen, not in what is |
    | termination | never; truncated after 280 steps by its registration |
    | time step | 0.08 s (40 simulation steps of 0.002 s) |

    `FrankaKitchen-v1` returns a dict with its goals in it; they never change, so this has only "observation".

    Version history:
        v0: first version.

    Args:
        render_mode: "rgb_array" or None.
        width: Picture width in pixels.
        height: Picture height in pixels.
        camera: "front" (Gymnasium-Robotics' own), "microwave" or "cabinets", which stand nearer.
        profile: "lean" or "default", see `MujocoFrames`.
        **kwargs: Passed on to `KitchenEnv`, such as `tasks_to_complete`, which the reward counts.

    Raises:
        UserError: Gymnasium-Robotics is not installed, or there is no such camera or profile.
    """

    cameras = {
        "front": Camera(distance=2.2, lookat=(-0.2, 0.5, 2.0), elevation=-35.0, azimuth=70.0),
        "microwave": Camera(distance=1.3, lookat=(-0.6, 0.4, 1.8), elevation=-20.0, azimuth=95.0),
        "cabinets": Camera(distance=1.3, lookat=(-0.2, 0.6, 2.4), elevation=-10.0, azimuth=80.0),
    }
    profiles = ("lean", "default")
    starts = ()
    described_dt = 0.08
    described_state = {
        "hand": ("position of the point between the fingers, m", (3,)),
        "microwave": ("angle of the door, rad, 0 closed, negative open", (1,)),
        "slide_cabinet": ("way of the sliding door, m, 0 closed, positive open", (1,)),
        "hinge_cabinet": ("angles of the left and the right door, rad, 0 closed", (2,)),
        "light_switch": ("angle of the switch, rad, 0 off, negative on, and of the light's joint, rad", (2,)),
        "bottom_burner": ("angle of the knob, rad, 0 off, negative on, and of the burner's joint, rad", (2,)),
        "top_burner": ("angle of the knob, rad, 0 off, negative on, and of the burner's joint, rad", (2,)),
        "kettle": ("position, m, and orientation, quaternion", (7,)),
    }
    described_action = tuple(
        [f"speed of joint {i + 1} of the arm, 1 is 2 rad/s, -1 to 1" for i in range(7)]
        + [f"speed of finger {i + 1}, 1 is 2 m/s, -1 to 1" for i in range(2)]
    )

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 224,
        height: int = 224,
        camera: str = "front",
        profile: str = "lean",
        **kwargs: Any,
    ):
        EzPickle.__init__(self, render_mode, width, height, camera, profile, **kwargs)
        self.set_view(width, height, camera, profile)
        require("gymnasium_robotics", extra="kitchen", hint=OLDER_MUJOCO)
        from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

        kwargs = {"terminate_on_tasks_completed": False, "remove_task_when_completed": False} | kwargs
        self._kitchen = KitchenEnv(**kwargs)
        self._robot = self._kitchen.robot_env
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # type: ignore[misc]
        self.pictures_only()
        self.model, self.data = self._robot.model, self._robot.data
        self.action_space = gym.spaces.Box(-1.0, 1.0, (9,), np.float32)
        self.observation_space = self._kitchen.observation_space["observation"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        self._robot.np_random = self.np_random
        observation, info = self._kitchen.reset()
        return observation["observation"], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one step; `info` names the tasks that are done."""
        observation, reward, terminated, truncated, info = self._kitchen.step(action)
        return observation["observation"], float(reward), bool(terminated), bool(truncated), info

    def simulator_state(self) -> dict[str, np.ndarray]:
        """Return what predicates and programs read, each float32 in the world's frame; see `described_state`."""
        values = {name: self.data.qpos[list(joints)] for name, joints in JOINTS.items()}
        values["hand"] = self.data.site("end_effector").xpos
        return {name: np.array(value, dtype=np.float32) for name, value in values.items()}

    def draw_state(self, rng: np.random.Generator) -> None:
        """Put doors, knobs and switches anywhere within their limits, for audits; call after a reset."""
        import mujoco

        moved = [joint for name, joints in JOINTS.items() if name != "kettle" for joint in joints]
        low, high = self.model.jnt_range[moved].T  # up to the kettle, one joint has one number
        self.data.qpos[moved] = rng.uniform(low, high)
        mujoco.mj_forward(self.model, self.data)

    def close(self) -> None:
        """Free the renderer and the simulation."""
        super().close()
        self._kitchen.close()
