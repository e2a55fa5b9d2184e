"""The encoder in actors of Ray, on one machine or many."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from vlmrl.encoders.base import Encoder
from vlmrl.errors import require
from vlmrl.serving.engine import HereEngine, Job, ScorerFailure, encode
from vlmrl.serving.remote import Answer, Card, RemoteEncoder, answer, card, portable
from vlmrl.serving.settings import AsyncSettings, Service
from vlmrl.typed import Count, Natural, Range

START_TIMEOUT = 900.0  # seconds until an actor has its place and has loaded its model


@dataclass(frozen=True)
class RayConfig(AsyncSettings):
    """Settings of `scorer=ray`, beside those of every scorer that does not wait.

    Attributes:
        replicas: Actors, each with an encoder of its own.
        num_cpus: Cores that Ray keeps for each actor.
        num_gpus: Share of a GPU for each actor; None takes a whole one where the device is one.
        address: Of a running cluster; None starts one on this machine.
        restarts: How often in a row an actor may hang before the run ends.
    """

    replicas: Count = 1
    num_cpus: Annotated[float, Range(0)] = 1.0
    num_gpus: Annotated[float, Range(0)] | None = None
    address: str | None = None
    restarts: Natural = 3

    def build(self, encoder: Any, device: str) -> Service:
        """Start the actors, which load the encoder, and serve it.

        Args:
            encoder: Its settings, an entry of `ENCODERS`; they travel to the actors.
            device: Torch device; on a GPU Ray shows each actor only its own.

        Raises:
            UserError: Ray is not installed, or the encoder cannot be loaded.
        """
        return self.serve(RayEngine(self, encoder, device))


class EncoderActor:
    """What runs in an actor.

    Args:
        encoder_config: The encoder's settings.
        device: Torch device.
        threads: Threads that torch computes with.
    """

    def __init__(self, encoder_config: Any, device: str, threads: int):
        try:
            self._encoder: Encoder = encoder_config.build(device)
        except Exception as error:
            self._broken: Exception | None = portable(error)
            return
        self._broken = None
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)

    def card(self) -> Card | Exception:
        """Return what the encoder says of itself, or why it cannot be loaded."""
        return self._broken or card(self._encoder)

    def ask(self, what: str, *arguments: Any) -> Answer:
        """Put a question to the encoder."""
        return answer(self._encoder, what, *arguments)

    def encode(self, frames: np.ndarray, n: int) -> tuple[int, np.ndarray | Exception]:
        """Encode a batch; see `engine.encode`. The number of this process comes with it."""
        outcome = encode(self._encoder, frames, n)
        return os.getpid(), portable(outcome) if isinstance(outcome, Exception) else outcome


class RayEngine(HereEngine):
    """Encodes in actors, which take turns.

    Ray itself starts an actor anew that died, or whose machine did, and does its calls again; the frames of a call lie
    in Ray's object store. An actor that is silent for too long is killed, so that the same happens.

    Args:
        config: Its settings.
        encoder_config: The encoder's settings.
        device: Torch device.

    Raises:
        UserError: Ray is not installed, or the encoder cannot be loaded.
        ScorerFailure: There is no room for the actors in time.
    """

    def __init__(self, config: RayConfig, encoder_config: Any, device: str):
        self._ray = require("ray", extra="ray")
        self._owns_cluster = start_ray(self._ray, config.address)
        self._timeout = config.timeout_s
        self._may_restart = config.restarts
        self._failures = 0  # in a row
        self._turn = 0
        self._calls: dict[Job, tuple[int, Any]] = {}  # number of the actor, and Ray's promise
        self._pids: dict[int, int] = {}  # process of each actor
        gpu = device.startswith("cuda")
        torch = sys.modules.get("torch")
        actor = self._ray.remote(
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus if config.num_gpus is not None else float(gpu),
            max_restarts=-1,
            max_task_retries=-1,
        )(EncoderActor)
        threads = torch.get_num_threads() if torch is not None else 1
        self._actors = [
            actor.remote(encoder_config, "cuda" if gpu else device, threads) for _ in range(config.replicas)
        ]
        try:
            first, *_ = cards = self._ray.get([each.card.remote() for each in self._actors], timeout=START_TIMEOUT)
        except self._ray.exceptions.GetTimeoutError as error:
            self.close()
            raise ScorerFailure(
                f"Ray had no room for {config.replicas} actors with {config.num_cpus:g} cores and {config.num_gpus} "
                f"GPUs each within {START_TIMEOUT:g} seconds; it has {self._ray.cluster_resources()}."
            ) from error
        for loaded in cards:
            if isinstance(loaded, Exception):
                self.close()
                raise loaded
        super().__init__(
            RemoteEncoder(first, self._ask, self.encode_now), config.batch_size, config.slots, config.eager
        )

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._owns_cluster:
            self._ray.shutdown()

    def _launch(self, job: Job) -> None:
        turn = self._turn = (self._turn + 1) % len(self._actors)
        self._calls[job] = (turn, self._actors[turn].encode.remote(self.frames(job), job.n))

    def _advance(self, wait: bool) -> bool:
        jobs = {promise: (job, actor) for job, (actor, promise) in self._calls.items()}
        ready, _ = self._ray.wait(list(jobs), num_returns=1, timeout=self._timeout if wait else 0)
        if not ready:
            if wait:
                self._revive(next(iter(jobs.values()))[1])
            return wait
        job, actor = jobs[ready[0]]
        pid, outcome = self._ray.get(ready[0])
        self.restarts += self._pids.get(actor, pid) != pid
        self._pids[actor] = pid
        self._failures = 0
        del self._calls[job]
        # Ray's memory is its own: what it gives is a view that may not outlive its object.
        self._finish(job, outcome if isinstance(outcome, Exception) else outcome.copy())
        return True

    def _revive(self, actor: int) -> None:
        """Kill an actor that is silent; Ray starts it again and does its calls again.

        Raises:
            ScorerFailure: That has been in vain too often.
        """
        self._failures += 1
        if self._failures > self._may_restart:
            raise ScorerFailure(
                f"Encoder {self.encoder.name} in Ray has not finished a batch for {self._failures} times "
                f"{self._timeout:g} seconds (scorer.timeout_s, scorer.restarts)."
            )
        self._ray.kill(self._actors[actor], no_restart=False)
        self._ray.get(self._actors[actor].card.remote(), timeout=START_TIMEOUT)  # loading is no silence

    def _ask(self, what: str, *arguments: Any) -> Answer:
        return self._ray.get(self._actors[0].ask.remote(what, *arguments), timeout=self._timeout)


def start_ray(ray: Any, address: str | None) -> bool:
    """Connect to a cluster, or start one on this machine.

    Ray's own ports listen on every address, whatever it is told here: releases from 2.60 on ask for a token of theirs,
    older ones belong behind a firewall.

    Args:
        ray: The module.
        address: Of a running cluster; None starts one.

    Returns:
        Whether it is the caller who must shut it down; False where this process was connected already.
    """
    if ray.is_initialized():
        return False
    # Ray reports the use of it to its makers unless told otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        ray.init(address=address, log_to_driver=False)
    else:
        # Whoever can reach Ray's ports can run code, so nothing is told an address that others could reach.
        ray.init(address="local", _node_ip_address="127.0.0.1", log_to_driver=False, include_dashboard=False)
    return True
