"""An environment of your own, not registered anywhere: a class with `render()` is all that is needed.

    python examples/own_environment.py --pretrained laion2b_s34b_b79k --goal 'a red dot in the top right corner'

`--model local-dir:<folder>` takes weights of your own. Without any, the embedded encoder looks. It was made for the
suite's own environments: the code runs, and warns that its rewards say nothing about dots.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from vlmrl.encoders.open_clip import OpenClipConfig
from vlmrl.envs.wrappers import ModelRewardWrapper
from vlmrl.reward_models.clip import ClipReward

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--goal", default="a red dot in the top right corner")
parser.add_argument("--model", help="an open_clip model; ViT-B-32 where only --pretrained is given")
parser.add_argument("--pretrained", default="", help="a tag of open_clip, or a weights file")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--seed", type=int, default=0)


class Dot(gym.Env):
    """A red dot on white paper, pushed about; its reward of its own is always 0, and episodes take 50 steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Box(-0.2, 0.2, (2,), np.float32)

    def __init__(self, size: int = 112):
        self.render_mode = "rgb_array"
        self._size = size

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Put the dot anywhere."""
        super().reset(seed=seed)
        self._place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self._steps = 0
        return self._place.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Push the dot."""
        self._place = np.clip(self._place + action, -1, 1).astype(np.float32)
        self._steps += 1
        return self._place.copy(), 0.0, False, self._steps == 50, {}

    def render(self) -> np.ndarray:
        """Return the picture, (size, size, 3) uint8 RGB."""
        y, x = np.mgrid[1 : -1 : self._size * 1j, -1 : 1 : self._size * 1j]  # y points up
        inside = (x - self._place[0]) ** 2 + (y - self._place[1]) ** 2 < 0.2**2
        return np.where(inside[..., None], (220, 30, 30), (255, 255, 255)).astype(np.uint8)


def main() -> None:
    """Push the dot about at random, and say where the model liked it best and least."""
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = None
    if args.model or args.pretrained:
        encoder = OpenClipConfig(args.model or "ViT-B-32", args.pretrained).build("cpu")
    env = ModelRewardWrapper(Dot(), ClipReward(args.goal, encoder=encoder))

    env.reset(seed=args.seed)
    env.action_space.seed(args.seed)
    seen = []
    for _ in range(args.steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append((reward, observation))
        if terminated or truncated:
            env.reset()
    seen.sort(key=lambda entry: entry[0])
    for word, (reward, place) in (("least", seen[0]), ("best", seen[-1])):
        print(f"liked {word}: the dot at x = {place[0]:+.2f}, y = {place[1]:+.2f} (reward {reward:.3f})")
    env.close()


if __name__ == "__main__":
    main()
