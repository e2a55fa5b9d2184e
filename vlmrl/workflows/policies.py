"""Policies from outside: zips of Stable-Baselines3, functions, objects that act."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from vlmrl.agents import reference_policies
from vlmrl.errors import UserError, unknown
from vlmrl.registry import Registry
from vlmrl.workflows.config.scene import import_own
from vlmrl.workflows.rollouts import Policy, RandomPolicy, count

ALGORITHMS = Registry(
    "algorithm",
    {name: f"stable_baselines3:{name.upper()}" for name in ("a2c", "ddpg", "dqn", "ppo", "sac", "td3")}
    | {"crossq": "sb3_contrib:CrossQ", "recurrent_ppo": "sb3_contrib:RecurrentPPO"}
    | {"iql": "vlmrl.agents.offline.iql:IQL", "bc": "vlmrl.agents.offline.bc:BC"},
)
# Where Stable-Baselines3 and SB3-Contrib define the policy classes that one algorithm alone has. TD3's are DDPG's too,
# which acts in the same way.
POLICY_MODULES = {f"stable_baselines3.{name}.policies": name for name in ("dqn", "sac", "td3")} | {
    "sb3_contrib.crossq.policies": "crossq",
    "sb3_contrib.common.recurrent.policies": "recurrent_ppo",
    "vlmrl.agents.offline.policies": "iql",
    "vlmrl.agents.offline.bc": "bc",
}
SHARED_MODULE = "stable_baselines3.common.policies"  # of PPO and A2C


class ZeroPolicy:
    """The action nearest to none: zeros, or the first of several discrete actions. A control.

    Args:
        action_space: Space of the actions.
    """

    def __init__(self, action_space: gym.Space):
        sample = np.asarray(action_space.sample())
        self._action = np.zeros_like(sample)
        if isinstance(action_space, gym.spaces.Box):
            self._action = np.clip(self._action, action_space.low, action_space.high)
        elif isinstance(action_space, gym.spaces.Discrete):
            self._action = self._action + action_space.start

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Return one action for each observation."""
        return np.stack([self._action] * count(observation)), None


class SampledPolicy:
    """A policy whose actions are drawn, as in training, and not the likeliest ones.

    Where an observation does not tell one state from another, as in grid worlds, the likeliest action may be the same
    in both and lead round in a circle for ever.

    Args:
        policy: Of Stable-Baselines3.
        seed: Of the draws; nothing that others draw from is touched.
    """

    def __init__(self, policy: Any, seed: int):
        self._policy = policy
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._random = _torch_state()

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Draw one action for each observation, whatever `deterministic` says."""
        with torch.random.fork_rng():
            own, on_gpus = self._random
            torch.set_rng_state(own)
            torch.cuda.set_rng_state_all(on_gpus)
            actions = self._policy.predict(observation, state, episode_start, deterministic=False)
            self._random = _torch_state()
        return actions


def _torch_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the state of torch's generators: of the CPU, and of each GPU, where a policy that is there draws."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


class CallablePolicy:
    """A function from one observation to one action, as a policy.

    It sees the observations of several environments in turn, so it should not remember any; an object with a method
    `predict`, as of Stable-Baselines3, is told where episodes start. Actions are cut to the bounds of their space, as
    Stable-Baselines3 does with those of its own policies.

    Args:
        name: What a person calls it.
        function: The function.
        action_space: Space of the actions.
    """

    def __init__(self, name: str, function: Callable[[Any], Any], action_space: gym.Space):
        self._name, self._function, self._space = name, function, action_space

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Call the function once for each observation.

        Raises:
            UserError: What it gives is no action of the space.
        """
        if isinstance(observation, dict):
            single = [{key: value[i] for key, value in observation.items()} for i in range(count(observation))]
        else:
            single = list(observation)
        return np.stack([self._action(self._function(one)) for one in single]), None

    def _action(self, given: Any) -> np.ndarray:
        space = self._space
        try:
            action = np.asarray(given)
            if isinstance(space, gym.spaces.Box):
                action = np.clip(action.astype(space.dtype), space.low, space.high)
            elif np.issubdtype(action.dtype, np.integer):
                action = action.astype(space.dtype)
            fits = action.shape == space.shape and np.isfinite(action).all() and space.contains(action)
        except (TypeError, ValueError):  # numpy makes no numbers of it
            fits = False
        if not fits:
            raise UserError(f"The policy '{self._name}' gave {given!r}, which is no action of {space}.")
        return action


def open_policy(
    name: str,
    observation_space: gym.Space,
    action_space: gym.Space,
    algorithm: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    env: str = "",
    task: str = "",
) -> Policy:
    """Make a policy of what a person names.

    Args:
        name: Path of a zip of Stable-Baselines3, "module:attribute" (a function from observation to action, an object
            with a method `predict`, or a class of either, which is called without arguments), "random", "zero", or
            "reference": the trained one that comes with the suite for this environment and task.
        observation_space: What the policy will see.
        action_space: How it can act.
        algorithm: Whose zip it is, a name in `ALGORITHMS` or "module:class"; None reads it from the zip.
        device: Where a zip's networks run.
        seed: Seed of "random".
        env: Name of the environment, for "reference".
        task: Name of the task, for "reference".

    Raises:
        UserError: There is no such policy, or it does not fit the environment.
    """
    if name == "random":
        return RandomPolicy(action_space, seed)
    if name == "zero":
        return ZeroPolicy(action_space)
    if name == "reference":
        reference = reference_policies.find(env, task).load(device)
        check_spaces(f"policy={name}", reference, observation_space, action_space)
        return reference
    if name.endswith(".zip") or Path(name).is_file():
        model = load_zip(Path(name), algorithm, device)
        check_spaces(f"policy={name}", model, observation_space, action_space)
        return model
    if ":" in name:
        return as_policy(name, _load_attribute(name, "policy"), action_space)
    raise UserError(
        f"policy={name} is no policy. Give the path of a zip that Stable-Baselines3 saved, module:attribute, random, "
        "zero or reference; a run folder goes with runs=."
    )


def as_policy(name: str, given: Any, action_space: gym.Space) -> Policy:
    """Make a policy of an object with a method `predict` or `get_action`, of a function, or of a class of either.

    `get_action`, from one observation to one action, is what Meta-World's scripted policies have.

    Raises:
        UserError: It is none of them, or a class that needs arguments.
    """
    if isinstance(given, type):
        try:
            given = given()
        except TypeError as error:
            raise UserError(f"The policy '{name}' is a class that needs arguments to be made: {error}.") from error
    if callable(getattr(given, "predict", None)):
        return given
    if callable(getattr(given, "get_action", None)):
        return CallablePolicy(name, given.get_action, action_space)
    if callable(given):
        return CallablePolicy(name, given, action_space)
    raise UserError(
        f"The policy '{name}' is {type(given).__name__}; it must be a function from observation to action, or have a "
        "method predict(observation, state, episode_start, deterministic) or get_action(observation)."
    )


def load_zip(path: Path, algorithm: str | None, device: str) -> BaseAlgorithm:
    """Load what an algorithm of Stable-Baselines3 saved. Like all such files it can run code: load what you trust.

    Args:
        path: The zip.
        algorithm: A name in `ALGORITHMS` or "module:class"; None reads it from the zip.
        device: "cpu", "cuda" or "cuda:<n>".

    Raises:
        UserError: It is no such file, its algorithm cannot be told, or another's was given.
    """
    if not path.is_file():
        raise UserError(f"policy={path}: there is no such file.")
    named = algorithm or algorithm_of(path)
    loader = _load_attribute(named, "algorithm") if ":" in named else ALGORITHMS.load(named)
    if not (isinstance(loader, type) and issubclass(loader, BaseAlgorithm)):
        raise UserError(f"algorithm={named} is no algorithm of Stable-Baselines3: it has no method load for such zips.")
    try:
        return loader.load(path, device=device)
    except Exception as error:  # a wrong class fails in whatever way its first line to miss something does
        raise UserError(
            f"policy={path} cannot be loaded with algorithm={named}: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]} Name the right one: {', '.join(ALGORITHMS)} or module:class."
        ) from error


def algorithm_of(path: Path) -> str:
    """Tell from a zip which algorithm of Stable-Baselines3 saved it, without running anything in it.

    Raises:
        UserError: It is no such zip, or this cannot be told.
    """
    try:
        with zipfile.ZipFile(path) as file:
            data = json.loads(file.read("data"))
        module = str(data["policy_class"]["__module__"])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise UserError(f"policy={path} is no zip of Stable-Baselines3 ({type(error).__name__}: {error}).") from error
    if module == SHARED_MODULE:
        return "ppo" if "n_epochs" in data else "a2c"
    if module not in POLICY_MODULES:
        raise UserError(
            f"policy={path} does not say which algorithm saved it (its policy class is from {module}). Name it: "
            f"algorithm={'|'.join(ALGORITHMS)}, or module:class, such as algorithm=sb3_contrib:TQC."
        )
    return POLICY_MODULES[module]


def _load_attribute(name: str, key: str) -> Any:
    """Load "module:attribute"."""
    module, _, attribute = name.partition(":")
    loaded = import_own(module, key)
    if not hasattr(loaded, attribute):
        public = [entry for entry in vars(loaded) if not entry.startswith("_")]
        raise unknown(f"attribute of module '{module}':", attribute, public)
    return getattr(loaded, attribute)


def check_spaces(name: str, made_for: Any, observation_space: gym.Space, action_space: gym.Space) -> None:
    """Refuse a policy, or recordings, of something else than this environment; number types do not matter.

    Args:
        name: What it is called on the command line, "policy=<path>".
        made_for: Has an `observation_space` and an `action_space`.
        observation_space: Of the environment.
        action_space: Of the environment.

    Raises:
        UserError: Shapes, kinds or bounds of actions differ.
    """
    for what, own, wanted in (
        ("sees", made_for.observation_space, observation_space),
        ("acts in", made_for.action_space, action_space),
    ):
        fits = type(own) is type(wanted) and own.shape == wanted.shape
        if isinstance(own, gym.spaces.Discrete) and isinstance(wanted, gym.spaces.Discrete):
            fits = (own.n, own.start) == (wanted.n, wanted.start)
        elif what == "acts in" and isinstance(own, gym.spaces.Box) and isinstance(wanted, gym.spaces.Box):
            fits = fits and np.allclose(own.low, wanted.low) and np.allclose(own.high, wanted.high)
        elif not isinstance(own, gym.spaces.Box | gym.spaces.Discrete):
            fits = own == wanted
        if not fits:
            raise UserError(
                f"{name} {what} {_described(own)}, and this environment has {_described(wanted)}: it was "
                "trained in another one. See env= and env.kwargs."
            )


def _described(space: gym.Space) -> str:
    """Name a space in one line; the bounds of a long box would fill pages."""
    if isinstance(space, gym.spaces.Box):
        return f"a box of shape {space.shape} within [{space.low.min():g}, {space.high.max():g}]"
    return " ".join(str(space).split())
