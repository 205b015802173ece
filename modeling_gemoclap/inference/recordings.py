"""Recordings to predict: files, folders, and the standard input."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..corpora.suffixes import AUDIO, OTHER_AUDIO, RARE_AUDIO

STDIN = "-"
SUFFIXES = frozenset((*AUDIO, *OTHER_AUDIO, *RARE_AUDIO))


@dataclass
class Recordings:
    """Recordings by name.

    Args:
        names: The name of each recording in results: its path as given, or below a given folder.
        ignored: The suffixes of other files in given folders, with their numbers.
    """

    names: list[str] = field(default_factory=list)
    ignored: Counter = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.names)

    def without(self, names: Iterable[str]) -> Recordings:
        """Leave out recordings by name."""
        names = set(names)
        return Recordings([name for name in self.names if name not in names], self.ignored)

    def describe_ignored(self) -> str:
        """A sentence on the files that were ignored; "" if there are none."""
        if not self.ignored:
            return ""
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in self.ignored.most_common(5))
        total = self.ignored.total()
        return f"ignored {total} other file{'' if total == 1 else 's'} ({kinds})"


def find_recordings(places: Sequence[str]) -> Recordings:
    """List recordings.

    Args:
        places: Files, folders, or `-` for the standard input. A file that is named is always included, whatever its
            suffix. Of a folder, the files in it and below it with the suffix of an audio format are, in the order of
            their paths, but no hidden files.

    Raises:
        ValueError: If there is no such file or folder, if a folder has no recordings, or if a recording is given
            twice.
    """
    found = Recordings()
    for place in places:
        path = Path(place).expanduser()
        if place == STDIN:
            found.names.append(STDIN)
        elif path.is_dir():
            _add_folder(found, path)
        elif path.exists():
            found.names.append(str(path))
        else:
            raise ValueError(f"{place!r}: no such file or folder")
    repeated = [name for name, count in Counter(found.names).items() if count > 1]
    if repeated:
        raise ValueError(f"{repeated[0]!r} is given twice; give each recording once")
    return found


def _add_folder(found: Recordings, folder: Path) -> None:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    recordings = [str(path) for path in paths if path.suffix.lower() in SUFFIXES]
    others = Counter(path.suffix.lower() for path in paths if path.suffix.lower() not in SUFFIXES)
    if not recordings:
        content = Recordings(ignored=others).describe_ignored() or "it is empty"
        raise ValueError(f"{str(folder)!r}: no recordings there ({content}); give a folder with audio files")
    found.names += recordings
    found.ignored += others


def read_input(name: str) -> str | BinaryIO:
    """The input of `read_audio` for a recording: its path, or the standard input."""
    return sys.stdin.buffer if name == STDIN else name
