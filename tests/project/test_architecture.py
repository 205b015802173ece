"""docs/architecture.md: the route from the command line to the loss exists, and stays short."""

import ast
import re

import pytest
from conftest import ROOT

PACKAGE = ROOT / "modeling_gemoclap"
PAGE = (ROOT / "docs/architecture.md").read_text()
LINE = re.compile(r"^( *)- `([\w/]+\.py)` `(\w+)`", re.M)
LAYERS = ("train.py", "runs", "objectives", "training", "corpora", "command_line")  # travelling files are below all


def route():
    """`(depth, path, function)` of each stop."""
    text = re.search(r"<!-- route -->\n(.*?)<!-- end of route -->", PAGE, re.S)[1]
    stops = LINE.findall(text)
    assert len(stops) == len(text.strip().splitlines()), "every line is a stop"
    return [(len(indent) // 2, name, function) for indent, name, function in stops]


def function_in(name, function):
    path = ROOT / name if name == "train.py" else PACKAGE / name
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function]


def names_in(node):
    """What a function calls, or takes as a value to call."""
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            yield child.id
        elif isinstance(child, ast.Attribute):
            yield child.attr


def height(name):
    part = name.split("/")[0]
    return len(LAYERS) - LAYERS.index(part) if part in LAYERS else 0


def test_every_stop_calls_the_next():
    """But for the loss, which `transformers.Trainer.train` calls."""
    above = []
    for depth, name, function in route():
        above = above[:depth]
        assert function_in(name, function), f"{name} has no function {function}"
        if above and function != "compute_loss":
            caller_name, caller = above[-1]
            called = {each for node in function_in(caller_name, caller) for each in names_in(node)}
            aliases = (
                {"train"} if name == "runs/train.py" and function == "main" else set()
            )  # imported under this name
            assert {function, *aliases} & called, f"{caller} in {caller_name} does not call {function}"
        above.append((name, function))


def test_the_route_is_short():
    stops = route()
    climbs = [
        name for (_, before, _), (_, name, _) in zip(stops, stops[1:], strict=False) if height(name) > height(before)
    ]
    assert len(stops) <= 40
    assert len({name for _, name, _ in stops}) <= 15
    assert len(climbs) <= 4, climbs


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not link.startswith(("http", "mailto")):
            assert (page.parent / link).exists(), link
