"""Settings of `vlmrl.evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Range, typed
from vlmrl.workflows.config.scene import (
    SCENE_KEYS,
    SceneConfig,
    check_device,
    chosen,
    import_plugins,
    plain_with_scene,
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of `vlmrl.evaluate`; `configs/evaluate.yaml` says what each key means.

    `run_dir` is the folder of this evaluation here. `scene` holds the keys that are those of `vlmrl.train`; None where
    no environment is named: policies from outside are then measured in that of the first run.

    Raises:
        UserError: The settings contradict each other.
    """

    runs: tuple[str, ...]
    policy: tuple[str, ...]
    algorithm: str | None
    scene: SceneConfig | None
    episodes: Count
    n_envs: Count
    seed: Natural
    device: str
    threads: Natural
    video: bool
    video_episodes: Count
    progress_bar: bool
    run_dir: str
    video_dir: str
    video_length: Count = 1000
    plugins: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()
    margin: Annotated[float, Range(0, 1, open=True)] = 0.1
    sequential: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.trials:
            if self.runs or self.policy:
                raise UserError(
                    "trials= are outcomes that were written down, runs= and policy= are measured anew; name one kind. "
                    "What a measurement leaves in its folder, episodes.csv, can be given as trials as well."
                )
            if not all(trial.strip() for trial in self.trials):
                raise UserError("trials holds an empty name: give the path of a csv file or of an eval_info.json.")
            return
        if not (self.runs or self.policy) or not all(run.strip() for run in self.runs):
            raise UserError("runs is empty: name one or more run folders, runs=[runs/<...>/<time>], or runs=last.")
        if not all(policy.strip() for policy in self.policy):
            raise UserError(
                "policy holds an empty name: give the zip of a policy, module:attribute, random, zero or reference."
            )
        if self.policy and not self.runs and self.scene is None:
            raise UserError(
                f"policy={self.policy[0]} comes without an environment: name one as for training, env=<name>, or a run "
                "whose environment it is measured in, runs=last."
            )

    def plain(self) -> dict[str, Any]:
        """Return plain values in the form of the yaml file; `evaluate_settings` reads them."""
        return plain_with_scene(self, self.scene)


def evaluate_settings(values: Mapping[str, Any], given: Iterable[str] = ()) -> EvaluateConfig:
    """Check the settings of `vlmrl.evaluate`.

    Args:
        values: Plain values in the form of `configs/evaluate.yaml`.
        given: Keys that the command names, to refuse those that would be passed over.

    Raises:
        UserError: A key, type or value is wrong.
    """
    import_plugins(values.get("plugins"))
    own = {key: value for key, value in values.items() if key not in (*SCENE_KEYS, "agent")}
    scene = {key: values[key] for key in SCENE_KEYS if key in values}
    if own.get("policy") is None:
        own["policy"] = []
    if own.get("trials") is None:
        own["trials"] = []
    if own.get("runs") is None:
        own["runs"] = [] if own["policy"] or own["trials"] else ["last"]
    for key in given:
        group = key.partition(".")[0]
        if group == "agent":
            raise UserError(f"{key}= means nothing to evaluate: it measures what is trained, runs=... and policy=...")
        if group in SCENE_KEYS and not own["policy"]:
            raise UserError(f"{key}= is for a policy from outside, policy=...; a run has settings of its own.")
        if group in SCENE_KEYS and "env" not in scene:
            raise UserError(f"{key}= needs the environment that it goes with, env=<name>.")
    return typed(
        EvaluateConfig,
        {**own, "scene": typed(SceneConfig, {**scene, **chosen(scene)}) if "env" in scene else None},
    )
