"""What a reward program has promised, checked on recorded states before anything learns from it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from vlmrl.quantities import Abstraction
from vlmrl.reward_models.confinement.process import ConfinedProgram, Level, ProgramError
from vlmrl.reward_models.programs.grammar import Finding, quantities_read, read

STATES = 512  # states that a check is made on
LARGEST = 1e4  # of a reward, either way
BATCH = 8  # states of the call whose time counts: one vector step
CALLS = 16  # such calls that are timed
SLOWEST = 0.02  # s that the fastest of them may take; a good one takes a hundredth
RTOL, ATOL = 1e-6, 1e-9  # how equal sums and rows by themselves are: numpy adds in another order


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        findings: What is wrong; empty if the program may be used.
        components: Names of the components, in order; empty if it does not run.
        microseconds: Least time of a call with `BATCH` states.
    """

    findings: tuple[Finding, ...]
    components: tuple[str, ...] = ()
    microseconds: float = 0.0


def check(
    source: str, abstraction: Abstraction, states: np.ndarray, actions: np.ndarray, level: Level, timeout: float
) -> Checked:
    """Check a program: first what can be read, then what it does in a confined process of its own.

    Args:
        source: Its text.
        abstraction: What it reads.
        states: (n, abstraction.size) float64, n at least 256.
        actions: (n, A) float64.
        level: How it is confined.
        timeout: Seconds that a call may take.
    """
    findings = read(source, abstraction)
    if findings:
        return Checked(tuple(findings))
    # As in training: it is given what it reads, and nothing else.
    narrowed, places = abstraction.narrowed(quantities_read(source, abstraction))
    try:
        with ConfinedProgram(source, narrowed, level, timeout) as program:
            return try_out(program, states[:, places], actions)
    except ProgramError as error:
        return Checked((found(error, source),))


def found(error: ProgramError, source: str) -> Finding:
    """Return a finding for what went wrong while a program ran, with the text of its line."""
    lines = source.splitlines()
    text = lines[error.line - 1].strip() if 0 < error.line <= len(lines) else ""
    return Finding(str(error), error.line, text)


def try_out(run: ConfinedProgram, states: np.ndarray, actions: np.ndarray) -> Checked:
    """Run a program on recorded states and compare what it says with itself.

    The process hands states over as read-only arrays, so a program that writes into them raises.

    Args:
        run: Runs it.
        states: (n, size) float64.
        actions: (n, A) float64.

    Raises:
        ProgramError: It failed.
    """
    total, components = run(states, actions)
    findings: list[str] = []
    names = tuple(components)
    largest = np.abs(total).max()
    if largest > LARGEST:
        message = f"total must lie within {LARGEST:g} either way, and reaches {largest:.3g}"
        return Checked((Finding(message),), names)
    added = np.sum(list(components.values()), axis=0)
    if not np.allclose(total, added, RTOL, ATOL):
        worst = int(np.abs(total - added).argmax())
        findings.append(
            f"total must be the sum of the components; at one state it is {total[worst]:.6g}, and they add up to "
            f"{added[worst]:.6g}"
        )
    if total.std() < 1e-9:
        findings.append(f"total is {total[0]:.6g} at all {len(total)} recorded states: nothing can be learned from it")
    findings += _alike(run, states, actions, total, names)
    seconds = []
    for start in range(0, min(len(states), CALLS * BATCH), BATCH):
        begin = time.perf_counter()
        run(states[start : start + BATCH], actions[start : start + BATCH])
        seconds.append(time.perf_counter() - begin)
    least = min(seconds)  # what else goes on on this machine must not decide: a call that was not disturbed counts
    if least > SLOWEST:
        findings.append(f"a call with {BATCH} states takes {1e3 * least:.1f} ms; {1e3 * SLOWEST:g} ms are allowed")
    return Checked(tuple(Finding(message) for message in findings), names, 1e6 * least)


def _alike(
    run: ConfinedProgram, states: np.ndarray, actions: np.ndarray, total: np.ndarray, names: tuple[str, ...]
) -> list[str]:
    """Ask again in other ways: the same rows must get the same rewards."""
    findings = []
    again, components = run(states, actions)
    if tuple(components) != names:
        return [f"the components change from call to call: {', '.join(names)}; then {', '.join(components)}"]
    if not np.array_equal(total, again):
        findings.append("the same states got other rewards when they were asked for again: it must be deterministic")
    order = np.random.default_rng(0).permutation(len(states))
    parts, at = [], 0
    for size in (1, 2, BATCH, 3 * BATCH):  # of all sizes, as they come from environments and from replays
        part, components = run(states[order[at : at + size]], actions[order[at : at + size]])
        if tuple(components) != names:
            findings.append(f"with {size} states the components are {', '.join(components)}, not {', '.join(names)}")
        parts.append(part)
        at += size
    alone = np.concatenate(parts)
    rows = order[:at]
    if not findings and not np.allclose(alone, total[rows], RTOL, ATOL):
        findings.append(
            "a state got another reward in other company: each row must be rewarded by itself, so no mean, maximum or "
            "sum over axis 0"
        )
    return findings
