"""Rewards that are learned while the agent learns: who is asked, what looks on, what keeps them up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmrl.agents.annotations import Annotations
from vlmrl.agents.preference_rounds import PreferenceRounds
from vlmrl.envs.lazy_rewards import LazyRewards, RowListener
from vlmrl.judges.base import Judge
from vlmrl.judges.process import JudgeProcess
from vlmrl.workflows import preferences, text_labels
from vlmrl.workflows.build import Parts
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.run_folder import RunFolder


def make_judge(settings: TrainConfig, parts: Parts, device: str) -> Judge | JudgeProcess | None:
    """Make the judge; None where the reward asks none. One that labels texts all the while has a process of its own.

    Raises:
        UserError: Something is missing that it needs.
    """
    if not settings.asks_judge:
        return None
    assert settings.judge is not None
    if settings.learns_from == "texts":
        return JudgeProcess(settings.judge.config, device)
    return settings.judge.config.build(parts.encoder, device)


def make_listener(settings: TrainConfig) -> RowListener | None:
    """Make what looks on as rows come in; None where nothing does."""
    return preferences.make_pool(settings) if settings.learns_from == "comparisons" else None


def open_learning(
    settings: TrainConfig,
    parts: Parts,
    judge: Judge | JudgeProcess | None,
    rewards: LazyRewards,
    folder: RunFolder,
    listeners: Sequence[Callable[[], None]],
) -> PreferenceRounds | Annotations | None:
    """Make the callback that keeps the reward up to date; None where the reward stays as it is.

    Args:
        settings: Settings of the run.
        parts: What they stand for.
        judge: Who is asked; None asks nobody.
        rewards: Where the learner's rewards come from.
        folder: The run's.
        listeners: Called with every new version of the reward.

    Raises:
        UserError: The answer store cannot be used.
    """
    if settings.learns_from == "texts":
        return text_labels.open_annotations(settings, parts, judge, folder, listeners)
    if judge is None:
        return None
    assert not isinstance(judge, JudgeProcess)
    return preferences.open_rounds(settings, parts, judge, rewards, folder, listeners)


def described(settings: TrainConfig) -> list[str]:
    """Say in lines what will be asked, and what it takes."""
    if settings.learns_from == "texts":
        return text_labels.described(settings)
    return preferences.described(settings) if settings.learns_from else []
