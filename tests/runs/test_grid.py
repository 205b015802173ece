"""`grid.py`: cells, their table, and resuming."""

import json

import pytest
import yaml
from conftest import ROOT, load_script, run_script


@pytest.fixture(scope="module")
def grid():
    return load_script("grid")


def test_table_1_of_the_paper(grid):
    """Twelve cells with the published figures and with fields of train.py."""
    from modeling_gemoclap.runs.recipe import parse_recipe

    settings, cells = grid.cells_of(str(ROOT / "configs/paper_table1.yaml"))
    assert len(cells) == 12 and settings["protocol"] == "leave-one-session-out"
    assert max(cell["published"]["uar"] for cell in cells) == 83.16
    assert len({(cell["objective"], cell["audio_model"]) for cell in cells}) == 12
    for cell in cells:
        fields = [word for name in ("objective", "audio_model") for word in (f"--{name}", cell[name])]
        recipe = parse_recipe(["--config", str(ROOT / settings["base"]), *fields, "--use_cpu", "true"])
        assert recipe.model.audio_model == cell["audio_model"] and recipe.training.num_train_epochs == 80


def test_varied_options(grid):
    settings, cells = grid.cells_of(str(ROOT / "configs/readings.yaml"))
    assert cells[0] == {"name": "recipe"} and {"name": "targets softmax", "targets": "softmax"} in cells
    pairs = {(cell.get("sl_texts", "joint"), cell.get("similarity", "cross")) for cell in cells}
    assert len(pairs) == 6 and len(cells) == 7
    assert {name for cell in cells for name in cell} == {"name", "targets", "similarity", "sl_texts"}


@pytest.mark.parametrize(
    "content",
    ["[1, 2]", "{cells: [{alpha: 1}]}", "{colour: red}", "{cells: []}", "{", "vary: {}", "vary: {alpha: 0.5}"],
)
def test_invalid_grids(grid, tmp_path, content):
    (tmp_path / "grid.yaml").write_text(content)
    with pytest.raises(ValueError, match="grid.yaml"):
        grid.cells_of(str(tmp_path / "grid.yaml"))


@pytest.mark.slow
def test_cells_are_trained_evaluated_and_compared(tones, tmp_path):
    cells = {
        "base": "tests/tiny.yaml",
        "protocol": "2-folds-by-speaker",
        "cells": [{"name": "first", "published": {"war": 81.43, "uar": 83.16}}],
        "vary": {"objective": ["emo"], "init_from": ["no-such"]},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(cells))
    command = ["grid.py", "--config", tmp_path / "grid.yaml", "--data_dir", tones, "--output_dir", tmp_path / "runs"]
    more = ("--", "--num_train_epochs", "2", "--control", "false")
    done = run_script(*command, *more, check=False)
    assert done.returncode == 1 and "run the same command again to resume" in done.stderr and "no-such" in done.stderr
    del cells["vary"]["init_from"]
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(cells))
    weights = tmp_path / "runs/first/fold_0/seed_0/model.safetensors"
    before = weights.stat().st_mtime_ns
    run_script(*command, *more)
    assert weights.stat().st_mtime_ns == before, "finished cells are skipped"
    table = (tmp_path / "runs/table.md").read_text()
    results = json.loads((tmp_path / "runs/objective_emo/results/results.json").read_text())
    assert f"| objective emo | {100 * results['war']:.1f} | {100 * results['uar']:.1f} |" in table
    assert "| 81.43 | 83.16 |" in table and "The published figures are those of 2-folds-by-speaker" in table
