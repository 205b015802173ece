"""Mutants of the modules that `mutation.py` attacks: how they are made, and how one replaces the original.

The operators are mutmut's (`mutmut.mutation.mutators`): numbers, strings, comparisons, arithmetic, arguments,
assignments, branches. mutmut itself does not fit: it copies the project, replaces each function by a trampoline,
leaves out functions with decorators and what is outside of functions. Here, the code object of the function is
replaced in memory, in a process of its own. No file is changed, so tests that hash the sources kill no mutant.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType

import libcst
from attack import ROOT
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators

PACKAGE = "modeling_gemoclap"
NOT_MUTATED = ("len", "isinstance")  # as in mutmut: an error by a missing argument proves little


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Args:
        module: The file, relative to the package, without `.py`.
        function: Qualified name of the function; "" for what is outside of functions.
        before: The lines that were changed, stripped and joined by blanks.
        after: The same lines of the mutant.
        source: The mutated module.
        number: Counts equal changes of the same function, from 0.
    """

    module: str
    function: str
    before: str
    after: str
    source: str
    number: int = 0

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What identifies the mutant as long as its line does not change; see `survivors.yaml`."""
        return self.module, self.function, self.before, self.after, self.number


class _Visitor(libcst.CSTVisitor):
    """Collects pairs of nodes, original and mutated, with the name of the function that contains them."""

    def __init__(self):
        self.found: list[tuple[str, libcst.CSTNode, libcst.CSTNode]] = []
        self.names: list[str] = []
        self.depth = 0  # functions around the node: nested functions belong to the outermost

    def on_visit(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, (libcst.Annotation, libcst.Decorator, libcst.ImportFrom, libcst.Import)):
            return False
        if isinstance(node, libcst.Call) and getattr(node.func, "value", None) in NOT_MUTATED:
            return False
        if isinstance(node, (libcst.FunctionDef, libcst.ClassDef)):
            if not self.depth:
                self.names.append(node.name.value)
            self.depth += isinstance(node, libcst.FunctionDef)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                name = ".".join(self.names) if self.depth else ""
                self.found += [(name, node, mutated) for mutated in operator(node)]
        return True

    def on_leave(self, node: libcst.CSTNode) -> None:
        if isinstance(node, (libcst.FunctionDef, libcst.ClassDef)):
            self.depth -= isinstance(node, libcst.FunctionDef)
            if not self.depth:
                self.names.pop()


def mutants_of(module: str) -> Iterator[Mutant]:
    """Make all mutants of a module.

    Args:
        module: The file, relative to the package, without `.py`.
    """
    source = (ROOT / PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    wrapper, visitor = MetadataWrapper(libcst.parse_module(source), unsafe_skip_copy=True), _Visitor()
    ranges = wrapper.resolve(WhitespaceInclusivePositionProvider)
    wrapper.module.visit(visitor)
    starts = [0, *itertools.accumulate(len(line) for line in source.splitlines(keepends=True))]
    occurrences: Counter[tuple] = Counter()
    for function, node, mutated in visitor.found:
        start, stop = (starts[end.line - 1] + end.column for end in (ranges[node].start, ranges[node].end))
        changed = source[:start] + wrapper.module.code_for_node(mutated) + source[stop:]
        before, after = changed_lines(source, changed, start, len(source) - stop)
        number = occurrences[function, before, after]
        occurrences[function, before, after] += 1
        yield Mutant(module, function, before, after, changed, number)


def changed_lines(before: str, after: str, start: int, rest: int) -> tuple[str, str]:
    """The changed lines of two texts that agree in `start` characters at the beginning and `rest` at the end."""
    first = before.rfind("\n", 0, start) + 1
    rest = len(before) - before.find("\n", len(before) - rest)
    return tuple(" ".join(map(str.strip, text[first : len(text) - rest].splitlines())) for text in (before, after))


def put_in_place(mutant: Mutant) -> None:
    """Replace the original by the mutant in this process, wherever it was imported."""
    module = _loaded(mutant.module)
    path = str(ROOT / PACKAGE / f"{mutant.module}.py")
    if mutant.function:
        changed = ModuleType(module.__name__)
        changed.__dict__.update({name: value for name, value in vars(module).items() if name.startswith("__")})
        exec(compile(mutant.source, path, "exec"), changed.__dict__)  # the project's own source  # nosec B102
        original, new = _function(module, mutant.function), _function(changed, mutant.function)
        original.__code__, original.__defaults__ = new.__code__, new.__defaults__
        original.__kwdefaults__ = new.__kwdefaults__
        return
    originals = dict(vars(module))
    exec(compile(mutant.source, path, "exec"), module.__dict__)  # the project's own source  # nosec B102
    changed = {name: value for name, value in vars(module).items() if originals.get(name) is not value}
    for other in list(sys.modules.values()):
        for name in changed.keys() & getattr(other, "__dict__", {}).keys() & originals.keys():
            if vars(other)[name] is originals[name]:
                setattr(other, name, changed[name])


def _loaded(module: str) -> ModuleType:
    if module != "evaluation/war_uar/war_uar":
        return importlib.import_module(f"{PACKAGE}.{module.replace('/', '.')}")
    metric = importlib.import_module(f"{PACKAGE}.evaluation.metrics")._metric()  # evaluate imports a copy of the file
    return sys.modules[type(metric).__module__]


def _function(module: ModuleType, name: str) -> FunctionType:
    function = functools.reduce(lambda owner, part: vars(owner)[part], name.split("."), module)
    for attribute in ("fget", "__func__", "__wrapped__"):
        function = getattr(function, attribute, function)
    assert isinstance(function.__code__, CodeType), name
    return function
