"""Rows of an episode to rewards."""

from vlmrl.registry import Registry

# Each entry is a config dataclass whose `build(words, encoder)` returns a RewardModel.
REWARDS = Registry(
    "reward",
    {
        "clip": "vlmrl.reward_models.clip:ClipConfig",
        "clip_contrastive": "vlmrl.reward_models.clip_contrastive:ClipContrastiveConfig",
        "ground_truth": "vlmrl.reward_models.ground_truth:GroundTruthConfig",
        "liv": "vlmrl.reward_models.liv:LivRewardConfig",
        "perceptual": "vlmrl.reward_models.perceptual:PerceptualConfig",
        "text2reward": "vlmrl.reward_models.text2reward:Text2RewardConfig",
        "vlm_preference": "vlmrl.reward_models.vlm_preference:VlmPreferenceConfig",
    },
)
