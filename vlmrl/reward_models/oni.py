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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from vlmrl.encoders.base import Encoder
from vlmrl.errors import UserError
from vlmrl.reward_models.base import Words, or_embedded
from vlmrl.reward_models.fitted import read_learned
from vlmrl.reward_models.oni_annotator import Annotator
from vlmrl.reward_models.oni_goals import Goals
from vlmrl.reward_models.oni_labels import PROGRESS, Item, LabelTable, find_table
from vlmrl.reward_models.oni_learner import TextLearner
from vlmrl.reward_models.oni_preferences import read_preferences
from vlmrl.reward_models.oni_selection import pairs_of_texts, single_texts
from vlmrl.reward_models.oni_settings import THRESHOLDS, OniSettings
from vlmrl.rows import Row, RowKey, Rows, text_keys


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
        config: OniSettings,
        words: Words | None = None,
        encoder: Encoder | None = None,
        table: LabelTable | None = None,
    ):
        self.config, self.words, self.table = config, words, table
        self.version = 0
        self.labels: dict[Item, float] = {}
        self.annotator: Annotator | None = None
        self.seed = 0
        self._threshold = THRESHOLDS[config.variant] if config.threshold is None else config.threshold
        self._texts: dict[int, str] = {}  # by key: what a buffer keeps of a text
        self._met: Counter[int] = Counter()  # how often each was said
        self._news: set[int] = set()  # keys of texts that were said since the last refresh
        self._rounds = 0  # refreshes with news
        self._opinions: dict[int, float] = {}  # r of the current version
        self._learner = TextLearner(config.network, config.training)
        self._floor = -np.inf  # least normal score that is rewarded
        self._sums: Counter[str] = Counter()
        self._goals: Goals | None = None
        if config.variant == "embedding":
            assert words is not None and encoder is not None
            self._goals = Goals(words.goal, encoder, self._threshold)
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
        self._learner.to(device)
        return self

    @property
    def metrics(self) -> dict[str, float]:
        """Of the newest network, see `TextLearner.metrics`; {} where there is none."""
        return self._learner.metrics

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
        times = self._goals.times_achieved(key, row.text) if self._goals is not None else None
        return row if times is None else replace(row, text_count=times)

    def note(self, said: Mapping[str, int]) -> None:
        """Take note of what was said, {text: how often}; `refresh` offers it to whoever labels."""
        texts = [text for text in said if text]  # to say nothing is no message
        for text, key in zip(texts, text_keys(texts).tolist(), strict=True):
            self._texts[key] = text
            self._met[key] += said[text]
            self._news.add(key)

    # Rewards go out

    def __call__(self, rows: Rows) -> np.ndarray:
        """Return (n,) float32, the sum that this module begins with."""
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
        if self._goals is not None:
            cosines = self._goals.cosines(texts)
            return cosines * (cosines > self._threshold)
        if self._learner.network is None:
            return np.zeros(len(texts))
        if variant == "classification":
            return (self._learner.probabilities(texts) > self._threshold).astype(float)
        normal = self._learner.normal_scores(texts)
        return normal * (normal > self._floor)

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
        if self.config.variant == "ranking":
            rng = np.random.default_rng([self.seed, self._rounds])
            said = self._said(sorted(self._met))
            items = pairs_of_texts(said, self.labels, self.config.pairs, self._learner, rng)
        else:
            items = single_texts(self._said(sorted(self._news)), self._learner)
        items = {item: priority for item, priority in items.items() if item not in self.labels}
        if self.annotator is not None:
            self.annotator.offer(items)
        elif self.table is not None:
            found = {item: self.table.label(item) for item in items}
            self._take({item: label for item, label in found.items() if label is not None})

    def _said(self, keys: list[int]) -> dict[str, int]:
        """Return {text: how often it was said so far} of texts by their keys."""
        return {self._texts[key]: self._met[key] for key in keys}

    def _take(self, labels: Mapping[Item, float]) -> None:
        """Take in labels; make a new version of r if they change it."""
        new = {item: label for item, label in labels.items() if item not in self.labels}
        if not new:
            return
        self.labels |= new
        if self.config.variant == "retrieval":
            self._renew()
        elif self._learner.is_due(len(self.labels)):
            self._learn(self.labels)

    def _learn(self, labels: Mapping[Item, float]) -> None:
        """Train a new network, and make a new version of r of it."""
        seed = int(np.random.SeedSequence([self.seed, self.version]).generate_state(1)[0])
        if not self._learner.learn(labels, seed):
            return
        if self.config.variant != "classification":
            self._normalise(labels)
        self._renew()

    def _normalise(self, items: Iterable[Item]) -> None:
        """Fix mean and spread of the scores, and what is rewarded.

        For `ranking` over all texts that were said, each as often as it was: the running mean and spread of ONI, but
        all of it by one network. For `motif` over the texts of the comparisons.
        """
        counts = Counter(text for item in items for text in item)
        if self.config.variant == "ranking":
            counts = Counter(self._said(list(self._met))) or counts
        self._learner.normalise(counts)
        self._floor = self._threshold
        if self.config.variant == "motif":
            self._floor = float(np.quantile(self._learner.normal_scores(sorted(counts)), self._threshold))

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
            "weights": self._learner.weights(),
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
        save_file(self._learner.weights(), path, {"oni": json.dumps(known)})

    def load(self, path: Path) -> OniReward:
        """Read what `save` wrote.

        Raises:
            UserError: The file is not there, or none of these, or it is of another variant or network.
        """
        known, weights = read_learned(path, "oni", "labels of texts")
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
            "floor": self._floor,
            **self._learner.known(),
        }

    def _restore(self, known: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        for key in ("variant", "network"):
            if known[key] != getattr(self.config, key):
                raise UserError(
                    f"This reward was learned with reward.{key}={known[key]}, and the settings say "
                    f"reward.{key}={getattr(self.config, key)}. Give the one that it was learned with."
                )
        self.version, self.labels = known["version"], dict(known["labels"])
        self._floor, self._opinions = known["floor"], {}
        self._learner.restore(known, weights)


@dataclass(frozen=True)
class OniConfig(OniSettings):
    """Settings of `reward=oni`, which make it."""

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
