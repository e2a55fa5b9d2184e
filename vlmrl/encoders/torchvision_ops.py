"""Lets torchvision be imported where its compiled operators do not fit the torch that is installed.

The package index serves torchvision as a CUDA build. Beside a CPU build of torch its compiled library does not load,
and `import torchvision` (hence `import open_clip`) dies with "operator torchvision::nms does not exist", because
torchvision registers shapes for operators that nobody has declared (pytorch/vision issue 9085). open_clip uses
torchvision for transforms alone, which are plain Python. So declaring the operators, without giving them a body, is
enough.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

# Operators for which `torchvision/_meta_registrations.py` registers shapes without asking whether they exist.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: torch.library.Library | None = None  # torch forgets the declarations when this object dies


def prepare_torchvision() -> bool:
    """Declare torchvision's missing operators; call before the first import of torchvision or open_clip.

    Does nothing where torchvision is imported already or where its compiled operators load. Calling a declared operator
    raises torch's own "could not run torchvision::nms" error.

    Returns:
        Whether the operators are declared rather than compiled.
    """
    global _declared
    if _declared is not None:
        return True
    if "torchvision" in sys.modules or _compiled_operators_load():
        return False
    _declared = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        _declared.define(schema)
    return True


def _compiled_operators_load() -> bool:
    """Load torchvision's compiled library as torchvision would, without importing torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # no torchvision: its import says so better than anything here
    libraries = [path for suffix in ("so", "pyd", "dylib") for path in Path(spec.origin).parent.glob(f"_C*.{suffix}")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return bool(libraries)
