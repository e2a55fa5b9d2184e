"""torchvision imports beside a torch that its compiled operators do not fit, and is left alone where they fit."""

from __future__ import annotations

import subprocess
import sys

from tests.patience import PATIENCE


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_torchvision_and_open_clip_import():
    out = run(
        "from vlmrl.encoders.torchvision_ops import prepare_torchvision\n"
        "prepare_torchvision()\n"
        "import torchvision.transforms, open_clip\n"
        "print('imported')"
    )
    assert out == "imported"


def test_operators_that_do_not_load_are_declared():
    # As on a machine where the compiled library does not fit, whatever this machine's does.
    out = run(
        "import torch\n"
        "def refuse(path): raise OSError('undefined symbol')\n"
        "torch.ops.load_library = refuse\n"
        "from vlmrl.encoders import torchvision_ops\n"
        "print(torchvision_ops.prepare_torchvision(), torchvision_ops.prepare_torchvision())\n"
        "import torchvision\n"
        "print(hasattr(torch.ops.torchvision, 'nms'))"
    )
    assert out.split() == ["True", "True", "True"]


def test_operators_that_load_are_left_alone():
    out = run(
        "import torch\n"
        "torch.ops.load_library = lambda path: None\n"
        "from vlmrl.encoders import torchvision_ops\n"
        "print(torchvision_ops.prepare_torchvision())"
    )
    assert out == "False"
