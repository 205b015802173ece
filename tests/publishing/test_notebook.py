"""`notebook.ipynb` of a checkpoint: it is written with the card, and runs where this package is not installed."""

import ast
import json
import os
import shutil

import nbclient
import nbformat
import pytest
import soundfile
from conftest import RATE, ROOT, tone

from modeling_gemoclap import GEmoClapForAudioClassification
from modeling_gemoclap.publishing.card import write_card
from modeling_gemoclap.publishing.contents import is_pushed
from modeling_gemoclap.publishing.facts import CardFacts, save_facts

# The first cell of the test makes every import of the package fail; the last one says what the kernel has imported.
BLOCK = "import sys\nsys.modules['modeling_gemoclap'] = None"
IMPORTED = "sorted(name for name in sys.modules if name.partition('.')[0] == 'transformers_modules')"


def execute(folder, cache):
    """Run a checkpoint's notebook in a new kernel in its folder; its cells by the beginning of their source."""
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    notebook.cells = [nbformat.v4.new_code_cell(BLOCK), *notebook.cells, nbformat.v4.new_code_cell(IMPORTED)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PYTHONSAFEPATH": "1", "HF_HOME": str(cache), "IPYTHONDIR": str(cache), "JUPYTER_RUNTIME_DIR": str(cache)}
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}})
    client.execute(env=env)
    return {cell.source.split("\n")[0]: cell for cell in notebook.cells if cell.cell_type == "code"}


def value_of(cell):
    """What the last line of a cell gives."""
    [output] = [output for output in cell.outputs if output.output_type == "execute_result"]
    return ast.literal_eval(output.data["text/plain"])


@pytest.mark.parametrize("name", ["gemoclap-base", "gemoclap-compact"])
def test_the_notebook_of_a_shipped_checkpoint_runs_without_the_package(name, tmp_path):
    folder = shutil.copytree(ROOT / "checkpoints" / name, tmp_path / name)
    soundfile.write(folder / "clip.wav", tone("angry", 0, seconds=1.5), RATE)
    cells = execute(folder, tmp_path / "cache")
    config = json.loads((folder / "config.json").read_text())
    scores = value_of(cells["from transformers import pipeline"])
    assert {each["label"] for each in scores} == {*config["emotions"]}
    assert sum(each["score"] for each in scores) == pytest.approx(1)
    [labels] = [cell for line, cell in cells.items() if line.startswith("LABELS = ")]
    words = [config["emotion_synonyms"][emotion][0] for emotion in config["emotions"]]
    assert {each["label"] for each in value_of(labels)} == {*words}
    assert not [output for output in labels.outputs if output.get("name") == "stderr"], "it knows these words"
    pictures = [output for cell in cells.values() for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    imported = value_of(cells[IMPORTED])
    assert any(name.endswith(".modeling_gemoclap") for name in imported), "the code is that of the checkpoint"


@pytest.fixture
def folder(make_model, tmp_path):
    make_model(emotion_synonyms={"angry": ["furious"]}).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def read(folder):
    return nbformat.read(folder / "notebook.ipynb", as_version=4)


def test_it_is_written_with_the_card_and_always_the_same(folder):
    write_card(folder)
    first = (folder / "notebook.ipynb").read_bytes()
    write_card(folder)
    assert (folder / "notebook.ipynb").read_bytes() == first
    notebook = read(folder)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == first.decode(), "saving it in Jupyter changes nothing"
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert 'LABELS = ["furious", "happy", "sad"]' in text and "angry: furious" in text
    assert "The scores are not calibrated" in text and "Excluded use" in text
    assert is_pushed("notebook.ipynb", "") and not is_pushed("other.ipynb", "")


def test_a_value_adds_no_cell_of_code(folder):
    write_card(folder)
    code = [cell.source for cell in read(folder).cells if cell.cell_type == "code"]
    save_facts(folder, CardFacts(summary="A\n```python\nprint(1)\n```\n", limits="```python\nprint(2)\n```\n"))
    hostile = folder.rename(folder.with_name("a\n```python\nprint(3)\n```\n"))
    write_card(hostile)
    assert [cell.source for cell in read(hostile).cells if cell.cell_type == "code"] == code


def test_a_classifier_has_none(make_model, tmp_path):
    make_model(model_class=GEmoClapForAudioClassification).save_pretrained(tmp_path / "classifier")
    write_card(tmp_path / "classifier")
    assert not (tmp_path / "classifier/notebook.ipynb").exists()
