"""Meta-World's tasks. What needs the package runs with `make test-metaworld`; the rest everywhere."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import vlmrl  # noqa: F401
from tests.workflows.test_train import COMMON, last, run
from vlmrl.commands import compose, plain
from vlmrl.envs.abstraction import StateReader
from vlmrl.envs.make import EnvSettings
from vlmrl.envs.metaworld import ROBOT, paper_camera
from vlmrl.envs.program_scene import ProgramScene
from vlmrl.envs.tasks import PREDICATES, Task, dense_reward, holds
from vlmrl.errors import UserError
from vlmrl.quantities import Abstraction
from vlmrl.reward_models.confinement.process import ConfinedProgram, measured_level
from vlmrl.reward_models.programs.answers import RecordedWriter, code_in
from vlmrl.reward_models.programs.contract import check
from vlmrl.reward_models.text2reward import prompt_digest
from vlmrl.workflows.audit.states import draw_states
from vlmrl.workflows.config.train import train_settings

needs_metaworld = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="needs vlmrl[metaworld]: make test-metaworld"
)
TASKS = {"drawer_open": "open_drawer", "soccer": "score_goal", "sweep_into": "sweep_cube"}
IDS = {"drawer_open": "vlmrl/DrawerOpen-v0", "soccer": "vlmrl/Soccer-v0", "sweep_into": "vlmrl/SweepInto-v0"}
LIMITS = {"drawer_open": 0.03, "soccer": 0.07, "sweep_into": 0.05}  # m
FIXED = {  # RL-VLM-F's cameras as its scene files write them
    "drawer_open": '<camera pos="-0.6 0.2 0.35" xyaxes="-1 1 0 -0.2 -0.2 -1"/>',
    "sweep_into": '<camera pos="0 1.1 0.75" euler="-0.5 0 0"/>',
}


def conditions(name: str, **state: object) -> dict:
    arrays = {key: np.array(value, dtype=np.float32) for key, value in state.items()}
    return PREDICATES.load(f"{name}/{TASKS[name]}")(arrays)


@pytest.mark.parametrize("name", TASKS)
def test_an_environment_brings_its_task_and_the_papers_learner(name: str) -> None:
    settings = train_settings(plain(compose("train", [f"env={name}", "reward=ground_truth"])))
    assert (settings.env.id, settings.task.name, settings.agent.name) == (IDS[name], TASKS[name], "sac")
    task = settings.make_task()
    assert task.cameras == ("near",) and task.predicate is not None
    # Once is enough in an episode of 500 steps, as in the papers.
    assert task.rule == "hold" and 0 < task.fraction <= 1 / 500
    assert tuple(settings.agent.config.net_arch) == (256, 256, 256)
    assert settings.total_timesteps == 1_000_000


@pytest.mark.parametrize("name", TASKS)
def test_without_the_package_it_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(UserError, match=r"'metaworld'.*vlmrl\[metaworld\].*make setup-metaworld"):
        gym.make(IDS[name])


@pytest.mark.parametrize("name", TASKS)
def test_the_embedded_encoder_refuses_what_it_has_never_seen(name: str) -> None:
    from vlmrl.encoders.mini import MiniConfig

    with pytest.raises(UserError, match="encoder.any_env=true"):
        MiniConfig().build("cpu").check_env(name)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("way", [(1, 0, 0), (0, -1, 0), (-0.6, 0.8, 0)])
def test_predicates_at_their_limits(name: str, way: tuple[float, float, float]) -> None:
    target = np.array([0.05, 0.8, 0.09])
    for distance, expected in ((0.0, True), (LIMITS[name] - 1e-3, True), (LIMITS[name] + 1e-3, False)):
        found = conditions(name, object=target + distance * np.array(way), target=target)
        assert holds(found) == expected
        assert (dense_reward(found) == 1) == expected


@pytest.mark.parametrize("name", TASKS)
def test_the_truth_rises_on_the_way_to_the_target(name: str) -> None:
    target = np.array([0.0, 0.84, 0.02])
    rewards = [
        dense_reward(conditions(name, object=target + (0, -distance, 0), target=target))
        for distance in (0.19, 0.15, 0.11, 0.08, 0.02)
    ]
    assert rewards == sorted(set(rewards)) and rewards[-1] == 1


def test_height_counts_for_the_ball_and_not_for_the_cube() -> None:
    above = {"object": (0.0, 0.8, 0.2), "target": (0.0, 0.8, 0.02)}
    assert not holds(conditions("soccer", **above)) and not holds(conditions("drawer_open", **above))
    assert holds(conditions("sweep_into", **above))


def test_a_cropped_camera_turns_down_and_narrows() -> None:
    whole = paper_camera((0.0, 0.0, 1.0), elevation=-30.0, azimuth=0.0)
    cropped = paper_camera((0.0, 0.0, 1.0), elevation=-30.0, azimuth=0.0, cropped=True)
    assert whole.fovy == 45.0 and whole.mirrored and whole.without == ROBOT
    assert cropped.fovy == pytest.approx(2 * np.rad2deg(np.arctan(np.tan(np.deg2rad(22.5)) * 300 / 480)))
    # Its middle is 10 of 240 pixels below that of the whole picture.
    down = np.tan(np.deg2rad(whole.elevation - cropped.elevation)) / np.tan(np.deg2rad(22.5))
    assert down == pytest.approx(10 / 240)


def make(name: str, **kwargs):
    env = gym.make(IDS[name], **kwargs).unwrapped
    env.reset(seed=0)
    return env


def put(env, name: str, distance: float) -> None:
    """Bring the object to a distance in m from its target, towards the arm; the drawer is pulled out to there."""
    import mujoco

    if name == "drawer_open":
        env.data.joint("goal_slidey").qpos[:] = -(0.19 - distance)
    else:
        joint = env.data.joint("objjoint") if name == "sweep_into" else env.data.joint(7 + 2)
        joint.qpos[:2] = env.simulator_state()["target"][:2] - (0, distance)
        joint.qvel[:] = 0
    mujoco.mj_forward(env.model, env.data)


@needs_metaworld
@pytest.mark.parametrize("name", TASKS)
def test_success_is_what_meta_world_says(name: str) -> None:
    env = make(name)
    told = set()
    limit = LIMITS[name]
    for distance in (0.15, limit + 0.02, limit + 0.004, limit - 0.004, limit - 0.02):
        env.reset(seed=0)
        put(env, name, max(distance, 0.0))
        before = env.simulator_state()
        _, _, _, _, info = env.step(np.zeros(4, dtype=np.float32))
        state = env.simulator_state()
        found = PREDICATES.load(f"{name}/{TASKS[name]}")(state)
        (condition,) = found.values()
        assert limit - condition.margin == pytest.approx(info["obj_to_target"], abs=1e-5)
        assert holds(found) == bool(info["success"]), (distance, before, state)
        told.add(holds(found))
    assert told == {True, False}


@needs_metaworld
@pytest.mark.parametrize("name", TASKS)
def test_it_is_meta_worlds_own_environment_step_for_step(name: str) -> None:
    import metaworld

    ours = gym.make(IDS[name]).unwrapped
    theirs = metaworld.ALL_V3_ENVIRONMENTS[ours.NAME]()
    theirs.seeded_rand_vec, theirs._freeze_rand_vec = True, False
    theirs._set_task_called, theirs._partially_observable = True, False
    theirs.__dict__.pop("sawyer_observation_space", None)
    ours.reset(seed=3)
    theirs.seed(3)
    theirs.reset()
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        seen, reward, terminated, truncated, info = ours.step(action)
        expected, their_reward, _, _, their_info = theirs.step(action)
        np.testing.assert_allclose(seen, expected, atol=1e-9)  # reset() computes once more than theirs: last digits
        assert reward == pytest.approx(their_reward, abs=1e-6) and info["success"] == their_info["success"]
        assert not terminated and not truncated
    theirs.close()
    ours.close()


@needs_metaworld
@pytest.mark.parametrize("name", TASKS)
def test_the_first_observation_shows_things_where_they_are(name: str) -> None:
    env = gym.make(IDS[name]).unwrapped
    places = []
    for seed in (5, 6, 5):
        observation, _ = env.reset(seed=seed)
        np.testing.assert_allclose(observation[4:7], env.simulator_state()["object"], atol=1e-6)
        np.testing.assert_allclose(observation[36:], env.simulator_state()["target"], atol=1e-6)
        places.append(observation)
        for _ in range(20):
            env.step(env.action_space.sample())
    np.testing.assert_array_equal(places[0], places[2])  # whatever was before
    assert np.abs(places[0] - places[1]).max() > 0.01


@needs_metaworld
def test_only_the_time_limit_ends_an_episode() -> None:
    env = gym.make(IDS["drawer_open"], max_episode_steps=502)
    for limit, made in ((500, gym.make(IDS["drawer_open"])), (502, env)):
        made.reset(seed=0)
        for t in range(1, limit + 1):
            _, _, terminated, truncated, _ = made.step(np.zeros(4, dtype=np.float32))
            assert not terminated and truncated == (t == limit)


@needs_metaworld
@pytest.mark.parametrize("name", FIXED)
def test_the_near_camera_is_the_papers(name: str) -> None:
    """Its fixed camera, turned round by rows and cropped, gives the same picture but for the edges of things."""
    import mujoco

    env = make(name, render_mode="rgb_array", width=300, height=300)
    ours = env.render().astype(int)
    source = f'<mujoco><compiler angle="radian"/><worldbody>{FIXED[name]}</worldbody></mujoco>'
    fixed = mujoco.MjModel.from_xml_string(source)
    theirs = env.model.cam("corner2").id
    env.model.cam_pos[theirs], env.model.cam_quat[theirs] = fixed.cam_pos[0], fixed.cam_quat[0]
    env.model.cam_fovy[theirs] = 45
    mujoco.mj_forward(env.model, env.data)
    env.close()
    hidden = env.model.body_rootid[env.model.geom_bodyid] == env.model.body(ROBOT).id
    env.model.geom_rgba[hidden, 3] = 0
    with mujoco.Renderer(env.model, 480, 480) as renderer:
        renderer.update_scene(env.data, "corner2")
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        expected = renderer.render()[::-1][100:400, 100:400].astype(int)
    # Drawer and cube are the only green things.
    seen, wanted = ((p[..., 1] > p[..., 0] + 30) & (p[..., 1] > p[..., 2] + 30) for p in (ours, expected))
    assert wanted.mean() > 0.005
    assert (seen & wanted).sum() / (seen | wanted).sum() > 0.85
    assert (seen[:, ::-1] & wanted).sum() / (seen[:, ::-1] | wanted).sum() < 0.6  # mirrored, they lie elsewhere
    assert np.abs(ours - expected).mean() < 9


@needs_metaworld
@pytest.mark.parametrize("name", TASKS)
def test_the_near_camera_leaves_the_arm_out_and_the_others_do_not(name: str) -> None:
    import mujoco

    env = make(name, render_mode="rgb_array", width=64, height=64)
    before = {camera: env.render_camera(camera).astype(int) for camera in env.cameras}
    env.data.qpos[:7] += 0.3
    mujoco.mj_forward(env.model, env.data)
    moved = {camera: np.abs(env.render_camera(camera) - before[camera]).mean() for camera in env.cameras}
    assert moved["near"] == 0 and moved["corner"] > 3 and moved["top"] > 3
    # What the reward is about is there: bringing it to the target changes the picture.
    put(env, name, 0.03)
    assert np.abs(env.render_camera("near") - before["near"]).mean() > 1
    env.close()


@needs_metaworld
@pytest.mark.parametrize("name", TASKS)
def test_states_for_audits_are_of_both_labels(name: str) -> None:
    predicate = PREDICATES.load(f"{name}/{TASKS[name]}")
    task = Task(TASKS[name], "g", "b", cameras=("near",), predicate=predicate)
    states = draw_states(EnvSettings(IDS[name], task, height=32, width=32), 40, 0, pictures=False)
    assert states.done.sum() >= 10 and (~states.done).sum() >= 10


@needs_metaworld
def test_the_drawers_reward_program_is_recorded_and_pays_for_opening_it() -> None:
    settings = train_settings(plain(compose("train", ["env=drawer_open", "reward=ground_truth"])))
    assert settings.words is not None
    scene = ProgramScene(EnvSettings(settings.env.id, settings.make_task(), kwargs=settings.env.kwargs))
    recording = RecordedWriter(scene.abstraction, settings.words).recording
    assert (recording.env, recording.task) == ("drawer_open", "open_drawer")
    assert recording.prompt == prompt_digest(scene.abstraction, settings.words, scene.episode)
    states, actions = scene.record(256)
    source, level = code_in(recording.answer), measured_level()
    assert not check(source, scene.abstraction, states, actions, level, 5.0).findings
    # Meta-World's own script opens it; random actions do not.
    from metaworld.policies import SawyerDrawerOpenV3Policy

    env, policy = make("drawer_open"), SawyerDrawerOpenV3Policy()
    reader, opened = StateReader(env), []
    observation, _ = env.reset(seed=0)
    for _ in range(150):
        action = np.clip(policy.get_action(observation), -1, 1).astype(np.float32)
        observation, *_ = env.step(action)
        opened.append(reader())
    env.close()
    with ConfinedProgram(source, scene.abstraction, level) as program:
        scripted, _ = program(np.stack(opened), np.zeros((150, 4)))
        random, _ = program(states, actions)
    assert holds(conditions("drawer_open", **_named(scene.abstraction, opened[-1])))
    assert scripted[-1] > 4 > 2 * random.max() and scripted[-1] > scripted[:20].max() + 2


def _named(abstraction: Abstraction, numbers: np.ndarray) -> dict[str, np.ndarray]:
    return {path[0]: numbers[leaf.start : leaf.start + leaf.size] for path, leaf in abstraction.leaves()}


@needs_metaworld
def test_other_looks_are_refused() -> None:
    with pytest.raises(UserError, match="Available: default, lean"):
        gym.make(IDS["soccer"], profile="paper")
    with pytest.raises(UserError, match="render mode"):
        gym.make(IDS["soccer"], render_mode="depth_array")


@needs_metaworld
@pytest.mark.parametrize(
    "reward",
    [
        ["reward=ground_truth"],
        ["reward=vlm_preference", "judge=ground_truth", "reward.input=cnn", "reward.interact=60", "reward.queries=12",
         "reward.max_epochs=2", "agent.buffer_size=1000"],
    ],
    ids=["truth", "preference"],
)  # fmt: skip
def test_a_short_training_works(reward: list[str], tmp_path: Path) -> None:
    settings = ["env=drawer_open", *reward, "total_timesteps=150", "n_envs=1", "agent.learning_starts=50",
                "agent.batch_size=16", "agent.net_arch=[16]", "env.max_episode_steps=25", "video=false"]  # fmt: skip
    run(tmp_path, *settings, *COMMON)
    result = json.loads((last(tmp_path) / "result.json").read_text())
    assert set(result["policies"]) >= {"trained", "random"} and result["steps"] >= 150
    if "judge=ground_truth" in reward:
        assert result["preferences"]["questions"] >= 12
