"""When a task in Minecraft is done: the game has said so, by what the agent has got or killed."""

from __future__ import annotations

from vlmrl.envs.tasks import Condition, State, above


def done(state: State) -> dict[str, Condition]:
    """The agent has gained what the task asks for; there is no half-way, so the dense reward is 0 or 1."""
    return {"done": above(state["success"], 0.5, scale=0.5)}
