"""What the kernel is told about the confined process, as it tells it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from tests.reward_models.programs.toy import GOOD, TOY, recorded
from vlmrl.errors import UserError
from vlmrl.reward_models.confinement.process import ConfinedProgram
from vlmrl.reward_models.programs.contract import Checked
from vlmrl.reward_models.text2reward import ProgramReward, Text2RewardConfig
from vlmrl.rows import Rows


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SCHED_BATCH is Linux's")
def test_a_program_never_interrupts_the_process_that_asks() -> None:
    with ConfinedProgram(GOOD, TOY, "none") as program:
        assert os.sched_getscheduler(program._process.pid) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) != os.SCHED_BATCH


@pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")
def test_a_program_that_used_up_its_processor_time_says_so_and_not_that_it_is_wrong() -> None:
    # Calls that are short, each of which leaves less: no deadline of a call is reached.
    slow = GOOD.replace("    up =", "    for _ in range(30):\n        np.sin(np.arange(100000))\n    up =")
    config = Text2RewardConfig(program=slow, confinement="rlimit", timeout_s=120, cpu_limit_s=1)
    model = ProgramReward(config, TOY, (), Checked(()), "a test")
    states, actions = recorded(8)
    rows = Rows.from_arrays({"quantities": states[:, 12:13], "action": actions})  # the angle is all it reads
    rewards = model(rows)
    with pytest.raises(UserError, match=r"all of the 1 s that it may \(reward.cpu_limit_s\).*resume=<run>"):
        for _ in range(2000):
            np.testing.assert_array_equal(model(rows), rewards)
    model.close()
    np.testing.assert_array_equal(model(rows), rewards)  # a process of its own again, with as much time
    model.close()
