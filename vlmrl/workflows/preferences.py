"""What a run needs whose reward is learned from judgments: the judge, the clips, the rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vlmrl.agents.clip_pool import ClipPool
from vlmrl.agents.preference_rounds import PreferenceRounds
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.judges.base import Judge
from vlmrl.workflows.build import Parts
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.run_folder import RunFolder


def make_pool(settings: TrainConfig) -> ClipPool | None:
    """Make the place where clips to ask about are kept; None where the reward asks none."""
    if not settings.asks_judge:
        return None
    config = settings.reward.config
    return ClipPool(
        frozenset({config.field}),
        config.segment,
        config.clip_frames,
        config.clips_per_episode,
        config.episodes,
        settings.seed,
    )


def open_rounds(
    settings: TrainConfig,
    parts: Parts,
    judge: Judge,
    rewards: LazyRewards,
    folder: RunFolder,
    listeners: Sequence[Callable[[], None]],
) -> PreferenceRounds:
    """Open the answer store, in the run folder unless another is named, and plan the rounds.

    Args:
        settings: Settings of the run.
        parts: What they stand for.
        judge: Who is asked.
        rewards: Where the learner's rewards come from.
        folder: The run's.
        listeners: See `PreferenceRounds`.

    Raises:
        UserError: The store cannot be used.
    """
    assert settings.judge is not None
    config = settings.reward.config
    desk = settings.judge.config.desk_of(judge, folder.answers)
    first_at = config.first_at
    if first_at is None:
        # An on-policy agent learns from its first rollout on: from rewards of 0, as long as nothing is known.
        first_at = getattr(settings.agent.config, "learning_starts", 0)
    model: Any = parts.model
    assert isinstance(rewards.listener, ClipPool)
    return PreferenceRounds(
        model, rewards, rewards.listener, desk, parts.env.task.goal, settings.seed, first_at, listeners
    )


def described(settings: TrainConfig) -> list[str]:
    """Say in lines what will be asked, and what it takes."""
    config = settings.reward.config
    if not settings.asks_judge:
        return [f"reward model: {config.weights}; nobody is asked (reward.max_queries=0)"]
    assert settings.judge is not None
    agent = settings.agent.config
    what = "pictures" if config.segment == 1 else f"clips of {config.segment} steps"
    rounds = 1 + settings.total_timesteps // config.interact
    lines = [
        f"judge {settings.judge.name}: compares two {what}, {config.queries} questions every {config.interact:,} "
        f"steps, at most {min(rounds * config.queries, config.max_queries):,} in this run; without answers the reward "
        "is 0"
    ]
    if not hasattr(agent, "buffer_size"):
        lines.append(f"agent={settings.agent.name} keeps one rollout: a new version rewards that again, and the next")
    return lines
