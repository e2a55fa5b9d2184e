"""Settings of `vlmrl.search`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from vlmrl.errors import UserError
from vlmrl.judges import JUDGES
from vlmrl.typed import Count, Natural, Share, typed
from vlmrl.workflows.config.scene import NO_TASK, Choice, choose
from vlmrl.workflows.config.train import TrainConfig, train_settings


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Settings of `vlmrl.search`; `configs/search.yaml` says what each key means.

    Attributes:
        train: Settings of each training; its `run_dir` is the search's own folder, its `resume` a search to go on with.

    Raises:
        UserError: The settings contradict each other.
    """

    train: TrainConfig
    samples: Count = 4
    rounds: Count = 3
    first_heat: Share = 0.25
    selection_seeds: tuple[Natural, ...] = (100,)
    report_seeds: tuple[Natural, ...] = (0, 1, 2)
    screen_episodes: Natural = 32
    feedback: Literal["success", "clips"] = "success"
    rater: Choice | None = None
    clip_frames: Count = 50
    clip_size: Count = 224

    def __post_init__(self) -> None:
        reward = self.train.reward
        if not getattr(reward.config, "uses_scene", False):
            raise UserError(
                f"vlmrl.search improves reward programs; reward={reward.name} is none. Use reward=text2reward."
            )
        if self.train.task.name == NO_TASK and self.feedback == "success":
            raise UserError(
                "vlmrl.search chooses programs by the check of a task: task=<name>, --help lists them. For a sentence "
                "of your own somebody looks at films: feedback=clips judge@rater=human."
            )
        if self.feedback == "clips":
            self._check_rater()
        both = set(self.selection_seeds) & set(self.report_seeds)
        if both or not self.selection_seeds or not self.report_seeds:
            raise UserError(
                "selection_seeds and report_seeds must be different seeds, at least one of each: a program that was "
                f"chosen by its luck with a seed would be reported with it. Both have {sorted(both)}."
            )
        if reward.config.program is not None:
            raise UserError("vlmrl.search has programs written; reward.program names one. Leave it away.")
        asked = reward.config.completions == "judge"
        if not asked and (self.samples > 1 or self.rounds > 1):
            raise UserError(
                "There is one recorded program a task, and a recording cannot learn from training. Ask a model: "
                "reward.completions=judge judge=openai judge.base_url=... judge.model=...; or samples=1 rounds=1."
            )
        if asked and self.samples > 1 and reward.config.temperature == 0:
            raise UserError(
                "At reward.temperature=0 all samples are the same program. Use reward.temperature=1, or samples=1."
            )

    def _check_rater(self) -> None:
        if self.rater is None:
            raise UserError("feedback=clips needs somebody who looks at films: judge@rater=human, or another judge.")
        if self.rater.config.reads_truth and self.train.task.name == NO_TASK:
            raise UserError(
                f"judge@rater={self.rater.name} reads the truth of a task, and there is none: task=<name>, or a rater "
                "that looks at pictures, judge@rater=human."
            )

    @property
    def run_dir(self) -> str:
        """The search's own folder."""
        return self.train.run_dir

    def plain(self) -> dict[str, Any]:
        """Return nested dicts of plain values in the form of the yaml file."""
        own = {name: getattr(self, name) for name in OWN}
        if self.rater is not None:
            own["rater"] = {"name": self.rater.name, **asdict(self.rater.config)}
        return {**self.train.plain(), **own}


# What may change when a search is resumed: how fast and where it works, and how judges are reached and paid. None of it
# is part of a question's key in the answer store, so that nothing is asked again.
RESUME_MAY_CHANGE = ("device", "progress_bar", "threads")
ASKING_MAY_CHANGE = (
    "api_key_env",
    "attempts",
    "base_url",
    "check",
    "completion_price",
    "concurrency",
    "deadline_s",
    "max_calls",
    "max_cost",
    "max_total_tokens",
    "prompt_price",
    "retries",
    "timeout_s",
)
JUDGES_OF_A_SEARCH = ("judge", "rater")

OWN = tuple(entry.name for entry in fields(SearchConfig) if entry.name != "train")


def search_settings(values: Mapping[str, Any]) -> SearchConfig:
    """Check the settings of `vlmrl.search`.

    Args:
        values: Plain values in the form of `configs/search.yaml`.

    Raises:
        UserError: A name, key, type or value is wrong, or they contradict each other.
    """
    own = {name: values[name] for name in OWN if name in values}
    if own.get("rater") is not None:
        own["rater"] = choose(JUDGES, own["rater"])
    train = train_settings({name: value for name, value in values.items() if name not in own})
    return typed(SearchConfig, {**own, "train": train})


def resumed_search_settings(values: Mapping[str, Any], stored: Mapping[str, Any], given: Iterable[str]) -> SearchConfig:
    """Return the settings of a search that goes on: its own, but for what is given now and may change.

    Args:
        values: Plain values of this command, with `resume` and `run_dir`.
        stored: Plain values of the search.
        given: Keys that this command names.

    Raises:
        UserError: A key is given that would make it another search.
    """
    merged = {**stored, "resume": values["resume"], "run_dir": values["run_dir"]}
    for key in sorted(set(given) - {"resume"}):
        group, _, setting = key.partition(".")
        if key in RESUME_MAY_CHANGE:
            merged[key] = values[key]
        elif group in JUDGES_OF_A_SEARCH and setting in ASKING_MAY_CHANGE and merged.get(group) is not None:
            merged[group] = {**merged[group], setting: values[group][setting]}
        else:
            raise UserError(
                f"resume goes on with the search's own settings, so {key}= cannot be given. What may change: "
                f"{', '.join(RESUME_MAY_CHANGE)}; and of {' and '.join(JUDGES_OF_A_SEARCH)}, such as judge.max_calls: "
                f"{', '.join(ASKING_MAY_CHANGE)}. For other settings start a new search."
            )
    return search_settings(merged)
