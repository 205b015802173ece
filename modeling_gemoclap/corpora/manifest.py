"""Load corpora from disk: published corpora as downloaded, folders with `metadata.csv`, and Parquet shards."""

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

from ..command_line.files import listed, shown
from ..command_line.terminal import printable
from ..fingerprint import file_sha256
from ..prompts_gemoclap import EMOTION_WORDS, canonical_emotion
from .layout import KnownCorpus
from .partition import check_partition
from .reading import read_folder
from .shard_reader import PLACE_COLUMNS, ShardReader, shard_contents, shard_states
from .tables import COLUMNS, ManifestError, table_sha256

logger = logging.get_logger(__name__)
FILES_COMPARED = 100  # pairs of recordings with the same name, whose bytes are compared


@dataclass
class Corpus:
    """The clips of a corpus, or a selection of them.

    Args:
        name: The name of the corpus. By default it is the name of the folder.
        manifest_sha256: Hash of the file, emotion, gender and speaker of all clips, before any selection.
        clips: A `datasets.Dataset` with `path`, `file_name`, `emotion`, `gender`, `speaker_id` and the other text
            columns of the manifest. For shards, `shard`, `group` and `row` replace `path`. Emotions and genders are
            canonical words, or "" if unknown.
        shards: The folder of the shards if the recordings are in shards.
        known: The published corpus, if this is one.
        notes: Notes to report with every result: excluded clips, and counts that differ from the published ones.
        parts: The complete corpora of a mixture.
        labels_shuffled: Whether the emotions were shuffled at random, as a control.
        unlabelled_sha256: The value that `manifest_sha256` has if no emotion is read.
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
        """The hashes of the manifest with and without emotions. Either one identifies the corpus."""
        return {self.manifest_sha256, self.unlabelled_sha256} - {""}

    @property
    def identity(self) -> dict[str, str]:
        """The name and the hash of the manifest."""
        return {"corpus": self.name, "manifest_sha256": self.manifest_sha256}

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all clips."""
        return self.clips.with_format("arrow")[:][name]

    def where(self, column: str, keep: Callable[[str], bool]) -> Corpus:
        """Select the clips for whose value in `column` the function `keep` returns true."""
        table = self.clips.with_format("arrow")[:]
        values = [value for value in pc.unique(table[column]).to_pylist() if keep(value)]
        table = table.filter(pc.is_in(table[column], value_set=pa.array(values, pa.string())))
        return replace(self, clips=_as_dataset(table, self.clips._fingerprint, column, values))

    def with_column(self, name: str, values: pa.Array) -> Corpus:
        """Replace the values of a column."""
        table = self.clips.with_format("arrow")[:]
        table = table.set_column(table.column_names.index(name), name, values)
        return replace(self, clips=_as_dataset(table, self.clips._fingerprint, name, values.to_pylist()))

    def recordings(self) -> Iterator[str | dict]:
        """The input of `read_audio` for each clip, in order: a path, or a dict from `ShardReader.read`."""
        if self.shards is None:
            return iter(list(self.clips["path"]))  # of a list: the pipeline reads its recordings ahead
        return map(ShardReader(self.shards).read, self.clips)

    def file_states(self) -> bytes:
        """The path, size and times of every recording, one per line. For shards, see `shard_states`."""
        if self.shards:
            return shard_states(self.shards)
        stats = ((path, os.stat(path) if os.path.exists(path) else None) for path in self.clips["path"])
        states = ((path, stat and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)) for path, stat in stats)
        return "".join(f"{path}\t{state}\n" for path, state in states).encode()

    def recording_hashes(self) -> list[str]:
        """SHA-256 of the file of each recording, in order; "" if the file is missing or the corpus is in shards."""
        if self.shards or "path" not in self.clips.column_names:
            return [""] * len(self)
        return [file_sha256(path) if os.path.isfile(path) else "" for path in self.clips["path"]]

    def recordings_sha256(self) -> str:
        """Hash of the contents of the recordings, whatever folder they are in; for shards, of sizes and footers."""
        if self.shards:
            return hash_contents(shard_contents(self.shards))
        return hash_contents(zip(self.column("file_name").to_pylist(), self.recording_hashes(), strict=True))

    def cannot_be_used(self, errors: list[str]) -> str:
        """The start of an error about unreadable clips: their number and the first ten errors."""
        shown = "\n  ".join(errors[:10]) + (f"\n  ... and {len(errors) - 10} more" if len(errors) > 10 else "")
        return f"{len(errors)} of {len(self)} clips of {self.name} cannot be used:\n  {shown}\nrepair them, "

    def of_speakers(self, speakers: list[str] | None = None, exclude: list[str] | None = None) -> Corpus:
        """Select the clips of some speakers, or of all speakers except some.

        Args:
            speakers: The speakers to select; None selects all.
            exclude: The speakers to exclude.

        Raises:
            ManifestError: If a speaker is not in the corpus, or if no clip remains.
        """
        wanted = list(speakers or self.speakers)
        absent = sorted(set(wanted + list(exclude or [])) - set(self.speakers))
        if absent:
            raise ManifestError(
                f"{self.name}: no speaker {', '.join(map(repr, absent))}; it has {listed(self.speakers)}"
            )
        selected = set(wanted) - set(exclude or [])
        if not selected:
            raise ManifestError(f"{self.name}: the selection of speakers leaves no clip; select other speakers")
        return self.where("speaker_id", selected.__contains__)

    def of_emotions(self, emotions: list[str], drop_others: bool = False) -> Corpus:
        """Select the clips of some emotions and the clips of unknown emotion.

        Args:
            emotions: Canonical words.
            drop_others: Whether to drop clips of other emotions. Otherwise they are an error.

        Raises:
            ManifestError: If clips have other emotions and `drop_others` is false, or if no clip remains.
        """
        counts = {item["values"]: item["counts"] for item in self.column("emotion").value_counts().to_pylist()}
        others = {word: count for word, count in counts.items() if word and word not in emotions}
        if others and not drop_others:
            raise ManifestError(
                f"{self.name}: {others} clips have emotions that are not among the classes "
                f"({', '.join(emotions)}); add them (train.py: --emotions, evaluate.py: --labels), or give "
                f"--drop_other_emotions true"
            )
        corpus = self.where("emotion", lambda emotion: emotion in emotions or not emotion)
        if not len(corpus):
            raise ManifestError(f"{self.name}: no clip has any of the emotions {', '.join(emotions)}")
        return corpus

    def sha256_in_order(self) -> str:
        """Hash of the file, emotion, gender and speaker of these clips, in order; for shards, also of the places."""
        table = self.clips.with_format("arrow")[:]
        names = [*COLUMNS, *(PLACE_COLUMNS if self.shards else ())]
        return table_sha256(
            pa.table({name: pc.cast(table[name], pa.string()) for name in names}), names, in_order=True
        )

    def by_part(self) -> Iterator[tuple[Corpus, str]]:
        """The corpora of a mixture with the prefix of their speaker ids, or this corpus with an empty prefix."""
        for part in self.parts or [self]:
            yield part, f"{part.name}/" if self.parts else ""

    def part_numbers(self) -> list[int]:
        """The number of each clip's corpus in a mixture; all 0 if this is no mixture."""
        prefixes = [prefix for _, prefix in self.by_part()]
        speakers = pc.unique(self.column("speaker_id")).to_pylist()
        numbers = {
            speaker: next(number for number, prefix in enumerate(prefixes) if speaker.startswith(prefix))
            for speaker in speakers
        }
        return [numbers[speaker] for speaker in self.column("speaker_id").to_pylist()]


def mix(corpora: list[Corpus]) -> Corpus:
    """Mix several corpora into one. A speaker becomes `CORPUS/SPEAKER`, and a session `CORPUS/SESSION`.

    The mixture has the columns that all corpora have. Levels differ by 20 dB and more between corpora, so the feature
    extractor should normalise each clip (`do_normalize`).

    Args:
        corpora: One or more corpora that are not in shards.

    Returns:
        The mixture. A single corpus is returned as it is.

    Raises:
        ManifestError: If two corpora have the same name or the same recordings, if a speaker of a published corpus is
            in two of them, or if one of them is in shards.
    """
    if len(corpora) == 1:
        return corpora[0]
    names = [corpus.name for corpus in corpora]
    if len(set(names)) < len(names):
        name = max(names, key=names.count)
        raise ManifestError(f"two corpora are called {name}, so their speakers could be confused; see --corpus_name")
    if slashed := [name for name in names if "/" in name]:
        raise ManifestError(f"{slashed[0]!r}: the name of a corpus in a mixture must not contain /; see --corpus_name")
    if in_shards := [corpus.name for corpus in corpora if corpus.shards]:
        raise ManifestError(
            f"{', '.join(in_shards)}: shards cannot be mixed with other corpora; give the folders of their recordings"
        )
    for first, second in combinations(corpora, 2):
        refuse_copies(first, second)
    shared = set.intersection(*(set(corpus.clips.column_names) for corpus in corpora)) - {"path", *COLUMNS}
    tables = []
    for corpus in corpora:
        columns = {name: corpus.column(name) for name in ("path", *COLUMNS, *sorted(shared))}
        for name in {"speaker_id", "file_name", "session"} & columns.keys():
            prefixed = pc.binary_join_element_wise(corpus.name, columns[name], "/")
            columns[name] = pc.if_else(pc.equal(columns[name], ""), "", prefixed)
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
    """Check that two corpora do not share recordings.

    Raises:
        ManifestError: If they are the same published corpus, or if a recording has the same name and bytes in both.
    """
    same_corpus = first.hashes & second.hashes or (first.known and first.known is second.known)
    paths = {Path(path).stem: path for path in first.clips["path"]}
    both = [(paths[Path(path).stem], path) for path in second.clips["path"] if Path(path).stem in paths]
    present = (pair for pair in both if all(map(os.path.isfile, pair)))
    copies = [pair for pair in islice(present, FILES_COMPARED) if filecmp.cmp(*pair, shallow=False)]
    if same_corpus or copies:
        pair = f"{copies[0][0]} and {copies[0][1]}" if copies else "the two corpora"
        raise ManifestError(
            f"{first.name}, {second.name}: {pair} are the same recordings, so a speaker would be in the training part "
            f"and in the test part; give only one of the folders"
        )


def load_corpus(
    data_dir: str | os.PathLike,
    name: str | None = None,
    emotions: list[str] | None = None,
    emotion_map: dict[str, str] | str | None = None,
    unlabelled: bool = False,
) -> Corpus:
    """Load a corpus folder. The recordings are not read.

    Args:
        data_dir: A folder with a `metadata.csv` (columns `file_name`, `emotion`, `gender`, `speaker_id`) or with
            Parquet shards (see `read_labels`), or a published corpus as downloaded (see `CORPORA`).
        name: The name of the corpus. None uses the name of the published corpus, or of the folder.
        emotions: Emotion words beyond the canonical ones that rows may have.
        emotion_map: A mapping from words to emotions (canonical words, or some of `emotions`), as a dict or as JSON.
        unlabelled: Whether to read no emotion. All emotions are then unknown, even if the column exists.

    Raises:
        ManifestError: If the folder or a column is missing, if a row has an unknown word, no speaker, the path of an
            earlier row or a path outside the folder, if the folder holds another published corpus than `name`, or if
            the speakers of published recordings contradict the names of the recordings.
    """
    emotions = None if unlabelled else words_for_emotions(emotions or [], emotion_map)
    folder = Path(os.path.expanduser(data_dir))
    known, checked, places, notes, in_shards = read_folder(folder, name, emotions)
    for note in notes:
        logger.warning(printable(f"{folder}: {note}"))
    folder, sha256 = folder.resolve(), table_sha256(checked)
    unlabelled_sha256 = sha256 if unlabelled else table_sha256(_without_emotions(checked))
    columns = {column: checked[column] for column in checked.column_names} | places
    clips = _as_dataset(pa.table(columns), sha256, str(folder), list(columns))
    name = name or (known.name if known else folder.name)
    shards = str(folder) if in_shards else None
    return Corpus(name, sha256, clips, shards, known, notes, unlabelled_sha256=unlabelled_sha256)


def words_for_emotions(emotions: list[str], emotion_map: dict[str, str] | str | None) -> dict[str, str]:
    """Map each word beyond the canonical ones to its emotion.

    Args:
        emotions: Words that are emotions themselves.
        emotion_map: See `load_corpus`.

    Raises:
        ManifestError: If a word is mapped to an unknown word, or if the map is not a JSON object.
    """
    words, text = {emotion: emotion for emotion in emotions}, emotion_map
    try:
        emotion_map = json.loads(text) if isinstance(text, str) else text or {}
    except (json.JSONDecodeError, RecursionError):
        emotion_map = None
    if not isinstance(emotion_map, dict) or not all(isinstance(emotion, str) for emotion in emotion_map.values()):
        raise ManifestError(f'--emotion_map: must be a JSON object such as \'{{"wut": "angry"}}\', got {shown(text)}')
    for word, emotion in emotion_map.items():
        known = emotion if emotion in words else canonical_emotion(emotion)
        if not known:
            raise ManifestError(
                f"--emotion_map: {word!r:.80} is mapped to {emotion!r:.80}, which is not known; known are "
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
    """Load one or more corpora and mix them; see `load_corpus` and `mix`.

    Args:
        data_dirs: The folders.
        names: The name of each corpus.
        emotions: Emotion words beyond the canonical ones.
        emotion_map: A mapping from words to emotions, see `load_corpus`.
        unlabelled: Whether to read no emotion.

    Raises:
        ManifestError: See `load_corpus` and `mix`.
    """
    names = names or [None] * len(data_dirs)
    if len(names) != len(data_dirs):
        raise ManifestError(
            f"--corpus_name has {len(names)} names for {len(data_dirs)} folders in --data_dir; give one each"
        )
    return mix([load_corpus(*pair, emotions, emotion_map, unlabelled) for pair in zip(data_dirs, names, strict=True)])


def hash_contents(pairs: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of pairs of a name and the hash of a content, in order."""
    sha256 = hashlib.sha256()
    for name, content in pairs:
        sha256.update(f"{name}\t{content}\n".encode())
    return sha256.hexdigest()


def _without_emotions(table: pa.Table) -> pa.Table:
    empty = pa.array([""] * len(table), pa.string())
    return table.set_column(table.column_names.index("emotion"), "emotion", empty)


def _as_dataset(table: pa.Table, *sources) -> Dataset:
    # With a fingerprint of the sources, datasets does not have to hash the whole table.
    return Dataset(table, fingerprint=Hasher.hash(sources))
