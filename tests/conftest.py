"""Small towers, a small corpus of tones, and a checkpoint trained on it."""

import ast
import csv
import functools
import gc
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run side by side

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import families  # noqa: E402
from families import AUDIO  # noqa: E402

from modeling_gemoclap.cli import COMMANDS  # noqa: E402
from modeling_gemoclap.command_line.failures import EXTRAS  # noqa: E402

# Files that take minutes begin first, so that the two workers end together (make test keeps this order).
SLOWEST_FIRST = ("test_protocol_runs.py", "test_distributed.py", "test_grid.py", "test_shards.py", "test_training.py")
RATE = 16000
SPEAKERS = ("01", "02", "03", "04")
TONES = {"angry": 1800.0, "happy": 900.0, "sad": 300.0}
BIN = pytest.param(  # weights as a pickle
    "bin",
    marks=pytest.mark.skipif(
        tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6),
        reason="transformers reads pickled weights only with torch 2.6 or later",
    ),
)


def audio_config(family: str, **fields):
    """A small configuration of an audio family."""
    return AUDIO[family].config(small=True, **fields)


def text_config(name: str = "roberta", **fields):
    return families.text_config(name, small=True, **fields)


@pytest.fixture
def make_model():
    """A small model of any audio and text family, seeded, in eval mode; `audio` changes its tower's configuration."""

    def make(family="compact", text="roberta", model_class=None, audio=None, **fields):
        from modeling_gemoclap import GEmoClapConfig, GEmoClapModel

        torch.manual_seed(0)
        towers = {"audio_config": audio_config(family, **(audio or {})), "text_config": text_config(text)}
        config = GEmoClapConfig(**towers, **{"projection_dim": 12, "emotions": list(TONES), **fields})
        return (model_class or GEmoClapModel)(config).eval()

    return make


@pytest.fixture
def make_processor(tmp_path):
    """The processor for `make_model`."""

    def make(model, family="compact"):
        from modeling_gemoclap import GEmoClapProcessor
        from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer

        tokenizer = build_tokenizer(model.config)
        assert len(tokenizer) <= model.config.text_config.vocab_size
        return GEmoClapProcessor(AUDIO[family].small_extractor(tmp_path / "extractor"), tokenizer)

    return make


def batch_of(model, lengths, seed=0):
    """Noise in the input of a tower of raw waves or of the compact one: the batch, and its clips."""
    generator = torch.Generator().manual_seed(seed)
    ours = model.main_input_name == "input_features"
    width = (16,) if ours else ()
    clips = [torch.randn(length // 160 if ours else length, *width, generator=generator) for length in lengths]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(clip)) for clip in clips], True).long()
    values = torch.nn.utils.rnn.pad_sequence(clips, True)
    return {model.main_input_name: values, "audio_attention_mask": mask}, clips


def tone(emotion: str, seed: int, seconds: float = 0.6, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * TONES[emotion] * rng.uniform(0.9, 1.1) * time)
    return (level * (wave + 0.1 * rng.standard_normal(len(time)))).astype(np.float32)


def write_corpus(
    folder: Path, rows: list[list[str]] | None = None, clips: int = 4, salt: str = "", speakers: tuple = SPEAKERS
) -> Path:
    """Tones whose pitch is their emotion, by speakers who are women and men in turn; salt makes others."""
    (folder / "audio").mkdir(parents=True)
    written = []
    for speaker, gender in zip(speakers, itertools.cycle(("female", "male"))):  # noqa: B905
        speaker = salt + speaker
        for emotion in TONES:
            for number in range(clips):
                name = f"audio/{speaker}_{emotion}_{number}.wav"
                seed = hash_of(name + salt)
                soundfile.write(folder / name, tone(emotion, seed, 0.4 + 0.1 * number), RATE)
                written.append([name, emotion, gender, speaker])
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "emotion", "gender", "speaker_id"], *written, *(rows or [])])
    return folder


def hash_of(text: str) -> int:
    return sum((index + 1) * ord(letter) for index, letter in enumerate(text))


@pytest.fixture(scope="session")
def tones(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tones")


READ_AT_IMPORT = ("HF_", "PYTHON", "TRANSFORMERS", "OMP", "WORLD", "RANK", "MASTER", "ACCELERATE", "TORCH", "CUDA")
READ_AT_IMPORT += ("XDG_", "HOME", "DATASETS_")


class ForkServer:
    """One process that has imported the libraries, from which scripts are forked; see `fork_server.py`."""

    def __init__(self):
        command = [sys.executable, ROOT / "tests/fork_server.py"]
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.number = 0
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.env, **pipes)

    def can_run(self, env: dict) -> bool:
        """Whether no variable differs that the libraries read when they are imported."""
        names = {name for name in {*env, *self.env} if name.startswith(READ_AT_IMPORT) and name != "PYTHONPATH"}
        return all(env.get(name) == self.env.get(name) for name in names)

    def run(
        self, script: str, arguments: list[str], env: dict, folder: Path | str = ROOT
    ) -> subprocess.CompletedProcess:
        """Run a script, or with `-m` a module, in a process of its own that starts in `folder`."""
        with tempfile.TemporaryDirectory() as printed:
            files = {name: os.path.join(printed, name) for name in ("stdout", "stderr")}
            self.number += 1
            request = {
                "number": self.number,
                "script": script,
                "arguments": arguments,
                "folder": str(folder),
                "env": env,
            }
            self.process.stdin.write(json.dumps(request | files) + "\n")
            self.process.stdin.flush()
            try:
                number, status = map(int, self.process.stdout.readline().split())
            except BaseException:  # a timeout or an interrupt: the next answer would be that of this script
                self.process.kill()
                fork_server.cache_clear()
                raise
            assert number == self.number
            return subprocess.CompletedProcess(
                [script, *arguments], status, *(Path(f).read_text() for f in files.values())
            )


@functools.cache
def fork_server() -> ForkServer:
    return ForkServer()


def run_script(script: str, *arguments, check: bool = True, env: dict | None = None, launcher=()):
    """Run `train.py` or `evaluate.py` as a user does, in a process of its own; both need the extra `train`."""
    pytest.importorskip("accelerate")
    script, arguments = str(script), [str(word) for word in arguments]
    if not launcher and script.endswith(".py") and not env and fork_server().can_run(os.environ):
        done = fork_server().run(script, arguments, dict(os.environ))
    else:
        command = [sys.executable, *map(str, launcher), script, *arguments]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return done


def torchrun(processes: int) -> tuple[str, ...]:
    """The launcher of several processes on this machine."""
    return ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))


TORCHRUN = torchrun(2)


def worker_results(worker: str, processes: int = 2, *arguments) -> list:
    """What a worker script of the tests printed as `RESULT ...`, when torchrun starts it."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/training")))
    done = run_script(worker, *arguments, launcher=torchrun(processes), env={"PYTHONPATH": path})
    return [ast.literal_eval(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT")]


def same_weights(first, second):
    """Whether two folders of checkpoints have the same weights, bit for bit."""
    first, second = (load_file(folder / "model.safetensors") for folder in (first, second))
    return all(torch.equal(first[name], second[name]) for name in first)


TINY = (
    "--config",
    "tests/tiny.yaml",
)


def load_script(name):
    """The module with the code of `train.py`, `evaluate.py` or `grid.py`."""
    return importlib.import_module(f"modeling_gemoclap{COMMANDS[name]}")


@pytest.fixture
def train(monkeypatch):
    """`train.py` with the tiny configuration, in this process."""
    monkeypatch.chdir(ROOT)
    script = load_script("train")
    return lambda *arguments: script.main([*TINY, *map(str, arguments)])


@pytest.fixture(scope="session")
def trained(tones, tmp_path_factory):
    """A checkpoint that `accelerate launch train.py` made of three speakers of the tones."""
    output = tmp_path_factory.mktemp("runs") / "tones-sl"
    launcher = ("-m", "accelerate.commands.launch")
    options = ("--data_dir", tones, "--exclude_speakers", "04", "--output_dir", output)
    run_script("train.py", *TINY, *options, launcher=launcher)
    return output


def missing_extra(error: BaseException | None) -> str | None:
    """Why a test cannot run, if the error comes from a package of an extra that is not installed."""
    while error is not None:
        name = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and name in EXTRAS and importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install 'gemoclap[{EXTRAS[name]}]'"
        error = error.__cause__
    return None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Skip a file that imports a package of an extra that is not installed; never in continuous integration."""
    report = yield
    reason = missing_extra(report.call.excinfo.value) if report.failed and not os.environ.get("CI") else None
    if reason:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: {reason}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skip a test in the same way."""
    report = yield
    reason = missing_extra(call.excinfo.value) if report.failed and not os.environ.get("CI") else None
    if reason:
        report.outcome, report.longrepr = "skipped", (str(item.path), item.location[1] + 1, f"Skipped: {reason}")
    return report


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="module", autouse=True)
def imports_that_stay():
    """Each training collects garbage several times, which takes a second if all libraries are looked through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpora():
    """Real recordings; a test that needs them is skipped without, but never in continuous integration."""
    folder = os.environ.get("GEMOCLAP_CORPORA")
    if not folder:
        assert not os.environ.get("CI"), "GEMOCLAP_CORPORA must be set in continuous integration"
        pytest.skip("GEMOCLAP_CORPORA is not set: the folder with emodb/ and ravdess/")
    return Path(folder)


@pytest.fixture(scope="session")
def pretrained_folder():
    """What `make pretrained` writes; a test that needs it is skipped without, but never in continuous integration."""
    folder = Path(os.environ.get("GEMOCLAP_PRETRAINED", ROOT / "pretrained"))
    if not all((folder / name).is_dir() for name in ("whisper-base", "all-MiniLM-L6-v2")):
        assert not os.environ.get("CI"), "make pretrained must precede the tests in continuous integration"
        pytest.skip(f"{folder} has no whisper-base and all-MiniLM-L6-v2: make pretrained, or set GEMOCLAP_PRETRAINED")
    return folder.absolute()
