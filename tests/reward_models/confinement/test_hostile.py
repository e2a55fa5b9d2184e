"""Programs that try to do harm, judged by what became of this process, its files and its neighbours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.patience import PATIENCE
from tests.reward_models.confinement.hostile import BODIES, source
from tests.reward_models.programs.toy import GOOD, TOY, recorded
from vlmrl.reward_models.confinement.process import ConfinedProgram, ProgramError, measured_level
from vlmrl.reward_models.programs.grammar import read

SECRET = "8f2c61-not-to-be-told"
TIMEOUT = 1.5
full = pytest.mark.skipif(measured_level() != "full", reason="this system has no Landlock or no filter of system calls")


@dataclass
class Host:
    """What could be harmed."""

    folder: Path
    canary: Path
    memory: np.ndarray
    child: subprocess.Popen[bytes]
    listener: socket.socket

    def facts(self) -> dict[str, object]:
        return {
            "canary": str(self.canary),
            "new": str(self.folder / "new"),
            "parent": os.getpid(),
            "child": self.child.pid,
            "port": self.listener.getsockname()[1],
            "address": self.memory.ctypes.data,
        }

    def check(self) -> None:
        assert self.canary.read_text() == SECRET
        assert self.canary.stat().st_mode & 0o777 == 0o600
        assert self.canary.stat().st_mtime > 1
        assert [path.name for path in self.folder.iterdir()] == [self.canary.name]
        assert (self.memory == 7).all()
        assert self.child.poll() is None
        with pytest.raises(BlockingIOError):
            self.listener.accept()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    canary = folder / "canary"
    canary.write_text(SECRET)
    canary.chmod(0o600)
    os.environ["VLMRL_TEST_SECRET"] = SECRET
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Host(folder, canary, np.full(64, 7.0), child, listener)
    child.kill()
    child.wait()
    del os.environ["VLMRL_TEST_SECRET"]


def _session(number: int) -> list[str]:
    """Return the processes of a session that are alive."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = folder.joinpath("stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == number and fields[0] != "Z":
            alive.append(folder.name)
    return alive


@full
@pytest.mark.parametrize("name", BODIES)
def test_nothing_outside_is_touched_even_if_nothing_is_read_first(name: str, host: Host) -> None:
    states, actions = recorded(8)
    started = time.monotonic()
    program = ConfinedProgram(source(BODIES[name], host.facts()), TOY, "full", TIMEOUT)
    try:
        total, components = program(states, actions)
        told = str(components)
        assert total.shape == (8,) and np.isfinite(total).all()  # what it may return, if it returns, is a reward
    except ProgramError as error:
        told = str(error)
    number = program._process.pid
    program.close()
    assert SECRET not in told
    assert len(told) < 6000 and "\x1b" not in told
    assert time.monotonic() - started < TIMEOUT + 30  # nothing holds the parent up
    assert _session(number) == []
    host.check()


@full
@pytest.mark.parametrize("name", ["write a file", "a command", "connect", "kill another process", "open by number"])
def test_a_system_call_that_a_reward_has_no_use_for_ends_it_at_once(name: str, host: Host) -> None:
    program = ConfinedProgram(source(BODIES[name], host.facts()), TOY, "full", 30.0)
    with program, pytest.raises(ProgramError, match="system call") as error:
        program(*recorded(8))
    assert error.value.kind == "killed"


@pytest.mark.parametrize("name", BODIES)
def test_they_are_all_refused_before_they_run(name: str, host: Host) -> None:
    assert read(source(BODIES[name], host.facts()), TOY)


@full
def test_the_ways_out_lead_somewhere_without_confinement(host: Host, tmp_path: Path) -> None:
    # Otherwise the tests above might pass because the programs are wrong.
    made = tmp_path / "made"
    body = "b['open']({new!r}, 'w').write(b['open']({canary!r}).read())"
    facts = {**host.facts(), "new": str(made)}
    with ConfinedProgram(source(body, facts), TOY, "none", TIMEOUT) as program:
        program(*recorded(8))
    assert made.read_text() == SECRET


@full
def test_limits_alone_keep_memory_and_file_sizes_but_not_files(host: Host, tmp_path: Path) -> None:
    made = tmp_path / "made"
    program = ConfinedProgram(source("np.zeros(1 << 28)", host.facts()), TOY, "rlimit", TIMEOUT)
    with program, pytest.raises(ProgramError, match="MemoryError|allocate"):
        program(*recorded(8))
    with ConfinedProgram(
        source("b['open']({new!r}, 'w').write('x')", {"new": str(made)}), TOY, "rlimit", TIMEOUT
    ) as it:
        it(*recorded(8))
    assert made.read_text() == ""  # RLIMIT_FSIZE: a file can be made, and nothing written


@pytest.mark.parametrize("level", ["full", "rlimit", "none"])
def test_an_honest_program_runs_the_same_at_every_level(level: str) -> None:
    if level == "full" and measured_level() != "full":
        pytest.skip("this system has no Landlock or no filter of system calls")
    states, actions = recorded(2500)  # several calls
    with ConfinedProgram(GOOD, TOY, level) as program:  # type: ignore[arg-type]
        total, components = program(states, actions)
    up, effort = np.exp(-(states[:, 12] ** 2)), -0.1 * actions[:, 0] ** 2
    np.testing.assert_allclose(total, up + effort)
    np.testing.assert_allclose(components["effort"], effort)


def test_the_process_knows_nothing_of_this_one(host: Host) -> None:
    body = "raise b['ValueError'](repr(sorted(g['environ'])) + g['getcwd']() + repr(g['listdir']('/proc/self/fd')))"
    program = ConfinedProgram(source(body, host.facts()), TOY, "none", TIMEOUT)
    with program, pytest.raises(ProgramError) as error:
        program(*recorded(8))
    assert "SECRET" not in str(error.value) and "'HOME'" not in str(error.value)
    assert "/'" not in str(error.value) and "'4'" not in str(error.value)  # 0, 1, 2 and the one that lists


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from tests.reward_models.programs.toy import GOOD, TOY\n"
        "from vlmrl.reward_models.confinement.process import ConfinedProgram, measured_level\n"
        "program = ConfinedProgram(GOOD, TOY, measured_level())\n"
        "print(program._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=PATIENCE)
    number = int(run.stdout)
    for _ in range(100):
        if not _session(number):
            break
        time.sleep(0.05)
    assert _session(number) == []
