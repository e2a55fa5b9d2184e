"""What a reward program is written for and tried on: an environment's abstraction, and states that it went through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlmrl.envs.abstraction import StateReader, record
from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.judges.desk import Desk
from vlmrl.quantities import Abstraction


@dataclass(frozen=True)
class ProgramScene:
    """See this module and `vlmrl.reward_models.text2reward.Scene`.

    Attributes:
        env: The environment.
        desk: Opens the desk of the run's judge; None where there is no judge.
        seed: Of the episodes that states are recorded from.
    """

    env: EnvSettings
    desk: Callable[[], Desk] | None = None
    seed: int = 0

    @cached_property
    def abstraction(self) -> Abstraction:
        """What programs read.

        Raises:
            UserError: The environment cannot be made, or programs cannot read it.
        """
        return self._facts[0]

    @property
    def episode(self) -> str:
        """How long an episode is, and how it starts."""
        return self._facts[1]

    @cached_property
    def _facts(self) -> tuple[Abstraction, str]:
        env = make_env(self.env)
        try:
            assert env.spec is not None
            start = self.env.kwargs.get("start") or self.env.task.start
            begins = {"fallen": " It starts fallen, at rest on the floor.", "mixed": f" {_MIXED}"}.get(start, "")
            return StateReader(env).abstraction, f"An episode has {env.spec.max_episode_steps} steps.{begins}"
        finally:
            env.close()

    def record(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return n states (n, size) of random actions and the actions (n, A), float64."""
        env = make_env(self.env)
        try:
            return record(env, n, self.seed)
        finally:
            env.close()


_MIXED = "Half of the episodes start fallen, at rest on the floor."
