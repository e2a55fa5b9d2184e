"""SB3-Contrib's recurrent PPO, with rewards that are filled in before it computes returns and advantages."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Dict
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer, RecurrentRolloutBuffer

from vlmrl.agents.buffers import FillsRollouts


class RewardFillingRecurrentRolloutBuffer(FillsRollouts, RecurrentRolloutBuffer):
    """A rollout buffer that fills rewards in, beside the states of an LSTM."""


class RewardFillingRecurrentDictRolloutBuffer(FillsRollouts, RecurrentDictRolloutBuffer):
    """The same for observations that are dicts of arrays."""


class RewardFillingRecurrentPPO(RecurrentPPO):
    """`RecurrentPPO`, which has no argument for the class of its buffer, with one that fills rewards in."""

    def _setup_model(self) -> None:
        super()._setup_model()
        made = (
            RewardFillingRecurrentDictRolloutBuffer
            if isinstance(self.observation_space, Dict)
            else RewardFillingRecurrentRolloutBuffer
        )
        theirs: Any = self.rollout_buffer
        self.rollout_buffer = made(
            self.n_steps,
            self.observation_space,
            self.action_space,
            theirs.hidden_state_shape,
            self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
        )
