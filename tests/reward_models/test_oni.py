"""What each variant of `reward=oni` comes to, to the number, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmrl.errors import UserError
from vlmrl.judges.base import Answer
from vlmrl.judges.prompts import Unreadable
from vlmrl.reward_models.base import Words
from vlmrl.reward_models.oni import OniConfig, OniReward
from vlmrl.reward_models.oni_labels import (
    RECORDED,
    LabelQuestions,
    LabelTable,
    find_table,
    prompt_digest,
    read_table,
    recorded_tables,
)
from vlmrl.reward_models.oni_networks import make_network, scores
from vlmrl.rows import Row, RowKey, Rows, text_keys

LABELS = {"you find a key": 1.0, "a wall is in your way": 0.0, "you open the door": 1.0, "maybe": 0.6}


def table(labels: dict[str, float] = LABELS, **settings: str) -> LabelTable:
    return LabelTable("test", "get out", "a toy", labels, **settings)


def rows(texts: list[str], counts: list[int], rewards: list[float]) -> Rows:
    columns = {"text": texts, "text_count": np.array(counts), "native_reward": np.array(rewards)}
    return Rows(np.arange(1, len(texts) + 1), columns)


def model(config: OniConfig, labels: dict[str, float] = LABELS, **parts: Any) -> OniReward:
    return OniReward(config, table=table(labels), **parts)


TEXTS = ["you find a key", "a wall is in your way", "you find a key", "nobody knows this", "", "maybe"]
COUNTS = [1, 1, 2, 1, 7, 3]
REWARDS = [0.0, -1.0, 0.0, 2.0, 0.0, 0.0]


def test_retrieval_is_the_label_over_its_count_beside_the_environments_own_reward() -> None:
    reward = model(OniConfig(extrinsic_coef=0.5, intrinsic_coef=0.1, beta=3))
    given_rows = rows(TEXTS, COUNTS, REWARDS)
    np.testing.assert_allclose(reward(given_rows), [0.1, -0.5, 0.1 / 8, 1.0, 0.0, 0.1 / 27], atol=1e-7)
    means = reward.pop_stats()
    assert means == pytest.approx(
        {"extrinsic": 0.5 / 6, "intrinsic": (0.1 + 0.1 / 8 + 0.1 / 27) / 6, "labelled_share": 4 / 6}
    )
    assert reward.pop_stats() == {}
    soft = model(OniConfig(intrinsic_coef=1, beta=0, soft_labels=True))
    np.testing.assert_allclose(soft(given_rows) - REWARDS, [1, 0, 1, 0, 0, 0.6], atol=1e-7)
    strict = model(OniConfig(intrinsic_coef=1, beta=0, soft_labels=True, threshold=0.7))
    np.testing.assert_allclose(strict(given_rows) - REWARDS, [1, 0, 1, 0, 0, 0], atol=1e-7)


@given(count=st.integers(1, 10_000), beta=st.floats(0, 4), coef=st.floats(0.01, 10))
def test_what_is_said_again_counts_less_by_a_power(count: int, beta: float, coef: float) -> None:
    reward = model(OniConfig(extrinsic_coef=0, intrinsic_coef=coef, beta=beta))
    (value,) = reward(rows(["you find a key"], [count], [5.0]))
    assert value == pytest.approx(coef / count**beta, rel=1e-5)


def set_scores(reward: OniReward, by_text: dict[str, float]) -> None:
    """Replace the network by one with known scores; normalisation and threshold stay the model's own."""

    class Known(torch.nn.Module):
        def forward(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([by_text[text] for text in texts])

    reward._learner.network = Known()
    reward._opinions = {}


def test_classification_is_one_above_the_threshold() -> None:
    reward = model(OniConfig(variant="classification", extrinsic_coef=0, intrinsic_coef=1, beta=1, threshold=0.7))
    # Probabilities 0.731, 0.5, 0.622, 0.881.
    set_scores(reward, {"a": 1.0, "b": 0.0, "c": 0.5, "d": 2.0, "": 9.0})
    values = reward(rows(["a", "b", "c", "d", ""], [1, 1, 1, 2, 1], [0.0] * 5))
    np.testing.assert_allclose(values, [1, 0, 0, 0.5, 0])


def test_ranking_is_normalised_over_what_was_said_then_cut_off_then_counted() -> None:
    reward = model(OniConfig(variant="ranking", extrinsic_coef=1, intrinsic_coef=0.2, beta=2))
    # Weighted by how often they were said, "a" 1, "b" 2, "c" 1: mean 0, spread sqrt((9 + 2 * 1 + 1) / 4) = sqrt(3).
    reward.note({"a": 1, "b": 2, "c": 1})
    set_scores(reward, {"a": 13.0, "b": 9.0, "c": 9.0, "d": 9.5})
    reward._normalise([("a", "b")])
    mean, spread = reward._learner.normal
    assert mean == pytest.approx(10) and spread == pytest.approx(np.sqrt(3))
    # z: 1.732, -0.577 (cut off at -0.5), -0.577, -0.289 (kept, though negative).
    values = reward(rows(["a", "b", "d", "a"], [1, 1, 1, 2], [0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(
        values, [0.2 * np.sqrt(3), 1.0, 0.2 * -0.5 / np.sqrt(3), 0.2 * np.sqrt(3) / 4], rtol=1e-5
    )


def test_motif_learns_from_a_file_before_and_rewards_the_better_half(tmp_path: Path) -> None:
    order = ["you die", "a wall", "you see a newt", "you find gold", "you kill the newt", "you go down"]
    lines = [
        {"first": a, "second": b, "better": "first" if order.index(a) > order.index(b) else "second"}
        for a in order
        for b in order
        if a != b
    ]
    file = tmp_path / "preferences.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines * 3))
    config = OniConfig(
        variant="motif",
        preferences=str(file),
        extrinsic_coef=0,
        intrinsic_coef=1,
        beta=0,
        held_out=0,
        gradient_steps=150,
    )
    reward = config.build(None, None)
    assert reward.version == 1
    network = reward._learner.network
    assert network is not None
    raw = scores(network, order)
    assert list(np.argsort(raw)) == [0, 1, 2, 3, 4, 5]
    normal = (raw - raw.mean()) / raw.std()  # each text is in as many pairs as any other
    expected = np.where(normal > np.quantile(normal, 0.5), normal, 0)
    np.testing.assert_allclose(reward(rows(order, [1] * 6, [0.0] * 6)), expected, atol=1e-5)
    assert (expected > 0).sum() == 3
    reward.refresh()
    assert reward.version == 1

    file.write_text('{"first": "a", "second": "b", "better": "left"}')
    with pytest.raises(UserError, match="line 1 of .* is no comparison"):
        config.build(None, None)
    with pytest.raises(UserError, match="reward.preferences=<file>"):
        OniConfig(variant="motif")


class ColourEncoder:
    """Embeds a text by the colours in it."""

    name = "colours"

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        found = np.array([[c in text for c in ("red", "green", "blue")] + [True] for text in texts], dtype=np.float32)
        found[:, 3] = 0.2
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_embedding_is_the_cosine_once_a_goal_and_episode() -> None:
    config = OniConfig(variant="embedding", threshold=0.9, extrinsic_coef=0, intrinsic_coef=2)
    encoder: Any = ColourEncoder()
    reward = OniReward(config, Words(("a red thing", "a blue thing")), encoder)

    def play(env: int, episode: int, texts: list[str]) -> list[float]:
        counts = []
        for t, text in enumerate(texts, start=1):
            said = Row(text=text, text_count=texts[:t].count(text), native_reward=0.0)
            counts.append(reward.prepare(RowKey(env, episode, t), said).text_count)
        return reward(rows(texts, counts, [0.0] * len(texts))).tolist()  # type: ignore[arg-type]

    both = float(encoder.encode_texts(["red"])[0] @ encoder.encode_texts(["red green"])[0])
    assert both < 0.9
    texts = ["red ball", "red box", "red and green", "green", "blue key", "red ball", ""]
    assert play(0, 0, texts) == pytest.approx([2, 0, 0, 0, 2, 0, 0])  # the red box is the red goal again
    assert play(1, 0, ["red box"]) == pytest.approx([2])  # another environment
    assert play(0, 1, ["blue box"]) == pytest.approx([2])  # another episode


def test_a_network_tells_labels_that_it_has_not_seen() -> None:
    learned = OniConfig(variant="classification", table="nethack").build(None, None)
    assert learned.version == 1
    assert learned.metrics["held_out"] > 200
    assert learned.metrics["accuracy"] > 0.85
    # Not in the table, in any form.
    assert learned.opinion("You kill the werewolf!") == 1
    assert learned.opinion("The kitten drops a leather belt.") == 0


@pytest.mark.parametrize("network", ["bag", "char_cnn"])
def test_networks_do_not_depend_on_what_is_read_beside(network: Any) -> None:
    made = make_network(network, 3)
    texts = ["You see here a key.", "", "é" * 300, "a wall"]
    whole = scores(made, texts)
    np.testing.assert_allclose(whole, [scores(made, [text])[0] for text in texts], atol=1e-5)
    np.testing.assert_array_equal(whole, scores(make_network(network, 3), texts))
    assert abs(whole - scores(make_network(network, 4), texts)).min() > 0


def test_the_same_labels_make_the_same_network_whatever_their_order() -> None:
    some = dict(list(find_table("minigrid").labels.items())[::7])
    config = OniConfig(variant="classification", gradient_steps=20)
    first = model(config, some)
    state = np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]
    second = model(config, dict(reversed(some.items())))
    assert np.random.get_state()[1].tolist() == state[0]  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state[1])
    for name, value in first._learner.weights().items():
        assert torch.equal(value, second._learner.weights()[name]), name


@pytest.mark.parametrize("variant", ["retrieval", "classification", "ranking"])
def test_what_was_learned_is_saved_and_read(variant: Any, tmp_path: Path) -> None:
    config = OniConfig(variant=variant, gradient_steps=60, pairs=16, held_out=0.1)
    whole = find_table("minigrid")
    learned = OniReward(config, table=whole)
    texts = list(whole.labels)[::9]
    learned.note(dict.fromkeys(texts, 1))
    learned.refresh()
    assert learned.version >= 1
    learned.save(tmp_path / "reward_model.safetensors")
    read = OniConfig(variant=variant, weights=str(tmp_path / "reward_model.safetensors")).build(None, None)
    assert read.version == learned.version and read.labels == learned.labels
    np.testing.assert_array_equal(read.opinions(texts), learned.opinions(texts))
    assert np.ptp(learned.opinions(texts)) > 0

    resumed = OniReward(config, table=whole)
    resumed.load_state_dict(learned.state_dict())
    for each in (learned, resumed):
        each.note({"you see a purple key; you see lava": 2})
        each.refresh()
    assert resumed.version == learned.version
    np.testing.assert_array_equal(resumed.opinions(texts), learned.opinions(texts))
    other: Any = "retrieval" if variant != "retrieval" else "ranking"
    with pytest.raises(UserError, match=f"reward.variant={variant}"):
        OniConfig(variant=other, weights=str(tmp_path / "reward_model.safetensors")).build(None, None)
    with pytest.raises(UserError, match="holds no reward model that was learned from labels"):
        OniConfig(weights=str(tmp_path / "nothing")).build(None, None)


def test_rewards_of_texts_that_are_kept_are_those_of_the_texts() -> None:
    reward = model(OniConfig())
    fresh = rows(TEXTS, COUNTS, REWARDS)
    first = reward(fresh)
    kept = fresh.arrays(reward.retains)
    assert kept["text"].dtype == np.uint64
    np.testing.assert_array_equal(reward(Rows.from_arrays(kept)), first)
    reward._take({("nobody knows this",): 1.0})
    assert reward(Rows.from_arrays(kept))[3] == pytest.approx(first[3] + 0.1)
    assert len(set(text_keys(TEXTS).tolist())) == 5


def test_texts_of_several_sentences_are_known_by_them() -> None:
    known = table(joined_by="; ", context="mission: ")
    assert known.label_of("you find a key; a wall is in your way") == 1
    assert known.label_of("a wall is in your way; nobody knows") is None
    assert known.label_of("you find a key; nobody knows") == 1
    assert known.label_of("a wall is in your way; a wall is in your way") == 0
    mission = table({"mission: go; you go": 1.0, "you go": 0.0}, joined_by="; ", context="mission: ")
    assert mission.label_of("mission: go; you go; a bird sings") == 1
    assert mission.label_of("mission: stay; you go") is None
    assert table().label_of("you find a key; you find a key") is None
    assert known.label(("you find a key", "a wall is in your way")) == 1
    assert known.label(("maybe", "you find a key")) == pytest.approx(0.3)
    assert known.label(("maybe", "what")) is None


def test_tables_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    model(OniConfig()).label_table().save(path)  # type: ignore[union-attr]
    assert dict(find_table(str(path)).labels) == LABELS
    for text in ("[]", '{"goal": "g", "about": "a", "helpful": []}', '{"goal": "g", "about": "a", "soft": {"x": 2}}'):
        path.write_text(text)
        with pytest.raises(UserError, match="reward.table"):
            read_table(path)
    with pytest.raises(UserError, match="no labels come with the suite for 'cartpole'; for babyai"):
        OniConfig(table="cartpole").build(None, None)
    with pytest.raises(UserError, match="reward.table: there is no file 'labels.jsn'. A run"):
        OniConfig(table="labels.jsn").build(None, None)
    with pytest.raises(UserError, match="are both 0"):
        OniConfig(extrinsic_coef=0, intrinsic_coef=0)
    with pytest.raises(UserError, match="reward.threshold=3"):
        OniConfig(threshold=3)


def test_recorded_labels_are_answers_to_the_suites_own_question() -> None:
    index = json.loads(RECORDED.joinpath("index.json").read_text())
    assert {entry["file"] for entry in index} == set(recorded_tables().values())
    for entry in index:
        recorded = read_table(RECORDED / entry["file"])
        assert prompt_digest(recorded.goal, recorded.about) == entry["prompt"], entry["file"]
        values = json.loads((RECORDED / entry["file"]).read_text())
        assert len(recorded.labels) == sum(len(values[kind]) for kind in ("helpful", "other", "soft"))  # none twice
        assert "" not in recorded.labels


def test_a_word_or_a_line_is_read_as_a_probability() -> None:
    asked = LabelQuestions("get out", "a toy")
    assert asked.question(("a",)).choices == ("yes", "no")
    chances = {"yes": float(np.log(0.3)), "no": float(np.log(0.1))}
    assert asked.read(("a",), Answer(None, ("yes",), logprobs=chances)) == pytest.approx(0.75)
    assert asked.read(("a",), Answer(None, ("no",), logprobs={"yes": -1.0})) == 0
    thirds = dict.fromkeys(("1", "2", "equal"), float(np.log(1 / 3)))
    assert asked.read(("a", "b"), Answer(None, ("1",), logprobs=thirds)) == pytest.approx(0.5)
    assert asked.question(("a",)).digest() != asked.question(("a",), 1).digest()
    reasoned = LabelQuestions("get out", "a toy", "reason")
    assert not reasoned.question(("a",)).choices
    reply = "Keys open doors.\nLabel: no, one would think.\n**label: Yes.**"
    assert reasoned.read(("a",), Answer(None, (reply,))) == 1
    assert reasoned.read(("a", "b"), Answer(None, ("Both are the same.\nlabel: equal",))) == 0.5
    for babble in ("lovely weather", "label: maybe", "yes"):
        with pytest.raises(Unreadable):
            reasoned.read(("a",), Answer(None, (babble,)))
