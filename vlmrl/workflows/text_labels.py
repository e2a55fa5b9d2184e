"""What a run needs whose reward is learned from labels of texts: who labels them, what keeps it up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vlmrl.agents.annotations import Annotations
from vlmrl.judges.base import Judge
from vlmrl.judges.process import JudgeProcess
from vlmrl.reward_models.oni_annotator import Annotator
from vlmrl.reward_models.oni_labels import LabelQuestions
from vlmrl.workflows.build import Parts
from vlmrl.workflows.config.train import TrainConfig
from vlmrl.workflows.run_folder import RunFolder


def open_annotations(
    settings: TrainConfig,
    parts: Parts,
    judge: Judge | JudgeProcess | None,
    folder: RunFolder,
    listeners: Sequence[Callable[[], None]],
) -> Annotations:
    """Start the annotator where a judge is to be asked.

    Args:
        settings: Settings of the run.
        parts: What they stand for.
        judge: Who is asked; None asks nobody.
        folder: The run's.
        listeners: See `Annotations`.

    Raises:
        UserError: The answer store cannot be used.
    """
    config, model = settings.reward.config, parts.model
    reward_model: Any = model
    reward_model.seed = settings.seed
    if judge is not None:
        assert settings.judge is not None and isinstance(judge, JudgeProcess)
        asked = settings.judge.config
        workers = getattr(asked, "concurrency", 1)
        judge.open(asked.store or folder.answers, asked.budget, workers)
        questions = LabelQuestions(parts.env.task.goal, config.about or settings.env.name, config.prompt)
        reward_model.annotator = Annotator(
            judge,
            questions,
            workers,
            config.queue_size,
            config.selection,
            config.attempts,
        )
    return Annotations(reward_model, config.interact, folder.labels, listeners)


def described(settings: TrainConfig) -> list[str]:
    """Say in a line who labels texts."""
    config = settings.reward.config
    if not settings.asks_judge:
        return []
    assert settings.judge is not None
    what = "pairs of texts" if config.variant == "ranking" else "texts"
    return [
        f"judge {settings.judge.name}: labels {what} while the agent trains, each once; what has no label earns nothing"
    ]
