"""The walls between the parts, the wheel, and what stands in the repository."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from families import AUDIO

PACKAGE = ROOT / "modeling_gemoclap"
FACE = sorted(PACKAGE.glob("*_gemoclap.py"))
WORKSHOP = ("command_line", "corpora", "objectives", "training", "runs", "evaluation")
ALWAYS_THERE = {"torch", "transformers", "numpy"} | set(sys.stdlib_module_names)


def imports(path):
    """`(level, module, guarded)` of every import in a file; guarded ones stand in a `try`."""
    tree = ast.parse(path.read_text())
    guarded = {id(child) for node in ast.walk(tree) if isinstance(node, ast.Try) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", id(node) in guarded
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name, id(node) in guarded) for alias in node.names)


@pytest.mark.parametrize("path", FACE, ids=lambda path: path.name)
def test_the_face_is_flat_and_needs_torch_and_transformers_alone(path):
    siblings = {sibling.stem for sibling in FACE}
    for level, module, guarded in imports(path):
        if level:
            assert level == 1 and module in siblings, f"{module} does not travel"
        else:
            assert module.split(".")[0] in ALWAYS_THERE or guarded, f"{module} must stand in a try"
    assert not re.search(r"^\s*from\s+\.\s+import|^\s*import\s+modeling_gemoclap", path.read_text(), re.M)


def test_a_file_that_is_loaded_by_name_names_all_that_it_needs():
    """transformers 4 fetches the files that such a file imports, and not those that these import in turn."""
    direct = {path.stem: {module for level, module, _ in imports(path) if level} for path in FACE}

    def needed(name):
        found, queue = set(), [name]
        while queue:
            new = direct[queue.pop()] - found
            found |= new
            queue += new
        return found - {name}

    loaded = {path.stem for path in FACE if "register_for_auto_class" in path.read_text()} | {"pipeline_gemoclap"}
    assert {"feature_extraction_gemoclap", "processing_gemoclap", "modeling_gemoclap"} < loaded
    for name in loaded:
        assert needed(name) <= direct[name] | {name}, name


@pytest.mark.parametrize("part", WORKSHOP)
def test_walls_of_the_workshop(part):
    allowed = {
        "command_line": set(),
        "corpora": {"command_line"},
        "training": {"corpora", "command_line"},
        "objectives": {"training", "corpora", "command_line"},
        "runs": {"objectives", "training", "evaluation", "corpora", "command_line"},
        "evaluation": {"corpora", "command_line", "objectives"},  # of objectives, two leaf modules: see below
    }[part]
    for path in (PACKAGE / part).rglob("*.py"):
        for level, module, _ in imports(path):
            assert not (level == 0 and module.startswith("modeling_gemoclap"))
            assert module not in {"espeakng_loader"}
            place = (*path.relative_to(PACKAGE).parent.parts[: -level + 1 or None], *module.split("."))
            if not level or place[0] in (part, "fingerprint", "markdown"):  # these two import nothing of the package
                continue
            assert place[0] in allowed or place[0].endswith("_gemoclap"), f"{path.name} imports {module}"
            if part == "corpora":
                words = ("configuration_gemoclap", "prompts_gemoclap", "command_line")
                assert place[0] in words, "corpora knows the words and no models"
            if part == "evaluation" and place[0] == "objectives":
                leaves = (("speaker_clusters", "clusters"), ("speaker_clusters", "embeddings"))
                assert place[1:] in leaves, "evaluation knows no objective"


@pytest.mark.parametrize("leaf", ["clusters", "embeddings"])
def test_what_evaluation_shares_with_an_objective_knows_no_training(leaf):
    for level, module, _ in imports(PACKAGE / "objectives/speaker_clusters" / f"{leaf}.py"):
        assert not level or level == 3 and module.split(".")[0] not in ("training", "runs", "objectives")


def test_the_engine_names_no_objective():
    files = list((PACKAGE / "training").glob("*.py"))
    assert len(files) <= 15
    words = re.compile(r"\b(supcon|two_stage|TwoStage|speaker_clusters|SpeakerClusters|gemo_clap|head ==)\b")
    for path in files:
        assert not words.search(path.read_text()), path.name


def test_the_wheel_holds_everything(tmp_path):
    """Built, installed into an empty folder, and imported from there."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(wheel, check=True, capture_output=True)
    [built] = tmp_path.glob("gemoclap-*.whl")
    target = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(target), str(built)], check=True, capture_output=True
    )
    assert {path.name for path in target.iterdir()} == {
        "modeling_gemoclap",
        built.name.split("-py3")[0] + ".dist-info",
    }
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(m) for m in {modules}]; "
        "print(sys.modules['modeling_gemoclap'].__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(target / "modeling_gemoclap/__init__.py")
    for name in ("py.typed", "training/card_template.md", "evaluation/war_uar/war_uar.py"):
        assert (target / "modeling_gemoclap" / name).is_file()


def test_importing_the_package_needs_no_workshop():
    code = (
        "import sys, modeling_gemoclap; print([m for m in ('datasets', 'evaluate', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    from modeling_gemoclap import GEmoClapTrainer

    assert GEmoClapTrainer.__name__ == "GEmoClapTrainer"
    import modeling_gemoclap

    with pytest.raises(AttributeError, match="NoSuchThing"):
        _ = modeling_gemoclap.NoSuchThing


def test_scripts_and_modules_stay_small():
    for path in [*ROOT.glob("*.py"), *(ROOT / "demo").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        assert len(path.read_text().splitlines()) <= 150, path
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 450, path


CONFIGURATIONS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if "\ncells:" not in path.read_text())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_configurations_are_read_by_the_parser(path):
    from modeling_gemoclap.runs.recipe import parse_recipe

    values = yaml.safe_load(path.read_text())
    recipe = parse_recipe(["--config", str(path)])
    found = recipe.to_dict()
    for name in {"objective", "head"} & set(values) or {"neither"}:
        assert found[name] == values[name]
    assert recipe.training.num_train_epochs == values["num_train_epochs"]
    assert len(path.read_text().splitlines()) <= 40


def test_the_table_of_encoders_is_whole():
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs/encoders.md").read_text().splitlines()]
    rows = {cells[0].strip(): cells for cells in rows if cells and cells[0].strip() in AUDIO and len(cells) == 10}
    assert list(rows) == list(AUDIO), "run python benchmarks/encoders.py"
    assert all(float(cells[8].split()[0]) < 1e-4 for cells in rows.values())


@pytest.mark.parametrize(
    "page", ["README.md", "docs/encoders.md", "docs/scaling.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md"]
)
def test_pages_link_what_is_there(page):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


def test_readme_names_what_is_there():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"--config (\S+\.yaml)", text):
        assert (ROOT / name).is_file(), name
