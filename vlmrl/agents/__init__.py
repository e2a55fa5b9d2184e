"""Learners."""

from vlmrl.registry import Registry

# Each entry is a config dataclass with the parameter names of Stable-Baselines3 and SB3-Contrib.
AGENTS = Registry(
    "agent",
    {
        "sac": "vlmrl.agents.sac:SacConfig",
        "appo": "vlmrl.agents.appo.config:AppoConfig",
        "ppo": "vlmrl.agents.ppo:PpoConfig",
        "recurrent_ppo": "vlmrl.agents.recurrent_ppo:RecurrentPpoConfig",
        "dqn": "vlmrl.agents.dqn:DqnConfig",
        "crossq": "vlmrl.agents.crossq:CrossqConfig",
        "iql": "vlmrl.agents.iql:IqlConfig",
        "bc": "vlmrl.agents.bc:BcConfig",
    },
)
