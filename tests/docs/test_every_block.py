"""Every code block of the documentation is run by a test, or is in a list with the reason why it is not."""

import re
from pathlib import Path

import pages
import pytest
from conftest import ROOT
from pages import blocks_of

HOURS = "hours of training on real corpora; tests/project/test_evidence.py checks the commands"
NOT_RUN = {  # by page, heading and place under the heading; an asterisk stands for all headings of a page
    ("evidence.md", "*", 0): HOURS,
    ("evidence_compact.md", "*", 0): HOURS,
    ("compare.md", "Grids", 0): "35 and 60 trainings, and IEMOCAP; tests/runs/test_grid.py runs a grid of two cells",
    ("open_choices.md", "Measured effects", 0): "35 trainings; tests/runs/test_grid.py runs a grid of two cells",
    ("scaling.md", "Several processes", 0): "needs eight GPUs; tests/training/test_launch.py reads the launch file",
    (
        "command.md",
        "Several processes",
        0,
    ): "needs eight GPUs; tests/inference/test_processes.py launches two",
    ("service.md", "Start", 0): "runs until it is stopped; tests/service/test_server.py starts and stops it",
    ("predict.md", "Smaller checkpoints for shipping", 0): "needs MiniLM; tests/compression/test_compress.py",
    ("page.md", "Start", 0): "does not end; tests/page/test_page.py starts app.py",
    ("web.md", "Build", 0): "installs packages; tests/web/test_web.py runs web/build.py",
    ("web.md", "Serve or open", 0): "does not end; tests/web/test_web.py serves and opens the page",
    ("page.md", "A Hugging Face Space", 0): "uploads; tests/page/test_space.py copies the folder",
    ("reliability.md", "Reliability", 0): "40 minutes; tests/attacks/test_reliability.py reads what it writes",
    ("mteb.md", "Run a task", 0): "needs all clips of RAVDESS; tests/evaluation/test_mteb.py makes the same calls",
    ("mteb.md", "Submit results", 0): "tests/evaluation/test_mteb.py loads the file that model_file writes",
    ("mteb.md", "Submit results", 1): "in a fork of MTEB, with the model on the Hub",
    ("mteb.md", "Submit results", 2): "needs the model on the Hub",
    ("mteb.md", "Submit results", 3): "needs a clone of the results repository of MTEB",
}
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def taken() -> set[tuple[str, str, int]]:
    """The blocks that the tests of this folder take, by page, heading and place."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        constants = dict(re.findall(r'^([A-Z]+) = "(.*)"$', text, re.M))
        constants |= {name: value for name, value in re.findall(r'^([A-Z]+), [A-Z]+ = "(.*?)",', text, re.M)}
        for page, heading, number in re.findall(r'\bblock\(("[^"]+"|[A-Z]+), ("[^"]+"|[A-Z]+)(?:, (\w+))?\)', text):
            page, heading = (word[1:-1] if word[0] == '"' else constants[word] for word in (page, heading))
            numbers = (
                map(int, re.findall(r'parametrize\("number", \[(.*)\]', text)[0].split(","))
                if number == "number"
                else [int(number or 0)]
            )
            found |= {(page, heading, each) for each in numbers}
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_run for block in blocks_of(page))])
def test_every_block_is_run_or_is_in_the_list(page):
    blocks = {(page, block.heading, block.number) for block in blocks_of(page) if block.is_run}
    listed = {key for key in NOT_RUN if key[0] == page}
    if (page, "*", 0) in listed:
        assert len(listed) == 1
        return
    run = {key for key in taken() if key[0] == page}
    assert blocks - run - listed == set(), "run these blocks in a test, or add them to NOT_RUN with the reason"
    assert not run & listed, "run and in the list"
    assert listed <= blocks, "in the list, but not on the page"


def test_the_list_names_pages_and_reasons():
    assert {page for page, _, _ in NOT_RUN} <= set(PAGES) and all(NOT_RUN.values())
    for reason in NOT_RUN.values():
        for path in re.findall(r"tests/\S+\.py", reason):
            assert (ROOT / path).is_file(), path


def test_a_new_block_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    text = (ROOT / "docs/command.md").read_text(encoding="utf-8")
    (tmp_path / "docs/command.md").write_text(f"{text}\n```bash\ngemoclap doctor\n```\n", encoding="utf-8")
    test_every_block_is_run_or_is_in_the_list("command.md")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="run these blocks"):
        test_every_block_is_run_or_is_in_the_list("command.md")
