"""A corpus folder from recordings and labels in Python."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import soundfile

from ..corpora.catalogue import CORPORA
from ..corpora.provenance import UNKNOWN_SPEAKER
from ..recordings_gemoclap import name_of, read_audio
from .inputs import Labelled


def write_corpus(folder: Path, clips: Labelled) -> Path:
    """Write a corpus folder. Files are linked; other recordings are written as WAV in 32-bit floats.

    Args:
        folder: A new folder.
        clips: The recordings and their labels. Without speakers, recordings of published corpora have the speaker that
            their names contain (`emodb/03`), and all others have the speaker `UNKNOWN_SPEAKER`.

    Returns:
        The folder.

    Raises:
        AudioError: If an array or bytes cannot be read as audio.
    """
    folder.mkdir(parents=True)
    size = len(clips.recordings)
    names = [_add(folder, index, recording) for index, recording in enumerate(clips.recordings)]
    speakers, genders = clips.speakers or [_speaker_in(name) for name in names], clips.genders or [""] * size
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "emotion", "gender", "speaker_id"])
        writer.writerows(zip(names, clips.emotions, genders, speakers, strict=True))
    return folder


def _speaker_in(name: str) -> str:
    """The speaker of a published recording by its name, or `UNKNOWN_SPEAKER`. Two corpora may use the same ids."""
    for corpus in CORPORA.values():
        if speaker := corpus.labels_in_name(name).get("speaker_id"):
            return f"{corpus.name}/{speaker}"
    return UNKNOWN_SPEAKER


def _add(folder: Path, index: int, recording) -> str:
    """Add a recording to the folder and return its name there.

    It keeps the name of its file, by which recordings of published corpora are recognised.
    """
    path = recording.get("path") if isinstance(recording, Mapping) and not recording.get("bytes") else recording
    if isinstance(path, (str, os.PathLike)) and not (isinstance(recording, Mapping) and "array" in recording):
        name = Path(f"{index:06d}", Path(path).name)
        (folder / name).parent.mkdir()
        os.symlink(Path(path).expanduser().resolve(), folder / name)
    else:
        wave, rate = read_audio(recording, name=f"recording {index}" if name_of(recording) == "array" else None)
        name = Path(f"{index:06d}.wav")
        soundfile.write(folder / name, wave, rate, subtype="FLOAT")
    return name.as_posix()
