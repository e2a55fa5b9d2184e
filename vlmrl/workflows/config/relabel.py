"""Settings of `vlmrl.relabel`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmrl.datasets.base import open_dataset
from vlmrl.errors import UserError
from vlmrl.typed import Natural, Positive, Share, typed
from vlmrl.workflows.config.scene import (
    NO_TASK,
    SCENE_KEYS,
    SceneConfig,
    check_device,
    chosen,
    import_plugins,
    plain_with_scene,
)

TABLES = (".parquet", ".csv")
NOWHERE = {"name": "none", "id": ""}  # the environment of data that does not say where it was recorded
EACH = "what each episode says"  # stands for the goal where every episode has a sentence of its own


@dataclass(frozen=True)
class RelabelConfig:
    """Settings of `vlmrl.relabel`; `configs/relabel.yaml` says what each key means.

    `run_dir` is the folder of this command here. `scene` says what should be done and what rewards it; where the
    command names no environment or task it is the one that the dataset was recorded with. With `own_sentences` the
    goal is what each episode says.

    Raises:
        UserError: The settings contradict each other.
    """

    dataset: str
    out: str
    scene: SceneConfig
    own_sentences: bool
    cameras: tuple[str, ...]
    use_as: Literal["reward", "potential"]
    gamma: Share
    shaping_weight: Positive
    observe: Literal["recorded", "embeddings"]
    keep_frames: bool
    on_error: Literal["refuse", "skip"]
    device: str
    threads: Natural
    progress_bar: bool
    run_dir: str
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_device(self.device)
        if getattr(self.scene.reward.config, "uses_scene", False):
            raise UserError(
                f"reward={self.scene.reward.name} is written for a running environment and tried on its states, and "
                "recordings are none. Take a reward that reads pictures or recorded state."
            )
        if self.observe == "embeddings" and self.table:
            raise UserError("observe=embeddings is for a new dataset, and a table holds rewards alone; leave it out.")
        if self.use_as == "potential" and self.table:
            raise UserError("use_as=potential is for a learner, and a table shows what the model says; leave it out.")

    @property
    def table(self) -> bool:
        """Whether a table of rewards is written, and no dataset."""
        return self.out.endswith(TABLES)

    def plain(self) -> dict[str, Any]:
        """Return plain values in the form of the yaml file."""
        return plain_with_scene(self, self.scene)


def relabel_settings(values: Mapping[str, Any], given: Iterable[str] = ()) -> RelabelConfig:
    """Check the settings of `vlmrl.relabel`, and complete them from what the dataset says of itself.

    Args:
        values: Plain values in the form of `configs/relabel.yaml`.
        given: Keys that the command names: these count, whatever the dataset says.

    Raises:
        UserError: There is no such dataset, or a key, type or value is wrong.
    """
    import_plugins(values.get("plugins"))
    given = {key.partition(".")[0] for key in given}
    if "agent" in given:
        raise UserError("agent= means nothing to relabel: nothing is trained here.")
    for key in ("dataset", "out"):
        if not values.get(key):
            raise UserError(f"{key} is empty: relabel reads a dataset and writes a new one, dataset=<...> out=<...>.")
    own = {key: value for key, value in values.items() if key not in (*SCENE_KEYS, "agent")}
    own["cameras"] = own.get("cameras") or []
    recorded = open_dataset(str(own["dataset"])).metadata.get("vlmrl", {})
    shared = {key: values[key] for key in SCENE_KEYS if key in values}
    if shared.get("env", NOWHERE)["name"] == NOWHERE["name"]:
        shared["env"] = recorded.get("env", NOWHERE)
        if "task" not in given and values.get("goal") is None:
            shared["task"] = recorded.get("task", values["task"])
    choice = chosen(shared)
    wanted = getattr(choice["reward"].config, "uses_words", True)
    if not wanted and shared.get("goal") is not None:
        raise UserError(
            f"goal= is a sentence, and reward={choice['reward'].name} reads none. Choose a reward that is made of "
            "words, such as reward=clip, or leave goal= out."
        )
    own_sentences = bool(wanted and shared["task"]["name"] == NO_TASK and shared.get("goal") is None)
    if own_sentences:
        shared["goal"] = EACH
    scene = typed(SceneConfig, {**shared, **choice})
    return typed(RelabelConfig, {**own, "scene": scene, "own_sentences": own_sentences})
