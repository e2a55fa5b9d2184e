"""Asks a judge while an agent learns: rounds of questions, a new version of the reward, the replay rewarded again."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from vlmrl.agents.buffers import RewardFillingReplayBuffer
from vlmrl.agents.clip_pool import Clip, ClipPool
from vlmrl.envs.lazy_rewards import LazyRewards
from vlmrl.judges.base import Answer, Comparison
from vlmrl.judges.desk import Desk
from vlmrl.reward_models.preference_data import AnsweredPairs
from vlmrl.reward_models.query_selection import choose_pairs
from vlmrl.reward_models.vlm_preference import LEAST_ANSWERS, VlmPreferenceConfig, VlmPreferenceReward

STATE = "preferences.pkl"  # in a checkpoint
KINDS = ("left", "right", "tie", "abstain", "error")
TRUE_TIE = 1e-9  # rewards of clips that differ by less are the same: no answer is right or wrong


@dataclass(frozen=True)
class Asked:
    """A question that waits for its answer.

    Attributes:
        left, right: The clips.
    """

    left: Clip
    right: Clip

    @property
    def truth(self) -> float:
        """Ground-truth return of the left clip minus that of the right one."""
        return float(self.left.rewards.sum() - self.right.rewards.sum())


class PreferenceRounds(BaseCallback):
    """Every `interact` steps: choose pairs of clips, put them to the desk, learn from what has been answered.

    A new version of the reward model rewards again all that the replay buffer holds; an on-policy learner, which keeps
    one rollout, rewards that again before it learns from it. Rounds take place between a rollout and the update that
    follows. What goes wrong with a judge, a budget that is spent included, ends questions and never training. Answers
    that come later, as people's do, are taken in at the end of every rollout.

    Writes `preference/*` into the log: `left`, `right`, `tie`, `abstain`, `error` (answers so far), `waiting`,
    `version`, `accuracy`, `brier`, `ece` (on answers held out), `foresight` (accuracy of the version before on answers
    that it had not seen), `agrees_with_truth` (share of the answers that the task's ground truth confirms; nothing
    learns from it), `uncertainty` (spread of the ensemble's rewards), `calls`, `cost`, `relabelled`.

    Args:
        model: The reward model.
        rewards: Where the learner's rewards come from; its listener is `pool`.
        pool: Where clips come from.
        desk: Who is asked.
        goal: What the judge is told.
        seed: Of choices and training.
        first_at: Step of the first round.
        listeners: Called with every new version of the reward.
    """

    topic = "preferences"  # in result.json

    def __init__(
        self,
        model: VlmPreferenceReward,
        rewards: LazyRewards,
        pool: ClipPool,
        desk: Desk,
        goal: str,
        seed: int,
        first_at: int,
        listeners: Sequence[Callable[[], None]] = (),
    ):
        super().__init__()
        self._reward_model, self._rewards, self._pool, self._desk = model, rewards, pool, desk
        self._config: VlmPreferenceConfig = model.config
        self._goal, self._seed = goal, seed
        self._due = first_at
        self._listeners = listeners
        self._pairs = AnsweredPairs(self._config.held_out)
        self._waiting: dict[str, Asked] = {}  # by the desk's key
        self._asked: set[tuple[Any, Any]] = set()  # keys of clips, the smaller first
        self._questions = 0  # ever put
        self._counts: Counter[str] = Counter()
        self._agreed: list[int] = [0, 0]  # answers that the truth confirms, and those that it could
        self._learned = 0  # answers that the newest version has learned from
        self._history: list[dict[str, float]] = []
        self._stopped = False  # no more questions

    def summary(self) -> dict[str, Any]:
        """Return what came of it, ready for JSON: answers, what they cost, and the figures of each version."""
        spent = self._desk.spent
        return {
            "judge": self._desk.judge.name,
            "questions": self._questions,
            "answers": {kind: self._counts[kind] for kind in KINDS},
            "waiting": len(self._waiting),
            "agrees_with_truth": self._agreement,
            "spent": {
                "calls": spent.calls,
                "prompt_tokens": spent.prompt_tokens,
                "completion_tokens": spent.completion_tokens,
                "cost": spent.cost,
                "seconds": round(spent.seconds, 1),
            },
            "versions": self._history,
        }

    def close(self) -> None:
        """Close the desk."""
        self._desk.close()

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what a resumed run goes on with."""
        state = {
            "model": self._reward_model.state_dict(),
            "pool": self._pool.state_dict(),
            "pairs": self._pairs.state_dict(),
            "waiting": [(asked.left, asked.right) for asked in self._waiting.values()],
            "asked": self._asked,
            "due": self._due,
            "questions": self._questions,
            "counts": dict(self._counts),
            "agreed": self._agreed,
            "learned": self._learned,
            "history": self._history,
            "stopped": self._stopped,
        }
        folder.joinpath(STATE).write_bytes(pickle.dumps(state))

    def restore(self, folder: Path) -> None:
        """Take over what `save` wrote, and put again what still waits for an answer."""
        state = pickle.loads(folder.joinpath(STATE).read_bytes())
        self._reward_model.load_state_dict(state["model"])
        self._pool.load_state_dict(state["pool"])
        self._pairs.load_state_dict(state["pairs"])
        self._asked, self._due, self._questions = state["asked"], state["due"], state["questions"]
        self._counts, self._agreed = Counter(state["counts"]), list(state["agreed"])
        self._learned, self._history, self._stopped = state["learned"], list(state["history"]), state["stopped"]
        self._put([Asked(left, right) for left, right in state["waiting"]])

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        # The rollout is stored, and what it teaches comes next.
        if self.num_timesteps >= self._due and not self._stopped:
            self._ask()
        self._collect()
        if len(self._pairs) >= max(LEAST_ANSWERS, self._learned + 1):
            self._learn()
        uncertainty = self._reward_model.pop_uncertainty()
        if uncertainty is not None:
            self.logger.record("preference/uncertainty", uncertainty)
        self._record()

    def _ask(self) -> None:
        """Put a round of questions, if there are clips, questions and budget left."""
        left = min(self._config.queries, self._config.max_queries - self._questions)
        if left <= 0:
            self._stop(f"reward.max_queries={self._config.max_queries} are asked")
            return
        buffer = self._buffer
        if buffer is not None:
            buffer.fill()  # so that the newest clips are complete
        clips = self._pool.clips
        if len(clips) < 2:
            return  # at the next rollout, then
        self._due = (self.num_timesteps // self._config.interact + 1) * self._config.interact
        chosen = self._choose(clips, left)
        self._questions += self._put([Asked(clips[i], clips[j]) for i, j in chosen])
        if self._desk.exhausted and not self._collect():
            # Not before: a run that goes on finds answers in the store for which the budget was spent.
            self._stop(self._desk.exhausted)

    def _stop(self, why: str) -> None:
        self._stopped = True
        tqdm.write(f"step {self.num_timesteps:,}: no more questions: {why}; training goes on")

    def _choose(self, clips: list[Clip], n: int) -> np.ndarray:
        """Choose pairs of clips, (k, 2) int."""
        steps = [clip.steps for clip in clips]
        stacked = {name: np.stack([own[name] for own in steps]) for name in steps[0]}
        number = {clip.key: i for i, clip in enumerate(clips)}
        asked = {(number[a], number[b]) for a, b in self._asked if a in number and b in number}
        return choose_pairs(
            n,
            self._reward_model.clip_returns(stacked),
            self._reward_model.features(stacked),
            asked,
            np.random.default_rng([self._seed, self.num_timesteps]),
            self._config.sampler,
            self._config.candidates,
            self._config.gap_floor,
        )

    def _put(self, asked: list[Asked]) -> int:
        """Put questions; return how many different ones: two pairs of clips may show the same."""
        waited = len(self._waiting)
        questions = [
            Comparison(self._goal, own.left.frames, own.right.frames, own.left.rewards, own.right.rewards)
            for own in asked
        ]
        for key, own in zip(self._desk.submit(questions), asked, strict=True):
            first, second = sorted((own.left.key, own.right.key))
            self._asked.add((first, second))
            self._waiting[key] = own
        return len(self._waiting) - waited

    def _collect(self) -> int:
        """Take in the answers that have come; return how many are no errors."""
        answers = 0
        for key, answer in self._desk.collect():
            self._take(self._waiting.pop(key), answer)
            answers += not answer.is_error
        return answers

    def _take(self, asked: Asked, answer: Answer) -> None:
        assert answer.verdict is not None
        self._counts[answer.verdict] += 1
        if answer.verdict in ("left", "right") and abs(asked.truth) > TRUE_TIE:
            self._agreed[0] += (asked.truth > 0) == (answer.verdict == "left")
            self._agreed[1] += 1
        if answer.is_preference:
            self._pairs.add(asked.left.steps, asked.right.steps, answer.verdict)

    def _learn(self) -> None:
        """Train a version on all answers, and reward again what is kept."""
        started = time.monotonic()
        foresight = self._reward_model.foresight(self._pairs, self._learned)
        metrics = self._reward_model.update(self._pairs, self._seed)
        self._learned = len(self._pairs)
        self._reward_model.pop_uncertainty()
        buffer = self._buffer
        if buffer is not None:
            relabelled = buffer.relabel()
        else:
            relabelled = 0
            self._rewards.scale.forget()
        metrics |= {
            "step": float(self.num_timesteps),
            "version": float(self._reward_model.version),
            "relabelled": float(relabelled),
        }
        if foresight:
            metrics["foresight"] = foresight["accuracy"]
        self._history.append({name: round(value, 4) for name, value in metrics.items()})
        tqdm.write(self._line(metrics, time.monotonic() - started))
        for listen in self._listeners:
            listen()

    @property
    def _buffer(self) -> RewardFillingReplayBuffer | None:
        buffer = getattr(self.model, "replay_buffer", None)
        assert buffer is None or isinstance(buffer, RewardFillingReplayBuffer)
        return buffer

    @property
    def _agreement(self) -> float | None:
        right, known = self._agreed
        return right / known if known else None

    def _record(self) -> None:
        """Log how things stand."""
        for kind in KINDS:
            self.logger.record(f"preference/{kind}", self._counts[kind])
        self.logger.record("preference/waiting", len(self._waiting))
        if self._agreement is not None:
            self.logger.record("preference/agrees_with_truth", self._agreement)
        spent = self._desk.spent
        self.logger.record("preference/calls", spent.calls)
        self.logger.record("preference/cost", spent.cost)
        for name, value in (self._history[-1] if self._history else {}).items():
            if name != "step":
                self.logger.record(f"preference/{name}", value)

    def _line(self, metrics: Mapping[str, float], seconds: float) -> str:
        """Say in a sentence what a round came to."""
        answers = ", ".join(f"{self._counts[kind]} {kind}" for kind in KINDS if self._counts[kind])
        told = (
            f"tells {metrics['accuracy']:.0%} of {metrics['held_out']:.0f} answers held out"
            if "accuracy" in metrics
            else "no answers held out yet"
        )
        agreement = f"; the truth confirms {self._agreement:.0%} of the answers" if self._agreement is not None else ""
        relabelled = f", {metrics['relabelled']:,.0f} transitions rewarded again" if metrics["relabelled"] else ""
        return (
            f"step {self.num_timesteps:,}: {answers}; reward model, version {metrics['version']:.0f}: {told}"
            f"{agreement} ({seconds:.1f} s{relabelled})"
        )
