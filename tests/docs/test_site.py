"""The site of the documentation is built without warnings, its links lead somewhere, and it loads nothing else."""

import os
import posixpath
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import mkdocs  # noqa: F401
import pytest
from conftest import ROOT

import modeling_gemoclap

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}  # fetched with the page


class Page(HTMLParser):
    """The anchors, the links and the loaded files of a page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name) and tag != "meta"}
        if tag in LOADED and values.get(LOADED[tag]):
            self.loaded.append(values[LOADED[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def build(root, folder):
    """Build the site of a repository; the finished process. With `--quiet`, warnings would not be counted."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)


def read_pages(folder):
    return {path.relative_to(folder).as_posix(): Page(path.read_text()) for path in folder.rglob("*.html")}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, and its pages by path."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, read_pages(folder)


def is_elsewhere(address):
    return re.match(r"[a-z][\w+.-]*:|//", address) is not None


def test_every_link_leads_to_a_file_and_an_anchor(site):
    folder, pages = site
    broken = []
    for name, page in pages.items():
        for address in page.links + page.loaded:
            target, anchor = urldefrag(address)
            if is_elsewhere(address):
                continue
            path = target.lstrip("/") if target.startswith("/") else posixpath.join(posixpath.dirname(name), target)
            path = posixpath.normpath(unquote(path)) if target else name
            path = posixpath.normpath(f"{path}/index.html") if (folder / path).is_dir() else path
            found = (folder / path).is_file()
            if not found or anchor and path in pages and unquote(anchor) not in pages[path].anchors:
                broken.append(f"{name}: {address}")
    assert broken == [] and len(pages) > 50


def test_nothing_is_loaded_from_another_server(site):
    folder, pages = site
    assert [f"{name}: {file}" for name, page in pages.items() for file in page.loaded if is_elsewhere(file)] == []
    for path in folder.rglob("*.css"):
        assert re.findall(r"url\(['\"]?(?:https?:)?//", path.read_text()) == [], path


def test_every_public_name_has_its_documentation(site):
    anchors = {anchor for name, page in site[1].items() if name.startswith("api/") for anchor in page.anchors}
    assert {*modeling_gemoclap.__all__} < {*modeling_gemoclap._MODULES}
    for name in modeling_gemoclap._MODULES:
        assert f"modeling_gemoclap.{name}" in anchors, name


def test_every_page_is_reached_from_the_table_of_tasks(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in ROOT.glob("docs/*.md")}
    home = site[1]["index.html"]
    assert {*pages} - {"README.html"} <= {*home.links}
    assert "repository/model_card.html" in home.links and "api/estimators.html" in home.links


def test_documents_outside_docs_are_pages(site):
    folder, pages = site
    assert "results" in pages["repository/checkpoints/gemoclap-base/index.html"].anchors
    assert "../extending.html" in pages["repository/CONTRIBUTING.html"].links
    assert "num_train_epochs" in (folder / "repository/configs/compact.yaml.html").read_text()


INDEX = "| task | page |\n|---|---|\n| **Classify** | [page.md](page.md) |\n"
PAGE = """# Page

## A heading, with: signs

[own](#a-heading-with-signs) [notes](../notes.md#why) [settings](../configs/one.yaml) [folder](../configs)
[licence](../LICENSE) [hooks](hooks.py) `[no](link.md)`:
- first
  - nested
"""


@pytest.fixture
def small(tmp_path):
    """A repository of two pages, with the settings and hooks of this one."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "configs").mkdir()
    for name in ("mkdocs.yml", "LICENSE", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.py"))):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs/README.md").write_text(INDEX)
    (tmp_path / "docs/page.md").write_text(PAGE)
    (tmp_path / "notes.md").write_text("# Notes\n\n## Why\n\n[back](docs/page.md) [index](docs)\n")
    (tmp_path / "configs/one.yaml").write_text("epochs: 60 # a comment\n")
    return tmp_path


def test_links_out_of_docs_and_lists_are_those_of_the_repository(small):
    done = build(small, small / "site")
    assert done.returncode == 0, done.stderr
    pages = read_pages(small / "site")
    published = ("notes.html#why", "configs/one.yaml.html", "configs.html", "docs/hooks.py.html")
    assert {f"repository/{name}" for name in published} <= {*pages["page.html"].links}
    assert "repository/LICENSE" in pages["page.html"].links and (small / "site/repository/LICENSE").is_file()
    assert {"../page.html", "../index.html"} <= {*pages["repository/notes.html"].links}
    assert "configs/one.yaml.html" in pages["repository/configs.html"].links
    assert re.search(r"<li>first\s*<ul>\s*<li>nested</li>", (small / "site/page.html").read_text())


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("page.md", "[a](missing.md)", "a link 'missing.md'"),
        ("page.md", "[a](README.md#missing)", "does not contain an anchor '#missing'"),
        ("page.md", "[a](#missing)", "there is no such anchor"),
        ("page.md", "[a](../notes.md#missing)", "does not contain an anchor '#missing'"),
        ("page.md", "[a](../missing.yaml)", "missing.yaml"),
        ("page.md", "[a](../missing)", "missing"),
        ("page.md", "::: modeling_gemoclap.missing", "modeling_gemoclap.missing"),
        ("forgotten.md", "# No link leads here", "forgotten.md"),
    ],
)
def test_what_is_broken_stops_the_build(name, text, message, small):
    with (small / "docs" / name).open("a") as file:
        file.write(f"\n{text}\n")
    done = build(small, small / "site")
    assert done.returncode == 1 and message in done.stderr, done.stderr
