"""Building of indexes: streamed, continued after an interruption, and updated for new, changed and deleted files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm
from transformers.utils import logging

from ..command_line.failures import UsageError, usage_errors
from ..command_line.places import refuse_same_file
from ..corpora.files import write_atomically
from ..fingerprint import differences, file_sha256
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .classifier import AudioClassifier
from .embeddings import embed_recordings
from .index import (
    COLUMNS,
    EMBEDDING,
    Header,
    Recording,
    list_array,
    open_index,
    read_rows,
    recordings_in,
    rows_of,
    write_rows,
)
from .output import lock_output
from .predictions import BATCH_SIZE
from .recordings import Recordings, find_recordings

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.get_logger(__name__)

SEGMENT = 256  # recordings that are embedded, and lost after an interruption, together


@dataclass(frozen=True)
class IndexOptions:
    """How an index is built.

    Args:
        batch_size: Number of recordings that are processed together. It does not change the embeddings.
        restart: Whether to overwrite the file instead of updating it.
        quiet: Whether to show no progress.
    """

    batch_size: int = BATCH_SIZE
    restart: bool = False
    quiet: bool = False


@dataclass
class IndexReport:
    """What was done to an index.

    Args:
        path: Its file.
        recordings: Number of recordings in it.
        embedded: Number of recordings that were embedded.
        reused: Number of new, renamed or touched files whose content was embedded before.
        removed: Number of names that are no longer in the index.
        errors: The messages of recordings that cannot be used. They are not in the index.
        ignored: A sentence on other files in the folder, or "".
    """

    path: Path
    recordings: int = 0
    embedded: int = 0
    reused: int = 0
    removed: int = 0
    errors: list[str] = field(default_factory=list)
    ignored: str = ""

    def summary(self) -> str:
        """What was done, and the recordings that could not be used."""
        counts = {"with content that was embedded before": self.reused, "removed": self.removed}
        parts = [f"{self.recordings} recordings in {self.path}", f"{self.embedded} embedded"]
        parts += [f"{count} {name}" for name, count in counts.items() if count]
        parts += [f"{len(self.errors)} could not be used:"] if self.errors else []
        return "\n".join([", ".join(parts), *(f"  {error}" for error in self.errors), *filter(None, [self.ignored])])


def build_index(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    folder: str | Path,
    output: str | Path,
    options: IndexOptions | None = None,
) -> IndexReport:
    """Embed the recordings of a folder into an index, or update it.

    New and changed recordings are embedded, those with the content of another are copied, and deleted ones are
    removed. The file is replaced at the end, at once. After an interruption, the next call continues.

    Args:
        pipe: The model, from `load_pipeline`.
        folder: The folder. Its recordings are found as by `find_recordings`.
        output: The file of the index.
        options: Size of batches, and whether to start anew.

    Raises:
        ValueError: If the folder has no recordings or none can be used, or if the file is an index of another model,
            of another folder, or no index, or is being written.
        OSError: If the file cannot be written.
    """
    options, path = options or IndexOptions(), Path(output).expanduser()
    with usage_errors():
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise UsageError(f"{str(folder)!r}: no such folder; give the folder of the recordings")
        found = find_recordings([str(folder)])
        refuse_same_file({"--output": path}, dict(zip(found.names, found.names, strict=True)))
    with lock_output(path):
        return _Builder(pipe, folder, path, options).run(found)


class _Builder:
    """Builds one index. Embeddings are written in segments, small indexes of their own, and joined at the end.

    Embeddings are kept on disk. The name, size, time and hash of every recording are in memory.
    """

    def __init__(self, pipe, folder: Path, path: Path, options: IndexOptions):
        self.pipe, self.folder, self.path, self.options = pipe, folder, path, options
        self.header = Header.of(pipe, folder)
        self.segments = path.with_name(f".{path.name}.segments")
        self.report = IndexReport(path)
        self.wanted: dict[bytes, list[Recording]] = {}  # the recordings of the new index by the hash of their content
        self.known: dict[str, Recording] = {}
        self.available: set[bytes] = set()  # hashes of the content that has an embedding

    def run(self, found: Recordings) -> IndexReport:
        if self.options.restart:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self.segments, ignore_errors=True)
        before, folder = self._read_states()
        names = [os.path.relpath(name, self.folder) for name in found.names]
        new = [name for name in names if not self._keep_unchanged(name)]
        self._embed_all(new)
        self.report.ignored = found.describe_ignored()
        self.report.recordings = sum(map(len, self.wanted.values()))
        if not self.wanted:
            raise ValueError("no recording can be used:\n  " + "\n  ".join(self.report.errors))
        after = {recording for recordings in self.wanted.values() for recording in recordings}
        self.report.removed = len({item.name for item in before} - {item.name for item in after})
        if (after, self.header.folder) != (before, folder):
            self._join()
        shutil.rmtree(self.segments, ignore_errors=True)
        return self.report

    def _read_states(self) -> tuple[set[Recording], str | None]:
        """Read what the index and the segments of an interrupted run have; the recordings of the index, its folder."""
        before: tuple[set[Recording], str | None] = set(), None
        if self.path.exists():
            try:
                header, recordings = self._check(self.path)
            except ValueError as error:
                raise UsageError(f"{error}; to overwrite it, give --restart") from error
            before = set(recordings), header.folder
        for segment in self._segment_paths():
            try:
                self._check(segment)
            except ValueError:  # of another model, or incomplete after a power failure
                segment.unlink()
        return before

    def _check(self, path: Path) -> tuple[Header, list[Recording]]:
        """The header and the recordings of an index of the same model and folder, which are known from now on."""
        file, header = open_index(path)
        with file:
            header.check_model(self.header, path)
            self._check_folder(header)
            recordings = [item for batch in read_rows(path, file, COLUMNS) for item in recordings_in(batch)]
        self.known |= {item.name: item for item in recordings}
        self.available |= {item.sha256 for item in recordings}
        parts = ("package", "versions")
        then, now = ({part: each.identity.get(part) for part in parts} for each in (header, self.header))
        if changed := differences(then, now, ("in the index", "now")):
            logger.warning_once(
                f"{self.path}: the embeddings in it were made with other versions ({'; '.join(changed)}), which may "
                f"change them slightly; --restart embeds all recordings again"
            )
        return header, recordings

    def _check_folder(self, header: Header) -> None:
        other = header.folder
        if os.path.isdir(other) and not os.path.samefile(other, self.folder):
            raise ValueError(f"{self.path}: the index of another folder, {other}; give another --output")

    def _segment_paths(self) -> list[Path]:
        return sorted(self.segments.glob("*.parquet"))

    def _keep_unchanged(self, name: str) -> bool:
        """Keep a recording whose size and time are those in the index."""
        known = self.known.get(name)
        try:
            if known is None or _state(self.folder / name) != (known.size, known.mtime_ns):
                return False
        except OSError:
            return False
        self._keep(known)
        return True

    def _keep(self, recording: Recording) -> None:
        self.wanted.setdefault(recording.sha256, []).append(recording)

    def _embed_all(self, names: list[str]) -> None:
        numbers = [int(path.stem) for path in self._segment_paths()]
        first = max(numbers, default=-1) + 1
        hidden = self.options.quiet or not sys.stderr.isatty()
        with tqdm(total=len(names), unit="recording", disable=hidden, dynamic_ncols=True) as progress:
            for number, start in enumerate(range(0, len(names), SEGMENT), first):
                chunk = names[start : start + SEGMENT]
                self._write_segment(number, list(self._embed(self._read(chunk), progress)))

    def _read(self, names: list[str]) -> list[list[Recording]]:
        """The recordings to embed, with the same content together. Those that have an embedding are kept."""
        new: dict[bytes, list[Recording]] = {}
        for name in names:
            path = self.folder / name
            try:
                recording = Recording(name, *_state(path), bytes.fromhex(file_sha256(path)))
            except OSError as error:
                self.report.errors.append(f"{path}: cannot be read ({error.strerror}); check it, or remove it")
                continue
            if recording.sha256 in self.available:
                self._keep(recording)
                self.report.reused += 1
            else:
                new.setdefault(recording.sha256, []).append(recording)
        return list(new.values())

    def _embed(self, groups: list[list[Recording]], progress: tqdm) -> Iterator[tuple[Recording, np.ndarray]]:
        """Embed the first recording of each group; yields every usable recording with its embedding."""
        paths = [str(self.folder / group[0].name) for group in groups]
        answers = embed_recordings(self.pipe, paths, self.options.batch_size, on_error="return")
        for group, answer in zip(groups, answers, strict=True):
            progress.update(len(group))
            length = 0.0 if isinstance(answer, str) else float(np.linalg.norm(answer))
            if not isinstance(answer, str) and not (np.isfinite(length) and length > 0):
                answer = f"{self.folder / group[0].name}: its embedding has length {length}; remove the recording"
            if isinstance(answer, str):
                copies = (f"{self.folder / item.name}: a copy of {group[0].name}" for item in group[1:])
                self.report.errors += [answer, *copies]
                continue
            self.available.add(group[0].sha256)
            self.report.embedded += 1
            self.report.reused += len(group) - 1
            for recording in group:
                self._keep(recording)
                yield recording, answer / length

    def _write_segment(self, number: int, rows: list[tuple[Recording, np.ndarray]]) -> None:
        if not rows:
            return
        recordings, embeddings = zip(*rows, strict=True)
        self.segments.mkdir(exist_ok=True)
        table = rows_of(list(recordings), list_array(np.stack(embeddings), self.header), self.header)
        with write_atomically(self.segments / f"{number:06d}.parquet") as part:
            write_rows(part, self.header, [table])

    def _join(self) -> None:
        """Write the new index from the present one and the segments."""
        wanted, sources = dict(self.wanted), [self.path] if self.path.exists() else []
        tables = (table for source in [*sources, *self._segment_paths()] for table in self._take(source, wanted))
        with write_atomically(self.path) as part:
            write_rows(part, self.header, tables)

    def _take(self, source: Path, wanted: dict[bytes, list[Recording]]) -> Iterator[pa.Table]:
        """Rows for the wanted recordings whose content is in an index; they are no longer wanted afterwards."""
        file, _ = open_index(source)
        with file:
            for batch in read_rows(source, file, ["sha256", EMBEDDING]):
                rows, recordings = [], []
                for row, sha256 in enumerate(batch.column("sha256").to_pylist()):
                    names = wanted.pop(sha256, [])
                    rows += [row] * len(names)
                    recordings += names
                if rows:
                    yield rows_of(recordings, batch.column(EMBEDDING).take(rows), self.header)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last modification of a file."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns
