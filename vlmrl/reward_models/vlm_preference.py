"""A reward that is learned from judgments: a judge compares two clips, an ensemble learns whom it prefers (RL-VLM-F).

Source: Wang et al.: "RL-VLM-F: Reinforcement Learning from Vision Language Foundation Model Feedback", ICML 2024 (arXiv
2402.03681). Who asks the judge, and when, is `vlmrl.agents.preference_rounds`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.fitted import read_learned
from vlmrl.reward_models.preference_data import AnsweredPairs
from vlmrl.reward_models.preference_loss import Ties, answer_loss, without_wrong_answers
from vlmrl.reward_models.preference_networks import LEAST_SIZE, RewardEnsemble
from vlmrl.reward_models.preference_training import Answers, TrainingSettings, gaps, measure, train_ensemble
from vlmrl.reward_models.query_selection import Sampler
from vlmrl.rows import Row, RowKey, Rows
from vlmrl.typed import Count, Natural, Positive, Range, Share

Input = Literal["embeddings", "cnn", "resnet", "state", "observation"]
FIELD = {
    "embeddings": "embeddings",
    "cnn": "frames",
    "resnet": "frames",
    "state": "state",
    "observation": "observation",
}
LARGEST_SIZE = 84  # pixels of a picture that is kept with every transition
LARGEST_REPLAY = 200_000  # transitions that a replay buffer keeps with their pictures
LEAST_ANSWERS = 10  # fewer teach nothing
RIME_PATIENCE = (3.0, 1.0, 0.1)  # of `without_wrong_answers`: at first, at last, and how much less with each version
THUMBNAIL = 16  # pixels of the pictures whose distances tell how alike two clips are


class VlmPreferenceReward:
    """Mean reward of an ensemble that was trained on a judge's comparisons; 0 before the first training.

    Args:
        config: Settings.
        words: What is wanted; the judge is told the goal.
        encoder: Embeds pictures, for `input: embeddings`.
        device: Torch device of the ensemble.
    """

    context = 0
    requires_sync = False

    def __init__(
        self,
        config: VlmPreferenceConfig,
        words: Words | None = None,
        encoder: Encoder | None = None,
        device: str = "cpu",
    ):
        self.config, self.words, self.encoder = config, words, encoder
        self.needs = self.retains = frozenset({config.field})
        self.version = 0
        self._device = device
        self._ensemble: RewardEnsemble | None = None
        self._trusted = (1.0, 0.0)  # RIME: greatest loss that was trusted last, and the spread of those
        self._spread = (0.0, 0)  # sum over rewards that were given, and their number

    def to(self, device: str) -> VlmPreferenceReward:
        """Move the ensemble to a torch device."""
        self._device = device
        if self._ensemble is not None:
            self._ensemble.to(device)
        return self

    def prepare(self, key: RowKey, row: Row) -> Row:
        """See `LearnedRewardModel.prepare`: pictures become as small as the networks look at them."""
        if "frames" not in self.retains or row.frames is None:
            return row
        return replace(row, frames={camera: self._small(frame[None])[0] for camera, frame in row.frames.items()})

    def refresh(self) -> None:
        """See `LearnedRewardModel.refresh`: `update` alone makes versions."""

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, the mean over the networks."""
        if self._ensemble is None:
            return np.zeros(len(rows), dtype=np.float32)
        rewards = self.member_rewards(rows.arrays(self.retains))
        total, count = self._spread
        self._spread = (total + float(rewards.std(axis=0).sum()), count + len(rows))
        return rewards.mean(axis=0)

    def uncertainty(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, the standard deviation of the networks' rewards; NaN before the first training."""
        if self._ensemble is None:
            return np.full(len(rows), np.nan, dtype=np.float32)
        return self.member_rewards(rows.arrays(self.retains)).std(axis=0)

    def pop_uncertainty(self) -> float | None:
        """Return the mean uncertainty of all rewards that were given since the last call; None without any."""
        (total, count), self._spread = self._spread, (0.0, 0)
        return total / count if count else None

    @torch.no_grad()
    def member_rewards(self, steps: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return every network's rewards, (members, n) float32, of n steps in the form of `Rows.arrays`."""
        assert self._ensemble is not None
        parts = self._inputs(steps, 1).split(4096)
        return torch.cat([self._ensemble(part) for part in parts], dim=1).cpu().numpy()

    def clip_returns(self, steps: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Return every network's log odds of a clip against one that earns nothing, (members, n); None at version 0.

        Args:
            steps: Of n clips, {name: (n, L, ...)}.
        """
        if self._ensemble is None:
            return None
        n, length = next(iter(steps.values())).shape[:2]
        rewards = self.member_rewards({name: array.reshape(-1, *array.shape[2:]) for name, array in steps.items()})
        rationality = self._ensemble.log_rationality.detach().exp().cpu().numpy()
        return rewards.reshape(-1, n, length).sum(axis=2) * rationality[:, None]

    def features(self, steps: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return where clips lie, (n, F) float32: close together where they look alike. For query selection.

        Args:
            steps: Of n clips, {name: (n, L, ...)}. Embeddings, states and observations are taken as they are (the
                latter two brought to equal spread), of pictures thumbnails; each the mean over a clip's steps.
        """
        parts = []
        for name in sorted(steps):
            array = steps[name]
            if name.startswith("frames/"):
                flat = array.reshape(-1, *array.shape[2:])
                small = np.stack(
                    [cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for frame in flat]
                )
                array = small.reshape(*array.shape[:2], -1).astype(np.float32) / 255
            parts.append(array.reshape(*array.shape[:2], -1).mean(axis=1, dtype=np.float32))
        found = np.concatenate(parts, axis=1)
        if self.config.input in ("state", "observation"):
            spread = found.std(axis=0)
            found = found / np.where(spread > 1e-6, spread, 1.0)
        return found

    def update(self, pairs: AnsweredPairs, seed: int) -> dict[str, float]:
        """Train a new version on all answers so far.

        Args:
            pairs: Answered comparisons.
            seed: Of first weights, bootstrap and batches, together with the version; the same answers and seed give the
                same version on a CPU, and nothing that others draw from is touched.

        Returns:
            `accuracy`, `brier` and `ece` on the answers held out (where there are any that decide), `answers`,
            `held_out`, `epochs`, `train_loss`, and with `rime` the share of answers that were `distrusted`.

        Raises:
            ValueError: There are fewer than `LEAST_ANSWERS` answers.
            UserError: All of them are ties, which the settings drop.
        """
        if len(pairs) < LEAST_ANSWERS:
            raise ValueError(f"{len(pairs)} answers teach nothing; {LEAST_ANSWERS} are needed.")
        everything = self._answers(pairs)
        held_out = everything[np.flatnonzero(pairs.is_held_out)]
        learned = everything[np.flatnonzero(~pairs.is_held_out)]
        if self.config.ties == "drop":
            learned, held_out = learned[learned.targets != 0.5], held_out[held_out.targets != 0.5]
            if len(learned) == 0:
                raise UserError("reward.ties=drop, and all answers so far are ties: reward.ties=soft learns from them.")
        metrics: dict[str, float] = {}
        if self.config.rime and self._ensemble is not None:
            learned, metrics["distrusted"] = self._trust(learned)
        version_seed = int(np.random.SeedSequence([seed, self.version]).generate_state(1)[0])
        if self._ensemble is None or not self.config.warm_start:
            self._ensemble = self._new_ensemble(learned.inputs, version_seed)
        metrics |= train_ensemble(self._ensemble, learned, held_out, self.config.training, version_seed)
        self.version += 1
        if self.config.rime:
            trusted = self._losses(learned)
            self._trusted = (float(trusted.max()), float(trusted.std()))
        metrics |= {"answers": float(len(pairs)), "held_out": float(len(held_out))}
        return metrics | measure(self._ensemble, held_out)

    def foresight(self, pairs: AnsweredPairs, first: int) -> dict[str, float]:
        """Say how well this version tells the answers from number `first` on, none of which it has seen; {} if none."""
        if self._ensemble is None or first >= len(pairs):
            return {}
        return measure(self._ensemble, self._answers(pairs, first))

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold."""
        ensemble = self._ensemble
        return {
            "version": self.version,
            "trusted": self._trusted,
            "network": ensemble.network if ensemble is not None else None,
            "shape": ensemble.shape if ensemble is not None else None,
            "weights": {name: value.cpu() for name, value in ensemble.state_dict().items()} if ensemble else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            UserError: It is that of other networks than the settings ask for.
        """
        self.version, self._trusted = state["version"], tuple(state["trusted"])
        self._ensemble = None
        if state["network"] is None:
            return
        if state["network"] != self.config.network:
            raise UserError(
                f"These are weights of a {state['network']} network, and reward.input={self.config.input} makes a "
                f"{self.config.network}. Give the reward.input that they were trained with."
            )
        self._ensemble = self._make(tuple(state["shape"]))
        try:
            self._ensemble.load_state_dict(state["weights"])
        except RuntimeError as error:
            raise UserError(
                "These weights are of another size than reward.net_arch, reward.ensemble and reward.squash say: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        self._ensemble.eval()

    def save(self, path: Path) -> None:
        """Write weights and version, a safetensors file; a model that was never trained has nothing to write."""
        state = self.state_dict()
        if self._ensemble is None:
            return
        weights = {name: value.contiguous() for name, value in state.pop("weights").items()}
        save_file(weights, path, {"vlm_preference": json.dumps({**state, "input": self.config.input})})

    def load(self, path: Path) -> VlmPreferenceReward:
        """Read what `save` wrote.

        Raises:
            UserError: The file is not there, or none of these.
        """
        note, weights = read_learned(path, "vlm_preference", "judgments")
        if note.pop("input") != self.config.input:
            raise UserError(f"'{path}' was trained on other inputs than reward.input={self.config.input}.")
        self.load_state_dict({**note, "weights": weights})
        return self

    def _small(self, frames: np.ndarray) -> np.ndarray:
        """Bring pictures (n, H, W, 3) uint8 to the size that the networks look at; those that have it stay."""
        size = self.config.image_size
        if frames.shape[1:3] == (size, size):
            return frames
        return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])

    def _inputs(self, steps: Mapping[str, np.ndarray], axes: int) -> torch.Tensor:
        """Return the networks' inputs for steps whose first `axes` axes say which step it is."""
        if "frames" in self.retains:  # cameras one behind the other, channels first
            views = []
            for name in sorted(steps):
                array = steps[name]
                small = self._small(array.reshape(-1, *array.shape[axes:]))
                views.append(small.reshape(*array.shape[:axes], *small.shape[1:]))
            return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.concatenate(views, axis=-1), -1, axes))).to(
                self._device
            )
        vectors = [np.asarray(steps[name], dtype=np.float32) for name in sorted(steps)]
        flat = [vector.reshape(*vector.shape[:axes], -1) for vector in vectors]
        return torch.from_numpy(np.concatenate(flat, axis=-1)).to(self._device)

    def _answers(self, pairs: AnsweredPairs, first: int = 0) -> Answers:
        return Answers(self._inputs(pairs.steps(first), 3), torch.from_numpy(pairs.targets[first:]).to(self._device))

    def _make(self, shape: Sequence[int]) -> RewardEnsemble:
        config = self.config
        return RewardEnsemble(config.network, shape, config.net_arch, config.ensemble, config.squash).to(self._device)

    def _new_ensemble(self, inputs: torch.Tensor, seed: int) -> RewardEnsemble:
        with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU, whatever the device
            torch.manual_seed(seed)
            ensemble = self._make(inputs.shape[3:])
        ensemble.normalise_by(inputs.flatten(0, 2))
        return ensemble

    def _losses(self, answers: Answers) -> np.ndarray:
        """Cross-entropy of each answer under the mean of the networks' log odds, (n,)."""
        assert self._ensemble is not None
        log_odds = torch.from_numpy(gaps(self._ensemble, answers.inputs).mean(axis=0))
        return answer_loss(log_odds, answers.targets.cpu(), torch.zeros(()), "soft").numpy()

    def _trust(self, answers: Answers) -> tuple[Answers, float]:
        """Leave out and turn round what looks wrong (RIME); return also the share of answers that it was done to."""
        first, last, less = RIME_PATIENCE
        keep, targets = without_wrong_answers(
            self._losses(answers), answers.targets.cpu().numpy(), *self._trusted, max(last, first - less * self.version)
        )
        if not keep.any():
            return answers, 0.0
        changed = float(np.mean(~keep | (targets != answers.targets.cpu().numpy())))
        return Answers(answers.inputs, torch.from_numpy(targets).to(self._device))[np.flatnonzero(keep)], changed


@dataclass(frozen=True)
class VlmPreferenceConfig:
    """Settings of `reward=vlm_preference`; `configs/reward/vlm_preference.yaml` says what each means.

    Raises:
        UserError: They contradict each other.
    """

    input: Input = "embeddings"
    image_size: Count = 64
    net_arch: tuple[Count, ...] = (128, 128)
    ensemble: Count = 3
    squash: bool = True
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Range(0)] = 0.01
    batch_size: Count = 64
    max_epochs: Count = 100
    patience: Count = 10
    warm_start: bool = False
    held_out: Annotated[float, Range(0, 0.5)] = 0.2
    ties: Ties = "soft"
    label_smoothing: Share = 0.0
    rime: bool = False
    segment: Annotated[int, Range(1, 50)] = 1
    clip_frames: Count = 8
    sampler: Sampler = "uniform"
    candidates: Count = 10
    gap_floor: Share = 0.0
    episodes: Count = 100
    clips_per_episode: Count = 10
    first_at: Natural | None = None
    interact: Count = 5000
    queries: Count = 50
    max_queries: Natural = 5000
    weights: str = ""

    learns_from: ClassVar[str] = "comparisons"
    largest_replay: ClassVar[int] = LARGEST_REPLAY

    def __post_init__(self) -> None:
        if self.input in ("cnn", "resnet") and not LEAST_SIZE <= self.image_size <= LARGEST_SIZE:
            raise UserError(
                f"reward.image_size={self.image_size}; the networks look at {LEAST_SIZE} to {LARGEST_SIZE} pixels: one "
                "such picture is kept with every transition."
            )

    @property
    def field(self) -> str:
        """Row field that the networks look at, which is kept with every transition."""
        return FIELD[self.input]

    @property
    def asks_judge(self) -> bool:
        """Whether a judge is asked while the agent learns."""
        return self.max_queries > 0

    @property
    def uses_encoder(self) -> bool:
        """Whether pictures are embedded for the reward."""
        return self.input == "embeddings"

    @property
    def uses_words(self) -> bool:
        """Whether it is made of sentences: one that was trained before has them in its weights."""
        return not self.weights

    @property
    def network(self) -> Literal["mlp", "cnn", "resnet"]:
        """Kind of network that the input asks for."""
        return self.input if self.input in ("cnn", "resnet") else "mlp"

    @property
    def training(self) -> TrainingSettings:
        """How the ensemble is trained."""
        return TrainingSettings(
            self.learning_rate,
            self.weight_decay,
            self.batch_size,
            self.max_epochs,
            self.patience,
            self.ties,
            self.label_smoothing,
        )

    def build(self, words: Words | None, encoder: Encoder | None) -> VlmPreferenceReward:
        """Make the reward model, with the weights that are named.

        Raises:
            UserError: There are no such weights.
        """
        model = VlmPreferenceReward(self, words, encoder)
        return model.load(Path(self.weights)) if self.weights else model
