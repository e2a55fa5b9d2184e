"""Rewards of a recorded episode."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlmrl.datasets.base import ORIGINAL_REWARD, STATE, CorruptEpisode, Dataset, Episode, leaves
from vlmrl.encoders.store import frame_digest
from vlmrl.envs.lazy_rewards import KEY_DTYPE, LazyRewards
from vlmrl.envs.shaping import PotentialShaping, potential_caveat
from vlmrl.envs.tasks import Task, dense_reward
from vlmrl.errors import UserError
from vlmrl.reward_models.base import RewardModel, awaits_end, is_learned
from vlmrl.rows import Row, RowKey
from vlmrl.serving.local import LocalConfig
from vlmrl.serving.settings import Service
from vlmrl.workflows.config.relabel import RelabelConfig
from vlmrl.workflows.relabel.index import FrameIndex

READ = frozenset(
    {"frames", "embeddings", "observation", "state", "action", "text", "reward", "success", "terminated", "truncated"}
)
AT_ONCE = 64  # rows handed over together, so that the store is asked once for their pictures
END = object()  # no picture is left
# Pictures under way at once are fewer. So a picture that comes again is never encoded twice, and what is encoded
# together is the same in a run that was killed and in one that was not.
REMEMBERED = 4096
SEGMENT = 1024  # rows after which rewards are asked for: what a kill can cost, and what is in memory, of a long episode


class EpisodeScorer:
    """Turns episodes into rewards, by the same rows and rules as in training.

    Which pictures are encoded together depends on the dataset alone and never on where an earlier run was killed: each
    segment of an episode begins a new batch, and a picture that is known is left out wherever it is known from.

    Args:
        settings: Says which frames are looked at and what the rewards are used as.
        task: The check of the task, from which its truth follows.
        service: Where the encoder runs; None where the reward looks at no picture.
        cameras: Cameras to look through.
        device: Where a model that was learned computes.
        index: Tells which pictures are known without decoding them.
    """

    def __init__(
        self,
        settings: RelabelConfig,
        task: Task,
        service: Service | None,
        cameras: Sequence[str],
        device: str = "cpu",
        index: FrameIndex | None = None,
    ):
        self._settings, self._task, self._service, self._cameras = settings, task, service, tuple(cameras)
        self._device, self._index = device, index
        self._digests: dict[str, dict[int, bytes]] = {}  # {camera: {number: digest}} of this episode's new pictures
        self._rewards: dict[str, LazyRewards] = {}
        self.frames = 0  # looked at
        self.reused = 0  # of these, how many were known

    def score(self, episode: Episode, number: int) -> np.ndarray:
        """Reward an episode.

        Args:
            episode: T steps.
            number: Its position in the dataset; each is scored once.

        Returns:
            (T,) float32, entry t the reward for arriving at t + 1. For a table (T + 1,): first that of where it begins,
            NaN where the model compares steps.

        Raises:
            CorruptEpisode: Something that the reward reads is missing, or cannot be read.
            UserError: The encoder refuses.
        """
        rewards = self._source(episode)
        shift = self._shift(rewards)
        self._digests = {camera: {} for camera in self._cameras}
        try:
            values = self._filled(rewards, episode, number, shift)
            for camera, digests in self._digests.items():
                if digests and self._index is not None:
                    self._index.put(number, camera, digests)
            return values
        except CorruptEpisode:
            rewards.close()
            self._rewards.pop(self._sentence(episode))  # with half an episode in it, it is of no use
            raise
        finally:
            self.reused += int(rewards.pop_scorer_stats().get("reused", 0))

    def lacks_embeddings(self, episode: Episode, number: int) -> bool:
        """Whether the reward reads embeddings of the episode's pictures alone, and the index does not know them all.

        Raises:
            CorruptEpisode: It does not say what should be done.
        """
        rewards = self._source(episode)
        if self._index is None or rewards.model.needs & {"frames", "embeddings"} != {"embeddings"}:
            return False
        return (
            self._index.embeddings(number, self._cameras, self._drawn(rewards, episode, self._shift(rewards))) is None
        )

    def _filled(self, rewards: LazyRewards, episode: Episode, number: int, shift: int) -> np.ndarray:
        filled: list[np.ndarray] = []
        waiting: list[tuple[RowKey, Row]] = []
        asked = 1
        # Interpolation looks ahead to the next picture, and some models to the end of the episode.
        at_once = rewards.lag == 0 and not awaits_end(rewards.model)
        for t, row in self._rows(rewards, episode, number, shift):
            waiting.append((RowKey(0, number, t), row))
            if len(waiting) == AT_ONCE or row.truncated:
                rewards.observe(waiting)
                waiting = []
            if row.truncated or ((t + 1) % SEGMENT == 0 and at_once):
                keys = np.array([(0, number, step) for step in range(asked, t + 1)], dtype=KEY_DTYPE)
                filled.append(rewards.fill(keys))
                asked = t + 1
        values = np.concatenate(filled)
        rewards.pop_returns()
        if self._settings.table and not shift:
            return np.concatenate([np.full(1, np.nan, dtype=np.float32), values])
        return values

    def _rows(self, rewards: LazyRewards, episode: Episode, number: int, shift: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows of an episode with their time steps; the last one says that it is the last."""
        model = rewards.model
        needs = model.needs if rewards.shaping is None else model.needs | {"reward", "terminated"}
        columns = self._columns(episode, needs)
        if shift:
            yield 0, Row()
        last = episode.length + shift
        drawn = self._drawn(rewards, episode, shift)
        looks = needs & {"frames", "embeddings"}
        known = self._known(number, drawn) if looks == {"embeddings"} else None
        pictures = self._looked_at(episode, drawn) if looks and known is None else None
        for i in range(episode.length + 1):
            t = i + shift
            yield (
                t,
                Row(
                    frames=next(pictures) if pictures is not None else None,
                    embeddings=known.get(i) if known is not None else None,
                    truncated=t == last,
                    terminated=bool(i > 0 and episode.terminations[i - 1]),
                    **{name: values(i) for name, values in columns.items()},
                ),
            )
        if pictures is not None and next(pictures, END) is not END:
            raise CorruptEpisode(f"has {episode.length} steps and more than {episode.length + 1} frames")

    def _drawn(self, rewards: LazyRewards, episode: Episode, shift: int) -> list[int]:
        """Return the numbers of the pictures that are looked at."""
        every, last = self._settings.scene.score_every, episode.length + shift
        return [
            i
            for i in range(episode.length + 1)
            if (rewards.reads_reset if i + shift == 0 else (i + shift - 1) % every == 0 or i + shift == last)
        ]

    def _shift(self, rewards: LazyRewards) -> int:
        # In a table each picture has a value, the first one too: it is then that of the step after nothing.
        return int(self._settings.table and not rewards.reads_reset)

    def _known(self, number: int, drawn: Sequence[int]) -> dict[int, dict[str, np.ndarray]] | None:
        """Return {number of a picture: {camera: (E,) float32}} of those that are looked at; None if one is new."""
        found = self._index.embeddings(number, self._cameras, drawn) if self._index is not None else None
        if found is None:
            return None
        self.frames += len(drawn) * len(self._cameras)
        self.reused += len(drawn) * len(self._cameras)
        return {i: {camera: rows[k] for camera, rows in found.items()} for k, i in enumerate(drawn)}

    def _looked_at(self, episode: Episode, drawn: Sequence[int]) -> Iterator[dict[str, np.ndarray] | None]:
        """Yield the pictures of each row, None where nobody looks, and note the digests of the others."""
        wanted = set(drawn)
        for i, frames in enumerate(self._pictures(episode)):
            if i not in wanted:
                yield None
                continue
            self.frames += len(frames)
            if self._index is not None:
                for camera, frame in frames.items():
                    self._digests[camera][i] = frame_digest(frame)
            yield frames

    def _columns(self, episode: Episode, needs: frozenset[str]) -> dict[str, Any]:
        """Return {field of a row: function from its number to its value} of what the model reads beside pictures.

        Raises:
            CorruptEpisode: The episode has no such thing.
        """
        columns: dict[str, Any] = {}
        if "reward" in needs:
            truth = self._truth(episode)
            columns["reward"] = lambda i: float(truth[i - 1]) if i > 0 else 0.0
        if "state" in needs:
            state = _state(episode)
            columns["state"] = lambda i: {name: values[i] for name, values in state.items()}
        for field, values in (("observation", episode.observations), ("action", episode.actions)):
            if field in needs and values is None:
                raise CorruptEpisode(f"has no {field}s, which the reward reads")
        if "observation" in needs:
            columns["observation"] = lambda i: _at(episode.observations, i)
        if "action" in needs:
            columns["action"] = lambda i: _at(episode.actions, i - 1) if i > 0 else None
        if "text" in needs:
            columns["text"] = lambda i: episode.text
        if "success" in needs:
            if "predicate" not in episode.infos:
                raise CorruptEpisode("does not say at which steps the task was done (infos/predicate)")
            columns["success"] = lambda i: bool(episode.infos["predicate"][i - 1]) if i > 0 else None
        return columns

    def _truth(self, episode: Episode) -> np.ndarray:
        """Return the truth of the task at each step, (T,): from state if there is a check, else what was recorded.

        Raises:
            CorruptEpisode: There is neither.
        """
        if self._task.predicate is not None:
            state = _state(episode)
            rows = ({name: values[i] for name, values in state.items()} for i in range(1, episode.length + 1))
            return np.array([dense_reward(self._task.predicate(row)) for row in rows])
        if ORIGINAL_REWARD in episode.infos:  # relabelled before
            return np.asarray(episode.infos[ORIGINAL_REWARD])
        if episode.rewards is None:
            raise CorruptEpisode("has no rewards, and there is no task whose truth could be read from its state")
        return episode.rewards

    def _pictures(self, episode: Episode) -> Iterator[dict[str, np.ndarray]]:
        """Yield the pictures of each row, one by one."""
        missing = [camera for camera in self._cameras if camera not in episode.frames]
        if missing or not self._cameras:
            raise CorruptEpisode(
                f"has no pictures of camera {', '.join(missing)}"
                if missing
                else "has no pictures, which the reward reads"
            )
        streams = [iter(episode.frames[camera]) for camera in self._cameras]
        while True:
            pictures = [next(stream, None) for stream in streams]
            if all(picture is None for picture in pictures):
                return
            if any(picture is None for picture in pictures):
                raise CorruptEpisode("has more pictures of one camera than of another")
            yield dict(zip(self._cameras, pictures, strict=True))  # type: ignore[arg-type]

    def _sentence(self, episode: Episode) -> str:
        return episode.text if self._settings.own_sentences else ""

    def _source(self, episode: Episode) -> LazyRewards:
        """Return the source of rewards for what the episode should be about; one for each sentence.

        Raises:
            CorruptEpisode: It says nothing, and nobody else does.
        """
        sentence = self._sentence(episode)
        if sentence not in self._rewards:
            scene = self._settings.scene
            if self._settings.own_sentences:
                if not sentence.strip():
                    raise CorruptEpisode("does not say what should be done; say it for all: goal='...'")
                scene = replace(scene, goal=(sentence,))
            encoder = self._service.encoder if self._service is not None else None
            for other in self._rewards.values():  # each remembers pictures, and there may be a sentence for each clip
                other.close()
            self._rewards = {sentence: self._lazy(scene.reward.config.build(scene.words, encoder))}
        return self._rewards[sentence]

    def _lazy(self, model: RewardModel) -> LazyRewards:
        settings = self._settings
        if is_learned(model) and not getattr(settings.scene.reward.config, "weights", ""):
            raise UserError(
                f"reward={settings.scene.reward.name} is learned while an agent trains, and knows nothing before. Give "
                "it what another run has learned: reward.weights=<run folder>/reward_model.safetensors."
            )
        if is_learned(model):
            model.to(self._device)
        if model.needs - READ:
            raise UserError(
                f"reward={settings.scene.reward.name} reads {' and '.join(sorted(model.needs - READ))}, and recordings "
                "hold no such thing."
            )
        if settings.table and settings.scene.between == "interpolate" and settings.scene.score_every > 1:
            raise UserError("between=interpolate is not for tables: use between=hold.")
        shaping = PotentialShaping(settings.gamma, settings.shaping_weight) if settings.use_as == "potential" else None
        if shaping is not None and (caveat := potential_caveat(model)):
            warnings.warn(f"use_as=potential: {caveat}", stacklevel=2)
        scorer = self._service.scorer() if self._service is not None else None
        return LazyRewards(
            model, scorer, shaping=shaping, every=settings.scene.score_every, between=settings.scene.between
        )


def local_scorer(settings: RelabelConfig, store: str) -> LocalConfig:
    """Return settings of `scorer=local` with the batches of the command's own scorer, and a store."""
    own = settings.scene.scorer.config
    return LocalConfig(own.batch_size, max(own.deduplicate, REMEMBERED), store)


@dataclass(frozen=True)
class Eye:
    """What recorded pictures are embedded with.

    Attributes:
        service: Where the encoder runs.
        cameras: Cameras to look through.
        index: Tells which pictures are known, so that they need not be decoded; None decodes all.
    """

    service: Service
    cameras: tuple[str, ...]
    index: FrameIndex | None = None

    @property
    def dim(self) -> int:
        """Numbers a time step."""
        return self.service.encoder.dim * len(self.cameras)

    def embed(self, episode: Episode, number: int) -> np.ndarray:
        """Return the embeddings of an episode's pictures, those of several cameras side by side.

        Args:
            episode: T steps.
            number: Its position in the dataset.

        Returns:
            (T + 1, E) float32.

        Raises:
            CorruptEpisode: A picture cannot be read.
        """
        every = range(episode.length + 1)
        known = self.index.embeddings(number, self.cameras, every) if self.index is not None else None
        if known is not None:
            return np.concatenate([known[camera] for camera in self.cameras], axis=1)
        scorer = self.service.scorer()
        try:
            sides = []
            for camera in self.cameras:
                parts: list[np.ndarray] = []
                digests: list[bytes] = []
                for chunk in episode.frames[camera].chunks(AT_ONCE):
                    digests += [frame_digest(frame) for frame in chunk]
                    parts.append(scorer.collect(scorer.submit(chunk)))
                if self.index is not None:
                    self.index.put(number, camera, dict(enumerate(digests)))
                sides.append(np.concatenate(parts))
            return np.concatenate(sides, axis=1)
        finally:
            scorer.close()


def choose_cameras(dataset: Dataset, wanted: Sequence[str], needed: bool) -> tuple[str, ...]:
    """Return the cameras to look through: those that are wanted, else all that the first whole episode has.

    Args:
        dataset: The dataset.
        wanted: Names; empty takes all.
        needed: Whether nothing can be done without pictures.

    Raises:
        UserError: There is no such camera; or no picture at all, and there must be some; or no episode can be read.
    """
    there: tuple[str, ...] = ()
    problem = ""
    for i in range(len(dataset)):
        try:
            there = tuple(dataset.episode(i).frames)
            break
        except CorruptEpisode as error:
            problem = problem or f"episode {i} {error}"
    else:
        if problem and needed:  # whether they have pictures nobody can tell
            raise UserError(
                f"No episode of '{dataset.spec}' can be read: {problem}. Put the files right, or name others."
            )
    if not there and needed:
        raise UserError(
            f"The dataset '{dataset.spec}' has no pictures, so a reward that looks at some has nothing to look at. "
            "reward=ground_truth reads simulator state; vlmrl.collect records pictures (frames=true)."
        )
    unknown = [camera for camera in wanted if camera not in there]
    if unknown:
        raise UserError(
            f"cameras: the dataset '{dataset.spec}' has no {', '.join(unknown)}. It has {', '.join(there)}."
        )
    return tuple(wanted) or there


def _state(episode: Episode) -> Mapping[str, np.ndarray]:
    """Return what is recorded of the simulator's state, {name: (T + 1, ...)}.

    Raises:
        CorruptEpisode: There is none.
    """
    state = episode.infos.get(STATE)
    if state is None:
        raise CorruptEpisode("has no simulator state (infos/state), which the task or the reward reads")
    for path, values in leaves(state, STATE):
        if len(values) != episode.length + 1:
            raise CorruptEpisode(f"has {len(values)} {path}, not {episode.length + 1}")
    return state


def _at(values: Any, i: int) -> Any:
    """Return entry `i` of an array, or of each in a dict of arrays."""
    return {name: _at(part, i) for name, part in values.items()} if isinstance(values, Mapping) else values[i]
