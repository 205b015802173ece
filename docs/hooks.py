"""MkDocs hooks of the documentation's site: navigation, and files of the repository that pages link.

Links of a page work in the repository and on the site. A file or folder that is linked and is not a file in docs/ is
published below `repository/`: a Markdown document as a page, source code and configurations as a page with their text,
a folder as its README or a list of its files, and any other file as a download.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".txt": "text", ".cfg": "ini"}
FENCED = re.compile(r"(^(```+).*?^\2$)", re.M | re.S)
LINK = re.compile(r"\]\((?!\w+:|/|#)([^)#\s]+)(#[^)\s]+)?\)")
ROW = re.compile(r"^\| \*\*(?P<task>.+?)\*\* \|(?P<links>.+)\|$", re.M)
SOURCES: dict[str, str] = {}  # what is published below repository/: path on the site -> path in the repository


def on_config(config):
    """Make the navigation from the table of tasks in docs/README.md: each page stands below its first task."""
    sections, named = [], {"docs/README.md"}
    for row in ROW.finditer((ROOT / "docs/README.md").read_text(encoding="utf-8")):
        linked = dict.fromkeys(_target("docs/README.md", target) for target, _ in LINK.findall(row["links"]))
        sections.append({row["task"]: [_on_site(path) for path in linked if path not in named]})
        named.update(linked)
    api = sorted(path.name for path in (ROOT / "docs/api").glob("*.md"))
    config.nav = ["README.md", *sections, {"API": [f"api/{name}" for name in api]}]
    return config


def on_files(files: Files, config) -> Files:
    """Add what the pages link outside docs/, and what these link in turn."""
    queue = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    SOURCES.clear()
    while queue:
        page = queue.pop()
        for target, _ in LINK.findall(FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))):
            path = _target(page, target)
            uri = _on_site(path)
            if uri.startswith("repository/") and uri not in SOURCES and (ROOT / path).exists():
                SOURCES[uri] = path
                queue += [path] if path.endswith(".md") else []
    for uri, path in SOURCES.items():
        is_text = uri.endswith(".md") and not path.endswith(".md")
        content = {"content": _as_page(path)} if is_text else {"abs_src_path": str(ROOT / path)}
        files.append(File.generated(config, uri, **content))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Rewrite links to what is published below repository/, and write lists as MkDocs reads them."""
    uri = page.file.src_uri
    source = SOURCES.get(uri, f"docs/{uri}")

    def rewritten(match: re.Match) -> str:
        place = posixpath.relpath(_on_site(_target(source, match[1])), posixpath.dirname(uri) or ".")
        return f"]({place}{match[2] or ''})"

    parts = FENCED.split(markdown)  # prose, a block of code, its fence, prose, ...
    for index in range(0, len(parts), 3):
        prose = LINK.sub(rewritten, parts[index])
        prose = re.sub(r"^( +)(?=[-*] )", lambda match: 2 * match[1], prose, flags=re.M)  # nested by four spaces
        parts[index] = re.sub(r"^((?![-*|] )\S.*\n)(?=- )", r"\1\n", prose, flags=re.M)  # after an empty line
    return "".join(part for index, part in enumerate(parts) if index % 3 < 2)


def _target(page: str, target: str) -> str:
    """The path in the repository that a link leads to; for a folder with a README, that of the README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def _is_in_docs(path: str) -> bool:
    """Whether MkDocs itself publishes a path; it leaves out this file (`exclude_docs`) and has no page of a folder."""
    return path.startswith("docs/") and not path.endswith(".py") and not (ROOT / path).is_dir()


def _on_site(path: str) -> str:
    """The path on the site, before Markdown becomes HTML, of a path in the repository."""
    if _is_in_docs(path):
        return path.removeprefix("docs/")
    is_page = (ROOT / path).is_dir() or Path(path).suffix in LANGUAGES
    return f"repository/{path}{'.md' if is_page else ''}"


def _as_page(path: str) -> str:
    """A page with the text of a file, or with the names of the files in a folder. The search leaves it out."""
    head = f"---\nsearch: {{exclude: true}}\n---\n\n# `{path}`\n\n"
    if (ROOT / path).is_file():
        return f"{head}```````{LANGUAGES[Path(path).suffix]}\n{(ROOT / path).read_text(encoding='utf-8')}\n```````\n"
    names = sorted(each.name for each in (ROOT / path).iterdir() if not each.name.startswith((".", "__pycache__")))
    published = [name for name in names if f"{path}/{name}" in SOURCES.values() or _is_in_docs(f"{path}/{name}")]
    link = {name: f"[`{name}`]({Path(path).name}/{name})" for name in published}
    return head + "".join(f"- {link.get(name, f'`{name}`')}\n" for name in names)
