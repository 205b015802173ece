"""Files of predictions, which are written row by row and continued after an interruption."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from ..command_line.failures import UsageError, usage_errors
from ..command_line.places import refuse_unwritable
from ..command_line.terminal import printable
from ..corpora.files import read_object, write_atomically, write_json
from ..fingerprint import differences
from .predictions import NONE_OF_THESE, Prediction
from .recordings import STDIN

TABLE, CSV, JSONL = "table", "csv", "jsonl"
SUFFIXES = {".csv": CSV, ".jsonl": JSONL, ".ndjson": JSONL}
LONGEST_NAME = 60  # characters of a name in a table


class Rows:
    """Formats predictions as the lines of a table, CSV or JSON.

    Names of files that are not valid text keep their bytes, as in `os.fsencode`.

    Args:
        kind: `"table"`, `"csv"` or `"jsonl"`.
        labels: The labels.
        gender: Whether there is a gender.
        rejects: Whether predictions may be rejected. Their label is then `NONE_OF_THESE`, and every row also has the
            best label.
        width: Width of the column of names in a table.
    """

    def __init__(self, kind: str, labels: list[str], gender: bool, rejects: bool = False, width: int = LONGEST_NAME):
        self.kind, self.labels, self.gender, self.rejects = kind, labels, gender, rejects
        named = ["label", *labels, *([NONE_OF_THESE, "best label"] if rejects else [])]
        self.width, self.label_width = min(width, LONGEST_NAME), max(map(len, named))

    @property
    def header(self) -> str:
        """The first line; "" for JSON."""
        gender = ["gender"] if self.gender else []
        if self.kind == CSV:
            scores = [f"score_{label}" for label in self.labels]
            return csv_line(["file", *self._labels("label", "best_label"), "score", *scores, *gender, "error"])
        if self.kind == TABLE:
            return self._table_line("file", self._labels("label", "best label"), "score", *gender)
        return ""

    def _labels(self, label: str, best_label: str) -> list[str]:
        return [label, best_label] if self.rejects else [label]

    def line(self, name: str, answer: Prediction | str) -> str:
        """The line of a recording.

        Args:
            name: Its name.
            answer: The prediction, or the error.
        """
        error = answer if isinstance(answer, str) else None
        if self.kind == JSONL:
            values = {"label": None, "score": None, "scores": None, "error": error}
            if error is None:
                values |= {"label": answer.label, "score": answer.score, "scores": answer.scores}
                values |= {"best_label": answer.best_label} if self.rejects else {}
                values |= {"gender": answer.gender} if self.gender else {}
            return json.dumps({"file": name, **values}) + "\n"
        if self.kind == CSV:
            empty = [""] * (2 + len(self.labels) + self.rejects + self.gender)
            if error is not None:
                return csv_line([name, *empty, error])
            scores = [answer.scores[label] for label in self.labels]
            gender = [answer.gender] if self.gender else []
            labels = self._labels(answer.label, answer.best_label)
            return csv_line([name, *labels, answer.score, *scores, *gender, ""])
        if error is not None:
            return self._table_line(name, ["error"], "")
        gender = [answer.gender] if self.gender else []
        labels = self._labels(answer.label, answer.best_label)
        return self._table_line(name, labels, f"{answer.score:.2f}", *gender)

    def read(self, text: str) -> list[tuple[str, bool, str]]:
        """Read lines that `line` wrote, without an incomplete last one.

        Returns:
            For each line the name, whether it is an error, and the line.

        Raises:
            ValueError: If the text has another header or other lines.
        """
        if not text.startswith(self.header):
            raise ValueError("its columns are those of other labels or of another format")
        text = text[len(self.header) :]
        return list(self._read_csv(text) if self.kind == CSV else self._read_jsonl(text))

    def _read_jsonl(self, text: str) -> Iterator[tuple[str, bool, str]]:
        for number, line in enumerate(text.splitlines(keepends=True), start=1):
            if not line.endswith("\n"):
                return  # the last row is incomplete
            try:
                values = json.loads(line)
                yield values["file"], values["error"] is not None, line
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"line {number} is not a prediction") from None

    def _read_csv(self, text: str) -> Iterator[tuple[str, bool, str]]:
        columns, position = len(next(csv.reader([self.header]))), 0
        for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), start=1):
            line = csv_line(row)
            if not text.startswith(line, position):
                if "\r\n" in text[position:]:
                    raise ValueError(f"row {number} is not as it was written")
                return  # the last row is incomplete
            if len(row) != columns:
                raise ValueError(f"row {number} has {len(row)} columns, not {columns}")
            yield row[0], bool(row[-1]), line
            position += len(line)

    def _table_line(self, name: str, labels: list[str], *cells: str) -> str:
        cells = (*(f"{label:<{self.label_width}}" for label in labels), *cells)
        return "  ".join([name_cell(name, self.width), *cells]).rstrip() + "\n"


def name_cell(name: str, width: int) -> str:
    """The name of a recording in a table: its end if it is long, and no control characters."""
    name = printable(name)
    name = name if len(name) <= width else f"…{name[1 - width :]}"
    return f"{name:<{width}}"


def csv_line(values: list) -> str:
    """A line of CSV."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(values)
    return buffer.getvalue()


def _is_newer(name: str, time: float) -> bool:
    """Whether a recording was changed after a time."""
    return os.path.exists(name) and os.path.getmtime(name) > time


def format_of(output: str | None, kind: str | None) -> str:
    """The format of an output: the given one, or by its suffix, or a table.

    Args:
        output: A file; None is the standard output.
        kind: `"table"`, `"csv"`, `"jsonl"` or None.

    Raises:
        ValueError: If a table is to be written to a file, or if the suffix is unknown.
    """
    if output is None:
        return kind or TABLE
    kind = kind or SUFFIXES.get(Path(output).suffix.lower())
    if kind in (None, TABLE):
        raise ValueError(f"--output {output}: give a name that ends in .csv or .jsonl, or --format csv or jsonl")
    return kind


def prepare_stdout(kind: str) -> None:
    """Let the standard output take names that are not valid text: as bytes, or replaced in a table."""
    is_table = kind == TABLE
    form = {"errors": "replace"} if is_table else {"errors": "surrogateescape", "encoding": "utf-8", "newline": ""}
    sys.stdout.reconfigure(**form)


@contextmanager
def lock_output(path: Path) -> Iterator[None]:
    """Keep other processes from writing a file at the same time.

    Raises:
        ValueError: If another process is writing it, or its folder cannot be written.
    """
    with usage_errors():
        refuse_unwritable({"--output": path.parent})  # a lock of a folder that cannot be written seems taken
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{path}: another process is writing it; wait, or give another --output") from None
    try:
        yield
    finally:
        lock.release()  # the file stays: a process that removes it could remove the lock of another


class PredictionFile:
    """A file of predictions. A second run with the same settings, in the same folder, continues it.

    Beside it, `NAME.settings.json` has the fingerprint of what the predictions depend on. Recordings with an error,
    and those that have changed since the file was written, are predicted again.

    Args:
        path: The file; None is the standard output, which is never continued.
        rows: The format.
        identity: The fingerprint, from `identity_of_predictions`.
        restart: Whether to overwrite the file.

    Attributes:
        done: Names of the recordings that the file has predictions for.
    """

    def __init__(self, path: Path | None, rows: Rows, identity: dict, restart: bool = False):
        self.path, self.rows, self.restart = path, rows, restart
        self.identity = identity | {"folder": os.getcwd()}  # names may be relative
        self.done: list[str] = []
        self._file: TextIO = sys.stdout

    @property
    def settings_path(self) -> Path:
        """The file with the fingerprint."""
        return self.path.with_name(f"{self.path.name}.settings.json")

    @contextmanager
    def open(self) -> Iterator[PredictionFile]:
        """Open the file, and read what it has.

        Raises:
            ValueError: If another process is writing it, or if it holds other predictions or anything else.
            OSError: If it cannot be written.
        """
        if self.path is None:
            prepare_stdout(self.rows.kind)
            self._write(self.rows.header)
            yield self
            return
        with lock_output(self.path):
            self._begin()
            with open(self.path, "a", encoding="utf-8", errors="surrogateescape", newline="") as self._file:
                yield self

    def _begin(self) -> None:
        files = [self.path, *self._parts()]
        if self.restart:
            for file in files:  # before the settings: they must never be beside rows of other ones
                file.unlink(missing_ok=True)
        rows = []
        for file in filter(Path.exists, files):
            written, names = file.stat().st_mtime, {name for name, _ in rows}
            kept = [(name, line) for name, failed, line in self._lines(file) if not failed and name not in names]
            rows += [row for row in kept if not _is_newer(row[0], written)]
        write_json(self.settings_path, self.identity)
        self._replace(line for _, line in rows)
        self.done = [name for name, _ in rows if name != STDIN]

    def _replace(self, lines: Iterable[str]) -> None:
        """Write the file anew, with the rows of its parts, and remove these."""
        with write_atomically(self.path) as new:
            new.write_bytes((self.rows.header + "".join(lines)).encode("utf-8", "surrogateescape"))
        for part in self._parts():
            part.unlink()

    def _parts(self) -> list[Path]:
        """The files with the rows of several processes; see `open_part`."""
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.part-*"))

    @contextmanager
    def open_part(self, number: int) -> Iterator[Callable[[str, Prediction | str], None]]:
        """Open a file beside the output for the rows of one of several processes, until they are merged.

        Args:
            number: The number of the process.

        Yields:
            A function that writes the row of a recording, as `write` does.
        """
        part = self.path.with_name(f"{self.path.name}.part-{number}")
        with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as self._file:
            self._write(self.rows.header)
            yield self.write

    def merge(self, names: Sequence[str]) -> list[str]:
        """Write all rows, also those of other processes, into the file, in the order of their recordings.

        Args:
            names: The recordings in their order. Rows of others, from an earlier run, come first.

        Returns:
            The recordings without a row.
        """
        rows = {name: line for file in (self.path, *self._parts()) for name, _, line in self._lines(file)}
        places = {name: place for place, name in enumerate(names)}
        self._replace(rows[name] for name in sorted(rows, key=lambda name: places.get(name, -1)))
        return [name for name in names if name not in rows]

    def _lines(self, path: Path) -> list[tuple[str, bool, str]]:
        """The name of each row of the file or of a part of it, whether it is an error, and its line."""
        advice = "give another --output, or --restart to overwrite it"
        if not self.settings_path.is_file():
            raise UsageError(f"{self.path} exists, and it is not known what made it: {advice}")
        if changed := differences(read_object(self.settings_path), self.identity, ("in the file", "now")):
            raise UsageError(f"{self.path} has predictions made otherwise ({changed[0]}): {advice}")
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        try:
            return [] if path != self.path and self.rows.header.startswith(text) else self.rows.read(text)
        except ValueError as error:
            raise UsageError(f"{path} was changed ({error}): {advice}") from None

    def write(self, name: str, answer: Prediction | str) -> None:
        """Write the row of a recording, so that it is in the file even if the process is killed afterwards."""
        self._write(self.rows.line(name, answer))

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
