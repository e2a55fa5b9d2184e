"""Settings of `vlmrl.audit`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from vlmrl.datasets.base import open_dataset
from vlmrl.encoders import ENCODERS
from vlmrl.errors import UserError, unknown
from vlmrl.registry import Registry
from vlmrl.typed import Count, Natural, Range, Share, typed
from vlmrl.workflows.config.relabel import EACH, NOWHERE
from vlmrl.workflows.config.scene import (
    NO_TASK,
    Choice,
    SceneConfig,
    check_device,
    choose,
    chosen,
    import_plugins,
)

# Environments in which a script plays scenes whose clips are labelled, `vlmrl.workflows.audit.scripted`.
SCRIPTS = Registry("environment with a script", {"crafter": "vlmrl.workflows.audit.scripted:play_crafter"})
SEQUENCES = ("mountaincar",)  # environments with skills, vlmrl.workflows.audit.sequences.skills.STAGES
Level = Annotated[int, Range(1, 8)]


@dataclass(frozen=True)
class AuditConfig:
    """Settings of `vlmrl.audit`; `configs/audit.yaml` says what each key means.

    `run_dir` is the folder of this audit here. `scene` holds the keys that are those of `vlmrl.train`. `encoders` is
    empty where the scene's own is the only one.

    Raises:
        UserError: The settings contradict each other.
    """

    scene: SceneConfig
    encoders: tuple[Choice, ...]
    prompts: tuple[str, ...]
    alphas: tuple[Share, ...]
    frames: str | None
    states: Count
    seed: Natural
    device: str
    threads: Natural
    progress_bar: bool
    run_dir: str
    plugins: tuple[str, ...] = ()
    dataset: str | None = None
    labels: str | None = None
    cameras: tuple[str, ...] = ()
    progress_table: bool = True
    rrd: bool = False
    own_sentences: bool = False
    sequences: str | None = None
    levels: tuple[Level, ...] = tuple(range(1, 9))
    sets: Count = 3
    caption: Literal["steps", "sentence"] = "steps"
    clips: bool | None = None
    scenes: Count = 440

    def __post_init__(self) -> None:
        check_device(self.device)
        scene = self.scene
        if self.sequences is not None:
            self._check_sequences()
            return
        if self.dataset is not None:
            self._check_recordings()
            return
        if self.clips and scene.env.name not in SCRIPTS:
            raise UserError(
                f"clips=true scores clips that a script plays, and there is none for env={scene.env.name} (there is: "
                f"{', '.join(SCRIPTS)}). Recorded clips: dataset=<...>."
            )
        if self.clips and self.frames is not None:
            raise UserError(
                "frames= are single pictures of your own, and clips=true plays clips; leave one of them out."
            )
        if self.labels is not None or self.cameras or self.rrd:
            raise UserError("labels=, cameras= and rrd= are about recorded clips: name them, dataset=<...>.")
        if self.frames is None and scene.task.name == NO_TASK:
            raise UserError(
                "An audit must know in which states the task is done, and there is no check (task=none). Keep a task's "
                "check and try sentences of your own on it, task=<name> prompts=['...']; or bring labelled pictures, "
                "frames=<folder with subfolders true and false>."
            )
        if not all(prompt.strip() for prompt in self.prompts):
            raise UserError("prompts holds an empty sentence; write words, or leave the key out.")
        if self.prompts and not scene.reads_words:
            raise UserError(f"prompts: reward={scene.reward.name} reads no words; leave prompts out.")
        if self.encoders and not scene.reward.config.uses_encoder:
            raise UserError(f"encoders: reward={scene.reward.name} looks at no pictures; leave encoders out.")
        if self.frames is not None and not scene.reward.config.uses_encoder:
            raise UserError(
                f"frames= are pictures, and reward={scene.reward.name} looks at none. Take one in words, reward=clip."
            )
        if self.clips and not scene.reward.config.uses_encoder:
            raise UserError(f"clips=true: clips are pictures, and reward={scene.reward.name} looks at none.")
        if self.alphas and "alpha" not in {entry.name for entry in fields(scene.reward.config)}:
            raise UserError(f"alphas: reward={scene.reward.name} has no alpha; leave alphas out, or take reward=clip.")

    @property
    def plays_clips(self) -> bool:
        """Whether clips that a script plays are scored in the place of states; where nobody says, where there is one.

        What is done in a world that has a script are events, which no state by itself shows.
        """
        if self.frames is not None or self.scene.env.name not in SCRIPTS:
            return False
        return self.scene.reward.config.uses_encoder if self.clips is None else self.clips

    def _check_sequences(self) -> None:
        if self.sequences not in SEQUENCES:
            raise unknown("films with skills in a sequence:", str(self.sequences), SEQUENCES)
        if self.frames is not None or self.dataset is not None or self.clips:
            raise UserError("sequences= are films that the simulator makes; leave frames, dataset and clips out.")
        if self.prompts or self.alphas or self.encoders:
            raise UserError(
                "prompts, alphas and encoders are tried on labelled states; of films one reward is audited at a time. "
                "Leave them out."
            )
        if not self.levels or len(set(self.levels)) < len(self.levels):
            raise UserError(f"levels={list(self.levels)}: name one or several levels of 1 to 8, each once.")
        if not self.scene.reward.config.uses_encoder:
            raise UserError(f"Films are pictures, and reward={self.scene.reward.name} looks at none.")

    def _check_recordings(self) -> None:
        if self.frames is not None or self.clips:
            raise UserError(
                "frames= are pictures, clips=true plays clips, and dataset= are recorded clips; name one of them."
            )
        if self.prompts or self.alphas or self.encoders:
            raise UserError(
                "prompts, alphas and encoders are tried on labelled states; of recorded clips one reward is audited at "
                "a time. Leave them out."
            )
        if not self.scene.reward.config.uses_encoder:
            raise UserError(f"Recorded clips are pictures, and reward={self.scene.reward.name} looks at none.")

    def plain(self) -> dict[str, Any]:
        """Return plain values in the form of the yaml file; `audit_settings` reads them."""
        values = asdict(self)
        del values["own_sentences"]
        values["encoders"] = [{"name": choice["name"], **choice["config"]} for choice in values["encoders"]]
        scene = self.scene.plain()
        return {key: value for key, value in values.items() if key != "scene"} | {
            key: scene[key] for key in AUDIT_SCENE_KEYS
        }


AUDIT_SCENE_KEYS = ("env", "task", "reward", "encoder", "goal", "baseline")  # an audit encodes here, every frame


def audit_settings(values: Mapping[str, Any], given: Iterable[str] = ()) -> AuditConfig:
    """Check the settings of `vlmrl.audit`.

    Args:
        values: Plain values in the form of `configs/audit.yaml`.
        given: Keys that the command names: of recorded clips these count, whatever the dataset says.

    Raises:
        UserError: A key, type or value is wrong, or they contradict each other.
    """
    import_plugins(values.get("plugins"))
    own = {key: value for key, value in values.items() if key not in (*AUDIT_SCENE_KEYS, "agent")}
    scene = {key: values[key] for key in AUDIT_SCENE_KEYS if key in values}
    scene |= {"scorer": {"name": "local"}, "score_every": 1}
    for key in ("encoders", "prompts", "alphas"):
        value = own.get(key)
        own[key] = [] if value is None else value if isinstance(value, list | tuple) else [value]
    own["cameras"] = own.get("cameras") or []
    own["own_sentences"] = False
    given = list(given)
    if own.get("sequences"):
        _check_sequence_env(str(own["sequences"]), values, given)
        # What is seen, each film's caption says; the environment is that of the skills.
        no_task = {"name": NO_TASK, "goal": [], "baseline": []}
        scene |= {"env": NOWHERE, "task": no_task, "goal": EACH}
    elif own.get("dataset"):
        own["own_sentences"] = _recorded_scene(str(own["dataset"]), scene, {key.partition(".")[0] for key in given})
    own["encoders"] = [_named_encoder(given) for given in own["encoders"]]
    return typed(AuditConfig, {**own, "scene": typed(SceneConfig, {**scene, **chosen(scene)})})


def _check_sequence_env(sequences: str, values: Mapping[str, Any], given: Iterable[str]) -> None:
    """Refuse an environment or a task beside films, which are of the environment that they are named by.

    Raises:
        UserError: Another one is named.
    """
    keys = set(given)
    env = values.get("env", {}).get("name")
    if "env" in keys and env != sequences:
        raise UserError(f"sequences={sequences} are films of env={sequences}, and env={env} is another; leave env out.")
    for key in keys & {"task", "goal"}:
        raise UserError(f"sequences={sequences} has captions of its own, which say what is seen; leave {key} out.")


def _recorded_scene(dataset: str, scene: dict[str, Any], given: set[str]) -> bool:
    """Take from a dataset where it was recorded and what was to be done; return whether each clip says it for itself.

    Raises:
        UserError: There is no such dataset.
    """
    recorded = open_dataset(dataset).metadata.get("vlmrl", {})
    if "env" not in given:
        scene["env"] = recorded.get("env", NOWHERE)
        if "task" not in given:
            no_task = {"name": NO_TASK, "goal": [], "baseline": []}
            scene["task"] = no_task if scene.get("goal") is not None else recorded.get("task", no_task)
    own_sentences = scene["task"]["name"] == NO_TASK and scene.get("goal") is None
    if own_sentences:
        scene["goal"] = EACH
    return own_sentences


def _named_encoder(given: Any) -> Choice:
    """Read an encoder in a list: a mapping with its name and settings, or a name as tables show it.

    Raises:
        UserError: There is no such encoder.
    """
    if isinstance(given, Mapping):
        return choose(ENCODERS, given)
    name = str(given)
    if name in ENCODERS:
        return choose(ENCODERS, {"name": name})
    if Path(name).is_dir():
        return choose(ENCODERS, {"name": "mini", "path": name})
    model, slash, pretrained = name.partition("/")
    if slash:
        return choose(ENCODERS, {"name": "open_clip", "model": model, "pretrained": pretrained})
    raise UserError(
        f"encoders: '{name}' is none of {', '.join(ENCODERS)}, no folder of weights, and no model of open_clip, which "
        "is written as architecture/tag, such as ViT-B-32/openai. With settings: encoders=[{name: mini, path: x}]."
    )
