"""Recorded data: episodes in, episodes out."""

from vlmrl.registry import Registry

# Each entry is a class with `recognises(spec)` and `open(spec)`; see `vlmrl.datasets.base.DatasetFormat`. Those that
# come with the suite know each other's marks, so that one thing is recognised by one of them at most.
DATASETS = Registry(
    "dataset format",
    {
        "clips": "vlmrl.datasets.clips:ClipFolder",
        "d4rl": "vlmrl.datasets.d4rl:D4rlDataset",
        "lerobot": "vlmrl.datasets.lerobot:LeRobotDataset",
        "minari": "vlmrl.datasets.minari:MinariData",
    },
)
