"""Parsers explored by atheris (libFuzzer), which keeps inputs that reach new code of the package.

fuzz_coverage.py KIND SECONDS FOLDER explores one kind; `explore` runs this for each of `KINDS`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import attack  # noqa: F401  (puts the project on the import path)

KINDS = (
    "recordings: WAV",
    "recordings: MP3",
    "recordings: OGG",
    "metadata.csv",
    "diarisations (RTTM)",
    "recipes (YAML)",
)
INSTRUMENTED = [
    "modeling_gemoclap.audio_files_gemoclap",
    "modeling_gemoclap.audio_headers_gemoclap",
    "modeling_gemoclap.command_line.files",
    "modeling_gemoclap.corpora.delimited",
    "modeling_gemoclap.corpora.tables",
    "modeling_gemoclap.inference.streaming.files",
    "modeling_gemoclap.inference.turns",
    "modeling_gemoclap.recordings_gemoclap",
]
SHARE = 0.25  # of the time


def explore(record) -> None:
    """Explore all kinds, each in a process of its own, and add the numbers of inputs to the record."""
    if importlib.util.find_spec("atheris") is None:
        record.figures["coverage-guided"] = "atheris is not installed"
        return
    seconds = round(SHARE * 60 * record.options.minutes / len(KINDS))
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, kind, str(seconds), folder]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
            runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
            name = f"{kind}, coverage-guided"
            record.tried[name] += int(runs[1]) if runs else 0
            for path in sorted(Path(folder).glob("broken-*")):
                reason = re.search(r"BROKEN (.*)", done.stderr)
                record.lost.append(f"{name} ({path.name}): {reason[1][:300] if reason else done.stderr[-300:]}")
                if record.options.save:
                    record.options.save.mkdir(parents=True, exist_ok=True)
                    path.rename(record.options.save / f"{re.sub(r'[^a-z]+', '_', kind.lower())}_{path.name}")
            if not runs and not any(record.lost):
                record.lost.append(f"{name}: {done.stderr[-300:]}")


def main(kind: str, seconds: str, folder: str) -> None:
    """Explore one kind."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        import modeling_gemoclap.corpora.manifest
        import modeling_gemoclap.inference.streaming.files
        import modeling_gemoclap.inference.turns  # noqa: F401
    from fuzz_judge import judge
    from fuzz_targets import ATTACKED
    from transformers.utils import logging

    logging.set_verbosity_error()
    [target] = [each for each in ATTACKED if each.kind == kind]
    work, corpus = Path(folder, "work"), Path(folder, "corpus")
    work.mkdir()
    corpus.mkdir()
    for number in range(target.valid):
        (corpus / f"{number}").write_bytes(target.input(number, 0))
    path = work / target.name

    def test_one_input(data: bytes) -> None:
        path.write_bytes(data)
        verdict, message, place = judge(lambda: target.run(path), (target.name, *target.words), len(data))
        if verdict == "broken":
            print(f"BROKEN {place}: {message}", file=sys.stderr, flush=True)
            raise AssertionError(message)

    limits = ["-timeout=20", "-rss_limit_mb=4096", "-max_len=40000", "-print_final_stats=1", "-verbosity=0"]
    limits += [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/broken-"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
