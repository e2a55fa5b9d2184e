"""Reads a program before anything runs it: the part of Python that a reward needs, and names that exist.

This is for quality: what is found here is told with its line and with what would have been right, at no cost. What
keeps a hostile program from doing harm is the confinement of the process that it runs in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import eq
from typing import Any

from vlmrl.errors import did_you_mean
from vlmrl.quantities import Abstraction, Path
from vlmrl.reward_models.confinement.runtime import BUILTINS, CONSTANTS, IMPORTED, NUMPY, tree_of
from vlmrl.reward_models.confinement.worker import FUNCTION

LONGEST = 16_384  # characters
MOST_NODES = 4000
DEEPEST = 40  # nested nodes
LONGEST_LOOP = 1000  # rounds of a loop over range()
PARAMETERS = ("state", "action")
TOP_LEVEL = (ast.FunctionDef, ast.Assign, ast.AnnAssign, ast.Expr)  # what a program consists of

NODES = (
    # fmt: off
    ast.Module,
    ast.FunctionDef,
    ast.arguments,
    ast.arg,
    ast.Return,
    ast.Assign,
    ast.AugAssign,
    ast.AnnAssign,
    ast.For,
    ast.If,
    ast.IfExp,
    ast.Expr,
    ast.Pass,
    ast.Break,
    ast.Continue,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Call,
    ast.keyword,
    ast.Attribute,
    ast.Subscript,
    ast.Slice,
    ast.Name,
    ast.Constant,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.ListComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.comprehension,
    ast.Starred,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
    # fmt: on
)
WORDS = {  # for messages
    ast.Import: "import", ast.ImportFrom: "import", ast.ClassDef: "class", ast.Try: "try", ast.While: "while",
    ast.Lambda: "lambda", ast.With: "with", ast.Delete: "del", ast.Global: "global", ast.Nonlocal: "nonlocal",
    ast.Yield: "yield", ast.YieldFrom: "yield", ast.Await: "await", ast.AsyncFunctionDef: "async", ast.Raise: "raise",
    ast.Assert: "assert", ast.JoinedStr: "an f-string", ast.Match: "match", ast.NamedExpr: "the operator :=",
    ast.Set: "a set", ast.SetComp: "a set",
}  # fmt: skip
# fmt: off
ARRAY_ATTRIBUTES = frozenset({
    "T", "all", "any", "argmax", "argmin", "astype", "clip", "copy", "cumsum", "dot", "dtype", "max", "mean",
    "min", "ndim", "prod", "ravel", "repeat", "reshape", "round", "shape", "size", "squeeze", "std", "sum",
    "swapaxes", "transpose", "var", "items", "keys", "values", "get", "append",
})
# fmt: on


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a program.

    Attributes:
        message: What, and what would be right.
        line: Where, from 1 on; 0 where it is the whole.
        expression: The text in question, if there is one.
    """

    message: str
    line: int = 0
    expression: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.message}" + (f"\n    {self.expression}" if self.expression else "")


def read(source: str, abstraction: Abstraction) -> list[Finding]:
    """Return what is wrong with a program; nothing means that it may be tried.

    Args:
        source: Its text.
        abstraction: What it may read.
    """
    if len(source) > LONGEST:
        return [Finding(f"the program has {len(source):,} characters; {LONGEST:,} are allowed")]
    if "\0" in source:
        return [Finding("the program holds a null character")]
    try:
        tree = ast.parse(source)
        depth = _depth(tree)
    except SyntaxError as error:
        return [Finding(f"this is not Python: {error.msg}", error.lineno or 0, (error.text or "").strip())]
    except (RecursionError, MemoryError, ValueError) as error:
        return [Finding(f"the program cannot be read: {type(error).__name__}")]
    nodes = sum(1 for _ in ast.walk(tree))
    if nodes > MOST_NODES or depth > DEEPEST:
        return [
            Finding(
                f"the program is too big: {nodes} nodes, nested {depth} deep; {MOST_NODES} and {DEEPEST} are allowed"
            )
        ]
    reader = _Reader(source, abstraction)
    reader.module(tree)
    return reader.findings


def quantities_read(source: str, abstraction: Abstraction) -> frozenset[Path]:
    """Return the quantities that a program can look at, so that no others need be gathered for it.

    A group that the program hands on as a whole, to a function of its own or into a list, counts with all that is in
    it: what becomes of it is not followed.

    Args:
        source: Its text, in which `read` finds nothing wrong.
        abstraction: What it may read.
    """
    reader = _Reader(source, abstraction)
    reader.module(ast.parse(source))
    return frozenset(
        path
        for path, _ in abstraction.leaves()
        if any(all(map(eq, path, reached)) for reached in reader.reached)  # one is the beginning of the other
    )


def _depth(node: ast.AST) -> int:
    deepest, stack = 0, [(node, 1)]
    while stack:
        current, depth = stack.pop()
        deepest = max(deepest, depth)
        stack += [(child, depth + 1) for child in ast.iter_child_nodes(current)]
    return deepest


@dataclass
class _Reader:
    """Walks a program and collects findings, and the paths of the state that it comes to."""

    source: str
    abstraction: Abstraction
    findings: list[Finding] = field(default_factory=list)
    reached: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        leaves = list(self.abstraction.leaves())
        self._tree = tree_of([(list(path), leaf.start, list(leaf.shape)) for path, leaf in leaves])
        self._parts = {name for path, _ in leaves for name in path}

    def module(self, tree: ast.Module) -> None:
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        mains = [node for node in functions if node.name == FUNCTION]
        if len(mains) != 1:
            count = "none" if not mains else f"{len(mains)} of them"
            self._find(f"there must be one function {FUNCTION}(state, action), and there is {count}")
        for main in mains:
            given = [argument.arg for argument in main.args.args]
            if tuple(given) != PARAMETERS:
                self._find(f"the arguments of {FUNCTION} must be (state, action), not ({', '.join(given)})", main)
        body = [node for node in tree.body if ast.unparse(node) not in IMPORTED]
        for node in body:
            if not isinstance(node, TOP_LEVEL):
                self._find(f"only functions and constants may stand here, not {_word(node)}", node)
        self._globals = {node.name for node in functions} | _bound(
            [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        )
        for node in body:
            if isinstance(node, ast.FunctionDef):
                self._function(node)
            elif isinstance(node, TOP_LEVEL):  # of anything else it is said already that it may not stand here
                self._walk(node, set(), {})

    def _function(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        if node.decorator_list:
            self._find("a decorator is not allowed", node)
        if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            self._find("arguments are plain names, without *, ** and /", node)
        if any(isinstance(child, ast.FunctionDef) for child in ast.walk(node) if child is not node):
            self._find("a function within a function is not allowed; write it beside", node)
        local = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)} | _bound(node.body)
        aliases: dict[str, tuple[str, ...]] = {"state": ()} if "state" in local else {}
        aliases |= self._aliases(node, aliases)
        if "state" in _bound(node.body):  # which of the two a line means is not followed
            self.reached.add(())
        for part in (*node.body, *arguments.defaults, *filter(None, arguments.kw_defaults)):
            self._walk(part, local, aliases)

    def _aliases(self, function: ast.FunctionDef, known: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Return names that stand for a group of the state because they are assigned once, to just that."""
        counts: dict[str, int] = {}
        for name in _assigned(function.body):
            counts[name] = counts.get(name, 0) + 1
        found: dict[str, tuple[str, ...]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                chain = _chain(node.value)
                if chain and chain[0] in {**known, **found} and counts.get(node.targets[0].id) == 1:
                    found[node.targets[0].id] = (*{**known, **found}[chain[0]], *chain[1:])
        return found

    def _walk(self, root: ast.AST, local: set[str], aliases: dict[str, tuple[str, ...]]) -> None:
        # A chain such as state.bodies.torso is looked at as a whole, at its outermost attribute.
        inner: set[ast.AST] = set()
        # A name that is given to a group reads nothing yet; what is said of the name later on does.
        named = {
            node.value
            for node in ast.walk(root)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in aliases
        }
        for node in ast.walk(root):
            if not isinstance(node, NODES):
                self._find(f"{_word(node)} is not allowed", node)
            elif isinstance(node, ast.Attribute):
                if node not in inner:
                    self._attribute(node, aliases)
                    self._reach(node, aliases, named)
                chain: ast.expr = node.value
                inner.add(chain)
                while isinstance(chain, ast.Attribute):
                    chain = chain.value
                    inner.add(chain)
            elif isinstance(node, ast.Name):
                self._name(node, local)
                if node not in inner:
                    self._reach(node, aliases, named)
            elif isinstance(node, ast.For | ast.comprehension):
                self._loop(node.iter)
            elif isinstance(node, ast.Constant) and isinstance(node.value, bytes | complex):
                self._find(f"a constant of type {type(node.value).__name__} is not allowed", node)

    def _name(self, node: ast.Name, local: set[str]) -> None:
        if node.id.startswith("_") and node.id != "_":
            self._find(f"the name '{node.id}' begins with an underscore, which is not allowed", node)
        elif not node.id.isascii():
            self._find(f"the name '{node.id}' has letters that are not ASCII", node)
        elif isinstance(node.ctx, ast.Load) and node.id not in local | self._globals | {"np", *BUILTINS}:
            allowed = sorted(local | self._globals | {"np", *BUILTINS})
            self._find(f"the name '{node.id}' is not defined.{did_you_mean(node.id, allowed)}", node)

    def _attribute(self, node: ast.Attribute, aliases: dict[str, tuple[str, ...]]) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._find("attributes cannot be set", node)
        chain = _chain(node)
        if chain and chain[0] == "np":
            self._numpy(node, chain[1:])
            return
        rest: tuple[str, ...]
        if chain and chain[0] in aliases:
            rest = self._state(node, (*aliases[chain[0]], *chain[1:]))
        else:
            rest = tuple(attribute.attr for attribute in _attributes(node))
        for name in rest:
            # What a helper function is given may be a group of the state; only running tells which.
            if name not in ARRAY_ATTRIBUTES and name not in self._parts:
                allowed = ", ".join(sorted(ARRAY_ATTRIBUTES))
                self._find(f"the attribute '{name}' is not known here. Arrays and dicts have: {allowed}", node)

    def _reach(self, node: ast.expr, aliases: dict[str, tuple[str, ...]], named: set[ast.expr]) -> None:
        chain = _chain(node)
        if chain and chain[0] in aliases and node not in named and isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined]
            self.reached.add((*aliases[chain[0]], *chain[1:]))

    def _numpy(self, node: ast.Attribute, names: tuple[str, ...]) -> None:
        if names[:1] == ("linalg",) and names[1:2] in ((), ("norm",)):
            return
        if names[:1] and names[0] in {*NUMPY, *CONSTANTS} - {"norm"}:
            return
        allowed = sorted({*NUMPY, *CONSTANTS, "linalg.norm"} - {"norm"})
        wanted = ".".join(names)
        self._find(f"np.{wanted} is not there.{did_you_mean(wanted, allowed)} np has: {', '.join(allowed)}", node)

    def _state(self, node: ast.Attribute, path: tuple[str, ...]) -> tuple[str, ...]:
        """Follow a path into the state; return the attributes behind its end."""
        entry: Any = self._tree
        for i, name in enumerate(path):
            if not isinstance(entry, dict):
                return path[i:]
            if name not in entry:
                where = ".".join(("state", *path[:i]))
                near = did_you_mean(name, entry)
                self._find(f"{where} has no attribute '{name}'.{near} It has: {', '.join(entry)}", node)
                return ()
            entry = entry[name]
        return ()

    def _loop(self, over: ast.expr) -> None:
        """Loops go over something that is there, or over a range that can be seen to be short."""
        if not (isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range"):
            return
        for argument in over.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, int) and argument.value > LONGEST_LOOP:
                self._find(f"a loop of more than {LONGEST_LOOP} rounds; use numpy on whole arrays", over)

    def _find(self, message: str, node: ast.AST | None = None) -> None:
        line = getattr(node, "lineno", 0)
        text = self.source.splitlines()[line - 1].strip() if line else ""
        finding = Finding(message, line, text)
        if finding not in self.findings:
            self.findings.append(finding)


def _word(node: ast.AST) -> str:
    return WORDS.get(type(node), type(node).__name__)


def _chain(node: ast.AST) -> tuple[str, ...]:
    """Return ("state", "bodies", "torso") for state.bodies.torso; () for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _attributes(node: ast.AST) -> Iterator[ast.Attribute]:
    while isinstance(node, ast.Attribute):
        yield node
        node = node.value


def _assigned(nodes: list[ast.stmt]) -> Iterator[str]:
    for statement in nodes:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _bound(nodes: list[ast.stmt]) -> set[str]:
    return set(_assigned(nodes))
