"""The description of a published corpus, and how its recordings are read from the folder that users download."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .suffixes import AUDIO, OTHER_AUDIO
from .tables import ManifestError

SUFFIX_OF_COPIES = r"(?:[._ \-/].*)?$"  # text that a copy may append to the name of a recording


class ExcludedRecording(Exception):
    """A recording that this package does not use although it belongs to the corpus. The message gives the reason."""


@dataclass(frozen=True, eq=False)
class KnownCorpus:
    """A published corpus.

    Args:
        name: The name in commands, such as `"emodb"`.
        title: The name in texts, such as `"Emo-DB"`.
        licence: The short name of the licence.
        citation: The paper to cite.
        url: The address of the corpus.
        language: The spoken language as an ISO 639-1 code.
        path_pattern: Matches the end of the path of a recording, with `/`. `describe` receives the match. See
            `path_pattern`.
        name_pattern: Matches the name of a recording, without its suffix, in any folder. `parse_name` receives the
            match. See `name_pattern`.
        parse_name: Takes a match of `name_pattern` and returns the labels that the name contains: `speaker_id`, and
            `emotion`, `gender` and `session` if they are part of the name. It raises `ManifestError` for a code that
            the corpus does not have.
        describe: Takes a match of `path_pattern` and the result of `tables`, and returns a row with `emotion`,
            `gender`, `speaker_id`, and with `session` and `transcript` if the corpus has them. It raises
            `ManifestError` for a label that the corpus does not have, and `ExcludedRecording` for a recording that is
            not used.
        counts: The number of recordings of each emotion in the complete corpus.
        num_speakers: The number of speakers in the complete corpus.
        tables: Takes the root of the corpus and its recordings, and reads the labels or transcripts that are stored in
            separate files. None if the names of the recordings contain every label.
        without_labels: Replaces `tables` if no emotion is read. None: use `tables`.
        speakers: The ids of the speakers.
        bare_name_pattern: Matches the name of a recording without its folders if that name alone could belong to
            another corpus (`0011_000351.wav`). It is used only if the corpus is known.
    """

    name: str
    title: str
    licence: str
    citation: str
    url: str
    language: str
    path_pattern: re.Pattern
    name_pattern: re.Pattern
    parse_name: Callable[[re.Match], dict]
    describe: Callable[[re.Match, dict], dict]
    counts: dict[str, int]
    num_speakers: int
    tables: Callable[[Path, list[str]], dict] | None = None
    without_labels: Callable[[Path, list[str]], dict] | None = None
    speakers: tuple[str, ...] = ()
    bare_name_pattern: re.Pattern | None = None

    def match(self, file_name: str) -> re.Match | None:
        """Match `path_pattern` against the path of a recording; the case of the suffix is ignored."""
        path = PurePosixPath(file_name)
        return self.path_pattern.search(str(path.with_suffix(path.suffix.lower())))

    def read(self, root: Path, files: list[str], unlabelled: bool = False) -> tuple[list[dict], list[str]]:
        """Read the rows of the recordings below a folder.

        Args:
            root: The folder.
            files: The paths of the recordings, relative to the folder.
            unlabelled: Whether to read no file of labels, and to exclude no recording because of its label.

        Returns:
            Dicts with `file_name` and the columns from `describe`, and notes on the excluded recordings.

        Raises:
            ManifestError: If a label is unknown, or if two files are the same recording.
        """
        read_tables = self.without_labels if unlabelled and self.without_labels else self.tables
        tables, rows, excluded = read_tables(root, files) if read_tables else {}, [], {}
        first_files: dict[tuple, str] = {}
        for file in files:
            match = self.match(file)
            if match is None:
                excluded.setdefault(f"not named as recordings of {self.title} are", []).append(file)
                continue
            if (other := first_files.setdefault(tuple(match.groupdict().items()), file)) != file:
                raise ManifestError(
                    f"{root}: {file} and {other} are the same recording of {self.title}; remove one of them, or give "
                    f"only one of the folders"
                )
            try:
                row = self.describe(match, tables)
            except ExcludedRecording as reason:
                excluded.setdefault(str(reason), []).append(file)
                continue
            except ManifestError as error:
                raise ManifestError(f"{root / file}: {error}") from None
            rows.append({"file_name": file, "session": "", "transcript": "", **row})
        notes = [f"{len(names)} recordings left out, {why}, first {names[0]}" for why, names in excluded.items()]
        return rows, notes

    def labels_in_name(self, file_name: str, known: bool = False) -> dict[str, str]:
        """Read the labels in the name of a recording, in any folder and with any suffix.

        Args:
            file_name: A path with `/`, or only a name.
            known: Whether the recording is known to belong to this corpus. `bare_name_pattern` is then used too.

        Returns:
            `speaker_id`, and `emotion`, `gender` and `session` if they are part of the name. The dict is empty if the
            name does not belong to this corpus.
        """
        path = PurePosixPath(file_name)
        stem = str(path.with_suffix("")) if path.suffix.lower() in AUDIO + OTHER_AUDIO else file_name
        match = self.name_pattern.search(stem)
        if not match and known and self.bare_name_pattern:
            match = self.bare_name_pattern.search(stem)
        try:
            return self.parse_name(match) if match else {}
        except ManifestError:
            return {}

    @property
    def arrow_pattern(self) -> str:
        """A form of `name_pattern` for pyarrow, which has no back references; it also matches a few other names."""
        return re.sub(r"\(\?P=\w+\)", ".*", self.name_pattern.pattern.removesuffix(SUFFIX_OF_COPIES))

    def speaker_of(self, file_name: str) -> str | None:
        """Read the corpus's own id of a speaker from the name of a recording.

        Args:
            file_name: A path with `/`, or only a name.

        Returns:
            The id, or None if the name does not contain it.
        """
        return self.labels_in_name(file_name, known=True).get("speaker_id")

    def contradictions(self, rows: Iterable[tuple[str, str, str]]) -> list[str]:
        """Compare a manifest with the names of the recordings. Copies of corpora with wrong labels are in circulation.

        Speakers are not compared here, because a contradiction in speakers is an error; see `check_speaker_ids`.

        Args:
            rows: The file, emotion and gender of each clip.

        Returns:
            Notes on the contradictions.
        """
        wrong: dict[str, list[str]] = {}
        for file, emotion, gender in rows:
            labels = self.labels_in_name(file, known=True)
            for column, value in (("emotion", emotion), ("gender", gender)):
                if value and labels.get(column, value) != value:
                    wrong.setdefault(column, []).append(f"{file} ({value}, by its name {labels[column]})")
        return [
            f"the manifest contradicts the names of {self.title}'s recordings in the {column} of {len(files)} clips, "
            f"first {files[0]}"
            for column, files in wrong.items()
        ]

    def differences(self, emotions: Iterable[str], speakers: Iterable[str]) -> list[str]:
        """Compare the numbers of clips and speakers in a copy with those of the complete corpus.

        Args:
            emotions: The emotion of each clip.
            speakers: The speakers in the copy.

        Returns:
            One note, or none if the numbers agree.
        """
        counts, speakers = Counter(emotions), set(speakers)
        if counts == Counter(self.counts) and len(speakers) == self.num_speakers:
            return []
        words = sorted({*counts, *self.counts})
        parts = [
            f"{word or 'unknown'} {counts[word]} of {self.counts.get(word, 0)}"
            for word in words
            if counts[word] != self.counts.get(word, 0)
        ]
        return [
            f"{self.title} has {sum(self.counts.values())} clips of {self.num_speakers} speakers; "
            f"here are {sum(counts.values())} of {len(speakers)}" + (f" ({', '.join(parts)})" if parts else "")
        ]


def path_pattern(name: str) -> re.Pattern:
    """The pattern of a path in the folder that users download. The path ends in `name` and a suffix."""
    return re.compile(rf"(?:^|/){name}\.(?:wav|flac)$")


def name_pattern(name: str) -> re.Pattern:
    """The pattern of a name without its suffix, in any folder, possibly with additions (`x_NAME_16k`)."""
    return re.compile(rf"(?:^|[/_ .]|[A-Za-z]-){name}{SUFFIX_OF_COPIES}")


def decode_label(value: str, names: dict[str, str], what: str) -> str:
    """Translate the code of a label.

    Args:
        value: The code.
        names: The meaning of each code.
        what: What the code stands for, for the error.

    Raises:
        ManifestError: If the code does not exist.
    """
    if value not in names:
        raise ManifestError(f"{value!r} is no {what} of this corpus; it has {', '.join(names)}")
    return names[value]


def recordings_below(folder: Path, suffixes: tuple[str, ...] = AUDIO) -> list[str]:
    """List the audio files below a folder, as sorted paths relative to it, with `/`. Hidden files are ignored.

    Args:
        folder: The folder.
        suffixes: Suffixes of the files, in lower case.

    Raises:
        ManifestError: If a folder cannot be opened. Its recordings would be missing without notice.
    """

    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: this folder cannot be opened ({error.strerror})") from None

    paths = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        names = (name for name in files if not name.startswith(".") and name.lower().endswith(suffixes))
        paths += [str(inside / name) for name in names]
    return sorted(paths)
