"""Links and commands in the documentation: targets exist, and the programs accept the options."""

import re
import shlex
from functools import cache

import pytest
import typer
from conftest import ROOT, run_script

from modeling_gemoclap.cli import app
from modeling_gemoclap.compression.command import build_parser
from modeling_gemoclap.objectives.registry import OBJECTIVES
from modeling_gemoclap.runs.recipe import check_recipe, option_names
from modeling_gemoclap.training.arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments

PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "docs", "benchmarks", "checkpoints/*")
    for path in ROOT.glob(f"{folder}/*.md")
)
COMMAND = re.compile(r"^(?:[^#\n]* )?(train\.py|evaluate\.py|grid\.py) (-.+)$", re.MULTILINE)
NOT_OURS = {"--FIELD", "--no-FIELD"}  # any option
NOT_OURS |= {
    "--quiet",
    "--no-deps",
    "--index-url",
    "--user",
    "--config",
    "--repo-type",
    "--code",
}  # those of accelerate, pip, docker, hf and release/archive.py


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def anchors_of(page):
    """Anchors of a page's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def training_options():
    groups = [ModelArguments, DataArguments, GEmoClapTrainingArguments]
    groups += [objective.Options for objective in OBJECTIVES.values()]
    return {f"--{name}" for group in groups for name in option_names(group)}


@cache
def options_of(script):
    """The options that a script's help names, and those of `train.py` where they may follow."""
    named = set(re.findall(r"--[\w-]+", run_script(script, "--help").stdout))
    return named | (training_options() if script == "grid.py" else set())


@cache
def options_of_gemoclap():
    """The options of the command `gemoclap` and of its commands."""
    command = typer.main.get_command(app)
    return {name for each in (command, *command.commands.values()) for item in each.params for name in item.opts}


def commands_of(page):
    """Script and arguments of the commands in a page's code blocks."""
    for block in re.findall(r"```bash\n(.*?)```", text_of(page), flags=re.DOTALL):
        for script, arguments in COMMAND.findall(block):
            yield script, shlex.split(arguments, comments=True)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([^)]+))?\)", text_of(page)):
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links {target}"
        if anchor:
            assert anchor in anchors_of(path.resolve().relative_to(ROOT)), f"{page} links {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_configurations_exist(page):
    for name in re.findall(r"configs/[\w/]+\.(?:yaml|json)", text_of(page)):
        assert (ROOT / name).is_file(), f"{page} names {name}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands_of(page))])
def test_commands_are_accepted(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for script, arguments in commands_of(page):
        if script == "train.py":
            check_recipe(arguments, page)
        else:
            options = {word for word in arguments if re.match(r"--\w", word)}
            assert options <= options_of(script), f"{page}: {script} {sorted(options - options_of(script))}"


def test_the_pages_have_commands_of_every_script():
    assert {script for page in PAGES for script, _ in commands_of(page)} == {"train.py", "evaluate.py", "grid.py"}


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("benchmarks/")])
def test_options_in_prose_exist(page):
    known = training_options() | options_of("evaluate.py") | options_of("grid.py") | NOT_OURS
    known |= set(re.findall(r"--[\w-]+", build_parser().format_help())) | options_of_gemoclap()
    known |= set(re.findall(r'"(--[\w-]+)"', (ROOT / "attacks/attack.py").read_text()))
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    codes = [code for code in re.findall(r"`([^`\n]+)`", prose) if "benchmarks/" not in code]
    named = {option for code in codes for option in re.findall(r"(?<!\S)--[A-Za-z][\w-]*", code)}
    assert named <= known, f"{page}: {sorted(named - known)}"


def test_the_index_names_every_page():
    index = text_of("docs/README.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"({page.removeprefix('docs/')})" in index, page
