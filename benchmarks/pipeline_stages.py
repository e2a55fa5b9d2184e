"""What each stage of the reward path takes, one frame at a time; arms of `reward_pipeline`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.blocks import Block
from benchmarks.pipeline_arms import closing, one_thread, replayed
from benchmarks.render import make_humanoid

BATCH = 64  # frames in a slot of the scorer's process
STAGES = {
    "physics": "a step of the humanoid, nothing drawn",
    "render": "one lean picture",
    "render, Gymnasium's look": "the same picture as Gymnasium draws it",
    "digest": "key of a picture for deduplication and store",
    "copy, 150 kB": "a 224 px picture from one place in memory to another",
    "submit, 150 kB": "the same picture to the scorer's process, copy included",
    "preprocess": "bytes to the encoder's input, in a batch",
    "encode, one": "preprocessing included, in fp32",
    "encode, a batch": "the same, each of a full batch",
    "encode, a batch, bf16": "the same in bf16",
    "relabel": "the reward of a stored embedding for another prompt",
    "SAC update, batch of 256": "one gradient step of actor and critics",
}


def make_stage(stage: str, encoder: Any, device: str, batch_size: int) -> Block:
    """Make a block that does a stage `n` times.

    Args:
        stage: One of `STAGES`.
        encoder: The encoder's settings.
        device: Torch device.
        batch_size: Frames encoded at once.
    """
    one_thread()
    if stage in ("physics", "render", "render, Gymnasium's look"):
        return _humanoid(stage, encoder)
    if stage.startswith(("copy", "submit")):
        return _transport(copy_only=stage.startswith("copy"))
    if stage.startswith("SAC"):
        return _update(device)
    if stage.endswith("bf16"):
        from dataclasses import replace

        encoder = replace(encoder, precision="bf16")
    model = encoder.build(device)
    frames = np.random.default_rng(0).integers(0, 256, (batch_size, *model.image_size, 3), dtype=np.uint8)
    if stage == "digest":
        from vlmrl.encoders.store import frame_digest

        return _each(lambda: [frame_digest(frame) for frame in frames], batch_size)
    if stage == "preprocess":
        return _each(lambda: model._preprocess(frames).cpu(), batch_size)
    if stage == "encode, one":
        return _each(lambda: model.encode_images(frames[:1]), 1)
    if stage.startswith("encode"):
        return _each(lambda: model.encode_images(frames), batch_size)
    assert stage == "relabel", stage
    from vlmrl.reward_models.clip import ClipReward
    from vlmrl.rows import Rows

    reward = ClipReward("a humanoid robot kneeling", encoder=model)
    embeddings = np.repeat(model.encode_images(frames), 100, axis=0)
    rows = Rows(np.arange(len(embeddings)), {"embeddings": {"front": embeddings}})
    return _each(lambda: reward(rows), len(embeddings))


def _each(work: Callable[[], object], count: int) -> Block:
    """Do some work that comes to `count` frames, as often as it takes."""

    def block(n: int) -> float:
        times = -(-n // count)
        started = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - started) * n / (times * count)

    return block


def _humanoid(stage: str, encoder: Any) -> Block:
    size = encoder.build("cpu").image_size[0]
    env = make_humanoid("Humanoid-v5" if stage.endswith("look") else "vlmrl/Humanoid-v0", size)
    env.reset(seed=0)
    actions = replayed(0)

    def block(n: int) -> float:
        seconds = 0.0
        for step in range(n):
            started = time.perf_counter()
            env.step(next(actions))
            stepped = time.perf_counter()
            if stage == "physics":
                seconds += stepped - started
            else:
                env.render()
                seconds += time.perf_counter() - stepped
            if step % 100 == 99:
                env.reset()
        return seconds

    return closing(block, env.close)


def _transport(copy_only: bool) -> Block:
    from vlmrl.serving.process import ProcessConfig

    frames = [np.full((224, 224, 3), i, dtype=np.uint8) for i in range(BATCH)]
    room = np.zeros((4, BATCH, 224, 224, 3), dtype=np.uint8)  # as many slots as the scorer has, so as cold a cache
    if copy_only:

        def copy(n: int) -> float:
            started = time.perf_counter()
            for i in range(n):
                room[i // BATCH % 4, i % BATCH] = frames[i % BATCH]
            return time.perf_counter() - started

        return copy
    service = ProcessConfig(batch_size=BATCH).build(NothingConfig(), "cpu")
    scorer = service.scorer()

    def block(n: int) -> float:
        seconds = 0.0
        for _ in range(-(-n // BATCH)):
            started = time.perf_counter()
            tickets = scorer.submit(frames)
            seconds += time.perf_counter() - started
            scorer.collect(tickets)
        return seconds * n / (-(-n // BATCH) * BATCH)

    return closing(block, service.close)


class NothingConfig:
    """Settings of an encoder that does nothing, in no time: what is left is transport."""

    def build(self, device: str) -> Nothing:
        """Make it."""
        return Nothing()


class Nothing:
    """Embeds every picture as zeros."""

    name, fingerprint, image_size, dim = "nothing", "", (224, 224), 128

    def encode_images(self, frames: np.ndarray) -> np.ndarray:
        """Return zeros."""
        return np.zeros((len(frames), self.dim), dtype=np.float32)


def _update(device: str) -> Block:
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    env = make_humanoid("vlmrl/Humanoid-v0", 8)
    model = SAC("MlpPolicy", env, batch_size=256, buffer_size=10_000, learning_starts=300, device=device, seed=0)
    model.set_logger(Logger(None, []))
    model.learn(300)

    def block(n: int) -> float:
        started = time.perf_counter()
        model.train(gradient_steps=n, batch_size=256)
        return time.perf_counter() - started

    return closing(block, env.close)


def make_matmul(device: str, size: int) -> Block:
    """A product of two square matrices in bf16: what the device's matrix units give, 2 size^3 operations each."""
    import torch

    one_thread()
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))

    def block(n: int) -> float:
        a @ b
        started = time.perf_counter()
        for _ in range(n):
            product = a @ b
        float(product[0, 0])  # waits for a GPU
        return time.perf_counter() - started

    return block
