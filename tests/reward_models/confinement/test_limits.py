"""What the kernel is told about the confined process, as it tells it."""

from __future__ import annotations

import os
import sys

import pytest

from tests.reward_models.programs.toy import GOOD, TOY
from vlmrl.reward_models.confinement.process import ConfinedProgram


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SCHED_BATCH is Linux's")
def test_a_program_never_interrupts_the_process_that_asks() -> None:
    with ConfinedProgram(GOOD, TOY, "none") as program:
        assert os.sched_getscheduler(program._process.pid) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) != os.SCHED_BATCH
