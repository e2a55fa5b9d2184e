from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmrl.errors import UserError
from vlmrl.typed import Count, Natural, Positive, Range, Share, typed


@dataclass(frozen=True)
class Inner:
    rate: Positive
    share: Share = 0.5


@dataclass(frozen=True)
class Outer:
    steps: Count
    seed: Natural
    delta: Annotated[int, Range(-1)]
    size: Count | None
    name: str
    on: bool
    mode: Literal["lean", "default"]
    words: tuple[str, ...]
    layers: tuple[Count, ...]
    extra: dict[str, Any]
    inner: Inner
    bias: float = 0.0
    names: tuple[str, ...] | None = field(default=None)


GOOD: dict[str, Any] = {
    "steps": 10,
    "seed": 0,
    "delta": -1,
    "size": None,
    "name": "a",
    "on": True,
    "mode": "lean",
    "words": ["a", "b"],
    "layers": [64, 64],
    "extra": {"x": [1]},
    "inner": {"rate": 1e-3},
}


def test_good_values_come_out_typed() -> None:
    assert typed(Outer, GOOD) == Outer(
        10, 0, -1, None, "a", True, "lean", ("a", "b"), (64, 64), {"x": [1]}, Inner(1e-3, 0.5), 0.0, None
    )


@pytest.mark.parametrize(
    ("key", "given_", "wanted"),
    [
        ("steps", 1e6, 1_000_000),
        ("size", 3.0, 3),
        ("name", 0.1, "0.1"),
        ("words", "one sentence", ("one sentence",)),
        ("names", "one sentence", ("one sentence",)),
        ("layers", [], ()),
        ("bias", 2, 2.0),
        ("inner", {"rate": 1, "share": 1}, Inner(1.0, 1.0)),
        ("inner", Inner(2.0), Inner(2.0)),
    ],
)
def test_what_loses_nothing_is_taken(key: str, given_: Any, wanted: Any) -> None:
    value = getattr(typed(Outer, GOOD | {key: given_}), key)
    assert value == wanted
    assert type(value) is type(wanted)


@pytest.mark.parametrize(
    ("key", "given_", "message"),
    [
        ("steps", "abc", "steps is 'abc'; it must be a whole number, at least 1."),
        ("steps", 2.5, "steps is 2.5; it must be a whole number"),
        ("steps", 0, "steps is 0; it must be a whole number, at least 1."),
        ("steps", True, "steps is true; it must be a whole number"),
        ("steps", None, "steps is null; it must be a whole number"),
        ("steps", float("nan"), "steps is nan; it must be a whole number"),
        ("steps", float("inf"), "steps is inf; it must be a whole number"),
        ("seed", -1, "seed is -1; it must be a whole number, at least 0."),
        ("delta", -2, "delta is -2; it must be a whole number, at least -1."),
        ("size", 0, "size is 0; it must be a whole number, at least 1."),
        ("on", 1, "on is 1; it must be true or false."),
        ("on", "yes", "on is 'yes'; it must be true or false."),
        ("name", None, "name is null; it must be text."),
        ("mode", "leen", "mode=leen is not one of lean, default. Did you mean 'lean'?"),
        ("words", [["a"]], r"words[0] is ['a']; it must be text."),
        ("layers", 64, "layers is 64; it must be a list, each entry a whole number, at least 1."),
        ("layers", "64", "layers is '64'; it must be a list"),
        ("layers", [64, "x"], "layers[1] is 'x'; it must be a whole number"),
        ("extra", 3, "extra is 3; it must be keys with values."),
        ("inner", 3, "inner is 3; it must be keys with values."),
        ("inner", {"rate": 0}, "inner.rate is 0; it must be a number, greater than 0."),
        ("inner", {"rate": 1, "share": 1.1}, "inner.share is 1.1; it must be a number, 0 to 1."),
        ("inner", {}, "inner.rate is missing; give it a number, greater than 0."),
        ("inner", {"rat": 1}, "Unknown inner key 'rat'. Did you mean 'rate'? Available: rate, share."),
        ("seeed", 1, "Unknown key 'seeed'. Did you mean 'seed'?"),
        ("bias", float("nan"), "bias is nan; it must be a number."),
    ],
)
def test_each_mistake_has_its_message(key: str, given_: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        typed(Outer, GOOD | {key: given_})
    assert str(caught.value).startswith(message)


@given(st.integers(-(10**9), 10**9))
def test_integers_survive_being_written_as_floats(number: int) -> None:
    assert typed(Outer, GOOD | {"size": None, "steps": float(abs(number) + 1)}).steps == abs(number) + 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_share_is_between_zero_and_one(number: float) -> None:
    values = {"rate": 1, "share": number}
    if 0 <= number <= 1:
        assert typed(Inner, values).share == number
    else:
        with pytest.raises(UserError, match="0 to 1"):
            typed(Inner, values)
