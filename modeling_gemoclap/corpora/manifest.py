"""A corpus on disk: as one downloads it, or a folder with `metadata.csv`, one row a clip, or with Parquet shards."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers.utils import logging

from ..fingerprint import file_sha256
from ..prompts_gemoclap import EMOTION_WORDS, canonical_emotion
from .layout import KnownCorpus
from .partition import check_partition
from .reading import read_folder
from .shards import PLACE, ShardReader, shard_contents, shard_states
from .tables import COLUMNS, ManifestError, digest

logger = logging.get_logger(__name__)


@dataclass
class Corpus:
    """Clips of one corpus, all of it or a selection.

    Args:
        name: What the corpus is called, the name of its folder unless told otherwise.
        manifest_sha256: Hash of the whole manifest, selected or not: of file, emotion, gender and speaker.
        clips: A `datasets.Dataset` with `path`, `file_name`, `emotion`, `gender`, `speaker_id`, and whatever other
            columns the manifest has; of shards, `shard`, `group` and `row` in place of `path`. Emotions and genders
            are canonical words; an unknown gender or emotion is "".
        shards: The folder of the shards, where the recordings are in some.
        known: The published corpus that it is, if it is one.
        notes: What is to be told beside any figure on it: clips left out, counts that differ.
        parts: Of a mixture, its corpora, whole.
        labels_shuffled: Whether the emotions were dealt out at random: a control.
        unlabelled_sha256: What `manifest_sha256` would be if no emotion were read.
    """

    name: str
    manifest_sha256: str
    clips: Dataset
    shards: str | None = None
    known: KnownCorpus | None = None
    notes: list[str] = field(default_factory=list)
    parts: list[Corpus] = field(default_factory=list)
    labels_shuffled: bool = False
    unlabelled_sha256: str = ""

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def speakers(self) -> list[str]:
        """Sorted speaker ids."""
        return sorted(pc.unique(self.column("speaker_id")).to_pylist())

    @property
    def emotions(self) -> list[str]:
        """Sorted emotions that occur."""
        return sorted(set(pc.unique(self.column("emotion")).to_pylist()) - {""})

    @property
    def hashes(self) -> set[str]:
        """Of the manifest, with emotions and without: it is known by either."""
        return {self.manifest_sha256, self.unlabelled_sha256} - {""}

    @property
    def identity(self) -> dict[str, str]:
        """Its name and the hash of its manifest."""
        return {"corpus": self.name, "manifest_sha256": self.manifest_sha256}

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, of all clips."""
        return self.clips.with_format("arrow")[:][name]

    def where(self, column: str, keep: Callable[[str], bool]) -> Corpus:
        """The clips whose `column` has a value for which `keep` is true."""
        table = self.clips.with_format("arrow")[:]
        kept = [value for value in pc.unique(table[column]).to_pylist() if keep(value)]
        table = table.filter(pc.is_in(table[column], value_set=pa.array(kept, pa.string())))
        return replace(self, clips=_as_dataset(table, self.clips._fingerprint, column, kept))

    def with_column(self, name: str, values: pa.Array) -> Corpus:
        """The same clips with other values in a column."""
        table = self.clips.with_format("arrow")[:]
        table = table.set_column(table.column_names.index(name), name, values)
        return replace(self, clips=_as_dataset(table, self.clips._fingerprint, name, values.to_pylist()))

    def recordings(self) -> Iterator[str | dict]:
        """What each clip is read from, in order: its path or, in shards, its bytes."""
        if self.shards is None:
            yield from self.clips["path"]
        else:
            yield from map(ShardReader(self.shards).read, self.clips)

    def file_states(self) -> bytes:
        """Path, size and times of every recording, a line each; of shards see `shard_states`."""
        if self.shards:
            return shard_states(self.shards)
        states = [(path, os.stat(path) if os.path.exists(path) else None) for path in self.clips["path"]]
        times = ((path, s and (s.st_size, s.st_mtime_ns, s.st_ctime_ns)) for path, s in states)
        return "".join(f"{path}\t{state}\n" for path, state in times).encode()

    def recording_hashes(self) -> list[str]:
        """SHA-256 of each recording's file, in order; "" where there is no such file, and in shards."""
        if self.shards or "path" not in self.clips.column_names:
            return [""] * len(self)
        return [file_sha256(path) if os.path.isfile(path) else "" for path in self.clips["path"]]

    def recordings_sha256(self) -> str:
        """Hash of the recordings themselves, wherever they lie; of shards, of their sizes and footers."""
        if self.shards:
            return recordings_digest(shard_contents(self.shards))
        return recordings_digest(zip(self.column("file_name").to_pylist(), self.recording_hashes(), strict=True))

    def cannot_be_used(self, errors: list[str]) -> str:
        """The beginning of an error about clips that are bad: how many, and the first ten."""
        shown = "\n  ".join(errors[:10]) + (f"\n  ... and {len(errors) - 10} more" if len(errors) > 10 else "")
        return f"{len(errors)} of {len(self)} clips of {self.name} cannot be used:\n  {shown}\nmend them, "

    def of_speakers(self, speakers: list[str] | None = None, exclude: list[str] | None = None) -> Corpus:
        """The clips of some speakers, or of all but some.

        Raises:
            ManifestError: If a speaker is not in the corpus, or no clip is left.
        """
        wanted = list(speakers or self.speakers)
        absent = sorted(set(wanted + list(exclude or [])) - set(self.speakers))
        if absent:
            raise ManifestError(
                f"{self.name}: no speaker {', '.join(map(repr, absent))}; it has {', '.join(self.speakers)}"
            )
        kept = set(wanted) - set(exclude or [])
        if not kept:
            raise ManifestError(f"{self.name}: the selection of speakers leaves no clip")
        return self.where("speaker_id", kept.__contains__)

    def of_emotions(self, emotions: list[str], drop_others: bool = False) -> Corpus:
        """The clips of some emotions; clips of others are an error unless they are to be dropped.

        Raises:
            ManifestError: If clips have other emotions and `drop_others` is false, or none is left.
        """
        counts = {item["values"]: item["counts"] for item in self.column("emotion").value_counts().to_pylist()}
        others = {word: count for word, count in counts.items() if word and word not in emotions}
        if others and not drop_others:
            raise ManifestError(
                f"{self.name}: {others} clips have emotions that are not among the classes "
                f"({', '.join(emotions)}); name them too (train.py: --emotions, evaluate.py: --labels), or give "
                f"--drop_other_emotions true"
            )
        corpus = self.where("emotion", lambda emotion: emotion in emotions or not emotion)
        if not len(corpus):
            raise ManifestError(f"{self.name}: no clip has any of the emotions {', '.join(emotions)}")
        return corpus

    def sha256_in_order(self) -> str:
        """Hash of these clips as they stand: of file, emotion, gender and speaker, in shards of their place too."""
        table = self.clips.with_format("arrow")[:]
        names = [*COLUMNS, *(PLACE if self.shards else ())]
        return digest(pa.table({name: pc.cast(table[name], pa.string()) for name in names}), names, in_order=True)

    def by_part(self) -> Iterator[tuple[Corpus, str]]:
        """The corpora that it consists of, and how their speakers' names begin in it."""
        for part in self.parts or [self]:
            yield part, f"{part.name}/" if self.parts else ""

    def part_numbers(self) -> list[int]:
        """The number of the corpus that each clip comes from, 0 where it is no mixture."""
        starts = [start for _, start in self.by_part()]
        speakers = pc.unique(self.column("speaker_id")).to_pylist()
        numbers = {one: next(i for i, start in enumerate(starts) if one.startswith(start)) for one in speakers}
        return [numbers[speaker] for speaker in self.column("speaker_id").to_pylist()]


def mix(corpora: list[Corpus]) -> Corpus:
    """Several corpora as one; a speaker is then `CORPUS/SPEAKER`, a session `CORPUS/SESSION`.

    Columns that all of them have are kept.

    Levels differ by 20 dB and more between corpora: see to it that the feature extractor normalises each clip
    (`do_normalize`).

    Args:
        corpora: One or more, not in shards.

    Returns:
        All their clips; of a single corpus, that corpus.

    Raises:
        ManifestError: If two have the same name or are the same, a speaker of a published corpus is in two of them,
            or one is in shards.
    """
    if len(corpora) == 1:
        return corpora[0]
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise ManifestError(f"two corpora are called {max(names, key=names.count)}: their speakers would be mixed up")
    if slashed := [name for name in names if "/" in name]:
        raise ManifestError(f"{slashed[0]!r}: the name of a corpus in a mixture must not contain /; see --corpus_name")
    if in_shards := [corpus.name for corpus in corpora if corpus.shards]:
        raise ManifestError(f"{', '.join(in_shards)}: shards are not mixed with other corpora; give their recordings")
    for first, second in combinations(corpora, 2):
        refuse_copies(first, second)
    rest = set.intersection(*(set(corpus.clips.column_names) for corpus in corpora)) - {"path", *COLUMNS}
    tables = []
    for corpus in corpora:
        columns = {name: corpus.column(name) for name in ("path", *COLUMNS, *sorted(rest))}
        for name in {"speaker_id", "file_name", "session"} & columns.keys():
            named = pc.binary_join_element_wise(corpus.name, columns[name], "/")
            columns[name] = pc.if_else(pc.equal(columns[name], ""), "", named)
        tables.append(pa.table(columns))
    mixed = pa.concat_tables(tables).combine_chunks()
    check_partition(mixed, lambda row: f"{' and '.join(names)}, {mixed['file_name'][row]}")
    hashes = [
        hashlib.sha256(repr(sorted((corpus.name, getattr(corpus, name)) for corpus in corpora)).encode()).hexdigest()
        for name in ("manifest_sha256", "unlabelled_sha256")
    ]
    clips = _as_dataset(mixed, *(corpus.clips._fingerprint for corpus in corpora))
    notes = [f"{corpus.name}: {note}" for corpus in corpora for note in corpus.notes]
    return Corpus("+".join(names), hashes[0], clips, notes=notes, parts=list(corpora), unlabelled_sha256=hashes[1])


def refuse_copies(first: Corpus, second: Corpus) -> None:
    """Make sure that two corpora are not copies of the same recordings, or of some of them.

    Raises:
        ManifestError: If they are one published corpus, or a recording has the same name and bytes in both.
    """
    twice = first.hashes & second.hashes or (first.known and first.known is second.known)
    paths = {Path(path).stem: path for path in first.clips["path"]}
    both = [(paths[Path(path).stem], path) for path in second.clips["path"] if Path(path).stem in paths]
    there = (pair for pair in both if all(map(os.path.isfile, pair)))
    same = [pair for pair in islice(there, 100) if filecmp.cmp(*pair, shallow=False)]
    if twice or same:
        what = f"{same[0][0]} and {same[0][1]}" if same else "two"
        raise ManifestError(
            f"{first.name}, {second.name}: {what} are the same recordings; a speaker would be trained on and judged"
        )


def load_corpus(
    data_dir: str | os.PathLike,
    name: str | None = None,
    emotions: list[str] | None = None,
    emotion_map: dict[str, str] | str | None = None,
    unlabelled: bool = False,
) -> Corpus:
    """Read a corpus folder.

    Args:
        data_dir: A folder with `metadata.csv` and its columns `file_name`, `emotion`, `gender`, `speaker_id`, or with
            Parquet shards (see `read_labels`), or a published corpus as one downloads it (see `CORPORA`).
        name: What to call the corpus; None takes the published corpus's name, or the folder's.
        emotions: Emotion words beyond the canonical ones that rows may have.
        emotion_map: What words of rows stand for: canonical words, or some of `emotions`; as a dict or its JSON.
        unlabelled: Read no emotion: all are unknown, whatever stands in their column, if there is one.

    Returns:
        The corpus. Whether its recordings can be read is seen when they are read.

    Raises:
        ManifestError: If the folder or a column is missing, a row has a word that is not known, lacks a speaker,
            repeats a file or leaves the folder, or the folder holds another published corpus than `name`; if
            speakers of published recordings are told apart otherwise than by the recordings' names.
    """
    emotions = None if unlabelled else words_for_emotions(emotions or [], emotion_map)
    folder = Path(os.path.expanduser(data_dir))
    known, checked, added, notes, in_shards = read_folder(folder, name, emotions)
    for note in notes:
        logger.warning(f"{folder}: {note}")
    folder, sha256 = folder.resolve(), digest(checked)
    blank = sha256 if unlabelled else digest(_without_emotions(checked))
    columns = {column: checked[column] for column in checked.column_names} | added
    clips = _as_dataset(pa.table(columns), sha256, str(folder), list(columns))
    name = name or (known.name if known else folder.name)
    shards = str(folder) if in_shards else None
    return Corpus(name, sha256, clips, shards, known, notes, unlabelled_sha256=blank)


def words_for_emotions(emotions: list[str], emotion_map: dict[str, str] | str | None) -> dict[str, str]:
    """What words beyond the canonical ones stand for: those in `emotions` for themselves, others by `emotion_map`.

    Raises:
        ManifestError: If a word is mapped to one that is not known, or the map is no JSON object.
    """
    words, given = {emotion: emotion for emotion in emotions}, emotion_map
    try:
        emotion_map = json.loads(given) if isinstance(given, str) else given or {}
    except (json.JSONDecodeError, RecursionError):
        emotion_map = None
    if not isinstance(emotion_map, dict) or not all(isinstance(emotion, str) for emotion in emotion_map.values()):
        raise ManifestError(f'--emotion_map: must be a JSON object, as \'{{"wut": "angry"}}\', got {given}')
    for word, emotion in emotion_map.items():
        known = emotion if emotion in words else canonical_emotion(emotion)
        if not known:
            raise ManifestError(
                f"--emotion_map: {word!r} cannot stand for {emotion!r}, which is not known; known are "
                f"{', '.join([*EMOTION_WORDS, *emotions])}"
            )
        words[word] = known
    return words


def load_corpora(
    data_dirs: list[str],
    names: list[str] | None = None,
    emotions: list[str] | None = None,
    emotion_map: dict[str, str] | str | None = None,
    unlabelled: bool = False,
) -> Corpus:
    """Read one corpus or several, and mix them; see `load_corpus` and `mix`.

    Args:
        data_dirs: Their folders.
        names: What to call each.
        emotions: Emotion words beyond the canonical ones.
        emotion_map: What words of rows stand for.
        unlabelled: Read no emotion.

    Raises:
        ManifestError: As these.
    """
    names = names or [None] * len(data_dirs)
    if len(names) != len(data_dirs):
        raise ManifestError(f"--corpus_name has {len(names)} names for {len(data_dirs)} folders in --data_dir")
    return mix([load_corpus(*pair, emotions, emotion_map, unlabelled) for pair in zip(data_dirs, names, strict=True)])


def recordings_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Hash of names and contents, in their order."""
    found = hashlib.sha256()
    for name, content in pairs:
        found.update(f"{name}\t{content}\n".encode())
    return found.hexdigest()


def _without_emotions(table: pa.Table) -> pa.Table:
    blank = pa.array([""] * len(table), pa.string())
    return table.set_column(table.column_names.index("emotion"), "emotion", blank)


def _as_dataset(table: pa.Table, *made_of) -> Dataset:
    """Named by what it is made of: otherwise datasets would hash the whole table."""
    return Dataset(table, fingerprint=Hasher.hash(made_of))
