"""Programs with faults that a language model makes, and what it is told of them."""

from __future__ import annotations

import re
import time

import pytest

from tests.reward_models.programs.toy import GOOD, TOY, recorded
from vlmrl.reward_models.confinement.process import measured_level
from vlmrl.reward_models.programs.contract import Checked, check
from vlmrl.reward_models.programs.grammar import read

HEAD = "def compute_dense_reward(state, action):\n"


def _checked(source: str, n: int = 256) -> Checked:
    return check(source, TOY, *recorded(n), measured_level(), 5.0)


def _body(*lines: str) -> str:
    return HEAD + "".join(f"    {line}\n" for line in lines)


READ = {  # found without running: (program, what is said)
    "a body that is not there": (_body("a = state.leg.position", "return a, {}"), "state has no attribute 'leg'"),
    "an attribute that is not there": (_body("a = state.arm.positon"), "Did you mean 'position'"),
    "through another name": (_body("arm = state.arm", "a = arm.velocity"), "state.arm has no attribute 'velocity'"),
    "a name that is not there": (_body("return totl, {}"), "'totl' is not defined"),
    "prose": ("The reward should be high when the pole is up.", "not Python"),
    "no function": ("x = 1.0", "there is none"),
    "two functions": (GOOD + GOOD, "2 of them"),
    "another name": (GOOD.replace("compute_dense_reward", "reward"), "there is none"),
    "another signature": (GOOD.replace("(state, action)", "(self, obs)"), "must be (state, action)"),
    "cut off": (GOOD[:-20], "not Python"),
    "import os": ("import os\n" + GOOD, "import"),
    "import from": (_body("from os import system", "system('x')"), "import"),
    "__import__": (_body("__import__('os')"), "underscore"),
    "eval": (_body("eval('1')"), "'eval' is not defined"),
    "exec": (_body("exec('x')"), "'exec' is not defined"),
    "compile": (_body("compile('x', 'x', 'exec')"), "'compile' is not defined"),
    "getattr": (_body("getattr(np, 'load')"), "'getattr' is not defined"),
    "globals": (_body("globals()"), "'globals' is not defined"),
    "open": (_body("open('x')"), "'open' is not defined"),
    "print": (_body("print(1)"), "'print' is not defined"),
    "a walk over classes": (_body("().__class__.__base__"), "attribute '__class__'"),
    "format": (_body("'{0.x}'.format(state)"), "attribute 'format'"),
    "an f-string": (_body("f'{state.angle}'"), "an f-string"),
    "while": (_body("while True:", "    pass"), "while"),
    "try": (_body("try:", "    pass", "except: pass"), "try"),
    "lambda": (_body("f = lambda x: x"), "lambda"),
    "class": ("class A:\n    x = 1\n" + GOOD, "class"),
    "a decorator": ("@staticmethod\n" + GOOD.strip(), "decorator"),
    "a walrus": (_body("(x := 1)"), ":="),
    "match": (_body("match state:", "    case _: pass"), "match"),
    "global": (_body("global x", "x = 1"), "global"),
    "del": (_body("del state"), "del"),
    "with": (_body("with state: pass"), "with"),
    "yield": (_body("yield 1"), "yield"),
    "async": ("async " + GOOD.strip(), "there is none"),
    "positional only": (GOOD.replace("(state, action)", "(state, action, /)"), "plain names"),
    "any arguments": (GOOD.replace("(state, action)", "(state, action, *rest)"), "plain names"),
    "setting an attribute": (_body("state.angle = 0"), "cannot be set"),
    "a look-alike name": (_body("\u0430ngle = 1"), "not ASCII"),
    "a look-alike attribute": (_body("state.\u0430ngle"), "has no attribute"),
    "np.load": (_body("np.load('x')"), "np.load is not there"),
    "np.random": (_body("np.random.rand(3)"), "np.random.rand is not there"),
    "np.lib": (_body("np.lib.stride_tricks.as_strided(1)"), "is not there"),
    "np.linalg.inv": (_body("np.linalg.inv(1)"), "is not there"),
    "tofile": (_body("state.angle.tofile('x')"), "attribute 'tofile'"),
    "ctypes": (_body("state.angle.ctypes"), "attribute 'ctypes'"),
    "a dunder of an array": (_body("state.angle.__array_interface__"), "__array_interface__"),
    "a function in a function": (_body("def f(): pass"), "within a function"),
    "a long loop": (_body("for i in range(10**1): pass", "for i in range(1000000): pass"), "1000 rounds"),
    "far too long": (HEAD + "    x = 1\n" * 4000, "characters"),
    "too many nodes": (HEAD + "    x=1\n" * 2000, "too big"),
    "nested too deep": (_body("x = " + "(" * 80 + "1" + "+1)" * 80), "too big"),
    "brackets without end": (_body("x = " + "[" * 5000), "not Python"),
    "a null character": (GOOD + "\0", "null character"),
    "bytes": (_body("x = b'x'"), "bytes"),
    "complex": (_body("x = 1j"), "complex"),
}

RUN = {  # found by running: (body, what is said)
    "NaN in some rows": (["t = np.sqrt(state.angle)", "return t, {'t': t}"], "must be finite, and is nan"),
    "infinite": (["t = 1 / (state.angle * 0)", "return t, {'t': t}"], "must be finite, and is"),
    "beyond all bounds": (["t = 1e300 * state.angle", "return t, {'t': t}"], "must lie within 10000"),
    "None": (["return None"], "returned None"),
    "a number": (["return 1.0"], "returned float"),
    "three things": (["return 1, 2, 3"], "a tuple of 3"),
    "a list for a total": (["return [0.0], {'t': state.angle}"], "total must be an array"),
    "one number for all": (["t = np.sum(state.angle)", "return t, {'t': t}"], "total must be an array"),
    "no dimension": (["t = np.array(0.5)", "return t, {'t': t}"], r"must have shape \(N,\)"),
    "a column": (["t = state.angle[:, None]", "return t, {'t': t}"], r"must have shape \(N,\)"),
    "one row less": (["t = state.angle[1:]", "return t, {'t': t}"], r"must have shape \(N,\)"),
    "bool": (["t = state.angle > 0", "return t, {'t': t}"], "must be of floats, and is of bool"),
    "whole numbers": (["t = np.ones(len(action), dtype=np.int64)", "return t, {'t': t}"], "of floats, and is of int64"),
    "text": (["t = np.array(['a'] * len(action))", "return t, {'t': t}"], "must be of floats"),
    "components that are a list": (["return state.angle, [state.angle]"], "must be a dict"),
    "no components": (["return state.angle, {}"], "1 to 16 components, and there are 0"),
    "17 components": (["return state.angle, {'c' + 'x' * i: state.angle for i in range(17)}"], "there are 17"),
    "a name that is none": (["return state.angle, {'a b': state.angle}"], "must be an identifier"),
    "a number for a name": (["return state.angle, {1: state.angle}"], "must be an identifier"),
    "a component that is a number": (["return state.angle, {'t': 1.0}"], "component 't' must be an array"),
    "they do not add up": (["return state.angle, {'t': 2 * state.angle}"], "must be the sum of the components"),
    "components that change": (
        ["n = len(action)", "t = state.angle", "return t, {'many' if n > 8 else 'few': t}"],
        "the components are few, not many",
    ),
    "constant": (["t = np.ones(len(action))", "return t, {'t': t}"], "nothing can be learned"),
    "coupled rows": (["t = state.angle - np.mean(state.angle)", "return t, {'t': t}"], "in other company"),
    "coupled by the size": (["t = state.angle / len(action)", "return t, {'t': t}"], "in other company"),
    "fails for one row only": (
        ["t = state.angle", "if len(action) == 1:", "    t = t + np.ones(3)", "return t, {'t': t}"],
        "must have shape",
    ),
    "a memory of earlier calls": (
        ["seen.append(1)", "t = state.angle * len(seen)", "return t, {'t': t}"],
        "deterministic",
    ),
    "writing into the state": (["a = state.angle", "a[:] = 0", "return a, {'a': a}"], "read-only"),
    "writing into the action": (["action *= 2", "t = action[:, 0]", "return t, {'t': t}"], "read-only"),
    "shapes that do not fit": (["t = state.angle + state.arm.position", "return t, {'t': t}"], "broadcast"),
    "an index too far": (["t = state.arm.position[:, 3]", "return t, {'t': t}"], "IndexError"),
    "a helper that hopes": (["t = height(state)", "return t, {'t': t}"], "has no attribute 'speed'"),
    "slow": (
        ["t = state.angle * 1.0", "for i in range(200):", "    t = t + 0 * BIG", "return t, {'t': t}"],
        "are allowed",
    ),
    "without end": (
        ["for i in range(1000):", "    for j in range(1000):", "        LOOP", "return 1, 2"],
        "did not answer",
    ),
    "recursion": (["t = again(state.angle)", "return t, {'t': t}"], "recursion"),
}
GLOBALS = "seen = []\n\ndef height(s):\n    return s.arm.speed\n\ndef again(x):\n    return again(x)\n\n"


@pytest.mark.parametrize("name", READ)
def test_reading_finds(name: str) -> None:
    source, said = READ[name]
    findings = read(source, TOY)
    assert any(said in str(finding) for finding in findings), findings


@pytest.mark.parametrize("statement", ["import os", "import numpy", "class A:\n    x = len([1])", "del np"])
def test_what_may_not_stand_beside_functions_is_said_once(statement: str) -> None:
    (finding,) = read(f"{statement}\n{GOOD}", TOY)
    assert "only functions and constants may stand here" in str(finding) and finding.line == 1


@pytest.mark.parametrize("name", RUN)
def test_running_finds(name: str) -> None:
    lines, said = RUN[name]
    body = [
        line.replace("BIG", "np.sum(np.ones(1000000))").replace("LOOP", "t = np.sum(np.ones(100000))") for line in lines
    ]
    checked = check(
        GLOBALS + _body(*body), TOY, *recorded(256), measured_level(), 1.0 if name == "without end" else 20.0
    )
    assert len(checked.findings) >= 1
    assert any(re.search(said, str(finding)) for finding in checked.findings), checked.findings


def test_a_finding_shows_the_line() -> None:
    (finding,) = read("# up\n" + _body("angle = state.angel", "return angle, {'a': angle}"), TOY)
    assert finding.line == 3 and finding.expression == "angle = state.angel"
    (finding,) = _checked(_body("t = state.angle", "t = t + np.ones(3)", "return t, {'t': t}")).findings
    assert finding.line == 3 and finding.expression == "t = t + np.ones(3)"


def test_a_good_program_passes_in_time() -> None:
    started = time.process_time()
    wall = time.monotonic()
    checked = _checked(GOOD, 512)
    assert checked.findings == () and checked.components == ("up", "effort") and 0 < checked.microseconds < 20_000
    assert time.process_time() - started < 2  # of this process; the other one's time is in the wall clock
    assert time.monotonic() - wall < 20


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\n" + GOOD,
        "SCALE = 2.0\n" + GOOD.replace("-np.square", "-SCALE * np.square"),
        GOOD.replace(
            "(state, action)", "(state: State, action: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]"
        ),
        "def height(s):\n    return np.exp(-s.arm.position[:, 2] ** 2)\n"
        + GOOD.replace("np.exp(-np.square(state.angle))", "height(state)"),
        GOOD.replace("up = np", '"""Up."""\n    total: np.ndarray = np.zeros(len(action))\n    up = total + np'),
        GOOD.replace(
            'return up + effort, {"up": up, "effort": effort}',
            'terms = {"up": up, "effort": effort}\n    return sum(terms.values()), terms',
        ),
        GOOD.replace(
            "up = np", "x, y, z = [state.arm.position[:, i] for i in range(3)]\n    up = 0 * (x + y + z) + np"
        ),
    ],
)
def test_what_a_model_may_well_write_passes(source: str) -> None:
    assert _checked(source).findings == ()
