"""Frames and text to unit embeddings."""

from vlmrl.registry import Registry

# Each entry is a config dataclass whose `build(device)` returns an Encoder.
ENCODERS = Registry(
    "encoder",
    {
        "crafter": "vlmrl.encoders.crafter:CrafterConfig",
        "liv": "vlmrl.encoders.liv:LivConfig",
        "mineclip": "vlmrl.encoders.mineclip:MineClipConfig",
        "mini": "vlmrl.encoders.mini:MiniConfig",
        "open_clip": "vlmrl.encoders.open_clip:OpenClipConfig",
    },
)
