"""Whether a reward of clips sees anything: what its scores do when clips are spoilt.

A model with the wrong weights, or one that is fed pictures of another size or in another order than it knows, says
nothing of it: its rewards are flat, or those of noise. So clips are scored as they are, with their frames out of order,
with noise in their place, and against the other sentences. They are clips of random play, in which the task may never
be done, and of a script where the environment has one. That finds what sees nothing. Whether what is seen is the task,
only labelled clips can tell: those of a script are, and others can be brought (`vlmrl.audit dataset=`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape

from vlmrl.envs.make import EnvSettings, make_env
from vlmrl.envs.row_writer import look
from vlmrl.reward_models.base import ClipRewardModel
from vlmrl.reward_models.video import clip_indices
from vlmrl.stats import auroc, auroc_interval
from vlmrl.workflows.audit.results import cell
from vlmrl.workflows.audit.scores import Figure
from vlmrl.workflows.audit.scripted import LabelledClips, ScriptedClips, enough

SCENES = 32  # of a script; an audit plays more
EPISODES, STEPS = 4, 48  # of random play; clips begin anew at every fourth step
HELD = (1, 5, 20)  # steps that a random action is held
FLAT = 1e-3  # spread of a goal's logits, in logits, below which they are the same for all clips
BLIND = 0.5  # least change by noise, in spreads, that a model shows which looks at pictures
DEAF = 0.1  # least difference between sentences, in spreads, of one that reads words
ORDERLESS = 1e-3  # change by the order of frames, in spreads, below which it does not count
DOUBT = "Are these its weights, and pictures of the kind that it knows?"


@dataclass(frozen=True)
class Told:
    """Whether the reward tells a script's clips in which the task is done from others.

    Attributes:
        done: Clips in which it is done.
        others: Clips in which it is not.
        scenes: Scenes that they come from.
        auroc: Chance that one of the first gets more than one of the others.
    """

    done: int
    others: int
    scenes: int
    auroc: Figure

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"done": self.done, "others": self.others, "scenes": self.scenes, "auroc": self.auroc.plain()}


@dataclass(frozen=True)
class Preflight:
    """What the goal's logits of clips do; changes are means of absolute differences, in spreads.

    Attributes:
        clips: Number of clips.
        sources: Where they come from, in words.
        spread: Standard deviation of the goal's logits over the clips.
        noise: Change where the frames are noise.
        order: Change where the frames are shuffled.
        words: Difference between the goal's logits and those of the other sentences.
        told: Whether it tells the task; None where no labelled clips were there.
    """

    clips: int
    sources: str
    spread: float
    noise: float
    order: float
    words: float
    told: Told | None = None

    @property
    def word(self) -> str:
        """SEES, or what is wrong; UNSURE is one that sees something, and not surely the task."""
        if self.spread < FLAT:
            return "FLAT"
        if self.noise < BLIND:
            return "BLIND"
        if self.words < DEAF:
            return "DEAF"
        return "UNSURE" if self.told is not None and self.told.auroc.low <= 0.5 else "SEES"

    @property
    def doubtful(self) -> bool:
        """Whether one should look closer before training on it."""
        return self.word != "SEES"

    @property
    def reason(self) -> str:
        """The verdict in a sentence or two."""
        depends = "Scores depend on pictures and words" + (
            ", and on the order of frames." if self.order >= ORDERLESS else "; the order of frames does not count."
        )
        return {
            "FLAT": f"All clips get the same score. {DOUBT}",
            "BLIND": f"Noise gets the score of real clips. {DOUBT}",
            "DEAF": "The goal gets the scores of the other sentences. Are the sentences different enough?",
            "UNSURE": f"{depends} {self._about_task}",
            "SEES": f"{depends} {self._about_task}",
        }[self.word]

    @property
    def _about_task(self) -> str:
        if self.told is None:
            return "Whether what is seen is the task, these clips cannot tell: labelled ones can, vlmrl.audit dataset=."
        told = self.told
        surely = "get more than others" if told.auroc.low > 0.5 else "do NOT surely get more than others"
        return (
            f"Clips in which the task is done {surely}: AUROC {cell(told.auroc)}, {told.done} and {told.others} clips "
            f"of {told.scenes} scenes."
        )

    @property
    def figures(self) -> str:
        """The figures in a line."""
        return (
            f"{self.clips} clips of {self.sources}, spread of the goal's logits {self.spread:.3g}; in spreads, noise "
            f"changes them by {self.noise:.2f}, shuffled frames by {self.order:.3f}, others' words by {self.words:.2f}"
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "verdict": self.word, "reason": self.reason, "clips": self.clips, "sources": self.sources,
            "spread": self.spread, "noise": self.noise, "order": self.order, "words": self.words,
            "told": None if self.told is None else self.told.plain(),
        }  # fmt: skip


def preflight_line(found: Preflight) -> str:
    """Say the verdict and its figures, with the colours of rich."""
    colour = {"SEES": "green", "UNSURE": "yellow"}.get(found.word, "red")
    return f"[bold {colour}]{found.word}[/]. {escape(found.reason)} ({found.figures})"


def preflight(
    model: ClipRewardModel, settings: EnvSettings, seed: int, played: ScriptedClips | None = None
) -> Preflight:
    """Score clips of random play and of a script, and what is made of them.

    Args:
        model: The reward.
        settings: The environment.
        seed: Of play, noise and order; the same one gives the same figures.
        played: Scenes of the environment's script, some of them about the task; None where it has none.
    """
    rng = np.random.default_rng(seed)
    episodes = play(settings, rng)
    embedded = [model.encoder.encode_images(frames) for frames in episodes]
    noise = model.encoder.encode_images(rng.integers(0, 256, (model.frames, *episodes[0].shape[1:]), dtype=np.uint8))
    if played is None:
        return compare(model, embedded, noise, rng)
    told = None
    if settings.task.predicate is not None:
        clips = played.labelled(settings.task.name, seed)
        told = tell(model, clips) if enough(clips) else None
    scripted = played.embeddings[:SCENES]
    return compare(model, [*embedded, *scripted], noise, rng, "random play and of a script", told)


def tell(model: ClipRewardModel, clips: LabelledClips) -> Told:
    """Measure whether clips in which the task is done get more than others; scenes count, not clips, which overlap."""
    area = float(auroc(clips.score(model, clips.clips), clips.done)[0])
    of = [len(np.unique(clips.group[clips.done == label])) for label in (True, False)]
    done = int(clips.done.sum())
    scenes = len(np.unique(clips.group))
    return Told(done, len(clips) - done, scenes, Figure(area, *auroc_interval(area, *of)))


def compare(
    model: ClipRewardModel,
    episodes: Sequence[np.ndarray],
    noise: np.ndarray,
    rng: np.random.Generator,
    sources: str = "random play",
    told: Told | None = None,
) -> Preflight:
    """Score clips as they are, and spoilt.

    Args:
        model: The reward.
        episodes: (n, E) embeddings of the frames of each.
        noise: (T, E) embeddings of frames that show nothing.
        rng: Source of orders.
        sources: Where the episodes come from, in words.
        told: See `Preflight`.
    """
    step = 4
    clips = np.concatenate(
        [frames[clip_indices(0, len(frames) - 1, model.frames, model.stride)[::step]] for frames in episodes]
    )
    orders = np.stack([rng.permutation(model.frames) for _ in clips])
    shuffled = np.take_along_axis(clips, orders[..., None], axis=1)
    noisy = np.stack([noise[order] for order in orders])
    logits = model.logits(clips)
    goal = logits[:, 0]
    spread = float(goal.std())

    def change(other: np.ndarray) -> float:
        return float(np.abs(goal - other).mean()) / max(spread, 1e-12)

    return Preflight(
        len(clips),
        sources,
        spread,
        change(model.logits(noisy)[:, 0]),
        change(model.logits(shuffled)[:, 0]),
        float(np.mean([change(logits[:, i]) for i in range(1, logits.shape[1])])),
        told,
    )


def play(settings: EnvSettings, rng: np.random.Generator) -> list[np.ndarray]:
    """Play at random and return the frames of each episode through its first camera, (n, H, W, 3) uint8."""
    env = make_env(settings, render=True)
    episodes = []
    try:
        env.action_space.seed(int(rng.integers(2**31)))
        for _ in range(EPISODES):
            env.reset(seed=int(rng.integers(2**31)))
            frames, held = [look(env, settings.task.cameras)[settings.task.camera]], int(rng.choice(HELD))
            for t in range(STEPS):
                if t % held == 0:
                    action = env.action_space.sample()
                _, _, terminated, truncated, _ = env.step(action)
                frames.append(look(env, settings.task.cameras)[settings.task.camera])
                if terminated or truncated:
                    break
            episodes.append(np.stack(frames))
    finally:
        env.close()
    return episodes
