"""The pictures of a dataset, encoded in a pass of Ray Data over its episodes, on one machine or many."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from vlmrl.datasets.base import Dataset
from vlmrl.encoders.store import EmbeddingStore
from vlmrl.errors import UserError, require
from vlmrl.serving.ray import RayConfig, start_ray
from vlmrl.workflows.config.relabel import RelabelConfig
from vlmrl.workflows.relabel.index import FrameIndex
from vlmrl.workflows.relabel.ray_actor import Encoded, EpisodeEncoder


@dataclass
class Passed:
    """What a pass has done.

    Attributes:
        problems: {episode: why it is corrupt}.
        pictures: How many were encoded and kept.
    """

    problems: dict[int, str] = field(default_factory=dict)
    pictures: int = 0

    def write(
        self,
        store: EmbeddingStore,
        index: FrameIndex,
        number: int,
        encoded: Encoded,
        embeddings: Mapping[bytes, np.ndarray],
    ) -> None:
        """Keep what came of an episode: these embeddings of it, its digests, what is wrong with it."""
        if embeddings:
            store.put(list(embeddings), np.stack(list(embeddings.values())))
        for camera, digests in encoded.digests.items():
            if digests:
                index.put(number, camera, digests)
        if encoded.problem is not None:
            self.problems[number] = encoded.problem
        self.pictures += len(embeddings)


def encode_with_ray(
    settings: RelabelConfig,
    dataset: Dataset,
    cameras: Sequence[str],
    device: str,
    store: EmbeddingStore,
    index: FrameIndex,
    todo: Sequence[int],
    done: Callable[[], object],
) -> Passed:
    """Fill the store and the index with the pictures of episodes, encoded in actors of Ray Data.

    Each actor opens the dataset itself and takes episode after episode; only this process writes. Last digits of an
    embedding depend on what it was encoded together with, and in one process an episode leaves out what earlier ones
    have shown. So an episode that turns out to share pictures with an earlier one is sent a second time, told which
    to leave out: what is stored then is what one process would have stored.

    Args:
        settings: Those of the command; `scorer=ray`.
        dataset: The dataset.
        cameras: Cameras to look through.
        device: Torch device; on a GPU Ray shows each actor only its own.
        store: Where embeddings go.
        index: Where digests go.
        todo: Numbers of the episodes, rising.
        done: Called once for each episode.

    Returns:
        What became of them. Where corrupt episodes are refused, the pass ends at the first.

    Raises:
        UserError: An actor cannot load the encoder or open the dataset, or the encoder refuses.
    """
    run = _RayData(settings, dataset, cameras, device)
    try:
        passed = Passed()
        promised: set[bytes] = set()  # pictures of episodes that are sent again
        again: dict[int, bytes] = {}
        for number, encoded in run.encode(dict.fromkeys(todo, b"")):
            known = {*store.get(list(encoded.embeddings)), *promised.intersection(encoded.embeddings)}
            missing = encoded.embeddings.keys() - known
            if known and missing:
                promised |= missing
                again[number] = b"".join(sorted(known))
                continue
            passed.write(store, index, number, encoded, {} if known else encoded.embeddings)
            done()
            if encoded.problem is not None and settings.on_error == "refuse":
                break
        for number, encoded in run.encode(again):
            passed.write(store, index, number, encoded, encoded.embeddings)
            done()
        return passed
    finally:
        run.close()


def require_ray_data() -> None:
    """Say what to install, where something is missing that Ray Data needs.

    Raises:
        UserError: Something is.
    """
    for module in ("ray", "pandas", "pyarrow"):
        require(module, extra="ray")


class _RayData:
    """Connects to Ray, and sends episodes."""

    def __init__(self, settings: RelabelConfig, dataset: Dataset, cameras: Sequence[str], device: str):
        ray = require("ray", extra="ray")
        config = settings.scene.scorer.config
        assert isinstance(config, RayConfig)
        gpu = device.startswith("cuda")
        self._ray, self._data, self._config = ray, require("ray.data", extra="ray"), config
        self._gpus = config.num_gpus if config.num_gpus is not None else float(gpu)
        self._arguments = {
            "settings": replace(settings, progress_bar=False),
            "spec": f"{dataset.format}:{dataset.path.absolute()}",
            "episodes": len(dataset),
            "cameras": tuple(cameras),
            "device": "cuda" if gpu else device,
            "threads": torch.get_num_threads(),
        }
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # its plans and files are not what the command is about
        self._owns_cluster = start_ray(ray, config.address)
        self._check_room()

    def _check_room(self) -> None:
        """Refuse actors that no machine has room for: Ray would wait for one for ever.

        Raises:
            UserError: None has, even when it is idle. Machines that an autoscaler would start are not there yet.
        """
        cpus = self._config.num_cpus
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(room.get("CPU", 0) >= cpus and room.get("GPU", 0) >= self._gpus for room in machines):
            there = "; ".join(f"{room.get('CPU', 0):g} cores and {room.get('GPU', 0):g} GPUs" for room in machines)
            self.close()
            raise UserError(
                f"No machine of Ray's has room for an actor with {cpus:g} cores and {self._gpus:g} GPUs (there are: "
                f"{there}). Lower scorer.num_cpus or scorer.num_gpus, or name a larger cluster: scorer.address=..."
            )

    def encode(self, episodes: Mapping[int, bytes]) -> Iterator[tuple[int, Encoded]]:
        """Yield what becomes of episodes, in their order.

        Args:
            episodes: {number: digests of pictures to leave out, end to end}.

        Raises:
            Exception: What an actor said.
        """
        if not episodes:
            return
        rows = self._data.from_items(
            [{"episode": number, "known": known} for number, known in episodes.items()],
            override_num_blocks=len(episodes),  # each is a task of its own: what a machine takes with it is one episode
        )
        rows.context.enable_progress_bars = False
        rows.context.execution_options.preserve_order = True
        encoded = rows.map(
            EpisodeEncoder,
            fn_constructor_kwargs=self._arguments,
            compute=self._data.ActorPoolStrategy(size=min(self._config.replicas, len(episodes))),
            num_cpus=self._config.num_cpus,
            num_gpus=self._gpus,
        )
        for row in encoded.iter_rows():
            outcome: Encoded = pickle.loads(row["encoded"])
            if outcome.error is not None:
                raise outcome.error
            yield int(row["episode"]), outcome

    def close(self) -> None:
        """Disconnect, and stop the cluster if it was started here."""
        if self._owns_cluster:
            self._ray.shutdown()
