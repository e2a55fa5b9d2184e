"""Learners."""

from vlmrl.registry import Registry

# Each entry is a config dataclass with Stable-Baselines3's parameter names.
AGENTS = Registry(
    "agent",
    {
        "sac": "vlmrl.agents.sac:SacConfig",
        "ppo": "vlmrl.agents.ppo:PpoConfig",
        "dqn": "vlmrl.agents.dqn:DqnConfig",
    },
)
