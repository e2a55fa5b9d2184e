"""Where an encoder runs."""

from vlmrl.registry import Registry

# Each entry is a config dataclass whose `build(encoder, device)` returns a Service.
SCORERS = Registry(
    "scorer",
    {
        "local": "vlmrl.serving.local:LocalConfig",
        "process": "vlmrl.serving.process:ProcessConfig",
        "ray": "vlmrl.serving.ray:RayConfig",
        "thread": "vlmrl.serving.thread:ThreadConfig",
    },
)
