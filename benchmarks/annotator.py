"""What the annotator of `reward=oni` costs a learner: steps a second with texts being labelled, against without.

    python -m benchmarks.annotator
    python -m benchmarks.annotator --latencies 0 1 10 --news 0.02
    .venv-nethack/bin/python -m benchmarks.annotator --world nethack --steps 1024

PPO learns in a world of words that never runs out of new ones, at some thousand steps a second, or on NetHack as it
comes (make setup-nethack); a server on loopback, a process of its own, labels texts after so many seconds. Both arms
have the same reward and texts, and one of them asks about them. Arms take turns block by block, and a ratio is of
neighbouring blocks. The goal is 0.95.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.blocks import Arm, Block, compare, parser, report

GOAL = 0.95
COMMON = 200  # texts that are said again and again
NEWS = 0.008  # share of steps with a text never heard before: random play of NetHack, 1,000 in 127,683 steps
ON, OFF = "annotator", "nobody asked"


class Words(gym.Env):
    """Says something at every step: mostly one of 200 texts, by Zipf's law, now and then one that is new.

    Args:
        news: Share of the steps at which a new text is said.
    """

    observation_space = gym.spaces.Box(-1, 1, (64,), np.float32)
    action_space = gym.spaces.Discrete(8)

    def __init__(self, news: float):
        self._news, self._said = news, 0
        self._chances = 1 / np.arange(1, COMMON + 1)
        self._chances /= self._chances.sum()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        return self._see(), {"text": ""}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """See `gymnasium.Env.step`."""
        if self.np_random.random() < self._news:
            self._said += 1
            text = f"you find thing number {self._said} of {id(self)}"
        else:
            text = f"you see word {self.np_random.choice(COMMON, p=self._chances)}"
        return self._see(), 0.0, bool(self.np_random.random() < 0.01), False, {"text": text}

    def _see(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 64).astype(np.float32)


class Labels(BaseHTTPRequestHandler):
    """Answers every chat completion with "yes" after `latency` seconds."""

    latency = 0.0
    protocol_version = "HTTP/1.1"
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "labeller",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
    }

    def do_POST(self) -> None:
        """Wait, and answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.latency)
        body = json.dumps(self.answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that goes on when somebody who has asked is gone before the answer, as at the end of each arm."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that were closed; whatever else goes wrong is printed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(connection: Any, latency: float) -> None:
    """Run the server in this process, and send its port."""
    Labels.latency = latency
    server = Server(("127.0.0.1", 0), Labels)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection.send(server.server_address[1])
    with suppress(EOFError):  # until the other end is closed
        connection.recv_bytes()


def make_words(model: Any, news: float, n_envs: int) -> Any:
    """Make PPO in the world of words, with rollouts of 128 steps of each environment and four passes."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    from vlmrl.agents.buffers import RewardFillingRolloutBuffer
    from vlmrl.envs.lazy_rewards import LazyRewards
    from vlmrl.envs.reward_vec_env import RewardVecEnv
    from vlmrl.envs.row_writer import RowWriter

    def world() -> gym.Env:
        env: gym.Env = RowWriter(Words(news), model.needs, at_reset=False)
        return env

    return PPO(
        "MlpPolicy",
        RewardVecEnv(DummyVecEnv([world for _ in range(n_envs)]), LazyRewards(model)),
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        rollout_buffer_class=RewardFillingRolloutBuffer,
        seed=0,
        device="cpu",
    )


def make_nethack(model: Any, news: float, n_envs: int) -> Any:
    """Make the learner of `benchmarks.nethack_speed` on NetHack; what is new there is what the game says."""
    from benchmarks.nethack_speed import make_envs, make_ppo
    from vlmrl.envs.lazy_rewards import LazyRewards

    return make_ppo(make_envs(LazyRewards(model), n_envs))


WORLDS: dict[str, Callable[..., Any]] = {"words": make_words, "nethack": make_nethack}


def make_learner(world: str, asks: bool, latency: float, news: float, n_envs: int, concurrency: int) -> Block:
    """Make a block of PPO's steps in a world, with its texts labelled or not; `annotations` tells of the labels."""
    import torch

    from vlmrl.agents.annotations import Annotations
    from vlmrl.agents.buffers import attach_rewards
    from vlmrl.judges.openai import OpenAIConfig
    from vlmrl.judges.process import JudgeProcess
    from vlmrl.judges.store import Budget
    from vlmrl.reward_models.oni import OniConfig, OniReward
    from vlmrl.reward_models.oni_annotator import Annotator
    from vlmrl.reward_models.oni_labels import LabelQuestions

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    model = OniReward(OniConfig(labels="judge", extrinsic_coef=0))
    learner = WORLDS[world](model, news, n_envs)
    attach_rewards(learner)
    if asks:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, latency), daemon=True).start()
        config = OpenAIConfig(
            model="labeller", base_url=f"http://127.0.0.1:{ours.recv()}/v1", check=False, logprobs=False
        )
        judge = JudgeProcess(config)
        judge.open(folder / "answers.sqlite", Budget(), concurrency)
        model.annotator = Annotator(judge, LabelQuestions("find things", "words"), concurrency)
    companion = Annotations(model, interact=1, labels=folder / "labels.json")

    def block(steps: int) -> float:
        began = time.perf_counter()
        learner.learn(steps, callback=companion, reset_num_timesteps=False)
        return time.perf_counter() - began

    def close() -> None:
        companion.close()
        learner.get_env().close()
        if asks:
            ours.close()

    made: Callable[..., Any] = block
    made.close, made.annotations = close, companion  # type: ignore[attr-defined]
    return made


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "annotator", steps=2048)
    arguments.add_argument("--latencies", nargs="*", type=float, default=[0, 1, 10], help="of the server, seconds")
    arguments.add_argument("--world", choices=sorted(WORLDS), default="words", help="what PPO learns in")
    arguments.add_argument(
        "--news", type=float, default=NEWS, help="share of steps with new text; world of words (default %(default)s)"
    )
    arguments.add_argument("--n-envs", type=int, default=8, help="environments (default %(default)s)")
    arguments.add_argument("--concurrency", type=int, default=4, help="requests at the same time (default %(default)s)")
    settings = arguments.parse_args()
    comparisons = []
    for latency in settings.latencies:
        same = {
            "world": settings.world,
            "latency": latency,
            "news": settings.news,
            "n_envs": settings.n_envs,
            "concurrency": settings.concurrency,
        }
        arms = {
            ON: (Arm(ON, make_learner, asks=True, **same), settings.steps),
            OFF: (Arm(OFF, make_learner, asks=False, **same), settings.steps),
        }
        comparisons.append(compare(f"{latency:g} s", arms, settings.blocks))
    report("annotator", vars(settings), GOAL, OFF, comparisons, settings.out)


if __name__ == "__main__":
    main()
