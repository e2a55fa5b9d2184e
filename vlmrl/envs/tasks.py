"""Tasks: words plus a check.

The words of a task are in `configs/task/<name>.yaml`. Its check, the success predicate, is here: a conjunction of
conditions on simulator state, never on the model's reward. The same conditions give the task's dense ground-truth
reward, so that the truth that is logged and the truth that is learned as a ceiling are one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from vlmrl.errors import UserError
from vlmrl.registry import Registry

State = Mapping[str, np.ndarray]


class Condition(NamedTuple):
    """One thing that must hold.

    Attributes:
        margin: How far inside its limit a quantity is, in the quantity's unit; negative outside.
        scale: Distance outside the limit, in the same unit, at which the dense reward of this condition reaches 0.
    """

    margin: float
    scale: float


Predicate = Callable[[State], dict[str, Condition]]

PREDICATES = Registry(
    "task",
    {
        "ant/jump": "vlmrl.envs.ant_tasks:jump",
        "ant/run": "vlmrl.envs.ant_tasks:run",
        "ant/stand": "vlmrl.envs.ant_tasks:stand",
        "babyai/mission": "vlmrl.envs.minigrid_tasks:mission",
        "cartpole/balance": "vlmrl.envs.cartpole_tasks:balance",
        "crafter/collect_coal": "vlmrl.envs.crafter_tasks:collect_coal",
        "crafter/collect_diamond": "vlmrl.envs.crafter_tasks:collect_diamond",
        "crafter/collect_drink": "vlmrl.envs.crafter_tasks:collect_drink",
        "crafter/collect_iron": "vlmrl.envs.crafter_tasks:collect_iron",
        "crafter/collect_sapling": "vlmrl.envs.crafter_tasks:collect_sapling",
        "crafter/collect_stone": "vlmrl.envs.crafter_tasks:collect_stone",
        "crafter/collect_wood": "vlmrl.envs.crafter_tasks:collect_wood",
        "crafter/defeat_skeleton": "vlmrl.envs.crafter_tasks:defeat_skeleton",
        "crafter/defeat_zombie": "vlmrl.envs.crafter_tasks:defeat_zombie",
        "crafter/eat_cow": "vlmrl.envs.crafter_tasks:eat_cow",
        "crafter/eat_plant": "vlmrl.envs.crafter_tasks:eat_plant",
        "crafter/make_iron_pickaxe": "vlmrl.envs.crafter_tasks:make_iron_pickaxe",
        "crafter/make_iron_sword": "vlmrl.envs.crafter_tasks:make_iron_sword",
        "crafter/make_stone_pickaxe": "vlmrl.envs.crafter_tasks:make_stone_pickaxe",
        "crafter/make_stone_sword": "vlmrl.envs.crafter_tasks:make_stone_sword",
        "crafter/make_wood_pickaxe": "vlmrl.envs.crafter_tasks:make_wood_pickaxe",
        "crafter/make_wood_sword": "vlmrl.envs.crafter_tasks:make_wood_sword",
        "crafter/place_furnace": "vlmrl.envs.crafter_tasks:place_furnace",
        "crafter/place_plant": "vlmrl.envs.crafter_tasks:place_plant",
        "crafter/place_stone": "vlmrl.envs.crafter_tasks:place_stone",
        "crafter/place_table": "vlmrl.envs.crafter_tasks:place_table",
        "crafter/wake_up": "vlmrl.envs.crafter_tasks:wake_up",
        "drawer_open/open_drawer": "vlmrl.envs.metaworld_tasks:open_drawer",
        "halfcheetah/flip": "vlmrl.envs.halfcheetah_tasks:flip",
        "halfcheetah/jump": "vlmrl.envs.halfcheetah_tasks:jump",
        "halfcheetah/run": "vlmrl.envs.halfcheetah_tasks:run",
        "halfcheetah/stand": "vlmrl.envs.halfcheetah_tasks:stand",
        "hopper/flip": "vlmrl.envs.hopper_tasks:flip",
        "hopper/jump": "vlmrl.envs.hopper_tasks:jump",
        "hopper/run": "vlmrl.envs.hopper_tasks:run",
        "hopper/stand": "vlmrl.envs.hopper_tasks:stand",
        "humanoid/arms_crossed": "vlmrl.envs.humanoid_tasks:arms_crossed",
        "humanoid/arms_raised": "vlmrl.envs.humanoid_tasks:arms_raised",
        "humanoid/hands_on_hips": "vlmrl.envs.humanoid_tasks:hands_on_hips",
        "humanoid/kneeling": "vlmrl.envs.humanoid_tasks:kneeling",
        "humanoid/lotus": "vlmrl.envs.humanoid_tasks:lotus",
        "humanoid/one_leg": "vlmrl.envs.humanoid_tasks:one_leg",
        "humanoid/splits": "vlmrl.envs.humanoid_tasks:splits",
        "humanoid/standing": "vlmrl.envs.humanoid_tasks:standing",
        "kitchen/hinge_cabinet": "vlmrl.envs.kitchen_tasks:hinge_cabinet",
        "kitchen/light_switch": "vlmrl.envs.kitchen_tasks:light_switch",
        "kitchen/microwave": "vlmrl.envs.kitchen_tasks:microwave",
        "kitchen/slide_cabinet": "vlmrl.envs.kitchen_tasks:slide_cabinet",
        "minigrid/mission": "vlmrl.envs.minigrid_tasks:mission",
        "minigrid/open_door": "vlmrl.envs.minigrid_tasks:open_door",
        "minigrid/reach_goal": "vlmrl.envs.minigrid_tasks:reach_goal",
        "minihack/reach_stairs": "vlmrl.envs.nethack_tasks:reach_stairs",
        "minihack/solve_level": "vlmrl.envs.nethack_tasks:solve_level",
        "minedojo/combat_spider": "vlmrl.envs.minedojo_tasks:done",
        "minedojo/combat_zombie": "vlmrl.envs.minedojo_tasks:done",
        "minedojo/hunt_cow": "vlmrl.envs.minedojo_tasks:done",
        "minedojo/milk_cow": "vlmrl.envs.minedojo_tasks:done",
        "minedojo/shear_sheep": "vlmrl.envs.minedojo_tasks:done",
        "mountaincar/climb": "vlmrl.envs.mountaincar_tasks:climb",
        "nethack/meet_oracle": "vlmrl.envs.nethack_tasks:meet_oracle",
        "nethack/reach_level_3": "vlmrl.envs.nethack_tasks:reach_level_3",
        "nethack/reach_level_4": "vlmrl.envs.nethack_tasks:reach_level_4",
        "nethack/reach_stairs": "vlmrl.envs.nethack_tasks:reach_stairs",
        "soccer/score_goal": "vlmrl.envs.metaworld_tasks:score_goal",
        "sweep_into/sweep_cube": "vlmrl.envs.metaworld_tasks:sweep_cube",
        "walker2d/flip": "vlmrl.envs.walker2d_tasks:flip",
        "walker2d/jump": "vlmrl.envs.walker2d_tasks:jump",
        "walker2d/run": "vlmrl.envs.walker2d_tasks:run",
        "walker2d/stand": "vlmrl.envs.walker2d_tasks:stand",
    },
)


def below(value: float | np.ndarray, limit: float, scale: float) -> Condition:
    """Condition that `value` is at most `limit`."""
    return Condition(float(limit - value), scale)


def above(value: float | np.ndarray, limit: float, scale: float) -> Condition:
    """Condition that `value` is at least `limit`."""
    return Condition(float(value - limit), scale)


def holds(conditions: Mapping[str, Condition]) -> bool:
    """Return whether every condition holds."""
    return all(condition.margin >= 0 for condition in conditions.values())


def dense_reward(conditions: Mapping[str, Condition]) -> float:
    """Return the dense ground-truth reward, 0 to 1, and exactly 1 where the predicate holds.

    Each condition gives 1 inside its limit and falls linearly to 0 at its scale outside; the reward is their product,
    as in the DeepMind Control Suite (Tassa et al. 2018, section 2): a mean would pay for lying on the floor, where
    most conditions of a pose hold.
    """
    return float(
        np.prod([np.clip(1 + condition.margin / condition.scale, 0.0, 1.0) for condition in conditions.values()])
    )


@dataclass(frozen=True)
class Task:
    """A goal in words and how its success is told.

    Attributes:
        name: Name of the task, or "none" for a person's own sentence.
        goal: What the agent should do.
        baseline: What the scene shows anyway; CLIP's goal-baseline projection takes it out.
        negatives: Sentences about what the agent may do instead.
        cameras: Cameras that the reward looks through; films and `render()` use the first.
        predicate: The check; None where there is none, and success then reads "no predicate".
        rule: "hold": success if the predicate holds in at least `fraction` of the steps of the episode.
            "end": success if it holds at the episode's last step.
        fraction: Share of steps for the rule "hold".
        start: How episodes start, one of the environment's `starts`: so that they do not start with the task done.
            Empty leaves it to the environment.
    """

    name: str
    goal: str
    baseline: str
    negatives: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ("front",)
    predicate: Predicate | None = None
    rule: Literal["hold", "end"] = "hold"
    fraction: float = 0.5
    start: str = ""

    @property
    def camera(self) -> str:
        """The first camera."""
        return self.cameras[0]


class TaskReward(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Replaces the environment's reward by the task's ground truth and says whether the task is done.

    Goes below SB3's innermost `Monitor`, so that `rollout/ep_rew_mean` is the truth of the task. Without a predicate
    the environment's own reward stays.

    `info` gains `original_reward` (float, what the environment gave), `predicate` (bool, holds now), and with the
    last step of an episode `predicate_fraction` (float, 0 to 1) and `is_success` (bool). Without a predicate only
    `original_reward` is there.

    Args:
        env: Its unwrapped environment has `simulator_state()` if the task has a predicate.
        task: The task.

    Raises:
        UserError: The task has a predicate and the environment cannot be read.
    """

    def __init__(self, env: gym.Env, task: Task):
        gym.utils.RecordConstructorArgs.__init__(self, task=task)
        gym.Wrapper.__init__(self, env)
        if task.predicate is not None and not hasattr(env.unwrapped, "simulator_state"):
            raise UserError(
                f"Task '{task.name}' reads simulator state, which {env.unwrapped} does not offer (simulator_state())."
            )
        self.task = task
        self._steps = 0
        self._held = 0
        self._now = False

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode and its count of steps."""
        self._steps = self._held = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance, and judge the state that was reached."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["original_reward"] = float(reward)
        if self.task.predicate is None:
            return observation, float(reward), terminated, truncated, info
        conditions = self.task.predicate(self.env.unwrapped.simulator_state())  # type: ignore[attr-defined]
        self._now = holds(conditions)
        self._steps += 1
        self._held += self._now
        info["predicate"] = self._now
        if terminated or truncated:
            info |= self.closing_figures()
        return observation, dense_reward(conditions), terminated, truncated, info

    def closing_figures(self) -> dict[str, Any]:
        """Return what `info` gains with the last step of an episode, as of the step that was taken last."""
        if self.task.predicate is None:
            return {}
        fraction = self._held / self._steps
        success = self._now if self.task.rule == "end" else fraction >= self.task.fraction
        return {"predicate_fraction": fraction, "is_success": success}
