"""The walls between the parts, the wheel, and what stands in the repository."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, TONES
from families import AUDIO

PACKAGE = ROOT / "modeling_gemoclap"
FACE = sorted(PACKAGE.glob("*_gemoclap.py"))
WORKSHOP = ("command_line", "corpora", "speakers", "training", "evaluation", "runs")
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
    both = {"corpora", "speakers", "command_line"}
    allowed = {
        "command_line": set(),
        "corpora": {"command_line"},
        "speakers": {"corpora"},
        "training": both,
        "evaluation": both,
        "runs": {*both, "training", "evaluation"},
    }[part]
    for path in (PACKAGE / part).rglob("*.py"):
        for level, module, _ in imports(path):
            if level == 2:
                first = module.split(".")[0]
                if first in ("fingerprint", "markdown"):  # these import nothing of the package
                    continue
                assert first in allowed or first.endswith("_gemoclap"), f"{path.name} imports {module}"
                if part == "corpora":
                    words = ("configuration_gemoclap", "prompts_gemoclap", "command_line")
                    assert first in words, "corpora knows the words and no models"
            assert not (level == 0 and module.startswith("modeling_gemoclap"))
            assert module not in {"espeakng_loader"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with nothing but the built wheel, installed without what it requires."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(wheel, check=True, capture_output=True)
    [built] = folder.glob("gemoclap-*.whl")
    target = folder / "site"
    install = [*pip, "install", "--no-deps", "--target", str(target), str(built)]
    subprocess.run(install, check=True, capture_output=True)
    distribution = f"{built.name.split('-py3')[0]}.dist-info"
    assert {path.name for path in target.iterdir()} == {"modeling_gemoclap", distribution}
    return target


def run_installed(target, folder, *words):
    """Run Python in a folder, with the installed wheel first on the path; what it prints."""
    env = {**os.environ, "PYTHONPATH": str(target)}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()


def test_the_wheel_holds_everything(installed, tmp_path):
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(m) for m in {modules}]; "
        "print(sys.modules['modeling_gemoclap'].__file__)"
    )
    assert run_installed(installed, tmp_path, "-c", code) == str(installed / "modeling_gemoclap/__init__.py")
    for name in ("py.typed", "training/card_template.md", "evaluation/war_uar/war_uar.py"):
        assert (installed / "modeling_gemoclap" / name).is_file()


def test_the_wheel_holds_the_configurations(installed):
    sources = sorted(path for path in (ROOT / "configs").rglob("*") if path.is_file())
    folder = installed / "modeling_gemoclap/configs"
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == [
        folder / path.relative_to(ROOT / "configs") for path in sources
    ]
    for path in sources:
        assert (folder / path.relative_to(ROOT / "configs")).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_wheel_trains_evaluates_and_predicts(installed, tones, tmp_path):
    """Two steps with a configuration of the package, in an empty folder without the repository."""
    data = ("--data_dir", tones)
    quick = ("--max_steps", 2, "--prompt_steps", 0, "--use_cpu", "true", "--disable_tqdm", "true")
    train = ("-m", "modeling_gemoclap", "train", "--config", "compact", *data, "--exclude_speakers", "04")
    run_installed(installed, tmp_path, *train, *quick, "--output_dir", "run")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name for path in (tmp_path / "run").glob("*.py")} == {path.name for path in FACE}
    recipe = yaml.safe_load((ROOT / "configs/compact.yaml").read_text())
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["emotion_templates"] == recipe["emotion_templates"] and config["pooling"] == recipe["pooling"]
    evaluate = ("-m", "modeling_gemoclap", "evaluate", "--model", "run", *data, "--speakers", "04")
    run_installed(installed, tmp_path, *evaluate, "--output_dir", "results")
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["n"] == 12 and results["command"].startswith("python -m modeling_gemoclap evaluate --model run")
    clip = next(tones.glob("audio/04_*.wav"))
    code = (
        "import sys; from transformers import pipeline; "
        "pipe = pipeline('zero-shot-emotion-recognition', model='run', trust_remote_code=True); "
        "print(sorted(answer['label'] for answer in pipe(sys.argv[1])))"
    )
    code = f"import modeling_gemoclap; {code}"
    assert run_installed(installed, tmp_path, "-c", code, clip).splitlines()[-1] == str(sorted(TONES))


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
    from modeling_gemoclap.training.arguments import parse_arguments

    values = yaml.safe_load(path.read_text())
    model, _, training = parse_arguments(["--config", str(path)])
    for name in {"objective", "head"} & set(values) or {"neither"}:
        assert getattr(model, name) == values[name]
    assert training.num_train_epochs == values["num_train_epochs"]
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
