"""Which quantities a program can come to, by its text."""

from __future__ import annotations

import pytest

from tests.reward_models.programs.toy import GOOD, TOY
from vlmrl.reward_models.programs.grammar import quantities_read, read

ANGLE, SPEED = ("angle",), ("speed",)
POSITION, ROTATION = ("arm", "position"), ("arm", "rotation")
ALL = {ANGLE, SPEED, POSITION, ROTATION}


def _source(*lines: str, before: str = "") -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"{before}\ndef compute_dense_reward(state, action):\n{body}\n    return total, {{'a': total}}\n"


HELPER = "def height(body):\n    return body.position[:, 2]\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GOOD, {ANGLE}),
        (_source("total = action[:, 0]"), set()),
        (_source("total = state.arm.position[:, 2] + state.speed"), {POSITION, SPEED}),
        (_source("total = state.arm.rotation.reshape(-1, 9).sum(axis=1)"), {ROTATION}),
        # A name for a group reads nothing by itself; a name for a quantity does where it is used.
        (_source("arm = state.arm", "total = arm.position[:, 0]"), {POSITION}),
        (_source("s = state", "arm = s.arm", "p = arm.position", "total = p[:, 0]"), {POSITION}),
        # What is handed on as a whole counts as a whole.
        (_source("total = height(state.arm)", before=HELPER), {POSITION, ROTATION}),
        (_source("arm = state.arm", "total = height(arm)", before=HELPER), {POSITION, ROTATION}),
        (_source("total = sum([body.position[:, 2] for body in (state.arm, state.arm)])"), {POSITION, ROTATION}),
        (_source("total = first(state)", before="def first(s):\n    return s.angle\n"), ALL),
        (_source("total = first(state)", before="def first(state):\n    return state.angle\n"), ALL),
        # A name with two meanings is not followed.
        (_source("a = state.arm", "a = state.arm", "total = a.position[:, 0]"), {POSITION, ROTATION}),
        (_source("if action.shape[0] > 1:", "    a = state.arm", "total = a.position[:, 0]"), {POSITION}),
        (_source("x, y = state.arm, state.speed", "total = y + x.position[:, 0]"), {POSITION, ROTATION, SPEED}),
        (_source("state = state", "total = state.angle"), ALL),
    ],
)
def test_what_a_program_comes_to_is_told_by_its_text(source: str, expected: set) -> None:
    assert read(source, TOY) == []
    assert quantities_read(source, TOY) == expected


def test_a_narrowed_vector_keeps_the_order_and_says_where_its_numbers_were() -> None:
    narrowed, places = TOY.narrowed({SPEED, ROTATION})
    assert [(path, leaf.start, leaf.shape) for path, leaf in narrowed.leaves()] == [
        (ROTATION, 0, (3, 3)),
        (SPEED, 9, ()),
    ]
    assert narrowed.size == 10 and places.tolist() == [*range(3, 12), 13]
    everything, places = TOY.narrowed(ALL)
    assert everything == TOY and places.tolist() == list(range(TOY.size))
    assert TOY.narrowed(())[0].size == 0
