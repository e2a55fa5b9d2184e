"""Questions to answers: who says which of two clips is better."""

from vlmrl.registry import Registry

# Each entry is a config dataclass, a `settings.JudgeSettings`, whose `build(encoder, device)` returns a Judge and whose
# `open_desk(encoder, device, store)` returns the Desk to ask.
JUDGES = Registry(
    "judge",
    {
        "encoder": "vlmrl.judges.encoder:EncoderJudgeConfig",
        "ground_truth": "vlmrl.judges.ground_truth:GroundTruthConfig",
        "human": "vlmrl.judges.human:HumanConfig",
        "hybrid": "vlmrl.judges.hybrid:HybridConfig",
        "openai": "vlmrl.judges.openai:OpenAIConfig",
        "replay": "vlmrl.judges.replay:ReplayConfig",
        "transformers": "vlmrl.judges.transformers:TransformersConfig",
    },
)
