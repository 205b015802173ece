"""Code blocks of the documentation, and the commands in them, for the tests that run them as they are written."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import AUDIO, ROOT, TONES, ForkServer, audio_config, fork_server, text_config, write_corpus

GEMOCLAP = shlex.join([sys.executable, "-m", "modeling_gemoclap"])
INSTALLATION = re.compile(r"(pip|make) ")  # commands that the environment of the tests has run before
# With one process, `accelerate launch` starts the script; tests/training/test_launch.py tests it.
LAUNCHER = ["accelerate", "launch"]
SCRIPTS = ("train.py", "evaluate.py", "grid.py")
EMODB = ("03", "08", "10", "11", "14", "15")
RAVDESS = ("01", "02", "04", "05", "23", "24")
ENCODERS = {  # the small encoder that stands for one on the Hub
    "microsoft/wavlm-base-plus": "wavlm-base",
    "microsoft/wavlm-large": "wavlm-base",
    "facebook/wav2vec2-base": "wav2vec2-base",
    "openai/whisper-base": "whisper",
    "openai/whisper-small": "whisper",
    "sentence-transformers/all-MiniLM-L6-v2": "text",
    "sentence-transformers/all-mpnet-base-v2": "text",
    "FacebookAI/roberta-base": "text",
}
QUICK = {"train.py": "--max_steps 1 --use_cpu true --disable_tqdm true --feature_cache_dir cache"}


@dataclass(frozen=True)
class Block:
    """A code block: its page, the heading above it, its place under this heading, its language and its code."""

    page: str
    heading: str
    number: int
    language: str
    code: str

    @property
    def is_run(self) -> bool:
        """Whether it has more than commands that install something."""
        lines = [line for line in self.code.splitlines() if line.strip()]
        return self.language in ("bash", "python") and not all(map(INSTALLATION.match, lines))


def blocks_of(page: str) -> list[Block]:
    """All code blocks of a page in docs/."""
    found, heading, language, counts, code = [], "", "", {}, None
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines(keepends=True):
        fence = re.match(r" *```(\w*)\n", line)
        if code is not None and fence:
            indent = min((len(row) - len(row.lstrip()) for row in code if row.strip()), default=0)
            text = "".join(row[indent:] or row for row in code)
            found.append(Block(page, heading, counts.setdefault(heading, 0), language, text))
            counts[heading] += 1
            code = None
        elif fence:
            language, code = fence[1], []
        elif code is not None:
            code.append(line)
        elif title := re.match(r"#+ (.+)\n", line):
            heading = title[1]
    return found


def block(page: str, heading: str, number: int = 0) -> str:
    """The code of a block of a page in docs/: its place under a heading, counted from 0."""
    [found] = [each for each in blocks_of(page) if (each.heading, each.number) == (heading, number)]
    return found.code


@dataclass
class Commands:
    """Runs commands of a page in a folder.

    Args:
        folder: The folder, with what the page takes as given.
        names: What stands for a word of the page, such as a corpus for `CORPUS`.
        more: Options that are added to the commands of a program, such as `train.py`, so that they take seconds.
        server: Runs the commands, each in a process of its own; None: that of the other tests.
    """

    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=lambda: dict(QUICK))
    server: ForkServer | None = None

    def run(self, code: str) -> str:
        """Run the commands of a block, each of which must succeed; the output of the last."""
        pytest.importorskip("accelerate")
        for name, value in self.names.items():
            code = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w/])", str(value), code)
        printed = ""
        for line in code.replace("\\\n", "").splitlines():
            if line.strip() and not INSTALLATION.match(line):
                done = self._run_line(line)
                assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
                printed = done.stdout
        return printed

    def _run_line(self, line: str) -> subprocess.CompletedProcess:
        if re.search(r" [|>] ", line):
            line = re.sub(r"(^|\| )gemoclap ", rf"\1{GEMOCLAP} ", line)
            return subprocess.run(["bash", "-c", line], cwd=self.folder, capture_output=True, text=True)
        words = shlex.split(line, comments=True)
        if words[:2] == LAUNCHER:
            words[:2] = ["python"]
        if words[0] == "gemoclap":
            words[:1] = ["python", "-m", "modeling_gemoclap"]
        assert words.pop(0) == "python", line
        program = f"{words[2]}.py" if words[:2] == ["-m", "modeling_gemoclap"] else words[0]
        words += shlex.split(self.more.get(program, ""))
        server = self.server or fork_server()
        return server.run(words[0], words[1:], dict(os.environ), self.folder)


def run_python(code: str, **names) -> dict:
    """Run a block in this process, with names that the page takes as given; its names afterwards."""
    exec(compile(code, "block", "exec"), names)
    return names


def save_encoders(folder: Path) -> dict[str, str]:
    """Save small encoders with random weights; their folders by the names that stand for them on the pages."""
    from transformers import AutoModel, RobertaModel, WhisperFeatureExtractor

    from modeling_gemoclap import GEmoClapConfig
    from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer

    shape = {"whisper": {"encoder_layers": 3, "max_source_positions": 1500}}  # of the layers and of the window
    for family in ("wavlm-base", "wav2vec2-base", "whisper"):
        AutoModel.from_config(audio_config(family, **shape.get(family, {}))).save_pretrained(folder / family)
        AUDIO[family].save_extractor(folder / family)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(folder / "whisper")
    RobertaModel(text_config()).save_pretrained(folder / "text")
    build_tokenizer(GEmoClapConfig(emotions=list(TONES))).save_pretrained(folder / "text")
    return {name: str(folder / small) for name, small in ENCODERS.items()}


def with_encoders(text: str, encoders: dict[str, str]) -> str:
    """A configuration with the small encoders in place of those on the Hub."""
    return re.sub("|".join(map(re.escape, encoders)), lambda name: encoders[name[0]], text)


def make_checkout(folder: Path, encoders: dict[str, str]) -> Path:
    """A folder as the pages assume it: the repository's scripts, fetched encoders, and corpora emodb and ravdess."""
    for name in (*SCRIPTS, "checkpoints"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        (folder / "configs" / path.name).write_text(with_encoders(path.read_text(), encoders))
    (folder / "pretrained").mkdir()
    for name in ("openai/whisper-base", "sentence-transformers/all-MiniLM-L6-v2"):
        (folder / "pretrained" / name.split("/")[1]).symlink_to(encoders[name])
    for name, speakers in (("emodb", EMODB), ("ravdess", RAVDESS)):
        write_corpus(folder / "corpora" / name, clips=2, speakers=speakers)
    return folder
