"""The suite's settings in sample-factory's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from vlmrl.agents.appo.config import AppoConfig
from vlmrl.agents.appo.policy import EXPERIMENT, factory_space
from vlmrl.errors import UserError

ENV = "vlmrl"  # what the run's environment is called in sample-factory's registry
NEVER = 10**9  # seconds


def factory_options(
    agent: AppoConfig,
    observation_space: gym.Space,
    run: Path,
    n_envs: int,
    total_timesteps: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Translate settings.

    Args:
        agent: Settings of the agent.
        observation_space: What the policy sees.
        run: The run's folder.
        n_envs: Environments, shared out among the workers.
        total_timesteps: Steps of all environments together after which training ends.
        seed: Seed of the networks and of sampling.
        device: "cpu" or "cuda".

    Returns:
        {option of sample-factory: value}; its own defaults hold for all others.

    Raises:
        UserError: The device is a certain one of several.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(
            f"device={device}: sample-factory takes the first device that it sees. Give device=cuda, and name the "
            f"device in the shell: CUDA_VISIBLE_DEVICES={device.partition(':')[2]}."
        )
    per_worker = n_envs // agent.n_workers
    real = [
        key
        for key, space in factory_space(observation_space).spaces.items()
        if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)
    ]
    options: dict[str, Any] = {
        "algo": "APPO",
        "env": ENV,
        "experiment": EXPERIMENT,
        "train_dir": str(run),
        "restart_behavior": "resume",
        "device": "gpu" if device == "cuda" else "cpu",
        "seed": seed,
        "num_policies": 1,
        "async_rl": agent.asynchronous and not agent.serial,
        "serial_mode": agent.serial,
        "num_workers": agent.n_workers,
        "num_envs_per_worker": per_worker,
        "worker_num_splits": 2 if per_worker % 2 == 0 else 1,  # one half steps while actions for the other are computed
        "max_policy_lag": agent.max_policy_lag,
        "rollout": agent.n_steps,
        "batch_size": agent.batch_size,
        "num_batches_per_epoch": agent.n_minibatches,
        "num_epochs": agent.n_epochs,
        "gamma": agent.gamma,
        "gae_lambda": agent.gae_lambda,
        "with_vtrace": agent.vtrace,
        "ppo_clip_ratio": agent.clip_range,
        "ppo_clip_value": agent.clip_range_vf,
        "exploration_loss_coeff": agent.ent_coef,
        "value_loss_coeff": agent.vf_coef,
        "max_grad_norm": agent.max_grad_norm,
        "learning_rate": agent.learning_rate,
        "normalize_input": agent.normalize_observations and bool(real),
        "normalize_input_keys": real,
        "normalize_returns": agent.normalize_returns,
        # Where an episode is cut off, what would have followed counts by its value, as in Stable-Baselines3.
        "value_bootstrap": True,
        "use_rnn": agent.rnn != "none",
        "rnn_type": "gru" if agent.rnn == "none" else agent.rnn,
        "rnn_size": agent.rnn_size,
        "encoder_mlp_layers": list(agent.net_arch),
        "features_dim": agent.features_dim,  # of `FeatureEncoder`
        # Random first steps would neither be counted nor be from the episodes that the seed names.
        "decorrelate_envs_on_one_worker": False,
        "set_workers_cpu_affinity": False,  # other programs want processors, too
        "train_for_env_steps": total_timesteps,
        # Checkpoints are asked for by steps, see `vlmrl.agents.appo.training`; none is best by the rewards of training.
        "save_every_sec": NEVER,
        "save_best_every_sec": NEVER,
        "save_best_after": NEVER,
        "heartbeat_reporting_interval": NEVER,  # the watchdog looks sooner
        "with_wandb": False,
    }
    return options


def factory_settings(options: dict[str, Any]) -> Any:
    """Return sample-factory's own settings with these options, all others as it sets them."""
    from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args

    arguments = [f"--{name}={options[name]}" for name in ("algo", "env", "experiment", "train_dir")]
    parser, _ = parse_sf_args(arguments)
    cfg = parse_full_cfg(parser, arguments)
    vars(cfg).update(options)
    cfg.cli_args = dict(options)  # those that win over what a run that goes on has stored
    return cfg
