"""docs/own_corpus.md, in order, and the other blocks that push: to a Hub on the loopback, in new processes."""

import json
import re
import sys

import pytest
import soundfile
from conftest import RATE, ROOT, TONES, ForkServer, tone, write_corpus
from pages import EMODB, QUICK, Commands, block, run_python

sys.path.insert(0, str(ROOT / "tests/travelling"))
from hub_server import TOKEN, Hub  # noqa: E402

PAGE, REPOSITORY = "own_corpus.md", "me/mine"
FEW = " --prompt_steps 50"
LOAD = "import sys\nsys.modules['modeling_gemoclap'] = None  # a checkpoint needs transformers only\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that new processes talk to, with an empty cache."""
    hub = Hub()
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    values = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    for name, value in {**values, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    yield hub
    hub.server.shutdown()


@pytest.fixture
def commands(tmp_path, hub, monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "my_corpus", clips=3, speakers=("anna", "ben", "clara", "david", "eva", "felix"))
    soundfile.write(tmp_path / "clip.wav", tone("sad", 0), RATE)
    server = ForkServer()
    names = {"NAMESPACE/NAME": REPOSITORY}
    yield Commands(tmp_path, names, {"train.py": QUICK["train.py"].replace("steps 1", "steps 20") + FEW}, server)
    server.process.stdin.close()
    server.process.wait()


def test_own_corpus(commands, hub, capsys):
    head = block(PAGE, "1. List the recordings").splitlines()[0]
    assert (commands.folder / "my_corpus/metadata.csv").read_text().splitlines()[0] == head
    names = run_python(block(PAGE, "2. Check the list"))
    assert names["corpus"].emotions == sorted(TONES) and "eva happy 3" in capsys.readouterr().out
    commands.run(block(PAGE, "3. Train"))
    printed = commands.run(block(PAGE, "4. Evaluate"))
    results = json.loads((commands.folder / "results/mine/my_corpus/results.json").read_text())
    assert results["n"] == 18 and results["uar"] > 0.5 and results["heard"]["answer"] == "not heard"
    for words in ("speaker-independent", "constant", "no interval below 5 speakers", "not calibrated"):
        assert words in printed
    commands.run(block(PAGE, "5. Write the model card"))
    card = (commands.folder / "runs/mine/README.md").read_text()
    assert "anna, ben, clara, david" in card and "model-index" in card
    snippet = commands.run(block(PAGE, "6. Push"))
    [commit] = re.findall(r"[0-9a-f]{40}", snippet)[:1]
    repository = hub.repositories[REPOSITORY]
    assert repository.private and repository.refs["v1"] == repository.refs["main"] == commit
    commands.names["COMMIT"] = commit
    assert "sad" in commands.run(block(PAGE, "7. Load it by name and revision", 1))
    printed = run_script(commands, LOAD + block(PAGE, "7. Load it by name and revision"))
    assert printed.startswith("[{'") and "'label': 'sad'" in printed.partition("}")[0]


@pytest.mark.slow
def test_own_corpus_in_folds(commands):
    commands.more["train.py"] = f"{QUICK['train.py']} --prompt_steps 1 --control false"
    commands.run(block(PAGE, "4. Evaluate", 1))
    results = json.loads((commands.folder / "runs/folds/results/results.json").read_text())
    assert results["n"] == 54 and results["protocol"]


def run_script(commands, code: str) -> str:
    """Run Python code of a page in a process that talks to the Hub; what it prints."""
    for name, value in commands.names.items():
        code = code.replace(name, value)
    (commands.folder / "script.py").write_text(code)
    return commands.run("python script.py")


@pytest.mark.slow
def test_publishing_in_train(commands, hub):
    for name in ("train.py", "evaluate.py", "configs"):
        (commands.folder / name).symlink_to(ROOT / name)
    write_corpus(commands.folder / "emodb", clips=2, speakers=EMODB)
    commands.names = {"NAME/MODEL": REPOSITORY, "CORPUS": "emodb"}
    commands.more["train.py"] = f"{QUICK['train.py']} --prompt_steps 1"
    commands.run(block("train.md", "Publishing on the Hub"))
    assert "model.safetensors" in hub.files[REPOSITORY] and not hub.repositories[REPOSITORY].private
    commands.run("python evaluate.py --model runs/sl --data_dir emodb --speakers 14 15")
    printed = run_script(commands, block("train.md", "Publishing on the Hub", 1))
    commit = hub.repositories[REPOSITORY].refs["v1"]
    assert commit in printed and b"model-index" in hub.files[REPOSITORY]["README.md"]
    commands.names['revision="..."'] = f'revision="{commit}"'
    run_script(commands, LOAD + block("train.md", "Publishing on the Hub", 2))


@pytest.mark.slow
def test_publish_in_python(commands, hub):
    given = "from modeling_gemoclap import GEmoClap\n\nmodel = GEmoClap.from_pretrained('compact')\n"
    run_script(commands, given + block("python.md", "Publish"))
    assert hub.repositories[REPOSITORY].private and "modeling_gemoclap.py" in hub.files[REPOSITORY]
