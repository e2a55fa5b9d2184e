from __future__ import annotations

from typing import Any

import pytest
import yaml

from vlmrl.commands import compose, plain
from vlmrl.errors import UserError
from vlmrl.reward_models import REWARDS
from vlmrl.workflows.config.evaluate import EvaluateConfig, evaluate_settings
from vlmrl.workflows.config.fit import RECIPES, FitConfig, fit_settings
from vlmrl.workflows.config.scene import choose
from vlmrl.workflows.config.train import TrainConfig, train_settings
from vlmrl.workflows.fit import FITS


def values(*overrides: str) -> dict[str, Any]:
    return plain(compose("train", list(overrides)))


def settings(*overrides: str) -> TrainConfig:
    return train_settings(values(*overrides))


def test_the_main_job() -> None:
    config = settings("env=humanoid", "reward=clip")
    assert (config.env.name, config.task.name, config.reward.name) == ("humanoid", "kneeling", "clip")
    assert (config.encoder.name, config.agent.name) == ("mini", "crossq")
    assert config.words.goal == ("a humanoid robot kneeling",)
    assert config.words.baseline == ("a humanoid robot",)
    assert config.agent.config.gamma == 0.95  # tuned for this environment, not the agent's own default
    assert config.make_task().predicate is not None


@pytest.mark.parametrize(
    ("overrides", "agent", "gamma"),
    [
        (["env=cartpole"], "ppo", 0.98),
        (["env=cartpole", "agent=dqn"], "dqn", 0.99),
        (["env=humanoid", "agent=ppo"], "ppo", 0.99),  # no tuned settings: the agent's own
        (["env=cartpole", "agent.gamma=0.5"], "ppo", 0.5),
        (["agent.gamma=0.5", "env=cartpole"], "ppo", 0.5),
    ],
)
def test_the_environment_chooses_and_the_command_line_wins(overrides: list[str], agent: str, gamma: float) -> None:
    config = settings(*overrides)
    assert config.agent.name == agent
    assert config.agent.config.gamma == gamma


def test_the_last_of_two_choices_wins() -> None:
    config = settings("env=humanoid", "reward=clip", "env=cartpole")  # make train ARGS="env=cartpole"
    assert (config.env.name, config.task.name, config.agent.name) == ("cartpole", "balance", "ppo")


def test_a_sentence_of_ones_own() -> None:
    config = settings(
        "env=humanoid", "task=none", "goal='a humanoid robot doing the splits'", "baseline='a humanoid robot'"
    )
    assert config.words.goal == ("a humanoid robot doing the splits",)
    assert config.words.baseline == ("a humanoid robot",)
    task = config.make_task()
    assert task.predicate is None
    assert task.goal == "a humanoid robot doing the splits"


def test_several_sentences_are_an_ensemble() -> None:
    assert settings("task=none", "goal=[a, b]").words.goal == ("a", "b")
    assert settings("task.goal=[a, b]").words.goal == ("a", "b")


def test_a_baseline_alone_keeps_the_task() -> None:
    config = settings("baseline='a robot on a floor'")
    assert config.words.goal == ("a humanoid robot kneeling",)
    assert config.words.baseline == ("a robot on a floor",)
    assert config.make_task().predicate is not None


def test_the_camera_is_the_tasks_unless_the_environment_says_otherwise() -> None:
    assert settings("task.camera=side").make_task().camera == "side"
    assert settings("task.camera=side", "env.camera=diagonal").make_task().camera == "diagonal"
    several = settings("env.camera=[front,side]")
    assert several.make_task().cameras == ("front", "side")
    assert several.make_task().camera == "front"
    assert train_settings(several.plain()) == several


@pytest.mark.parametrize("given", ["env.camera=[]", "task.camera=[]", "env.camera=[front,front]"])
def test_cameras_must_be_some_and_different(given: str) -> None:
    with pytest.raises(UserError, match=r"it must be the name of a camera, or a list of different ones"):
        settings(given)


def test_a_gym_environment_with_its_own_reward_needs_no_goal() -> None:
    config = settings("env=gym", "env.id=Pendulum-v1", "reward=ground_truth")
    assert config.words is None
    assert config.make_task().predicate is None
    with pytest.raises(UserError, match="The goal is empty"):
        settings("env=gym", "env.id=Pendulum-v1", "reward=clip")


def test_shaping_takes_the_agents_discount() -> None:
    assert settings("use_as=potential", "agent.gamma=0.7").gamma == 0.7
    with pytest.raises(UserError, match="shaping_weight is 0; it must be a number, greater than 0"):
        settings("shaping_weight=0")


def test_settings_of_a_run_from_before_a_key_was_there_can_be_read() -> None:
    new = settings("env=cartpole")
    later = ("between", "use_as", "shaping_weight", "keep")
    old = {key: value for key, value in new.plain().items() if key not in later}
    assert train_settings(old) == new


def test_no_words_are_needed_where_none_are_read() -> None:
    assert settings("task=none", "reward=ground_truth").make_task().predicate is None


@pytest.mark.parametrize(
    "overrides", [[], ["task=none", "goal=[a, b]", "+env.kwargs.x=1", "env.width=64"], ["env=cartpole", "agent=dqn"]]
)
def test_settings_come_back_from_yaml(overrides: list[str]) -> None:
    config = settings(*overrides)
    plain_values = yaml.safe_load(yaml.safe_dump(_lists(config.plain())))
    assert train_settings(plain_values) == config


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(entry) for key, entry in value.items()}
    return [_lists(entry) for entry in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["goal='a robot'"], r"task 'kneeling' has one already. Use goal= with task=none .* task.goal="),
        (
            ["env=cartpole", "task=kneeling"],
            r"Unknown task of environment 'cartpole': 'kneeling'. Available: balance, none.",
        ),
        (["task=none"], "The goal is empty"),
        (["task=none", "goal=''"], "goal holds an empty sentence"),
        (["task=none", "goal=[a, ' ']"], "goal holds an empty sentence"),
        (["task.goal=[]"], "The goal is empty"),
        (["baseline=''"], "baseline holds an empty sentence"),
        (["device=gpu"], "device is 'gpu'; it must be auto, cpu, cuda or cuda:<n>"),
        (["device=cuda:"], "device is 'cuda:'"),
        (["agent.name=scc"], "Unknown agent 'scc'. Did you mean 'sac'"),
        (["reward.name=clp"], "Unknown reward 'clp'. Did you mean 'clip'"),
        (["env.name=humanoidd"], "Unknown task of environment 'humanoidd'"),
        (["env.profile=leen"], "env.profile=leen is not one of lean, default, paper. Did you mean 'lean'"),
        (["agent.gamma=1.5"], "agent.gamma is 1.5; it must be a number, 0 to 1"),
        (["agent.learning_rate=fast"], "agent.learning_rate is 'fast'; it must be a number, greater than 0"),
        (["agent.ent_coef=fast"], "agent.ent_coef is 'fast'; it must be a number, auto, or auto_<first value>"),
        (["agent.ent_coef=auto_x"], "agent.ent_coef is 'auto_x'"),
        (["n_envs=0"], "n_envs is 0; it must be a whole number, at least 1"),
        (["total_timesteps=-5"], "total_timesteps is -5; it must be a whole number, at least 1"),
        (["seed=abc"], "seed is 'abc'; it must be a whole number, at least 0"),
        (["video=maybe"], "video is 'maybe'; it must be true or false"),
        (["task.fraction=2"], "task.fraction is 2; it must be a number, 0 to 1"),
        (["task.rule=hodl"], "task.rule=hodl is not one of hold, end. Did you mean 'hold'"),
        (["scorer.batch_size=0"], "scorer.batch_size is 0"),
    ],
)
def test_each_mistake_has_its_message(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(*overrides)


@pytest.mark.parametrize(("given", "taken"), [("0.1", "0.1"), ("1", "1"), ("auto", "auto"), ("auto_0.1", "auto_0.1")])
def test_entropy_coefficients(given: str, taken: str) -> None:
    assert settings(f"agent.ent_coef={given}").agent.config.ent_coef == taken


def test_step_counts_may_be_written_as_people_write_them() -> None:
    assert settings("total_timesteps=1e6").total_timesteps == 1_000_000


@pytest.mark.parametrize("given", [None, "clip", {"alpha": 1}])
def test_a_choice_needs_a_name(given: Any) -> None:
    with pytest.raises(UserError, match="reward must be one of clip, .*ground_truth"):
        choose(REWARDS, given)


def evaluation(*overrides: str) -> EvaluateConfig:
    return evaluate_settings(plain(compose("evaluate", list(overrides))))


def test_evaluate_takes_one_run_or_several() -> None:
    assert evaluation().runs == ("last",)
    assert evaluation("runs=[a,b/c]").runs == ("a", "b/c")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("runs=[]", "runs is empty"),
        ("runs=''", "runs is empty"),
        ("episodes=0", "episodes is 0"),
        ("device=gpu", "device is 'gpu'"),
    ],
)
def test_evaluate_refuses(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluation(override)


def fitting(*overrides: str) -> FitConfig:
    return fit_settings(plain(compose("fit", list(overrides))))


def test_fit_hands_its_recipe_what_it_needs() -> None:
    config = fitting("encoder=mini", "seed=3", "out=weights", "fit.frames=1e3")
    assert config.recipe_name == "mini"
    recipe = config.recipe
    assert (recipe.seed, recipe.out, recipe.frames) == (3, "weights", 1000)
    assert fitting("run_dir=somewhere").recipe.out == "somewhere"


def test_every_recipe_has_a_workflow() -> None:
    assert list(RECIPES) == list(FITS)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoder=open_clip"], "'open_clip' has no training recipe. Available: clip4mc, failure_prompts, liv, mini, "),
        (["fit.frame=1"], "Unknown fit key 'frame'. Did you mean 'frames'"),
        (["fit.frames=many"], "fit.frames is 'many'; it must be a whole number"),
        (["seed=abc"], "seed is 'abc'; it must be a whole number, at least 0"),
        (["device=gpu"], "device is 'gpu'"),
    ],
)
def test_fit_refuses(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitting(*overrides)
