"""The machinery of `attacks/mutation.py`, and its list of mutants that survive."""

import ast
import json
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

SURVIVORS = yaml.safe_load((ROOT / "attacks/survivors.yaml").read_text(encoding="utf-8"))
QUICK_TEST = """
from modeling_gemoclap.intervals import enough_speakers, interval_text

def test_five_speakers():
    assert enough_speakers(5) and not enough_speakers(4)

def test_text():
    assert interval_text([0.1, 0.2]) == "10.0 to 20.0"
"""
SCRIPT = """
import argparse, json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2]
import attack, mutants, mutation, mutation_process, mutation_runner

made = list(mutants.mutants_of("intervals"))
source = (attack.ROOT / "modeling_gemoclap/intervals.py").read_text()
line, files = "return number >= FEWEST_SPEAKERS", ("test_quick.py",)

def by_hand(after):
    return mutants.Mutant("intervals", "enough_speakers", line, after, source.replace(line, after))

chosen = {
    "equivalent": by_hand("return not number < FEWEST_SPEAKERS"),
    "endless": by_hand("while True: pass"),
    "ends pytest": by_hand("import sys; sys.exit()"),
    "comparison": next(one for one in made if one.after == "return number > FEWEST_SPEAKERS"),
    "constant": next(one for one in made if one.after == "FEWEST_SPEAKERS = 6"),
    "default": next(one for one in made if one.after.endswith('sign: str = "XXXX") -> str:')),
    "text": next(one for one in made if 'speakers do not differXX"' in one.after),
}
mutation_process.LIMIT = 0.5
outcomes, mutation.TESTS = {}, {"group": {"intervals": files}}
options = argparse.Namespace(minutes=1, all=False, unlisted=None)
records = []

def work(runner):
    outcomes.update({name: runner.judge(mutant, files) for name, mutant in chosen.items()})
    for listed in ({}, {chosen["equivalent"].key: "equivalent: the same condition"}):
        mutation.judgements = lambda: listed
        records.append(attack.Attack("mutation", options))
        mutation.attack_all(records[-1], runner, [("group", chosen[name]) for name in ("equivalent", "comparison")])

mutation_runner.run(list(files), work, Path(sys.argv[2]))
records = [[record.tried, record.lost, record.figures] for record in records]
print(json.dumps([outcomes, records, len(made), len({one.key for one in made})]))
"""


def test_mutants_are_killed_and_equivalent_ones_survive(tmp_path):
    pytest.importorskip("mutmut", reason="mutmut is not installed: pip install -e '.[attack]'")
    (tmp_path / "test_quick.py").write_text(QUICK_TEST)
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "attacks"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes, records, made, keys = json.loads(done.stdout.splitlines()[-1])
    survived = {name for name, outcome in outcomes.items() if outcome == "survived"}
    assert survived == {"equivalent", "text"}, "no test of this file reads the text"
    assert outcomes["endless"] == "timeouts" and outcomes["ends pytest"] == "killed"
    assert {outcomes[name] for name in ("comparison", "constant", "default")} == {"killed"}
    assert made == keys > 15, "keys are unique"
    (tried, lost, figures), (_, lost_if_listed, figures_if_listed) = records
    assert tried == {"mutants of group": 2} and len(lost) == 1 and not lost_if_listed
    assert "enough_speakers" in lost[0] and "return not number < FEWEST_SPEAKERS" in lost[0]
    assert figures["intervals: killed, per cent"] == figures_if_listed["intervals: killed, per cent"] == 50
    assert figures_if_listed["intervals: killed, per cent without equivalents"] == 100


def lines_of(module: str, function: str) -> str:
    """The lines of a function, or of the module, stripped and joined by blanks."""
    text = (ROOT / "modeling_gemoclap" / f"{module}.py").read_text(encoding="utf-8")
    lines, node = text.splitlines(), ast.parse(text)
    for name in filter(None, function.split(".")):
        node = next(child for child in node.body if getattr(child, "name", None) == name)
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = text.splitlines()[start - 1 : node.end_lineno]
    return " ".join(line.strip() for line in lines)


def test_every_listed_survivor_exists():
    """An entry whose line was changed is removed, or judged again."""
    for entry in SURVIVORS:
        assert entry["before"] in lines_of(entry["module"], entry["function"]), entry
        assert entry["before"] != entry["after"] and len(entry["judgement"]) > 15, entry
    keys = [
        (*(entry[name] for name in ("module", "function", "before", "after")), entry.get("number", 0))
        for entry in SURVIVORS
    ]
    assert len(set(keys)) == len(keys)
