"""A filter of system calls: what computing takes is allowed, all else kills the process.

The filter is a program for the kernel's classic BPF machine, `seccomp(2)` and linux/filter.h. It checks the
architecture first, because numbers of system calls mean other calls on another one.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import NamedTuple

KILL_PROCESS, ALLOW = 0x80000000, 0x7FFF0000  # SECCOMP_RET_*
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_*, with BPF_W, ABS and K
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
PR_SET_SECCOMP, MODE_FILTER = 22, 2
PROT_EXEC = 4
X32 = 0x40000000  # on x86_64, numbers from here on are calls of the x32 interface


class Machine(NamedTuple):
    """An architecture: AUDIT_ARCH_* of linux/audit.h and its numbers of the allowed calls."""

    audit: int
    read: int
    write: int
    mmap: int
    mprotect: int
    others: tuple[int, ...]


# others: munmap, mremap, brk, madvise, futex, rt_sigreturn, exit, exit_group, restart_syscall, sched_yield,
# clock_gettime, getrandom, membarrier
MACHINES = {
    "x86_64": Machine(0xC000003E, 0, 1, 9, 10, (11, 25, 12, 28, 202, 15, 60, 231, 219, 24, 228, 318, 324)),
    "aarch64": Machine(0xC00000B7, 63, 64, 222, 226, (215, 216, 214, 233, 98, 139, 93, 94, 128, 124, 113, 278, 283)),
}


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction))]


def available() -> bool:
    """Whether this system can filter system calls and the numbers of its calls are known here."""
    if not sys.platform.startswith("linux") or platform.machine() not in MACHINES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.c_void_p(None)
    # A filter at address 0 is refused with EFAULT where filters are known, and with EINVAL elsewhere.
    libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(MODE_FILTER), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0))
    return ctypes.get_errno() == 14


def allow_computing(reads: int, writes: int) -> None:
    """Let this process read one descriptor, write another, get and give back memory, and end; all else kills it.

    Args:
        reads: The descriptor that may be read.
        writes: The descriptor that may be written.

    Raises:
        OSError: The system refuses, or its architecture is not known here.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(f"The system calls of {platform.machine()} are not known here.")
    code = instructions(machine, reads, writes)
    array = (_Instruction * len(code))(*(_Instruction(*line) for line in code))
    program = _Program(len(code), array)
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(PR_SET_SECCOMP), ctypes.c_ulong(MODE_FILTER), ctypes.byref(program), zero, zero) != 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def instructions(machine: Machine, reads: int, writes: int) -> list[tuple[int, int, int, int]]:
    """Write the filter, as (code, jump if so, jump if not, constant); a jump counts the instructions left out."""
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
        (JUMP_AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL_PROCESS),
    ]
    for number, descriptor in ((machine.read, reads), (machine.write, writes)):
        code += [
            (JUMP_EQUAL, 0, 6, number),
            (LOAD, 0, 0, ARGUMENTS),  # the lower half of the first argument on these machines
            (JUMP_EQUAL, 0, 3, descriptor),
            (LOAD, 0, 0, ARGUMENTS + 4),
            (JUMP_EQUAL, 0, 1, 0),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, KILL_PROCESS),
        ]
    for number in (machine.mmap, machine.mprotect):  # memory yes, but none that could be executed
        code += [
            (JUMP_EQUAL, 0, 4, number),
            (LOAD, 0, 0, ARGUMENTS + 16),
            (JUMP_SET, 1, 0, PROT_EXEC),
            (RETURN, 0, 0, ALLOW),
            (RETURN, 0, 0, KILL_PROCESS),
        ]
    for number in machine.others:
        code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    return [*code, (RETURN, 0, 0, KILL_PROCESS)]
