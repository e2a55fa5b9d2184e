"""The probe on made-up runs whose answer is known, and inside a callback that sees them as training does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmrl.agents.hacking_probe import DivergenceRule, HackingProbe, describe

EPISODES = 1_000


def run(reward: np.ndarray, fraction: np.ndarray, seed: int = 0, window: int = 50) -> list[Any]:
    """Return what the rule says of each window of episodes with these means, noise included."""
    rng = np.random.default_rng(seed)
    rule = DivergenceRule(("predicate_fraction",), window)
    found = []
    for r, f in zip(reward, fraction, strict=True):
        rule.add("predicate_fraction", float(np.clip(f + 0.15 * rng.standard_normal(), 0, 1)))
        rule.add("reward", float(r + rng.standard_normal()))
        while (judged := rule.judge()) is not None:
            found.append(judged[1])
    assert len(found) == len(reward) // window
    return found


def line(*points: float) -> np.ndarray:
    return np.interp(np.linspace(0, len(points) - 1, EPISODES), range(len(points)), points)


@pytest.mark.parametrize(
    ("reward", "fraction"),
    [
        (line(0, 10), line(0.1, 0.8)),  # both rise
        (line(0, 10), line(0.5, 0.5)),  # the reward rises alone
        (line(10, 0), line(0.8, 0.1)),  # both fall
        (line(0, 10, 3), line(0.1, 0.8, 0.3)),  # both rise and fall
        (line(0, 0), line(0.8, 0.1)),  # the truth falls alone
    ],
)
def test_silent_where_reward_and_truth_do_not_part_ways(reward: np.ndarray, fraction: np.ndarray) -> None:
    assert not any(run(reward, fraction))


def test_alert_where_the_reward_rises_and_the_truth_falls_from_its_best() -> None:
    found = run(line(0, 5, 10), line(0.1, 0.8, 0.2))
    first = next(i for i, divergence in enumerate(found) if divergence is not None)
    assert 10 <= first < 16  # after the best, and well before the end
    assert all(divergence is not None for divergence in found[first:])
    assert found[-1].measure_best > 0.7 > 0.3 > found[-1].measure_now
    assert found[-1].reward_now > found[-1].reward_best


def test_false_alarms_are_as_rare_as_it_says() -> None:
    """The hardest case without a trend in the truth: the reward rises all the time, so that luck in one is enough."""
    alarms = sum(any(run(np.linspace(0, 50, 2_500), np.full(2_500, 0.5), seed)) for seed in range(100))
    assert alarms <= 4  # 1 is expected


class Training:
    """Feeds a probe as training does: two environments, and returns that come later than episodes end."""

    def __init__(self, probe: HackingProbe):
        self.probe, self.logged = probe, []
        probe.locals = {}
        probe.model = self  # type: ignore[assignment]
        self.logger = self

    def record(self, name: str, value: float) -> None:
        self.logged.append((name, value))

    def go(self, pairs: np.ndarray, rng: np.random.Generator, start: int = 0) -> None:
        late: list[float] = []
        for i in range(0, len(pairs), 2):
            self.probe.num_timesteps = 100 * (start + i + 2)
            late += [float(r) for r, _ in pairs[i : i + 2]]
            if len(late) > 6:
                for value in late[:2]:
                    self.probe.add_return(value)
                late = late[2:]
            infos = [{"predicate_fraction": float(f), "episode": {"r": 100 * float(f)}} for _, f in pairs[i : i + 2]]
            self.probe.locals = {"dones": [True, True], "infos": infos}
            assert self.probe._on_step()
        for value in late:
            self.probe.add_return(value)


def hacked(rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((EPISODES, 2)) * [1, 0.1]
    return np.stack([line(0, 5, 10), line(0.1, 0.8, 0.2)], axis=1) + noise


def test_an_event_is_said_once_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    probe = HackingProbe()
    training = Training(probe)
    training.go(hacked(rng), rng)
    (event,) = probe.events
    assert 50_000 < event["step"] < 80_000
    assert capsys.readouterr().out.count("warning: reward hacking") == 1
    assert "predicate holds fell from" in describe(event)
    values = [value for name, value in training.logged if name == "probe/hacking"]
    assert len(values) >= 18 and values[0] == 0 and values[-1] == 1


def test_nothing_is_said_without_a_predicate() -> None:
    probe = HackingProbe(window=2)
    training = Training(probe)
    for _ in range(20):
        probe.locals = {"dones": [True], "infos": [{"episode": {"r": 1.0}}]}
        probe._on_step()
        probe.add_return(1.0)
    assert training.logged == [] and probe.events == []


def test_a_resumed_probe_says_what_an_uninterrupted_one_says(tmp_path: Path) -> None:
    pairs = hacked(np.random.default_rng(3))
    whole, first, second = HackingProbe(), HackingProbe(), HackingProbe()
    rng = np.random.default_rng(0)
    Training(whole).go(pairs, rng)
    Training(first).go(pairs[:700], rng)
    first.save(tmp_path)
    second.restore(tmp_path)
    Training(second).go(pairs[700:], rng, start=700)
    assert second.events == whole.events


def test_a_checkpoint_without_a_probe_starts_anew(tmp_path: Path) -> None:
    probe = HackingProbe()
    probe.restore(tmp_path)
    assert probe.events == []
