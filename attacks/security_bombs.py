"""Files that claim or expand to more than they hold: refused with little memory, measured in another process."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from attack import Attack
from datasets import Dataset
from security_bomb_files import FORMATS, checkpoint, claims_of, npz, silence, write_shard

from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.streaming.files import is_longer
from modeling_gemoclap.objectives.speaker_clusters.embeddings import read_embeddings
from modeling_gemoclap.recordings_gemoclap import read_audio

MIB = 2**20
LIMIT = 2048  # MiB of addresses that a case may use beyond what the process has
ALLOWED = 96  # MiB of memory that a case may use
SECONDS = 60


def cases(place: Path, small: bool) -> dict[str, dict[str, Callable[[], object]]]:
    """By kind and name, what reads a file; it must raise an error, or give a short answer."""

    def sound(name: str, content: bytes) -> str:
        (place / name).write_bytes(content)
        return str(place / name)

    claims = {kind: sound(f"claims.{kind}", claims_of(kind)) for kind in FORMATS}
    hours = sound("hours.flac", silence(600 if small else 3 * 3600))
    deep, empty = "[" * 200_000 + "]" * 200_000, Dataset.from_dict({})
    huge = {"lengths of 2**63 bytes": struct.pack("<Q", 2**63 - 1), "of 1 GB": struct.pack("<Q", 10**9) + b"{"}
    shapes = {"x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    claim = json.dumps(shapes).encode()
    huge["a tensor of 4 TB"] = struct.pack("<Q", len(claim)) + claim
    found = {"a header of audio that claims billions of samples": {}, "a header of weights or arrays that lies": {}}
    for kind, path in claims.items():
        found["a header of audio that claims billions of samples"] |= {
            kind: lambda path=path: read_audio(path),
            f"{kind}, in blocks": lambda path=path: is_longer(path, 120),
        }
    folders = {name: checkpoint(place / f"w{n}", "model.safetensors", c) for n, (name, c) in enumerate(huge.items())}
    found["a header of weights or arrays that lies"] |= {
        **{name: lambda path=path: load_pipeline(str(path), "cpu") for name, path in folders.items()},
        "an array of 400 GB": lambda: read_embeddings(npz(place / "claims.npz", (10**8, 1000), 0), empty),
        "an array of 4 TB": lambda: read_embeddings(npz(place / "more.npz", (10**9, 1000), 0), empty),
    }
    json_files = ("config.json", "tokenizer.json", "processor_config.json", "tokenizer_config.json")
    deep_files = {name: checkpoint(place / f"deep-{name}", name, deep) for name in json_files}
    found["JSON that is nested 200,000 levels deep"] = {
        name: lambda path=path: load_pipeline(str(path), "cpu") for name, path in deep_files.items()
    }
    bomb = place / "bomb.npz"
    npz(bomb, (2**26, 8), 2**28 + 2**24 if small else 2**31)
    shard = write_shard(place / "rows/x.parquet", 10**6 if small else 10**8).parent
    found["a small file that expands to a large one"] = {
        "hours of silence as FLAC": lambda: is_longer(hours, 120),
        "an array of zeros": lambda: read_embeddings(bomb, empty),
        "equal rows of Parquet": lambda: load_corpus(shard),
    }
    return found


def measure(read: Callable[[], object]) -> tuple[str, float]:
    """Call a function in a copy of this process with a limit; its outcome, and the peak of its memory in MiB."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT * MIB,) * 2)
        Path("/proc/self/clear_refs").write_text("5")  # begin a new peak
        before = _peak()
        try:
            outcome = f"answer: {read()!r:.60}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        os.write(sender, json.dumps([outcome, _peak() - before]).encode())
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    assert content, "the process died"
    return tuple(json.loads(content))


def _peak() -> float:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def run(attack: Attack, place: Path) -> None:
    """Read every file, and keep the largest peak of each kind."""
    for kind, readers in cases(place, attack.options.small).items():
        highest = 0.0
        for name, read in readers.items():
            with attack.case(kind, name):
                outcome, peak = measure(read)
                highest = max(highest, peak)
                assert peak < ALLOWED, f"{peak:.0f} MiB, {outcome}"
                assert "MemoryError" not in outcome, outcome
        attack.figures[f"peak, {kind}, MiB"] = round(highest, 1)
