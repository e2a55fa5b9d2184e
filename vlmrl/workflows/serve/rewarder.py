"""From the words and pictures of a request to rewards; frames of several requests are encoded together."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vlmrl.encoders.base import ELSEWHERE
from vlmrl.errors import UserError, unknown
from vlmrl.reward_models import REWARDS
from vlmrl.reward_models.base import RewardModel, Words
from vlmrl.rows import Rows
from vlmrl.serving.engine import ScorerFailure
from vlmrl.typed import typed
from vlmrl.workflows.config.scene import import_plugins
from vlmrl.workflows.config.serve import ServeConfig

T = TypeVar("T")


@dataclass(frozen=True)
class RewardRequest:
    """What is asked, beside the pictures.

    Attributes:
        goal: What the agent should do.
        baseline: What the scene shows anyway.
        negatives: What the agent may do instead.
        reward: Name of a reward model.
        options: Its settings.
        env: Environment of the suite that the pictures show, if one does.
    """

    goal: tuple[str, ...]
    baseline: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    reward: str = "clip"
    options: dict[str, Any] = field(default_factory=dict)
    env: str | None = None


class Prompt(NamedTuple):
    """A reward model for some words, and what the encoder said of them."""

    model: RewardModel
    warned: tuple[str, ...]


class Rewarder:
    """An encoder that runs somewhere, and the reward models that were asked for lately.

    Requests come on one event loop. Everything that computes runs in one thread of its own: while a batch is encoded,
    the frames of the requests that come meanwhile gather, and are encoded together next.

    Args:
        settings: Settings of the server.
        device: "cpu", "cuda" or "cuda:<n>".

    Raises:
        UserError: What is wrong with weights or settings.
    """

    def __init__(self, settings: ServeConfig, device: str):
        import_plugins(settings.plugins)
        self.settings = settings
        self.failure: ScorerFailure | None = None  # why no more can be encoded
        self._prompts: OrderedDict[tuple[Any, ...], Prompt] = OrderedDict()
        self._waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rewarder")
        self._thread.submit(self._load, device).result()

    async def rewards(self, request: RewardRequest, pictures: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Prompt]:
        """Reward the pictures of a clip, as rows of one episode from its start on.

        Args:
            request: What is asked.
            pictures: {camera: (n, H, W, 3) uint8 RGB}, the same n of all cameras.

        Returns:
            (n,) float32, and the reward model.

        Raises:
            UserError: Something is wrong with the request, and what.
            ScorerFailure: The encoder is gone.
        """
        counts = {camera: len(frames) for camera, frames in pictures.items()}
        if len(set(counts.values())) != 1:
            raise UserError(f"All cameras must bring the same number of pictures, got {counts}.")
        prompt = await self._in_thread(self._prompt, request)  # first, because it is cheap and may be wrong
        embeddings = dict(
            zip(pictures, await asyncio.gather(*(self._encode(frames) for frames in pictures.values())), strict=True)
        )
        rows = Rows(np.arange(next(iter(counts.values()))), {"embeddings": embeddings})
        rewards = prompt.model(rows)
        if not np.isfinite(rewards).all():
            raise UserError(
                f"reward '{request.reward}' with encoder {self._service.encoder.name} and goal {list(request.goal)} is "
                f"not finite at picture {int(np.flatnonzero(~np.isfinite(rewards))[0])}; change its options."
            )
        return rewards, prompt

    async def about(self) -> dict[str, Any]:
        """Return what the server offers, in JSON's types."""
        encoder = self._service.encoder
        offered = {
            name: {entry.name: entry.default for entry in fields(REWARDS.load(name))} for name in self.settings.rewards
        }
        return {
            "encoder": encoder.name,
            "fingerprint": await self._in_thread(lambda: encoder.fingerprint),
            "image_size": list(encoder.image_size),
            "rewards": offered,
            "limits": vars(self.settings.limits),
        }

    def close(self) -> None:
        """Stop the encoder."""
        self._thread.submit(self._service.close).result()
        self._thread.shutdown()

    # On the event loop.

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _encode(self, frames: np.ndarray) -> np.ndarray:
        """Return the embeddings of frames, (n, E) float32, once their turn has come."""
        if self.failure is not None:
            raise self.failure
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((frames, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._encode_waiting())
        return await future

    async def _encode_waiting(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            taken = [(frames, future) for frames, future in taken if not future.cancelled()]  # whose client is gone
            outcomes = await self._in_thread(self._encode_together, [frames for frames, _ in taken])
            for (_, future), outcome in zip(taken, outcomes, strict=True):
                if future.cancelled():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        self._worker = None

    # In the thread.

    def _load(self, device: str) -> None:
        if self.settings.threads:
            import torch

            torch.set_num_threads(self.settings.threads)
        self._service = self.settings.scorer.config.build(self.settings.encoder.config, device)
        self._scorer = self._service.scorer()

    def _encode_together(self, clips: list[np.ndarray]) -> list[np.ndarray | Exception]:
        """Encode the frames of several requests; what goes wrong is the outcome of those that it concerns."""
        outcomes: list[np.ndarray | Exception] = []
        try:
            claims = [self._scorer.submit(frames) for frames in clips]
        except ScorerFailure as failure:
            self.failure = failure
            return [failure for _ in clips]
        for tickets in claims:
            try:
                outcomes.append(self._scorer.collect(tickets))
            except ScorerFailure as failure:
                self.failure = failure
                outcomes.append(failure)
            except Exception as error:  # whoever waits for these frames shall see it, and nobody else
                outcomes.append(error)
        return outcomes

    def _prompt(self, request: RewardRequest) -> Prompt:
        """Return the reward model of a request: one that was kept, or a new one.

        Raises:
            UserError: The words, the reward's name or its settings are wrong.
        """
        texts = (*request.goal, *request.baseline, *request.negatives)
        self.settings.limits.check_texts(texts)
        self._service.encoder.check_env(request.env or ELSEWHERE)
        if request.reward not in self.settings.rewards:
            raise unknown("reward", request.reward, self.settings.rewards)
        options = json.dumps(request.options, sort_keys=True)
        key = (request.reward, options, request.goal, request.baseline, request.negatives)
        if key in self._prompts:
            self._prompts.move_to_end(key)
            return self._prompts[key]
        config = typed(REWARDS.load(request.reward), request.options, "options")
        words = Words(request.goal, request.baseline, request.negatives)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model = config.build(words, self._service.encoder)
        if not model.needs <= {"embeddings"}:
            raise UserError(
                f"reward '{request.reward}' reads {', '.join(sorted(model.needs - {'embeddings'}))}, and pictures are "
                "all that a request brings."
            )
        warned = tuple(str(entry.message) for entry in caught if entry.category is UserWarning)
        prompt = self._prompts[key] = Prompt(model, warned)
        if len(self._prompts) > self.settings.kept_prompts:
            self._prompts.popitem(last=False)
        return prompt
