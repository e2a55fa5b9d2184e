"""Limits that the kernel keeps for a process: rlimits, no new privileges, death with the parent."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import time
from contextlib import suppress

MEMORY = 1 << 30  # bytes of address space: numpy takes about a fifth
CPU_SECONDS = 6 * 3600  # for all calls together, which take microseconds each and have a deadline of their own
GRACE = 60  # seconds of processor time after which what ignores SIGXCPU is killed
FILES = 8  # descriptors: three are open

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h


def set_rlimits(cpu_seconds: int) -> None:
    """Limit memory, processor time, files and processes; soft below hard for time, so that SIGXCPU comes.

    Args:
        cpu_seconds: Processor time that the process may take from now on; the import of numpy does not count.

    Raises:
        OSError: The system refuses.
        ValueError: The system refuses: a limit is below it already.
    """
    cpu_end = math.ceil(time.process_time()) + cpu_seconds
    for limit, soft, hard in (
        (resource.RLIMIT_AS, MEMORY, MEMORY),
        (resource.RLIMIT_CPU, cpu_end, cpu_end + GRACE),
        (resource.RLIMIT_NOFILE, FILES, FILES),
        (resource.RLIMIT_NPROC, 0, 0),  # does not bind root; there it is the filter of system calls that forbids fork
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        most = resource.getrlimit(limit)[1]
        if most != resource.RLIM_INFINITY:  # nobody may raise a limit, and a lower one is as good
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(limit, (soft, hard))


def no_new_privileges() -> None:
    """Take from this process and its children the right to gain privileges; Landlock and seccomp ask for it.

    Raises:
        OSError: The system refuses.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, and let no other process look into its memory.

    Args:
        parent: Process id of the parent.

    Raises:
        OSError: The system refuses, or the parent is gone already.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        raise OSError(f"The parent {parent} is gone.")


def wait_for_a_free_processor() -> None:
    """Have the kernel never interrupt another process for this one when there is something to do (SCHED_BATCH).

    A process that is woken by a write to its pipe mostly takes the processor of the one that wrote. Here that one is
    stepping environments, and needs no answer until its next step.
    """
    with suppress(OSError):  # some containers forbid it, and it only costs speed
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def prctl(option: int, value: int) -> None:
    """Call the system's prctl with one argument.

    Raises:
        OSError: It fails, or this is no Linux.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl"):
        raise OSError("This system has no prctl.")
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}")
