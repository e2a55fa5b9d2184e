"""What learners of recorded data share, as algorithms of Stable-Baselines3: `learn`, `predict`, `save`, `load`."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common import utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from tqdm import tqdm

from vlmrl.agents.offline.blocks import UpdateBlocks
from vlmrl.agents.offline.data import ResidentData, check_transitions, finite_bounds
from vlmrl.agents.offline.policies import STATE_EPS, OfflinePolicy, check_observations
from vlmrl.datasets.base import Transitions
from vlmrl.errors import UserError

ROUNDING = 1e-3  # share of the greater bound that actions may lie beyond: half precision rounds by as much


class OfflineAlgorithm(BaseAlgorithm):
    """Learns from transitions that somebody recorded, and never acts while it does.

    `num_timesteps` counts gradient updates, and so does `learn(total_timesteps)`. The callback is asked once a block of
    updates. Transitions are drawn uniformly, with replacement, by a generator that is saved with the algorithm.

    Args:
        policy: Name or class of the policy.
        env: Gives the spaces; None takes them from `observation_space` and `action_space`. Learning does not act in it;
            it is kept, wrapped as Stable-Baselines3 wraps it, for callbacks that ask for it. One that is made here from
            an id is closed when the algorithm is let go.
        dataset: What to learn from; `set_dataset` gives it later.
        observation_space: Space of the observations, where there is no `env`.
        action_space: Space of the actions, where there is no `env`.
        learning_rate: Step size, or a function of the share of the run that remains.
        batch_size: Transitions an update.
        normalize_observations: Whether networks see observations with mean 0 and deviation 1 over the data.
        block_size: Updates between calls of the callback; on CUDA they are one graph.
        policy_kwargs: Further arguments of the policy: `net_arch`, `dropout`.
        tensorboard_log: See Stable-Baselines3.
        verbose: See Stable-Baselines3.
        seed: Seed of networks and batches.
        device: Torch device.

    Raises:
        UserError: Spaces are missing or cannot be learned from, or the dataset does not fit them.
    """

    policy: OfflinePolicy
    figures: ClassVar[tuple[str, ...]]  # what an update reports, in its order
    optimizers: ClassVar[tuple[str, ...]]  # attributes of the policy, in the order of the step sizes

    def __init__(
        self,
        policy: str | type[OfflinePolicy] = "MlpPolicy",
        env: GymEnv | str | None = None,
        dataset: Transitions | None = None,
        *,
        observation_space: gym.Space | None = None,
        action_space: gym.Space | None = None,
        learning_rate: float | Schedule = 3e-4,
        batch_size: int = 256,
        normalize_observations: bool = False,
        block_size: int = 100,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        # Without the environment: SB3 would check it for learners that act in it.
        super().__init__(
            policy,
            None,
            learning_rate,
            policy_kwargs=policy_kwargs,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
        )
        self.n_envs = 1
        if env is not None:
            self.env = self._kept(env)
            self.n_envs, self._vec_normalize_env = self.env.num_envs, unwrap_vec_normalize(self.env)
            observation_space, action_space = self.env.observation_space, self.env.action_space
        self.batch_size, self.block_size = batch_size, block_size
        self.normalize_observations = normalize_observations
        self._scales_known = False
        self._data: ResidentData | None = None
        self._blocks: UpdateBlocks | None = None
        self._pending: list[torch.Tensor] = []
        if not _init_setup_model:
            return
        if observation_space is None or action_space is None:
            raise UserError("Give the spaces that were recorded: an env, or observation_space and action_space.")
        self.observation_space, self.action_space = observation_space, action_space
        self._setup_model()
        if dataset is not None:
            self.set_dataset(dataset)

    def _kept(self, env: GymEnv | str) -> VecEnv:
        """Return the environment, made if need be, as SB3 keeps it: callbacks such as `EvalCallback` ask for it.

        Raises:
            UserError: Its observations cannot be learned from.
        """
        if isinstance(env, str):
            env = gym.make(env)
            weakref.finalize(self, env.close)
        check_observations(env.observation_space)
        return self._wrap_env(env, self.verbose)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if not hasattr(self, "_generator"):  # `load` brings the one that was saved
            self._generator = np.random.default_rng(self.seed)
        policy_class: Any = self.policy_class
        self.policy = policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)

    def set_dataset(self, dataset: Transitions) -> None:
        """Move a dataset to the device.

        Scales of observations and bounds of unbounded actions are taken from the first one, and kept: what was
        learned depends on them.

        Raises:
            UserError: It does not fit the spaces, or holds what nothing can be learned from.
        """
        check_transitions(dataset)
        if dataset.observations.shape[1:] != (self.policy.features,):
            raise UserError(
                f"The dataset's observations have {dataset.observations.shape[1]} numbers each, and the observation "
                f"space has {self.policy.features}."
            )
        actions = dataset.actions if self.policy.discrete else dataset.actions.reshape(len(dataset), -1)
        self._check_actions(actions)
        if not self._scales_known:
            self._take_scales(dataset.observations, actions)
            self._scales_known = True
        self._data = ResidentData(self._columns(dataset, actions), self.device)
        self._blocks = None

    @property
    def data_bytes(self) -> int:
        """What the dataset takes on the device; 0 without one."""
        return self._data.bytes if self._data is not None else 0

    def describe(self) -> list[str]:
        """Say in a line each what follows from the dataset."""
        return []

    @abstractmethod
    def _columns(self, dataset: Transitions, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Return what an update reads, {name: (N, ...)}."""

    @abstractmethod
    def update(self, index: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Do one update.

        Args:
            index: (batch_size,) int64, numbers of transitions, on the device.
            rates: (optimizers,) float32, step sizes, on the device.

        Returns:
            (figures,) float32 on the device.
        """

    @abstractmethod
    def _rates(self, progress: np.ndarray) -> np.ndarray:
        """Return step sizes, (n, optimizers) float32, at shares of the run that are behind, (n,) 0 to 1."""

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "offline",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Learn.

        Args:
            total_timesteps: Gradient updates.
            callback: Asked after each block of updates; training ends when it says so.
            log_interval: Blocks between lines in the log.
            tb_log_name: See Stable-Baselines3.
            reset_num_timesteps: Whether to count from 0; otherwise `total_timesteps` come on top.
            progress_bar: Whether to show how far training is.

        Raises:
            UserError: There is no dataset.
        """
        if self._data is None:
            raise UserError("There is nothing to learn from: give a dataset, or call set_dataset.")
        # SB3's own `_setup_learn` resets an environment.
        self._num_timesteps_at_start = self.num_timesteps = 0 if reset_num_timesteps else self.num_timesteps
        self._total_timesteps = total_timesteps + self.num_timesteps
        if not self._custom_logger:
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps)
        self._prepare_optimizers()
        if self._blocks is None:
            self._blocks = UpdateBlocks(self.update, self.device, self.block_size)
        listener = self._init_callback(callback)
        bar = tqdm(total=self._total_timesteps, initial=self.num_timesteps, unit="update", disable=not progress_bar)
        listener.on_training_start(locals(), globals())
        done = 0
        try:
            while self.num_timesteps < self._total_timesteps:
                count = min(self.block_size, self._total_timesteps - self.num_timesteps)
                self._run_block(self._blocks, self._data, count)
                done += 1
                bar.update(count)
                if done % log_interval == 0 or self.num_timesteps == self._total_timesteps:
                    self.dump_logs(bar.format_dict["rate"])
                if not listener.on_step():
                    break
        finally:
            bar.close()
        listener.on_training_end()
        return self

    def _run_block(self, blocks: UpdateBlocks, data: ResidentData, count: int) -> None:
        """Draw and do `count` updates."""
        self.policy.set_training_mode(True)
        indices = torch.from_numpy(self._generator.integers(0, len(data), (count, self.batch_size)))
        progress = (self.num_timesteps + np.arange(count)) / self._total_timesteps
        rates = torch.from_numpy(self._rates(progress).astype(np.float32))
        self._pending.append(blocks.run(indices, rates))
        self.num_timesteps += count
        self._n_updates += count
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self.policy.set_training_mode(False)

    def dump_logs(self, rate: float | None = None) -> None:
        """Write the means of the figures since the last line, and the updates a second where they are known."""
        means = torch.stack(self._pending).mean(dim=0).tolist()
        self._pending.clear()
        for name, value in zip(self.figures, means, strict=True):
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if rate is not None:
            self.logger.record("time/updates_per_second", rate)
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_data", "_blocks", "_pending"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", *(f"policy.{name}" for name in self.optimizers)], []

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Self:
        """Load what `save` wrote; see Stable-Baselines3. To learn on, give it a dataset: `set_dataset`."""
        model = super().load(*args, **kwargs)
        model._data, model._blocks, model._pending = None, None, []
        return model

    def _prepare_optimizers(self) -> None:
        """Have step sizes on the device, and counters that a graph can carry on, whatever device wrote the file."""
        for name in self.optimizers:
            for group in getattr(self.policy, name).param_groups:
                group["lr"] = torch.as_tensor(float(group["lr"]), device=self.device)
                group["fused"], group["capturable"] = True, self.device.type == "cuda"
            for state in getattr(self.policy, name).state.values():
                state["step"] = state["step"].to(self.device)

    def _check_actions(self, actions: np.ndarray) -> None:
        """Refuse actions that are not of the space: networks would see them beyond -1 and 1, where no policy can act.

        Raises:
            UserError: The kind, number or range of actions is another.
        """
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            if actions.ndim != 1 or actions.dtype.kind not in "iu":
                raise UserError(f"The actions are in {space}, and those of the dataset are no single whole numbers.")
            low, high = int(space.start), int(space.start + space.n - 1)
            if actions.min() < low or actions.max() > high:
                raise UserError(
                    f"The dataset's actions go from {actions.min()} to {actions.max()}, and the space allows {low} to "
                    f"{high}."
                )
            return
        if actions.shape[1] != self.policy.action_dim:
            raise UserError(
                f"The dataset's actions have {actions.shape[1]} numbers each, and the action space has "
                f"{self.policy.action_dim}."
            )
        assert isinstance(space, gym.spaces.Box)
        bounds = np.stack([space.low.reshape(-1), space.high.reshape(-1)]).astype(np.float64)
        least, greatest = actions.min(axis=0), actions.max(axis=0)
        slack = ROUNDING * np.where(np.isfinite(bounds), np.abs(bounds), 0).max(axis=0)
        beyond = (least < bounds[0] - slack) | (greatest > bounds[1] + slack)
        if beyond.any():
            i = int(beyond.argmax())
            raise UserError(
                f"The dataset's actions go from {least[i]:.6g} to {greatest[i]:.6g} (number {i} of each), and the "
                f"action space allows {bounds[0, i]:.6g} to {bounds[1, i]:.6g}. Give the space that they were recorded "
                "in; if the environment cut them off at its bounds, cut them off in the dataset as well."
            )

    def _take_scales(self, observations: np.ndarray, actions: np.ndarray) -> None:
        if self.normalize_observations:
            mean, spread = observations.mean(axis=0), observations.std(axis=0) + STATE_EPS
            self.policy.observation_mean.copy_(torch.from_numpy(mean))
            self.policy.observation_scale.copy_(torch.from_numpy(spread))
        if isinstance(self.action_space, gym.spaces.Box):
            low, high = self.action_space.low.reshape(-1), self.action_space.high.reshape(-1)
            low, high = finite_bounds(low, high, actions)
            self.policy.action_low.copy_(torch.from_numpy(low.astype(np.float32)))
            self.policy.action_high.copy_(torch.from_numpy(high.astype(np.float32)))

    def _seen(self, observations: np.ndarray) -> np.ndarray:
        """Return observations as the networks see them, (N, features) float32."""
        return self.policy.normalize(torch.from_numpy(observations).to(self.device)).cpu().numpy()

    def _scaled(self, actions: np.ndarray) -> np.ndarray:
        """Return actions as the networks see them."""
        return self.policy.scale_actions(torch.from_numpy(actions).to(self.device)).cpu().numpy()


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: torch.Tensor) -> None:
    """Take one step down a loss."""
    optimizer.param_groups[0]["lr"].copy_(rate)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
