"""Landlock: no file, no TCP port, no signal and no abstract socket outside this process, for good.

Numbers and structures are those of linux/landlock.h; what each version of the interface (ABI) knows is in the kernel's
userspace-api/landlock documentation.
"""

from __future__ import annotations

import ctypes
import os
import sys

CREATE_RULESET, RESTRICT_SELF = 444, 446  # the same numbers on every architecture
VERSION = 1  # flag that asks for the ABI
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # ABI: number of file-system rights that it knows, bits from 0 on
NETWORK_RIGHTS = 0b11  # bind and connect TCP, from ABI 4 on
SCOPES = 0b11  # abstract UNIX sockets and signals, from ABI 6 on


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


def abi() -> int:
    """Return the version of Landlock's interface here; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(ctypes.c_long(CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION))
    return max(int(found), 0)


def deny_all() -> None:
    """Forbid this process and its children all that Landlock can forbid; `no_new_privileges` comes first.

    Raises:
        OSError: The kernel has no Landlock, or refuses.
    """
    version = abi()
    if version < 1:
        raise OSError("This kernel has no Landlock.")
    rights = max(bits for known, bits in FILE_RIGHTS.items() if known <= version)
    ruleset = _Ruleset((1 << rights) - 1, NETWORK_RIGHTS if version >= 4 else 0, SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(
        ctypes.c_long(CREATE_RULESET), ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if handle < 0:
        raise OSError(ctypes.get_errno(), f"landlock_create_ruleset: {os.strerror(ctypes.get_errno())}")
    try:
        if libc.syscall(ctypes.c_long(RESTRICT_SELF), ctypes.c_int(handle), ctypes.c_uint32(0)) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_restrict_self: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)
