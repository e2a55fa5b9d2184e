"""Steps with a reward in words: the suite's path against the wrapper that one would write first.

    python -m benchmarks.reward_path

The naive wrapper draws with Gymnasium's defaults, preprocesses with open_clip's PIL transform and encodes a batch of
one, with the same model. At the encoder's own size everything else is equal; at Gymnasium's default size (480 pixels),
PIL also shrinks. Both have one thread of torch in each process: a second one does not make a batch of one faster, and
makes it far slower where something else runs on the same cores (--naive-threads 2 shows it).

The first comparison has no learner. The others have SAC, at one gradient step (batches of 256) for every transition,
for every 8th, and for every 32nd.
"""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.blocks import Arm, Block, Comparison, compare, parser, report
from benchmarks.render import make_humanoid

GOAL = 8.0
GOAL_WORDS, BASELINE = "a humanoid robot kneeling", "a humanoid robot"
RATES = {"1": Fraction(1), "1/8": Fraction(1, 8), "1/32": Fraction(1, 32)}


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__, "reward_path", steps=100)
    arguments.add_argument("--n-envs", type=int, default=8, help="environments of the suite's path")
    arguments.add_argument("--fill-every", type=int, default=8, help="vector steps between fills, without a learner")
    arguments.add_argument("--score-every", type=int, default=1, help="the suite's path looks at every k-th frame only")
    arguments.add_argument("--naive-threads", type=int, default=1, help="threads of torch in the naive arms")
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the suite's encoder")
    arguments.add_argument(
        "--updates",
        nargs="*",
        choices=RATES,
        default=list(RATES),
        help="gradient steps a transition",
    )
    settings = arguments.parse_args()
    ours = {name: getattr(settings, name) for name in ("n_envs", "fill_every", "score_every", "precision")}

    def against(name: str, updates: Fraction | None, sizes: dict[str, bool]) -> Comparison:
        arms = {"suite": (Arm("suite", make_suite, updates=updates, **ours), 8 * settings.steps)}
        for arm, default_size in sizes.items():
            arms[arm] = (
                Arm(arm, make_naive, updates=updates, default_size=default_size, threads=settings.naive_threads),
                settings.steps,
            )
        return compare(name, arms, settings.blocks)

    comparisons = [against("no learner", None, {"naive": False, "naive, 480 px": True})]
    comparisons += [against(f"{rate} updates", RATES[rate], {"naive": False}) for rate in settings.updates]
    report("reward_path", vars(settings), GOAL, "naive", comparisons, settings.out)


def make_suite(updates: Fraction | None, n_envs: int, fill_every: int, score_every: int, precision: str) -> Block:
    """Make the path that the commands use: workers that draw, rewards filled in batches."""
    import torch

    from vlmrl.encoders.mini import MiniConfig
    from vlmrl.envs.lazy_rewards import LazyRewards, RewardScale
    from vlmrl.envs.make import EnvSettings, make_vec_env
    from vlmrl.envs.tasks import PREDICATES, Task
    from vlmrl.reward_models.clip import ClipReward
    from vlmrl.serving.scorer import LocalScorer

    torch.set_num_threads(1)  # as `vlmrl.train` does
    encoder = MiniConfig(precision="bf16" if precision == "bf16" else "fp32").build("cpu")
    height, width = encoder.image_size
    model = ClipReward(GOAL_WORDS, BASELINE, encoder=encoder)
    task = Task("kneeling", GOAL_WORDS, BASELINE, predicate=PREDICATES.load("humanoid/kneeling"))
    env_settings = EnvSettings("vlmrl/Humanoid-v0", task, height, width, score_every=score_every)
    scale = RewardScale(enabled=updates is not None)
    env = make_vec_env(env_settings, LazyRewards(model, LocalScorer(encoder), scale), n_envs, seed=0)
    if updates is not None:
        return learning(env, n_envs, updates)
    env.reset()
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high

    def block(n: int) -> float:
        waiting, rewards = [], []
        started = time.perf_counter()
        for step in range(1, -(-n // n_envs) + 1):
            env.step(rng.uniform(low, high, (n_envs, *low.shape)).astype(np.float32))
            waiting.append(env.keys)
            if step % fill_every == 0:
                rewards.append(env.rewards.fill(np.concatenate(waiting)))
                waiting = []
        if waiting:
            rewards.append(env.rewards.fill(np.concatenate(waiting)))
        seconds = time.perf_counter() - started
        done = np.concatenate(rewards)
        assert np.isfinite(done).all()
        return seconds * n / len(done)  # whole vector steps were done, at least n

    block.close = env.close  # type: ignore[attr-defined]
    return block


class NaiveReward(gym.Wrapper):
    """What one writes first: a picture, PIL, a batch of one, a cosine.

    Args:
        env: Draws the pictures.
        model: The model in open_clip's words; None is the embedded one.
        device: Torch device.
    """

    def __init__(self, env: gym.Env, model: str | None = None, device: str = "cpu"):
        super().__init__(env)
        from vlmrl.encoders.mini import WEIGHTS
        from vlmrl.encoders.torchvision_ops import prepare_torchvision

        prepare_torchvision()  # before open_clip
        import open_clip

        name = model or f"local-dir:{WEIGHTS}"
        self._device = device
        self._model, self._preprocess = open_clip.create_model_from_pretrained(name, device=device)
        self._model.eval()
        tokens = open_clip.get_tokenizer(name)([GOAL_WORDS])
        self._goal = self._embed(self._model.encode_text, tokens)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, draw, encode."""
        from PIL import Image

        observation, _, terminated, truncated, info = self.env.step(action)
        frame: Any = self.env.render()
        picture = self._preprocess(Image.fromarray(frame)).unsqueeze(0)
        image = self._embed(self._model.encode_image, picture)
        return observation, float(image @ self._goal), terminated, truncated, info

    def _embed(self, encode: Any, inputs: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            features = encode(inputs.to(self._device))[0]
            return (features / features.norm()).cpu().numpy()


def make_naive(updates: Fraction | None, default_size: bool, threads: int) -> Block:
    """Make the naive path: one environment in this process."""
    import torch

    from vlmrl.encoders.mini import MiniConfig

    torch.set_num_threads(threads)
    size = None if default_size else MiniConfig().build("cpu").image_size[0]
    humanoid = make_humanoid("Humanoid-v5", size)
    # The suite's observation and length of episodes, so that a learner has the same to do.
    for name in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext"):
        setattr(humanoid.unwrapped, f"_include_{name}_in_observation", False)
    parts = humanoid.unwrapped._get_obs()
    humanoid.unwrapped.observation_space = gym.spaces.Box(-np.inf, np.inf, parts.shape, np.float64)
    env = NaiveReward(gym.wrappers.TimeLimit(humanoid.unwrapped, 100))
    if updates is not None:
        from stable_baselines3.common.vec_env import DummyVecEnv

        return learning(DummyVecEnv([lambda: env]), 1, updates)
    env.reset(seed=0)
    env.action_space.seed(0)

    def block(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert np.isfinite(reward)
            if terminated or truncated:
                env.reset()
        return time.perf_counter() - started

    block.close = env.close  # type: ignore[attr-defined]
    return block


def learning(
    env: Any, n_envs: int, updates: Fraction, learning_starts: int | None = None, device: str = "cpu"
) -> Block:
    """Let SAC learn on an environment, at so many gradient steps a transition; from the first ones on by default.

    The block's `model` is the algorithm.
    """
    from vlmrl.agents.sac import SacConfig

    per_vector_step = n_envs * updates
    config = SacConfig(
        learning_rate=6e-4, learning_rate_schedule="constant",
        buffer_size=100_000, learning_starts=learning_starts or n_envs, batch_size=256, tau=0.005, gamma=0.95,
        train_freq=per_vector_step.denominator, gradient_steps=per_vector_step.numerator, n_steps=1, ent_coef="auto",
        use_sde=False, net_arch=(256, 256),
    )  # fmt: skip
    model = config.build(env, seed=0, device=device)

    def block(n: int) -> float:
        before = model.num_timesteps
        started = time.perf_counter()
        model.learn(n, reset_num_timesteps=before == 0)
        return (time.perf_counter() - started) * n / (model.num_timesteps - before)

    block.close, block.model = env.close, model  # type: ignore[attr-defined]
    return block


if __name__ == "__main__":
    main()
