"""Run the server: replicas in Ray Serve behind one address, until somebody ends it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import Any

from vlmrl.errors import UserError, require
from vlmrl.serving.engine import ScorerFailure
from vlmrl.serving.ray import START_TIMEOUT, start_ray
from vlmrl.serving.remote import portable
from vlmrl.workflows.config.serve import ServeConfig

APPLICATION = "vlmrl"


class Replica:
    """What runs in each of Ray Serve's replicas.

    Args:
        settings: Settings of the server.
        token: What clients must show.
        device: Torch device; on a GPU Ray shows each replica only its own.
    """

    def __init__(self, settings: ServeConfig, token: str | None, device: str):
        from vlmrl.workflows.serve.http import RewardApi
        from vlmrl.workflows.serve.rewarder import Rewarder

        logging.captureWarnings(True)
        self._broken: Exception | None = None
        try:
            self._rewarder = Rewarder(settings, device)
        except Exception as error:  # told to whoever started the server; Ray would try again and again
            self._broken = portable(error)
            return
        self._api = RewardApi(self._rewarder, token)

    async def __call__(self, request: Any) -> Any:
        """Answer a request of HTTP (Starlette's)."""
        return await self._api.respond(request)

    async def started(self) -> dict[str, Any] | Exception:
        """Return what it offers, or why it cannot."""
        return self._broken or await self._rewarder.about()

    def check_health(self) -> None:
        """Tell Ray Serve to replace this replica where its encoder is gone."""
        if self._broken is None and self._rewarder.failure is not None:
            raise self._rewarder.failure


def serve(settings: ServeConfig) -> None:
    """Serve rewards until Ctrl-C or a SIGTERM.

    Raises:
        UserError: Ray Serve is not installed, the address is taken, or the encoder cannot be loaded.
        ScorerFailure: Ray has no room for the replicas.
    """
    ray = require("ray", extra="ray")
    require("python_multipart", extra="ray")
    ray_serve = require("ray.serve", extra="ray")
    _check_free(settings.host, settings.port)
    token = settings.token()
    owns_cluster = start_ray(ray, settings.address)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options={"host": settings.host, "port": settings.port},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        offered = _deploy(ray_serve, settings, token)
        print(
            f"Rewards {', '.join(offered['rewards'])} with encoder {offered['encoder']} at "
            f"http://{settings.host}:{settings.port} ({'with' if token else 'without'} a token). Ctrl-C ends it.",
            flush=True,
        )
        ended.wait()
    finally:
        ray_serve.shutdown()
        if owns_cluster:
            ray.shutdown()


def _deploy(ray_serve: Any, settings: ServeConfig, token: str | None) -> dict[str, Any]:
    """Start the replicas and return what they offer, in JSON's types.

    Raises:
        UserError: The encoder cannot be loaded.
        ScorerFailure: There is no room for the replicas.
    """
    from vlmrl.workflows.build import resolve_device

    gpu = resolve_device(settings.device).startswith("cuda") if settings.address is None else settings.device != "cpu"
    deployment = ray_serve.deployment(
        name="rewards",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_requests,
        max_queued_requests=settings.max_queued_requests,
        ray_actor_options={
            "num_cpus": settings.num_cpus,
            "num_gpus": settings.num_gpus if settings.num_gpus is not None else float(gpu),
        },
    )(Replica)
    try:
        handle = ray_serve.run(
            deployment.bind(settings, token, "cuda" if gpu else "cpu"), name=APPLICATION, route_prefix="/"
        )
        offered = handle.started.remote().result(timeout_s=START_TIMEOUT)
    except (RuntimeError, TimeoutError) as error:
        raise ScorerFailure(
            f"Ray Serve could not start {settings.replicas} replicas with {settings.num_cpus:g} cores each: {error}"
        ) from error
    if isinstance(offered, Exception):
        raise offered
    return offered


def _check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at, before minutes of loading.

    Raises:
        UserError: Another program has it, or the machine does not.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise UserError(f"host={host} port={port}: {os.strerror(error.errno or 0)}. Give another port=.") from error
