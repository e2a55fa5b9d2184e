"""A pass of Ray Data stores what one process would have stored, whatever happens to its machines."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minari
import pytest

from tests.datasets.recordings import episode, write
from tests.workflows.relabel.toys import settings, with_still_pictures
from vlmrl.datasets.base import Frames
from vlmrl.errors import UserError
from vlmrl.workflows.relabel import ray_pass
from vlmrl.workflows.relabel.run import relabel

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data", reason="needs vlmrl[ray]", exc_type=ImportError)

pytestmark = pytest.mark.slow

RAY = ["scorer=ray", "scorer.replicas=2", "scorer.num_cpus=1", "scorer.batch_size=2"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and two nodes with a core each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    root = str(Path(__file__).parents[3])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])  # actors build the toys, too
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def stored(folder: str) -> tuple[dict[bytes, bytes], list[tuple[Any, ...]]]:
    """Everything that a store holds: embeddings, and which pictures an episode has."""
    with sqlite3.connect(f"{folder}/0.sqlite") as embeddings, sqlite3.connect(f"{folder}/frames.sqlite") as frames:
        return (
            dict(embeddings.execute("SELECT digest, vector FROM embeddings")),
            frames.execute("SELECT camera, episode, digests FROM frames ORDER BY camera, episode").fetchall(),
        )


def rewards(name: str) -> list[bytes]:
    return [one.rewards.tobytes() for one in minari.load_dataset(name)]


@pytest.mark.parametrize("how", [["score_every=1"], ["score_every=3", "between=interpolate"]])
def test_two_nodes_store_what_one_process_stores(cluster: Any, how: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Most episodes share pictures with the one before, so that what is encoded together depends on their order.
    write("minari", "a-v0", [with_still_pictures(number) for number in range(5)] + [episode(6), episode(7, 3)])
    relabel(settings("dataset=a-v0", "out=b-v0", "scorer.batch_size=2", "scorer.store=one", *how))
    sent = spy(monkeypatch)
    decoded: list[int] = []
    plainly = Frames.__iter__
    monkeypatch.setattr(Frames, "__iter__", lambda self: (decoded.append(1), plainly(self))[1])
    relabel(settings("dataset=a-v0", "out=c-v0", "scorer.store=two", *RAY, *how))
    assert not decoded  # here
    assert sent[0] == [0, 1, 2, 3, 4, 5, 6] and len(sent) == 2 and 0 < len(sent[1]) < 5
    assert stored("one") == stored("two")
    assert rewards("b-v0") == rewards("c-v0")
    relabel(settings("dataset=a-v0", "out=d-v0", "scorer.store=two", "goal=be very bright", *RAY, *how))
    assert len(sent) == 2  # a second prompt sends nothing


def spy(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return what will hold the numbers of the episodes of each pass."""
    sent: list[list[int]] = []
    plainly = ray_pass._RayData.encode

    def encode(self: Any, episodes: Any) -> Any:
        if episodes:
            sent.append(list(episodes))
        return plainly(self, episodes)

    monkeypatch.setattr(ray_pass._RayData, "encode", encode)
    return sent


def test_what_was_stored_before_it_was_killed_is_not_sent_again(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write("minari", "a-v0", [with_still_pictures(number) for number in range(4)] + [episode(6)])
    relabel(settings("dataset=a-v0", "out=b-v0", "scorer.batch_size=2", "scorer.store=one"))
    plainly, kept = ray_pass.Passed.write, []

    def write_twice(self: Any, *arguments: Any) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(arguments[2])
        plainly(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(ray_pass.Passed, "write", write_twice)
        relabel(settings("dataset=a-v0", "out=c-v0", "scorer.store=two", *RAY))
    sent = spy(monkeypatch)
    relabel(settings("dataset=a-v0", "out=c-v0", "scorer.store=two", *RAY))
    assert kept and sent[0] == [i for i in range(5) if i not in kept]
    assert stored("one") == stored("two")
    assert rewards("b-v0") == rewards("c-v0")


def clips_of_which_one_is_cut_short(folder: Path) -> Path:
    made = write("clips", folder, [episode(0), episode(1), episode(2)], action_space=None)
    (made / "steps.csv").unlink(missing_ok=True)
    film = sorted(made.rglob("*.mp4"))[1]
    film.write_bytes(film.read_bytes()[:200])
    return made


def test_corrupt_films_are_refused_or_skipped_as_in_one_process(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = clips_of_which_one_is_cut_short(tmp_path / "clips")
    said = []
    for how in (["scorer.batch_size=2", "scorer.store=one"], [*RAY, "scorer.store=two"]):
        with pytest.raises(UserError, match=r"000001.*on_error=skip") as refusal:
            relabel(settings(f"dataset={folder}", "out=rewards.csv", *how))
        capsys.readouterr()
        relabel(settings(f"dataset={folder}", "out=rewards.csv", "on_error=skip", *how))
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped 1 episode: ")]
        said.append((str(refusal.value), line, Path("rewards.csv").read_bytes()))
        Path("rewards.csv").unlink()
    assert said[0] == said[1]
    assert stored("one") == stored("two")


def test_what_an_encoder_says_in_an_actor_is_heard(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write("minari", "a-v0", [episode(0), episode(1)])
    made = settings("dataset=a-v0", "out=b-v0", *RAY)
    monkeypatch.setattr(ray_pass, "len", lambda dataset: 3, raising=False)  # as if other files lay on the nodes
    with pytest.raises(UserError, match=r"has 2 episodes on one machine of Ray's and 3 where the command runs"):
        relabel(made)


def test_actors_that_no_machine_has_room_for_are_refused_at_start(cluster: Any) -> None:
    write("minari", "a-v0", [episode(0)])
    with pytest.raises(UserError, match=r"room for an actor with 64 cores and 0 GPUs \(there are: 0 cores"):
        relabel(settings("dataset=a-v0", "out=b-v0", *RAY, "scorer.num_cpus=64"))


def test_a_node_that_goes_away_in_the_middle_takes_nothing_with_it(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("minari", "a-v0", [with_still_pictures(number) for number in range(6)])
    relabel(settings("dataset=a-v0", "out=b-v0", "scorer.batch_size=2", "scorer.store=one"))
    gone: list[Any] = []
    plainly = ray_pass.Passed.write

    def write_and_lose_a_node(self: Any, *arguments: Any) -> None:
        plainly(self, *arguments)
        if not gone:
            gone.append(cluster.list_all_nodes()[1])  # the first is the head
            cluster.remove_node(gone[0], allow_graceful=False)

    monkeypatch.setattr(ray_pass.Passed, "write", write_and_lose_a_node)
    relabel(settings("dataset=a-v0", "out=c-v0", "scorer.store=two", *RAY))
    assert gone
    assert stored("one") == stored("two")
    assert rewards("b-v0") == rewards("c-v0")
