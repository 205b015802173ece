"""What SECURITY.md promises of the source: nothing is unpickled or evaluated, and code of others is pinned."""

import ast
import json
import re
import subprocess

import pytest
from conftest import ROOT

SCRIPTS = [path for part in ("demo", "web", "release", "benchmarks", "attacks") for path in (ROOT / part).glob("*.py")]
FILES = sorted([*(ROOT / "modeling_gemoclap").rglob("*.py"), *SCRIPTS, *ROOT.glob("*.py")])
MODULES = {"pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load_all", "yaml.unsafe_load"}
CALLS |= {"joblib.load", "pandas.read_pickle", "pd.read_pickle", "torch.jit.load", "torch.hub.load", "input"}
CALLS |= {"runpy.run_path", "runpy.run_module", "subprocess.getoutput", "subprocess.getstatusoutput"}
# What each file may use of pickle: the name of its error, and in an attack what writes hostile pickles.
PICKLE = {"safety_gemoclap.py": {"pickle.UnpicklingError"}, "failures.py": {"pickle.UnpicklingError"}}
PICKLE["security_pickles.py"] = {"pickle.dumps", "pickle.dump"}
# Mutants of the project's own source are compiled, its own train.py is run, a training's own arguments are read back,
# and hostile pickles name what they would call.
OWN_SOURCE = {"numerics_training.py: runpy.run_path", "security_pickles.py: os.system"}
OWN_SOURCE |= {"mutants.py: compile", "mutants.py: exec", "crash_content.py: torch.load without weights_only=True"}
PROMISE = re.compile(r"(?:^\| .+ \||,) `(tests/[^`:]+)(?:::(\w+))?`(?=.*\|$)", re.M)


def imported_names(tree):
    """The full names of what a source imports, by the names that it has there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(node, imported):
    """The dotted name of a function that is called, by its module."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value, imported)}.{node.attr}"
    return imported.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def problems(tree, file):
    """The calls, imports and names in a source that could run code from data."""
    imported = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            is_from = isinstance(node, ast.ImportFrom)
            modules = {node.module} if is_from else {alias.name for alias in node.names}
            if modules & MODULES and (file not in PICKLE or is_from):
                yield f"import of {modules & MODULES}"
        name = name_of(node, imported)
        if name in CALLS - {"compile", "input"} or (name.startswith("pickle.") and name not in PICKLE.get(file, ())):
            yield name
        if not isinstance(node, ast.Call):
            continue
        name, options = name_of(node.func, imported), {each.arg: each.value for each in node.keywords}
        given = {key: getattr(value, "value", None) for key, value in options.items()}
        if name in ("compile", "input"):  # also names of parameters
            yield name
        if name == "torch.load" and given.get("weights_only") is not True:
            yield "torch.load without weights_only=True"
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") is not False:
            yield "np.load without allow_pickle=False"
        if name == "yaml.load" and getattr(options.get("Loader"), "id", "") != "_TextLoader":
            yield "yaml.load"
        if given.get("shell", False) is not False:
            yield f"{name} with a shell"


def test_nothing_unpickles_evaluates_or_starts_a_shell():
    assert len(FILES) > 200
    found = {f"{path.name}: {each}" for path in FILES for each in problems(ast.parse(path.read_text()), path.name)}
    assert found == OWN_SOURCE


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from marshal import loads", "eval('1')", "torch.load(p)", "torch.load(p, weights_only=False)"]
    + ["np.load(p)", "numpy.load(p, allow_pickle=True)", "yaml.load(t, Loader=yaml.Loader)", "os.system('x')"]
    + ["subprocess.run('x', shell=True)", "pd.read_pickle(p)", "exec(code)", "import pandas as p; p.read_pickle(f)"]
    + ["import pickle as p; p.load(f)", "import pickle; pickle.Unpickler(f).load()", "from pickle import load"]
    + ["import pickle; read = pickle.loads", "from os import system; system('x')", "run = eval"]
    + ["from yaml import load; load(t, Loader=L)", "from numpy import load; load(p)", "import numpy as n; n.load(p)"]
    + ["from torch import load as read; read(p)", "import runpy; runpy.run_path(p)", "run(words, shell=flag)"]
    + ["from subprocess import getoutput; getoutput('x')", "run(words, shell=1)", "run(words, shell='yes')"],
)
def test_the_search_finds(code):
    for file in ("x.py", *PICKLE):
        assert list(problems(ast.parse(code), file)) or (file in PICKLE and code == "import pickle")


def test_the_search_allows_the_names_of_errors():
    code = "import pickle\nerror = pickle.UnpicklingError\nrun(words, shell=False)\nnp.load(p, allow_pickle=False)"
    assert not list(problems(ast.parse(code), "failures.py"))


# ---- documents ------------------------------------------------------------------------------------------------------
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "space").glob("*.md")]
DOCUMENTS += [*(ROOT / "checkpoints").glob("*/README.md"), *(ROOT / "benchmarks/templates").glob("*.md")]
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.M | re.S)
LOCAL = re.compile(r"(checkpoints|runs)/[\w.-]+|gemoclap-(base|compact)")  # folders that the documents name
LOCAL_NAMES = {"FOLDER", "MODEL", "folder"}
COMMIT = re.compile(r"[0-9a-f]{40}|\.\.\.|COMMIT")  # the hash of a commit, or what stands for it in an example


def unpinned(code):
    """The calls in a block of code that run code of the Hub whose commit is not given."""
    indent = min((len(line) - len(line.lstrip()) for line in code.splitlines() if line.strip()), default=0)
    tree = ast.parse("\n".join(line[indent:] for line in code.splitlines()))
    for node in ast.walk(tree):
        options = {each.arg: each.value for each in node.keywords} if isinstance(node, ast.Call) else {}
        is_encoder = isinstance(node, ast.Call) and name_of(node.func, {}) == "GEmoClapEncoder"
        if not getattr(options.get("trust_remote_code"), "value", False) and not is_encoder:
            continue
        place = options.get("model") or node.args[0 if is_encoder else -1]
        is_local = getattr(place, "id", "") in LOCAL_NAMES or LOCAL.fullmatch(str(getattr(place, "value", "")))
        revision = options.get("revision") or (node.args[1] if is_encoder and len(node.args) > 1 else None)
        if not is_local and not COMMIT.fullmatch(str(getattr(revision, "value", ""))):
            yield ast.unparse(node)


def test_documents_pin_the_code_that_they_run():
    blocks = [(path, code) for path in DOCUMENTS for code in BLOCK.findall(path.read_text(encoding="utf-8"))]
    with_code = [(path, code) for path, code in blocks if "trust_remote_code" in code]
    assert len(with_code) >= 10
    assert not [(path.name, call) for path, code in with_code for call in unpinned(code)]
    assert list(unpinned('pipeline("task", model="NAME/MODEL", trust_remote_code=True)'))
    for revision in ("main", "HEAD", "v1", "dev", "", "0123abc"):
        assert list(
            unpinned(f'AutoModel.from_pretrained("NAME/MODEL", revision="{revision}", trust_remote_code=True)')
        )
        assert list(unpinned(f'GEmoClapEncoder("NAME/MODEL", "{revision}")'))
    for revision in ("0123456789" * 4, "...", "COMMIT"):
        assert not list(unpinned(f'pipeline(model="NAME/MODEL", revision="{revision}", trust_remote_code=True)'))
    for path, code in with_code:
        if "revision" in code:
            text = path.read_text(encoding="utf-8")
            assert re.search(r"hash of a commit|commit", text), f"{path}: what is the revision?"


@pytest.mark.parametrize("name", ["base", "compact"])
def test_notebooks_and_docstrings_pin_the_code_that_they_run(name):
    content = json.loads((ROOT / f"checkpoints/gemoclap-{name}/notebook.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code")
    assert "str(Path.cwd())" in code and 'add "revision": the hash of a commit' in code
    for path in (ROOT / "modeling_gemoclap").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for example in re.findall(r">>> (.*(?:trust_remote_code=True\)|GEmoClapEncoder\(.*\)))", text):
            assert not list(unpinned(example)), path


# ---- SECURITY.md and bandit -----------------------------------------------------------------------------------------
def test_every_promise_has_a_test():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = PROMISE.findall(text)
    assert len(rows) >= 12
    for file, name in rows:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_every_exception_of_bandit_has_a_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    before, _, section = text.partition("[tool.bandit]")
    skipped = set(re.findall(r'"(B\d+)"', section.partition("\n\n")[0]))
    assert skipped and skipped <= set(re.findall(r"^# (B\d+):", before, re.M))
    for path in FILES:
        for line in re.findall(r".*# nosec.*", path.read_text(encoding="utf-8")):
            assert re.search(r"  # \w.+  # nosec B\d+$", line), f"{path.name}: {line}"


def test_bandit_reads_all_programs():
    [command] = re.findall(r"\tbandit .* -r (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    folders = {name.partition("/")[0] if "/" in name else "*.py" for name in files.stdout.split()}
    if not folders:
        pytest.skip("not a clone")
    assert folders - {"tests", "checkpoints"} <= set(command.split())  # checkpoints has links to the package
    written = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert f"-r {command}`" in written
