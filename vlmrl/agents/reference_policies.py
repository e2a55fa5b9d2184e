"""Small trained policies that come with the suite, so that there is something to look at before anything is trained.

Each is a policy alone, in the file that Stable-Baselines3's `BasePolicy.save` writes: no critics, optimisers or replay
buffer. Beside it is a card with the command that made it and its figures. They are loaded with `torch.load`, which can
run code: these come from the suite itself.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmrl.errors import UserError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy

FOLDER = Path(__file__).parent / "reference"
LIMIT = 1_500_000  # bytes of a policy: every clone and every wheel has it
# What acts for an algorithm: the actor of actor-critic ones with replay, DQN's network; otherwise the whole policy.
ACTING_PARTS = ("actor", "q_net")


@dataclass(frozen=True)
class ReferencePolicy:
    """A policy and its card.

    Attributes:
        folder: The folder of both.
        env: Environment, such as "humanoid".
        task: Task, such as "kneeling".
    """

    folder: Path
    env: str
    task: str

    @property
    def weights(self) -> Path:
        """The policy."""
        return self.folder / f"{self.env}_{self.task}.pth"

    @property
    def card(self) -> Path:
        """Where it comes from and how good it is, JSON."""
        return self.folder / f"{self.env}_{self.task}.json"

    def load(self, device: str = "cpu") -> BasePolicy:
        """Load it; it has `predict` and the spaces that it was trained in."""
        module, _, name = json.loads(self.card.read_text())["policy_class"].partition(":")
        policy: BasePolicy = getattr(importlib.import_module(module), name).load(str(self.weights), device=device)
        policy.set_training_mode(False)
        return policy


def available(folder: Path | None = None) -> dict[str, ReferencePolicy]:
    """Return all policies of a folder, by "<env>/<task>"; None is the folder that comes with the suite."""
    folder = folder or FOLDER
    found = {}
    for path in sorted(folder.glob("*.json")):
        card = json.loads(path.read_text())
        policy = ReferencePolicy(folder, card["env"], card["task"])
        if policy.weights.is_file():
            found[f"{policy.env}/{policy.task}"] = policy
    return found


def find(env: str, task: str, folder: Path | None = None) -> ReferencePolicy:
    """Return the policy for an environment and task.

    Raises:
        UserError: There is none.
    """
    policies = available(folder)
    if f"{env}/{task}" not in policies:
        there = ", ".join(f"env={policy.env} task={policy.task}" for policy in policies.values())
        raise UserError(
            f"There is no reference policy for env={env} task={task}. There "
            f"{'are: ' + there if there else 'is none yet'}. Train one with: python -m vlmrl.train env={env} "
            f"task={task}, and measure it with runs=last."
        )
    return policies[f"{env}/{task}"]


def publish(
    model: BaseAlgorithm, env: str, task: str, card: Mapping[str, Any], folder: Path | None = None
) -> ReferencePolicy:
    """Write the part of an algorithm that acts, and its card.

    Args:
        model: A trained algorithm.
        env: Environment that it was trained in.
        task: Task that it was trained for.
        card: What else the card says, ready for JSON.
        folder: Where to; made if need be. None is the folder that comes with the suite.

    Raises:
        UserError: It is too large to come with the suite.
    """
    folder = folder or FOLDER
    policy = acting_part(model)
    reference = ReferencePolicy(folder, env, task)
    folder.mkdir(parents=True, exist_ok=True)
    draft = reference.weights.with_suffix(".draft")
    try:
        policy.save(str(draft))
        size = draft.stat().st_size
        if size > LIMIT:
            raise UserError(
                f"The policy takes {size / 1e6:.1f} MB, and a reference policy may take {LIMIT / 1e6:.1f} MB. Train a "
                "narrower one: agent.net_arch=[128,128]"
            )
        draft.replace(reference.weights)
    finally:
        draft.unlink(missing_ok=True)
    own = {"env": env, "task": task, "policy_class": f"{type(policy).__module__}:{type(policy).__qualname__}"}
    reference.card.write_text(json.dumps(own | dict(card), indent=2) + "\n")
    return reference


def acting_part(model: BaseAlgorithm) -> BasePolicy:
    """Return what of an algorithm's policy is needed to act: see `ACTING_PARTS`."""
    for name in ACTING_PARTS:
        part = getattr(model.policy, name, None)
        if part is not None:
            return part
    return model.policy
