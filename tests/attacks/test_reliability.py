"""docs/reliability.md: made of the records, with a test for each fault that was found."""

import ast
import json
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "attacks"))
import reliability  # noqa: E402
from attack import Attack, parse_options  # noqa: E402

NAMES = list(reliability.ATTACKS)


def test_the_tables_are_those_of_the_records():
    assert reliability.page() == reliability.PAGE.read_text(encoding="utf-8"), "run python attacks/reliability.py"


@pytest.mark.parametrize("name", NAMES)
def test_records_are_of_complete_runs(name):
    record = reliability.record_of(name)
    assert record["attack"] == name and not record["small"]
    assert record["tried"] and all(number > 0 for number in record["tried"].values())


@pytest.mark.parametrize("name", NAMES)
def test_each_fault_that_was_mended_has_a_test(name):
    for one in reliability.findings_of(name)["mended"]:
        assert one.keys() == {"found", "now", "test"} and all(one.values())
        for test in one["test"].split(", "):
            path, _, function = test.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function.partition("[")[0] in defined, test


def test_every_program_is_one_of_the_attacks():
    programs = {path.stem for path in (ROOT / "attacks").glob("*.py") if "\n    attack.finish()" in path.read_text()}
    assert programs == set(NAMES)
    assert {path.stem for path in reliability.FINDINGS.glob("*.yaml")} == set(NAMES)


def options_of(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    return parse_options("An attack.")


def test_a_loss_is_recorded_and_the_attack_goes_on(monkeypatch, tmp_path, capsys):
    attack = Attack("x", options_of(monkeypatch, "--record", str(tmp_path / "new/x.json"), "--seed", "3"))
    with attack.case("first", "a"):
        raise ValueError("z" * 10_000)
    with attack.case("first", "b"):
        pass
    attack.figures["rate"] = 0.5
    with pytest.raises(SystemExit) as exit_:
        attack.finish()
    record = json.loads((tmp_path / "new/x.json").read_text())
    assert exit_.value.code == 1 and record["tried"] == {"first": 2} and record["seed"] == 3
    assert record["lost"] == [f"first (a): {'ValueError: ' + 'z' * 10_000}"[: len("first (a): ") + 400]]
    assert record["figures"] == {"rate": 0.5} and "2 tried, 1 lost" in capsys.readouterr().out


@pytest.mark.parametrize(("cases", "status"), [(1, 0), (0, 1)])
def test_an_attack_that_tried_nothing_has_failed(monkeypatch, cases, status):
    attack = Attack("x", options_of(monkeypatch, "--minutes", "0"))
    assert attack.seconds_left() <= 0
    for _ in range(cases):
        with attack.case("kind"):
            pass
    with pytest.raises(SystemExit) as exit_:
        attack.finish()
    assert exit_.value.code == status
