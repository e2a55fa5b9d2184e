"""Rows of an episode to rewards."""

from vlmrl.registry import Registry

# Each entry is a config dataclass whose `build(words, encoder)` returns a RewardModel.
REWARDS = Registry(
    "reward",
    {
        "clip": "vlmrl.reward_models.clip:ClipConfig",
        "clip4mc": "vlmrl.reward_models.video:VideoRewardConfig",
        "clip_contrastive": "vlmrl.reward_models.clip_contrastive:ClipContrastiveConfig",
        "failure_prompts": "vlmrl.reward_models.failure_prompts:FailurePromptConfig",
        "ground_truth": "vlmrl.reward_models.ground_truth:GroundTruthConfig",
        "liv": "vlmrl.reward_models.liv:LivRewardConfig",
        "mineclip": "vlmrl.reward_models.video:VideoRewardConfig",
        "oni": "vlmrl.reward_models.oni:OniConfig",
        "optimal_transport": "vlmrl.reward_models.optimal_transport:OptimalTransportConfig",
        "perceptual": "vlmrl.reward_models.perceptual:PerceptualConfig",
        "temporal_alignment": "vlmrl.reward_models.temporal_alignment:TemporalAlignmentConfig",
        "roboclip": "vlmrl.reward_models.roboclip:RoboClipConfig",
        "text2reward": "vlmrl.reward_models.text2reward:Text2RewardConfig",
        "vlm_preference": "vlmrl.reward_models.vlm_preference:VlmPreferenceConfig",
    },
)
