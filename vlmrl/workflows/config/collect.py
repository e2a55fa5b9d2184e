"""Settings of `vlmrl.collect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Share, typed
from vlmrl.workflows.config.scene import SCENE_KEYS, SceneConfig, check_device, chosen, import_plugins, plain_with_scene

ALONE = ("reward", "scorer", "goal", "baseline")  # keys of a scene that recording has no use for


@dataclass(frozen=True)
class CollectConfig:
    """Settings of `vlmrl.collect`; `configs/collect.yaml` says what each key means.

    `run_dir` is the folder of this recording here. `scene` says where policies from outside act; None where no
    environment is named.

    Raises:
        UserError: The settings contradict each other.
    """

    run: str | None
    policy: tuple[str, ...]
    algorithm: str | None
    scene: SceneConfig | None
    out: str
    format: Literal["minari", "clips", "lerobot"]
    episodes: Count
    random_actions: Share
    deterministic: bool
    frames: bool
    state: bool
    seed: Natural
    device: str
    threads: Natural
    progress_bar: bool
    run_dir: str
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.run is None and not self.policy:
            raise UserError(
                "Nobody acts: name a run, run=last, or policies and their environment, policy=random env=<name>."
            )
        if self.policy and self.run is None and self.scene is None:
            raise UserError(f"policy={self.policy[0]} comes without an environment: name one, env=<name>, or a run.")
        if self.run is not None and self.scene is not None:
            raise UserError(
                f"run={self.run} has an environment of its own, and env={self.scene.env.name} is another. Give one of "
                "both; a policy of a run acts elsewhere as policy=<run folder>/model.zip."
            )
        if self.format == "clips" and not self.frames:
            raise UserError("format=clips is about pictures, and frames=false leaves them out.")

    def plain(self) -> dict[str, Any]:
        """Return plain values in the form of the yaml file."""
        return plain_with_scene(self, self.scene)


def collect_settings(values: Mapping[str, Any], given: Iterable[str] = ()) -> CollectConfig:
    """Check the settings of `vlmrl.collect`.

    Args:
        values: Plain values in the form of `configs/collect.yaml`.
        given: Keys that the command names, to refuse those that would be passed over.

    Raises:
        UserError: A key, type or value is wrong.
    """
    import_plugins(values.get("plugins"))
    own = {key: value for key, value in values.items() if key not in (*SCENE_KEYS, "agent")}
    for key in given:
        group = key.partition(".")[0]
        if group in (*ALONE, "agent"):
            raise UserError(
                f"{key}= means nothing to collect: it records what happens and the task's own truth. Rewards in words "
                "come afterwards, vlmrl.relabel."
            )
    if not own.get("out"):
        raise UserError("out is empty: name the new dataset, out=<namespace>/<name>-v0 or out=./<folder>/<name>-v0.")
    own["policy"] = [] if own.get("policy") is None else own["policy"]
    scene = None
    if "env" in values:
        shared = {key: values[key] for key in SCENE_KEYS if key in values}
        shared |= {"scorer": {"name": "local"}, "goal": None, "baseline": None, "score_every": 1}
        scene = typed(SceneConfig, {**shared, **chosen(shared)})
    else:
        for key in given:
            if key.partition(".")[0] in ("env", "task", "encoder"):
                raise UserError(f"{key}= needs the environment that it goes with, env=<name>; a run has its own.")
    return typed(CollectConfig, {**own, "scene": scene})
