"""What is known of a published corpus, and how its recordings are read from the folder that one downloads."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .tables import ManifestError

AUDIO = (".wav", ".flac")  # what published corpora come in
OTHER_AUDIO = (".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".webm", ".aif", ".aiff", ".au", ".mp4")

TAIL = r"(?:[._ \-/].*)?$"  # what a copy may append to a recording's name


class LeftOut(Exception):
    """A recording that is not part of the corpus as it is used here; the message says why."""


@dataclass(frozen=True, eq=False)
class KnownCorpus:
    """A published corpus.

    Args:
        name: What it is called in commands: `"emodb"`.
        title: What people call it: `"Emo-DB"`.
        licence: The licence, by its short name.
        citation: The paper to cite.
        url: Where it is to be had.
        language: Language spoken, by ISO 639-1.
        path: How the path of a recording ends, with `/`; its groups go to `describe`. See `in_layout`.
        wherever: The name of a recording in any folder, without its suffix; its groups go to `by_name`. See
            `anywhere`.
        by_name: From a match of `wherever` to what the name says without any table: `speaker_id`, and `emotion`,
            `gender`, `session` if they are part of the name. It raises `ManifestError` for a code that the corpus
            does not have.
        describe: From a match of `path` to a row with `emotion`, `gender`, `speaker_id`, and `session` and
            `transcript` where they exist. It raises `ManifestError` for a label that the corpus does not have,
            `LeftOut` for a recording that is not used.
        counts: Recordings of each emotion in the whole corpus.
        num_speakers: Speakers in the whole corpus.
        speakers: Their ids.
        tables: From the corpus's root and its recordings to what `describe` is given beside the match: labels or
            transcripts that lie in files; None where the name of a recording says all.
        without_labels: The same where no emotion is read; None: as `tables`.
        flat: The name of a recording without its folders, if that name alone could come from another corpus
            (`0011_000351.wav`). It is used only when the corpus is known.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    language: str
    path: re.Pattern
    wherever: re.Pattern
    by_name: Callable[[re.Match], dict]
    describe: Callable[[re.Match, dict], dict]
    counts: dict[str, int]
    num_speakers: int
    tables: Callable[[Path, list[str]], dict] | None = None
    without_labels: Callable[[Path, list[str]], dict] | None = None
    speakers: tuple[str, ...] = ()
    flat: re.Pattern | None = None

    def match(self, file_name: str) -> re.Match | None:
        """The match of `path` in a recording's name, its suffix in small letters."""
        return self.path.search(str(PurePosixPath(file_name).with_suffix(PurePosixPath(file_name).suffix.lower())))

    def owns(self, file_name: str) -> bool:
        """Whether a recording is named as those of this corpus are."""
        return self.match(file_name) is not None

    def read(self, root: Path, files: list[str], unlabelled: bool = False) -> tuple[list[dict], list[str]]:
        """The rows of the recordings below a folder.

        Args:
            root: The folder.
            files: Paths of its recordings, relative to it.
            unlabelled: Read no file of labels, and leave out no recording for its label.

        Returns:
            Dicts with `file_name` and what `describe` gives, and remarks about what was left out.

        Raises:
            ManifestError: If a label is not known, or two recordings have the same name.
        """
        read = self.without_labels if unlabelled and self.without_labels else self.tables
        tables, rows, left_out = read(root, files) if read else {}, [], {}
        first: dict[tuple, str] = {}
        for file in files:
            match = self.match(file)
            if match is None:
                left_out.setdefault(f"not named as recordings of {self.title} are", []).append(file)
                continue
            if (other := first.setdefault(tuple(match.groupdict().items()), file)) != file:
                raise ManifestError(
                    f"{root}: {file} and {other} are the same recording of {self.title}; "
                    f"remove one copy, or point to one of the folders"
                )
            try:
                row = self.describe(match, tables)
            except LeftOut as reason:
                left_out.setdefault(str(reason), []).append(file)
                continue
            except ManifestError as error:
                raise ManifestError(f"{root / file}: {error}") from None
            rows.append({"file_name": file, "session": "", "transcript": "", **row})
        notes = [f"{len(names)} recordings left out, {why}, first {names[0]}" for why, names in left_out.items()]
        return rows, notes

    def says(self, file_name: str, flat: bool = False) -> dict[str, str]:
        """The labels in the name of a recording, in any folder and with any suffix.

        Args:
            file_name: A path with `/`, or only a name.
            flat: Whether the recording is known to be of this corpus, so that the pattern `flat` is used too.

        Returns:
            `speaker_id`, and `emotion`, `gender`, `session` if they are part of the name; empty if this is not a name
            of this corpus.
        """
        path = PurePosixPath(file_name)
        plain = str(path.with_suffix("")) if path.suffix.lower() in AUDIO + OTHER_AUDIO else file_name
        match = self.wherever.search(plain) or (self.flat.search(plain) if flat and self.flat else None)
        try:
            return self.by_name(match) if match else {}
        except ManifestError:
            return {}

    @property
    def rough_pattern(self) -> str:
        """`wherever` for pyarrow, which has no back references: it matches all names of the corpus and a few more."""
        return re.sub(r"\(\?P=\w+\)", ".*", self.wherever.pattern.removesuffix(TAIL))

    def speaker_of(self, file_name: str) -> str | None:
        """The corpus's own id of the speaker of a recording, from the recording's name.

        Args:
            file_name: A path with `/`, or only a name.

        Returns:
            The id; None if the name does not contain it.
        """
        return self.says(file_name, flat=True).get("speaker_id")

    def contradictions(self, rows: Iterable[tuple[str, str, str]]) -> list[str]:
        """Where a manifest says otherwise than the names of the recordings; copies with wrong labels are about.

        Speakers are not compared here: a contradiction there is an error, see `refuse_other_partition`.

        Args:
            rows: File, emotion and gender of each clip.
        """
        found: dict[str, list[str]] = {}
        for file, emotion, gender in rows:
            said = self.says(file, flat=True)
            for what, given in (("emotion", emotion), ("gender", gender)):
                if given and said.get(what, given) != given:
                    found.setdefault(what, []).append(f"{file} ({given}, by its name {said[what]})")
        return [
            f"the manifest contradicts the names of {self.title}'s recordings in the {what} of {len(files)} clips, "
            f"first {files[0]}"
            for what, files in found.items()
        ]

    def differences(self, emotions: Iterable[str], speakers: Iterable[str]) -> list[str]:
        """How a copy's clips differ in number from those of the whole corpus; none where they agree.

        Args:
            emotions: Emotion of each clip.
            speakers: Speakers that occur.
        """
        found, speakers = Counter(emotions), set(speakers)
        if found == Counter(self.counts) and len(speakers) == self.num_speakers:
            return []
        words = sorted({*found, *self.counts})
        parts = [
            f"{word or 'unknown'} {found[word]} of {self.counts.get(word, 0)}"
            for word in words
            if found[word] != self.counts.get(word, 0)
        ]
        return [
            f"{self.title} has {sum(self.counts.values())} clips of {self.num_speakers} speakers; "
            f"here are {sum(found.values())} of {len(speakers)}" + (f" ({', '.join(parts)})" if parts else "")
        ]


def in_layout(name: str) -> re.Pattern:
    """The pattern of a path in the folder that one downloads: it ends in `name` and a suffix."""
    return re.compile(rf"(?:^|/){name}\.(?:wav|flac)$")


def anywhere(name: str) -> re.Pattern:
    """The pattern of a name without its suffix, in any folder, perhaps with additions (`x_NAME_16k`)."""
    return re.compile(rf"(?:^|[/_ .]|[A-Za-z]-){name}{TAIL}")


def code(value: str, names: dict[str, str], what: str) -> str:
    """The word that a label code stands for.

    Args:
        value: The code.
        names: What the codes stand for.
        what: What it is a code of, for the error.

    Raises:
        ManifestError: If there is no such code.
    """
    if value not in names:
        raise ManifestError(f"{value!r} is no {what} of this corpus; it has {', '.join(names)}")
    return names[value]


def recordings_below(folder: Path, suffixes: tuple[str, ...] = AUDIO) -> list[str]:
    """Audio files below a folder, relative to it, with `/`, sorted; hidden ones are passed over.

    Args:
        folder: Where.
        suffixes: How their names end, in small letters.

    Raises:
        ManifestError: If a folder cannot be opened: what lies in it would be missed.
    """

    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: this folder cannot be opened ({error.strerror})") from None

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        names = (name for name in files if not name.startswith(".") and name.lower().endswith(suffixes))
        found += [str(inside / name) for name in names]
    return sorted(found)
