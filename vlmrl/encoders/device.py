"""Where an encoder's weights go, said in torch's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmrl.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """Return a torch device that is there.

    Args:
        name: "auto" (CUDA if there is any), "cpu", "cuda", "cuda:<n>", or another name that torch knows, such as "mps".

    Raises:
        UserError: It is no name of a device, or the device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:  # a list of forty kinds of device follows, most of which nobody has
        raise UserError(f"device is '{name}', which torch does not know. Use auto, cpu, cuda or cuda:<n>.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={name}: torch sees no CUDA device here. Use device=cpu or device=auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise UserError(f"device={name}: the CUDA devices here are cuda:0 to cuda:{last}. Use one of them, or auto.")
    return device
