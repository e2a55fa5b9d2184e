"""What an actor of Ray Data does with an episode: its pictures in, their digests and embeddings out."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vlmrl.datasets.base import CorruptEpisode, open_dataset
from vlmrl.errors import UserError
from vlmrl.serving.engine import LocalEngine
from vlmrl.serving.remote import portable
from vlmrl.workflows.config.relabel import RelabelConfig
from vlmrl.workflows.config.scene import import_plugins
from vlmrl.workflows.relabel.index import DIGEST_BYTES, FrameIndex
from vlmrl.workflows.relabel.score import EpisodeScorer, local_scorer


@dataclass(frozen=True)
class Encoded:
    """What an actor has to say of an episode.

    Attributes:
        digests: {camera: {number of a picture: its digest}} of the pictures that were looked at.
        embeddings: {digest: (E,) float32} of those that were encoded.
        problem: Why the episode is corrupt; None where it is not.
        error: What ends the run; None where nothing does.
    """

    digests: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    embeddings: Mapping[bytes, np.ndarray] = field(default_factory=dict)
    problem: str | None = None
    error: Exception | None = None


class EpisodeEncoder:
    """What runs in an actor: the ordinary pass, with a store that knows nothing but what it is told of.

    Args:
        settings: Those of the command.
        spec: The dataset, by a path that every machine sees.
        episodes: How many episodes the driver sees.
        cameras: Cameras to look through.
        device: Torch device.
        threads: Threads that torch computes with.
    """

    def __init__(
        self, settings: RelabelConfig, spec: str, episodes: int, cameras: Sequence[str], device: str, threads: int
    ):
        self._settings, self._cameras, self._device = settings, cameras, device
        self._broken: Exception | None = None
        try:
            torch.set_num_threads(threads)
            import_plugins(settings.plugins)
            self._dataset = open_dataset(spec)
            if len(self._dataset) != episodes:
                raise UserError(
                    f"'{spec}' has {len(self._dataset)} episodes on one machine of Ray's and {episodes} where the "
                    "command runs. All must see the same files under the same path."
                )
            self._task = settings.scene.make_task()
            self._encoder = settings.scene.encoder.config.build(device)
        except Exception as error:  # an actor that cannot start is started again for ever; the driver shall see why
            self._broken = portable(error)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Encode an episode.

        Args:
            row: `episode`, its number, and `known`, the digests of pictures that are not to be encoded, end to end.

        Returns:
            `episode`, and `encoded`, a pickled `Encoded`.
        """
        number, known = int(row["episode"]), split(row["known"])
        encoded = Encoded(error=self._broken) if self._broken else self._encode(number, known)
        return {"episode": number, "encoded": pickle.dumps(encoded)}

    def _encode(self, number: int, known: Sequence[bytes]) -> Encoded:
        # Which pictures are encoded together must follow from the episode and `known` alone, so the store is a new one.
        with tempfile.TemporaryDirectory(prefix="vlmrl-relabel-") as folder:
            batches = local_scorer(self._settings, folder)
            service = batches.serve(LocalEngine(self._encoder, batches.batch_size))
            assert service.store is not None
            index = FrameIndex(folder, "", service.store)
            problem = None
            try:
                # Rewards are dropped here, so any unit vector does for what is known.
                service.store.put(known, np.eye(1, self._encoder.dim, dtype=np.float32).repeat(len(known), axis=0))
                scorer = EpisodeScorer(self._settings, self._task, service, self._cameras, self._device, index)
                episode = self._dataset.episode(number)
                episode.check()
                scorer.score(episode, number)
            except CorruptEpisode as corrupt:
                problem = str(corrupt)  # of a long episode, what came before is encoded: as in the ordinary pass
            except Exception as error:
                return Encoded(error=portable(error))
            finally:
                digests = {camera: index.digests(number, camera) for camera in self._cameras}
                new = {digest: vector for digest, vector in service.store.items() if digest not in set(known)}
                index.close()
                service.close()
        return Encoded(digests, new, problem)


def split(digests: bytes) -> list[bytes]:
    """Take apart digests that lie end to end."""
    return [digests[start : start + DIGEST_BYTES] for start in range(0, len(digests), DIGEST_BYTES)]
