"""Labelled clips of an environment in which a script plays scenes and the game says what happened in them.

What is done in an open world is an event, which no single state shows. So clips are cut out of scenes, each scored as
an episode of its own, and each is one in which the task was done in the first half, so that what comes of it is seen,
or one in which it was not done at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import cv2
import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.envs.tasks import PREDICATES
from vlmrl.reward_models.base import RewardModel, is_batched
from vlmrl.workflows.audit.films import film_rows, film_score
from vlmrl.workflows.audit.states import MIX, LabelledStates
from vlmrl.workflows.config.audit import SCRIPTS
from vlmrl.workflows.report import tracked

FRAMES = 16  # of a clip, those of MineCLIP and CLIP4MC
STEP = 4  # frames from the start of one clip of a scene to that of the next
MOST = 80  # clips in which the task is done that are scored
SHOWN, TILE = (5, 8, 11, 15), 64  # frames of a clip that stand for it on the page, and their height and width in pixels
LEAST_SCENES = 6  # of either label, below which nothing is said of a task
APART = 7919  # makes a seed of audits: the same scenes are never learned from


@dataclass(frozen=True)
class Scene:
    """What a script played.

    Attributes:
        frames: (n, H, W, 3) uint8 RGB.
        about: Task that it is about, which may or may not have come of it.
        done: {task: (n,) bool}, whether it was done on arriving at a frame.
    """

    frames: np.ndarray
    about: str
    done: Mapping[str, np.ndarray]


def play_crafter(count: int, size: tuple[int, int], seed: Sequence[int], about: Sequence[str]) -> Iterator[Scene]:
    """Play scenes of Crafter; see `vlmrl.workflows.video.play`.

    Args:
        count: Number of scenes.
        size: (height, width) of the pictures in pixels.
        seed: Of everything.
        about: Achievements that they are about, in turn.
    """
    from vlmrl.workflows.video.play import NAMES, scenes

    for scene in scenes(count, size, seed, about):
        yield Scene(scene.frames, scene.about, {name: scene.achieved[:, i] for i, name in enumerate(NAMES)})


@dataclass(frozen=True)
class LabelledClips(LabelledStates):
    """n clips, and whether the task is done in each; a mosaic of its frames stands for each in `frames`.

    Attributes:
        clips: {camera: (n, T, E) float32}, embeddings of the frames.
    """

    clips: Mapping[str, np.ndarray] = field(default_factory=dict)
    noun = "clip"
    more = "scenes=<n>"

    def embed(self, encoder: Encoder, progress: bool) -> dict[str, np.ndarray]:
        """Return the embeddings, which were made as the clips were played."""
        return dict(self.clips)

    def score(self, model: RewardModel, embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what each clip would earn, (n,) float32; see `film_score`."""
        films = [film_rows(model, {camera: own[i] for camera, own in embeddings.items()}) for i in range(len(self))]
        rewards = model.reward_all(films) if is_batched(model) else [model(film) for film in films]
        return np.array([film_score(model, own) for own in rewards], dtype=np.float32)


@dataclass(frozen=True)
class ScriptedClips:
    """Scenes that a script played, as embeddings and small pictures.

    Attributes:
        camera: Camera that they were seen through.
        embeddings: (n, E) float32 of each scene.
        thumbs: (n, TILE, TILE, 3) uint8 RGB of each.
        about: Task that each is about.
        done: {task: (n,) bool} of each; see `Scene`.
    """

    camera: str
    embeddings: Sequence[np.ndarray]
    thumbs: Sequence[np.ndarray]
    about: Sequence[str]
    done: Sequence[Mapping[str, np.ndarray]]

    def labelled(self, task: str, seed: int) -> LabelledClips:
        """Cut clips out of the scenes: some in which a task is done, nearly done and not done, in the shares of `MIX`.

        Nearly done are clips of scenes that are about the task. Clips in which it is done only in the second half are
        neither. Where some kind is rarer than its share, it stays so.

        Args:
            task: The task.
            seed: Of the choice.
        """
        rng = np.random.default_rng(seed)
        kinds: dict[str, list[tuple[int, int]]] = {kind: [] for kind in MIX}
        for i, (about, done) in enumerate(zip(self.about, self.done, strict=True)):
            for first in range(0, len(done[task]) - FRAMES + 1, STEP):
                # What was done on arriving at a clip's first frame was not seen.
                early, late = np.split(done[task][first + 1 : first + FRAMES], [FRAMES // 2])
                if early.any():
                    kinds["done"].append((i, first))
                elif not late.any():
                    kinds["nearly" if about == task else "not done"].append((i, first))
        unit = min(len(kinds["done"]), MOST) / MIX["done"]
        chosen: list[tuple[int, int, str]] = []
        for kind, places in kinds.items():
            for k in sorted(rng.permutation(len(places))[: round(unit * MIX[kind])].tolist()):
                chosen.append((*places[k], kind))
        done_in = np.array([kind == "done" for _, _, kind in chosen], dtype=bool)
        truth = np.array([{"done": 1.0, "nearly": 0.5, "not done": 0.0}[kind] for _, _, kind in chosen], np.float32)
        clips = [self.embeddings[i][first : first + FRAMES] for i, first, _ in chosen]
        return LabelledClips(
            {self.camera: np.array([_mosaic(self.thumbs[i][first : first + FRAMES]) for i, first, _ in chosen])},
            done_in,
            truth,
            tuple(self.about[i] for i, _, _ in chosen),
            np.array([i for i, _, _ in chosen], dtype=np.int64),
            {},
            clips={self.camera: np.array(clips)},
        )


def play_scripted(
    env: str,
    task: str,
    count: int,
    size: tuple[int, int],
    camera: str,
    encoder: Encoder,
    seed: int,
    own: int,
    progress: bool = False,
) -> ScriptedClips:
    """Let an environment's script play scenes, and embed them as they come.

    Args:
        env: Name of the environment, of `SCRIPTS`, whose functions are like `play_crafter`.
        task: Task that some scenes are about, the others being about all tasks in turn.
        count: Number of scenes.
        size: (height, width) of the pictures in pixels.
        camera: What the camera is called.
        encoder: Embeds the frames.
        seed: Of everything.
        own: Every so many scenes is about the task.
        progress: Whether to show a progress bar.
    """
    tasks = [entry.split("/")[1] for entry in PREDICATES if entry.split("/")[0] == env]
    others = cycle(tasks)
    about = [task if i % own == own - 1 else next(others) for i in range(count)]
    played = SCRIPTS.load(env)(count, size, (seed, APART), about)
    embeddings, thumbs, names, done = [], [], [], []
    for scene in tracked(played, total=count, desc="playing", unit="scene", show=progress):
        if len(scene.frames) < FRAMES:  # the player died
            continue
        embeddings.append(encoder.encode_images(scene.frames))
        thumbs.append(np.stack([cv2.resize(one, (TILE, TILE), interpolation=cv2.INTER_AREA) for one in scene.frames]))
        names.append(scene.about)
        done.append(scene.done)
    return ScriptedClips(camera, embeddings, thumbs, names, done)


def enough(clips: LabelledClips) -> bool:
    """Whether clips of both labels come from enough scenes to choose on some and measure on others."""
    return all(len(np.unique(clips.group[clips.done == label])) >= LEAST_SCENES for label in (True, False))


def _mosaic(frames: np.ndarray) -> np.ndarray:
    """Put four frames of a clip into one picture, in the order of reading, (2 TILE, 2 TILE, 3) uint8 RGB."""
    a, b, c, d = (frames[k] for k in SHOWN)
    return np.vstack([np.hstack([a, b]), np.hstack([c, d])])
