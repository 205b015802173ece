"""Links and commands in the documentation: targets exist, and options are those of the programs."""

import re
from functools import cache

import pytest
from conftest import ROOT, run_script

PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "docs", "benchmarks", "checkpoints/*", "modeling_gemoclap/training")
    for path in ROOT.glob(f"{folder}/*.md")
    if path.name != "card_template.md"
)
SCRIPTS = ("train.py", "evaluate.py", "grid.py")
COMMAND = re.compile(rf"^(?:[^#\n]* )?({'|'.join(map(re.escape, SCRIPTS))}) (.+)$", re.MULTILINE)


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def anchors_of(page):
    """Anchors of a page's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def options_of(script):
    """All options that a script's help names."""
    return set(re.findall(r"--[\w-]+", run_script(script, "--help").stdout))


def commands_of(page):
    """Scripts and options of the commands in a page's code blocks and inline code."""
    blocks = re.findall(r"```bash\n(.*?)```|`([^`\n]+)`", text_of(page), flags=re.DOTALL)
    for script, options in COMMAND.findall("\n".join(filter(None, (part for pair in blocks for part in pair)))):
        yield script, re.findall(r"(?<!\S)--[a-z][\w-]*", re.sub(r"'[^']*'", "", options.split("  #")[0]))


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


@pytest.mark.parametrize("page", PAGES)
def test_commands_have_options_that_exist(page):
    for script, options in commands_of(page):
        allowed = options_of(script) | (options_of("train.py") if script == "grid.py" else set())
        assert set(options) <= allowed, f"{page}: {script} {sorted(set(options) - allowed)}"


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("benchmarks/")])
def test_options_in_prose_exist(page):
    """Inline code only; `--FIELD` stands for any option, and the others are those of accelerate and pip."""
    known = set().union(*map(options_of, SCRIPTS)) | {"--FIELD", "--no-FIELD", "--quiet", "--no-deps"}
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    codes = [code for code in re.findall(r"`([^`\n]+)`", prose) if "benchmarks/" not in code]
    named = {option for code in codes for option in re.findall(r"(?<!\S)--[A-Za-z][\w-]*", code)}
    assert named <= known, f"{page}: {sorted(named - known)}"


def test_commands_are_found():
    found = {script for page in PAGES for script, options in commands_of(page) if options}
    assert found == {*SCRIPTS}


def test_the_index_names_every_page():
    index = text_of("docs/README.md")
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"({page.removeprefix('docs/')})" in index, page
