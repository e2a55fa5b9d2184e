"""An intrinsic reward: a language model's opinion of what the environment says, learned as the agent trains (ONI).

    reward = extrinsic_coef * reward of the environment + intrinsic_coef * r(text) / N(text)^beta

N is how often the text was said in this episode so far, this time included. Five ways to r:

- `retrieval`: 1 where the text's label says that it helps, 0 where it has none.
- `classification`: 1 where a network that learns from the labels gives a probability above a threshold.
- `ranking`: a network that learns from comparisons (Bradley-Terry); scores with mean 0 and spread 1 over the texts that
  were met, 0 below a threshold.
- `motif`: the same network, trained before the agent from a file of comparisons; 0 below a quantile.
- `embedding`: cosine of text and goal in an encoder's space where that is above a threshold, once a goal and episode.

Sources: Zheng et al.: "Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback" (ONI),
arXiv 2410.23022, the first three; Klissarov et al.: "Motif: Intrinsic Motivation from Artificial Intelligence
Feedback", ICLR 2024, arXiv 2310.00166, the fourth; Du et al.: "Guiding Pretraining in Reinforcement Learning with Large
Language Models" (ELLM), ICML 2023, arXiv 2302.06692, the last. In the published code of ONI the ranking reward enters
the sum without its normalisation and threshold; here it is the one that the paper describes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words, or_embedded
from vlmrl.reward_models.oni_annotator import Annotator, Selection
from vlmrl.reward_models.oni_labels import PROGRESS, Item, LabelTable, PromptName, find_table
from vlmrl.reward_models.oni_networks import Lessons, TextNetworkName, make_network, scores, train_network
from vlmrl.reward_models.oni_preferences import read_preferences
from vlmrl.reward_models.preference_loss import calibration
from vlmrl.rows import Row, RowKey, Rows, text_keys
from vlmrl.typed import Count, Positive, Range

Variant = Literal["retrieval", "classification", "ranking", "embedding", "motif"]
# Of a label's probability; of the network's probability (ONI's eta); of a z-score (ONI's eps_threshold_quantile, which
# is one); of a cosine (ELLM); a quantile over the texts (Motif).
THRESHOLDS = {"retrieval": 0.5, "classification": 0.5, "ranking": -0.5, "embedding": 0.99, "motif": 0.5}
LEAST_LABELS = 8  # fewer teach a network nothing
GROWTH = 1.25  # a network is trained anew when it has so many times the labels of the last training
HELD_OUT_STEPS = 1000  # in which `held_out` is counted


class OniReward:
    """See this module and `LearnedRewardModel`.

    Args:
        config: Settings.
        words: What the agent should do, for `embedding`.
        encoder: Whose text tower embeds texts and goals, for `embedding`.
        table: Labels that are known before anybody is asked; None where there are none.

    Attributes:
        version: Counts changes of r.
        labels: {item: probability}, all that is known.
        annotator: Whoever is asked for more; None asks nobody.
        seed: Of networks and of the choice of pairs.
        summary: What a person is told at start.
    """

    context = 0
    requires_sync = False
    sets_scale = True  # the two coefficients say how large rewards are
    needs = frozenset({"text", "text_count", "native_reward"})
    retains = needs

    def __init__(
        self,
        config: OniConfig,
        words: Words | None = None,
        encoder: Encoder | None = None,
        table: LabelTable | None = None,
    ):
        self.config, self.words, self.table = config, words, table
        self.version = 0
        self.labels: dict[Item, float] = {}
        self.annotator: Annotator | None = None
        self.seed = 0
        self.metrics: dict[str, float] = {}  # of the newest network
        self._threshold = THRESHOLDS[config.variant] if config.threshold is None else config.threshold
        self._texts: dict[int, str] = {}  # by key: what a buffer keeps of a text
        self._met: Counter[int] = Counter()  # how often each was said
        self._news: set[int] = set()  # keys of texts that were said since the last refresh
        self._rounds = 0  # refreshes with news
        self._opinions: dict[int, float] = {}  # r of the current version
        self._device = "cpu"
        self._network: nn.Module | None = None
        self._normal = (0.0, 1.0)  # mean and spread of the network's scores
        self._floor = -np.inf  # least score that is rewarded
        self._learned_from = 0  # labels that the newest network has learned from
        self._sums: Counter[str] = Counter()
        self._goals = np.zeros((0, 0), dtype=np.float32)
        self._achieved: dict[int, tuple[int, Counter[int]]] = {}  # of each environment: its episode, goals in it
        self._cosines: dict[
            str, tuple[float, int]
        ] = {}  # of a text: that with the goal it is most like, which one it is
        self._encoder = encoder
        if config.variant == "embedding":
            assert words is not None and encoder is not None
            self._goals = encoder.encode_texts(list(words.goal))
            self.version = 1
        elif config.variant == "motif":
            self._learn(read_preferences(Path(config.preferences)))
        elif table is not None and config.variant != "ranking":
            self._take({(text,): label for text, label in table.labels.items()})

    @property
    def summary(self) -> str:
        """What a person is told at start."""
        config = self.config
        text = (
            f"reward: {config.extrinsic_coef:g} * the environment's own + {config.intrinsic_coef:g} * r(text) / "
            f"N^{config.beta:g}, r by {config.variant}"
        )
        if config.variant == "embedding":
            return text.replace(f" / N^{config.beta:g}", ", once a goal and episode")
        if self.table is not None:
            text += f"; {len(self.table.labels):,} recorded labels, aim: {self.table.goal}; other texts have none"
        return text

    def to(self, device: str) -> OniReward:
        """Move the network to a torch device."""
        self._device = device
        if self._network is not None:
            self._network.to(device)
        return self

    @property
    def distinct_texts(self) -> int:
        """Number of different texts that were said so far."""
        return len(self._met)

    # Texts come in

    def prepare(self, key: RowKey, row: Row) -> Row:
        """See `LearnedRewardModel.prepare`. For `embedding` the goal that a text achieves is counted, not the text."""
        if row.text is None:  # a reset that nobody looks at
            return row
        self.note({row.text: 1})
        if self.config.variant != "embedding":
            return row
        cosine, goal = self._likeness(row.text)
        episode, achieved = self._achieved.get(key.env, (-1, Counter()))
        if episode != key.episode:
            episode, achieved = self._achieved[key.env] = key.episode, Counter()
        if cosine > self._threshold:
            achieved[goal] += 1
            row = replace(row, text_count=achieved[goal])
        return row

    def note(self, said: Mapping[str, int]) -> None:
        """Take note of what was said, {text: how often}; `refresh` offers it to whoever labels."""
        texts = [text for text in said if text]  # to say nothing is no message
        for text, key in zip(texts, text_keys(texts).tolist(), strict=True):
            self._texts[key] = text
            self._met[key] += said[text]
            self._news.add(key)

    # Rewards go out

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, what this module's first line says."""
        keys = text_keys(rows["text"])
        self._texts |= {
            key: text for key, text in zip(keys.tolist(), rows["text"], strict=True) if isinstance(text, str)
        }
        unique, where = np.unique(keys, return_inverse=True)
        opinions = self._opinions_of(unique.tolist())[where]
        counts = np.asarray(rows["text_count"], dtype=np.float64)
        novelty = counts == 1 if self.config.variant == "embedding" else counts**-self.config.beta
        intrinsic = self.config.intrinsic_coef * opinions * novelty
        extrinsic = self.config.extrinsic_coef * np.asarray(rows["native_reward"], dtype=np.float64)
        if not isinstance(rows["text"], np.ndarray):  # the first time that they are rewarded
            labelled = [(text,) in self.labels for text in rows["text"]]
            self._sums.update(
                steps=len(rows), intrinsic=intrinsic.sum(), extrinsic=extrinsic.sum(), labelled_share=sum(labelled)
            )
        return (extrinsic + intrinsic).astype(np.float32)

    def pop_stats(self) -> dict[str, float]:
        """Return means since the last call: both parts of the reward, and the share of steps whose text has a label."""
        sums, self._sums = self._sums, Counter()
        steps = sums.pop("steps", 0)
        return {name: float(value) / steps for name, value in sums.items()} if steps else {}

    def opinion(self, text: str) -> float:
        """Return r of a text, as the current version has it; 0 for saying nothing."""
        return float(self.opinions([text])[0])

    def opinions(self, texts: Sequence[str]) -> np.ndarray:
        """Return r of n texts, (n,) float64, as `opinion` does."""
        keys = text_keys(texts).tolist()
        self._texts |= dict(zip(keys, texts, strict=True))
        return self._opinions_of(keys)

    def _opinions_of(self, keys: list[int]) -> np.ndarray:
        """Return r of texts by their keys, (n,) float64."""
        new = [key for key in keys if key not in self._opinions]
        if new:
            texts = [self._texts[key] for key in new]
            values = self._rate(texts)
            self._opinions |= {key: float(r) if text else 0.0 for key, text, r in zip(new, texts, values, strict=True)}
        return np.array([self._opinions[key] for key in keys], dtype=np.float64)

    def _rate(self, texts: list[str]) -> np.ndarray:
        """Return r of texts, (n,) float64."""
        variant = self.config.variant
        if variant == "retrieval":
            known = np.array([self.labels.get((text,), 0.0) for text in texts])
            return (
                known * (known > self._threshold)
                if self.config.soft_labels
                else (known > self._threshold).astype(float)
            )
        if variant == "embedding":
            cosines = np.array([self._likeness(text)[0] if text else 0.0 for text in texts])
            return cosines * (cosines > self._threshold)
        if self._network is None:
            return np.zeros(len(texts))
        raw = scores(self._network, texts).astype(np.float64)
        if variant == "classification":
            return (1 / (1 + np.exp(-raw)) > self._threshold).astype(float)
        mean, spread = self._normal
        normal = (raw - mean) / spread
        return normal * (normal > self._floor)

    def _likeness(self, text: str) -> tuple[float, int]:
        """Return the greatest cosine of a text with a goal, and which goal that is."""
        if text not in self._cosines:
            assert self._encoder is not None
            cosines = self._goals @ self._encoder.encode_texts([text])[0] if text else np.zeros(len(self._goals))
            self._cosines[text] = float(cosines.max()), int(cosines.argmax())
        return self._cosines[text]

    # Labels come in

    def refresh(self) -> None:
        """See `LearnedRewardModel.refresh`: offer the texts that were said, learn from the labels that have come."""
        if self.config.variant in ("embedding", "motif"):
            return
        if self._news:
            self._rounds += 1
            self._offer()
            self._news = set()
        if self.annotator is not None:
            self._take(dict(self.annotator.collect()))

    def _offer(self) -> None:
        items = self._pairs() if self.config.variant == "ranking" else self._singles()
        items = {item: priority for item, priority in items.items() if item not in self.labels}
        if self.annotator is not None:
            self.annotator.offer(items)
        elif self.table is not None:
            found = {item: self.table.label(item) for item in items}
            self._take({item: label for item, label in found.items() if label is not None})

    def _singles(self) -> dict[Item, float]:
        """Return texts that were said since the last refresh with how often they were ever, times how unsure r is."""
        keys = sorted(self._news)
        texts = [self._texts[key] for key in keys]
        unsure = np.ones(len(texts))
        if self._network is not None:
            p = 1 / (1 + np.exp(-scores(self._network, texts).astype(np.float64)))
            unsure = 4 * p * (1 - p)
        return {(text,): self._met[key] * float(u) for text, key, u in zip(texts, keys, unsure, strict=True)}

    def _pairs(self) -> dict[Item, float]:
        """Return pairs of texts: of four times as many as are asked for, those that are said and unsure the most."""
        keys = sorted(self._met)
        if len(keys) < 2:
            return {}
        rng = np.random.default_rng([self.seed, self._rounds])
        weights = np.array([self._met[key] for key in keys], dtype=np.float64)
        # The square root, or texts that are said at most steps would be all that is compared.
        chances = np.sqrt(weights) / np.sqrt(weights).sum()
        drawn = rng.choice(len(keys), size=(4 * self.config.pairs, 2), p=chances)
        unique = sorted({(min(i, j), max(i, j)) for i, j in drawn.tolist() if i != j})
        found = [(self._texts[keys[i]], self._texts[keys[j]]) for i, j in unique]
        unsure = np.ones(len(found))
        if self._network is not None and found:
            first, second = (scores(self._network, list(texts)) for texts in zip(*found, strict=True))
            p = 1 / (1 + np.exp(-(first - second).astype(np.float64)))
            unsure = 4 * p * (1 - p)
        rated = {
            item: float(np.sqrt(weights[i] * weights[j]) * u)
            for item, (i, j), u in zip(found, unique, unsure, strict=True)
            if item not in self.labels
        }
        best = sorted(rated, key=lambda item: -rated[item])[: self.config.pairs]
        return {item: rated[item] for item in best}

    def _take(self, labels: Mapping[Item, float]) -> None:
        """Take in labels; make a new version of r if they change it."""
        new = {item: label for item, label in labels.items() if item not in self.labels}
        if not new:
            return
        self.labels |= new
        if self.config.variant == "retrieval":
            self._renew()
        elif len(self.labels) >= max(LEAST_LABELS, GROWTH * self._learned_from):
            self._learn(self.labels)

    def _learn(self, labels: Mapping[Item, float]) -> None:
        """Train a new network on all labels, whatever the order in which they came."""
        config = self.config
        items = sorted(labels)
        targets = np.array([labels[item] for item in items], dtype=np.float32)
        whole = _lessons(items, targets)
        out = np.array([self._is_held_out(item) for item in items])
        learned, held_out = whole[np.flatnonzero(~out)], whole[np.flatnonzero(out)]
        if len(learned) == 0:
            return
        seed = int(np.random.SeedSequence([self.seed, self.version]).generate_state(1)[0])
        network = make_network(config.network, seed).to(self._device)
        self.metrics = train_network(
            network,
            learned,
            held_out,
            config.learning_rate,
            config.weight_decay,
            config.batch_size,
            config.gradient_steps,
            config.patience,
            seed,
        )
        self._network, self._learned_from = network, len(labels)
        self.metrics |= {"labels": float(len(labels)), "held_out": float(len(held_out))} | _agreement(network, held_out)
        if config.variant != "classification":
            self._normalise(items)
        self._renew()

    def _normalise(self, items: list[Item]) -> None:
        """Fix mean and spread of the scores, and what is rewarded.

        For `ranking` over all texts that were said, each as often as it was: the running mean and spread of ONI, but
        all of it by one network. For `motif` over the texts of the comparisons.
        """
        assert self._network is not None
        counts = Counter(text for item in items for text in item)
        if self.config.variant == "ranking":
            counts = Counter({self._texts[key]: count for key, count in self._met.items()}) or counts
        texts = sorted(counts)
        raw = scores(self._network, texts).astype(np.float64)
        weights = np.array([counts[text] for text in texts], dtype=np.float64)
        mean = float(np.average(raw, weights=weights))
        spread = float(np.sqrt(np.average((raw - mean) ** 2, weights=weights)))
        self._normal = mean, spread if spread > 1e-6 else 1.0
        self._floor = self._threshold
        if self.config.variant == "motif":
            self._floor = float(np.quantile((raw - mean) / self._normal[1], self._threshold))

    def _is_held_out(self, item: Item) -> bool:
        """Whether nothing learns from an item: by its texts, so that it is the same in every run and at every time."""
        total = sum(text_keys(list(item)).tolist())
        return total % HELD_OUT_STEPS < self.config.held_out * HELD_OUT_STEPS

    def _renew(self) -> None:
        self.version += 1
        self._opinions = {}

    # What is kept

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint must hold."""
        return {
            **self._known(),
            "texts": dict(self._texts),
            "met": dict(self._met),
            "news": set(self._news),
            "rounds": self._rounds,
            "weights": self._weights(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._texts, self._met = dict(state["texts"]), Counter(state["met"])
        self._news, self._rounds = set(state["news"]), state["rounds"]
        self._restore(state, state["weights"])

    def save(self, path: Path) -> None:
        """Write labels and network, a safetensors file."""
        known = self._known()
        known["labels"] = [[list(item), label] for item, label in known["labels"].items()]
        save_file(self._weights(), path, {"oni": json.dumps(known)})

    def load(self, path: Path) -> OniReward:
        """Read what `save` wrote.

        Raises:
            UserError: The file is not there, or none of these, or it is of another variant or network.
        """
        try:
            with safe_open(path, framework="pt") as file:
                known = json.loads((file.metadata() or {})["oni"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(
                f"'{path}' holds no reward that was learned from labels of texts ({error}). A run with reward=oni "
                "writes one, reward_model.safetensors."
            ) from error
        known["labels"] = {tuple(item): label for item, label in known["labels"]}
        self._restore(known, weights)
        return self

    def label_table(self) -> LabelTable | None:
        """Return the labels of single texts as a table that another run can be given; None where there are none."""
        labels = {item[0]: label for item, label in self.labels.items() if len(item) == 1}
        if not labels:
            return None
        if self.table is not None:
            return replace(self.table, labels=labels)
        goal = "; ".join(self.words.goal) if self.words is not None else PROGRESS
        return LabelTable("", goal, self.config.about, labels)

    def _known(self) -> dict[str, Any]:
        return {
            "variant": self.config.variant,
            "network": self.config.network,
            "version": self.version,
            "labels": dict(self.labels),
            "normal": list(self._normal),
            "floor": self._floor,
            "learned_from": self._learned_from,
            "metrics": dict(self.metrics),
        }

    def _weights(self) -> dict[str, torch.Tensor]:
        state = self._network.state_dict() if self._network is not None else {}
        return {name: value.cpu().contiguous() for name, value in state.items()}

    def _restore(self, known: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        for key in ("variant", "network"):
            if known[key] != getattr(self.config, key):
                raise UserError(
                    f"This reward was learned with reward.{key}={known[key]}, and the settings say "
                    f"reward.{key}={getattr(self.config, key)}. Give the one that it was learned with."
                )
        self.version, self.labels = known["version"], dict(known["labels"])
        self._normal, self._floor = (known["normal"][0], known["normal"][1]), known["floor"]
        self._learned_from, self.metrics = known["learned_from"], dict(known["metrics"])
        self._opinions = {}
        self._network = None
        if weights:
            self._network = make_network(self.config.network, 0).to(self._device)
            self._network.load_state_dict(weights)
            self._network.eval()


def _lessons(items: list[Item], targets: np.ndarray) -> Lessons:
    pairs = bool(items) and len(items[0]) == 2
    return Lessons(tuple(item[0] for item in items), tuple(item[1] for item in items) if pairs else None, targets)


@torch.no_grad()
def _agreement(network: nn.Module, held_out: Lessons) -> dict[str, float]:
    """Return how well a network tells labels that it has not learned from; {} where none decides."""
    decided = held_out[np.flatnonzero(held_out.targets != 0.5)]
    if len(decided) == 0:
        return {}
    network.eval()
    probabilities = 1 / (1 + np.exp(-decided.log_odds(network).cpu().numpy().astype(np.float64)))
    return calibration(probabilities, decided.targets > 0.5)


@dataclass(frozen=True)
class OniConfig:
    """Settings of `reward=oni`; `configs/reward/oni.yaml` says what each means.

    Raises:
        UserError: They contradict each other.
    """

    variant: Variant = "retrieval"
    extrinsic_coef: Annotated[float, Range(0)] = 1.0
    intrinsic_coef: Annotated[float, Range(0)] = 0.1
    beta: Annotated[float, Range(0)] = 3.0
    threshold: float | None = None
    soft_labels: bool = False
    labels: Literal["recorded", "judge"] = "recorded"
    table: str = ""
    preferences: str = ""
    about: str = ""
    prompt: PromptName = "word"
    selection: Selection = "frequency_uncertainty"
    queue_size: Count = 1000
    attempts: Count = 3
    pairs: Count = 32
    interact: Count = 5000
    network: TextNetworkName = "bag"
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Range(0)] = 0.01
    batch_size: Count = 128
    gradient_steps: Count = 400
    patience: Count = 100
    held_out: Annotated[float, Range(0, 0.5)] = 0.2
    weights: str = ""

    learns_from: ClassVar[str] = "texts"
    at_collection: ClassVar[bool] = True  # a worker can reward a step as it takes it, by scores

    def __post_init__(self) -> None:
        if self.extrinsic_coef == 0 and self.intrinsic_coef == 0:
            raise UserError("reward.extrinsic_coef and reward.intrinsic_coef are both 0: every reward would be 0.")
        if self.variant == "motif" and not self.preferences:
            raise UserError(
                "reward.variant=motif learns from comparisons that were made before: reward.preferences=<file>, lines "
                'of JSON {"first": "...", "second": "...", "better": "first" | "second" | "equal"}.'
            )
        if self.threshold is not None and self.variant != "ranking" and not 0 <= self.threshold <= 1:
            raise UserError(
                f"reward.threshold={self.threshold:g}; for reward.variant={self.variant} it is 0 to 1, for ranking a "
                "z-score."
            )

    @property
    def not_at_collection(self) -> str:
        """Why a worker cannot reward the steps that it takes, in words; empty where it can."""
        if self.variant == "embedding":
            return "reward.variant=embedding counts the goals that were reached in an episode, and not its texts"
        return ""

    @property
    def asks_judge(self) -> bool:
        """Whether a judge is asked while the agent learns."""
        return self.labels == "judge" and self.variant not in ("embedding", "motif")

    @property
    def uses_encoder(self) -> bool:
        """Whether the encoder's text tower is needed."""
        return self.variant == "embedding"

    @property
    def uses_words(self) -> bool:
        """Whether it is made of sentences: recorded labels and preferences were given for theirs."""
        return self.asks_judge or self.variant == "embedding"

    def build(self, words: Words | None, encoder: Encoder | None) -> OniReward:
        """Make the reward model, with the labels that are known.

        Raises:
            UserError: There are none for this environment, or a file cannot be read.
        """
        table = None
        if self.labels == "recorded" and self.variant not in ("embedding", "motif") and not self.weights:
            table = find_table(self.table)
        if self.variant == "embedding":
            encoder = or_embedded(encoder)
            if words is None:
                raise UserError("reward.variant=embedding compares texts with a goal: goal='...', or a task.")
        model = OniReward(self, words, encoder, table)
        return model.load(Path(self.weights)) if self.weights else model
