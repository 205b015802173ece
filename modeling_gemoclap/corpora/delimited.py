"""Tables in text files from spreadsheets and scripts: with commas, semicolons, tabs or bars; in UTF-8 or UTF-16."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ..command_line.files import listed, shown
from ..prompts_gemoclap import CONTROL
from .tables import COLUMNS, ROWS_AT_A_TIME, ManifestError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_WORD = 60  # bytes of a word in messages, before and after the invalid byte
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# Names that other projects give to the columns of a manifest; an error then says which column to rename.
OTHER_NAMES = {
    "file_name": ("file", "filename", "path", "wav", "audio", "name", "id", "segment_id"),
    "emotion": ("label", "labels", "emotions", "emotion_label", "class", "category", "target"),
    "gender": ("sex", "speaker_gender"),
    "speaker_id": ("speaker", "speakerid", "spk", "spk_id", "actor", "actor_id", "subject"),
    "audio": ("speech", "wav", "recording", "sound", "file", "path"),
}


def read_csv(path: Path, names: Sequence[str] = (*COLUMNS, "session", "transcript")) -> tuple[pa.Table, array]:
    """Read a text file whose first line names its columns.

    The separator is the character that splits the first line into the most fields: comma, semicolon, tab or bar.
    Spaces around names, columns without a name and without content, and empty rows are ignored.

    Args:
        path: The file, in UTF-8, or in UTF-16 with a byte order mark.
        names: Column names that may have other spellings (`File Name` for `file_name`).

    Returns:
        A table of text ("03" stays "03", and "NA" is an ordinary word), and the line on which each row ends.

    Raises:
        ManifestError: If the file is not such a table, or if a row has more or fewer fields than there are columns.
    """
    try:
        if is_git_lfs_pointer(path):
            raise ManifestError(f"{path}: a git-lfs pointer, not the file; download the file with git lfs pull")
        with open(path, "rb") as file:
            marked = file.read(2) in UTF16_MARKS
        with open(path, newline="", encoding="utf-16" if marked else "utf-8-sig") as file:
            return _read_table(file, path, names)
    except UnicodeDecodeError:
        raise ManifestError(f"{path}{_encoding_error(path)}") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be opened ({error.strerror})") from None


def is_git_lfs_pointer(path: Path) -> bool:
    """Whether a file is the pointer that git-lfs stores in place of a file that was not downloaded."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER


def rename_hint(missing: Iterable[str], columns: Iterable[str]) -> str:
    """The end of an error about missing columns: the columns that the user may have to rename, or ""."""
    spelled = {_normalise(name): name for name in columns}
    pairs = [
        f"{spelled[other]} to {name}" for name in missing for other in OTHER_NAMES.get(name, ()) if other in spelled
    ]
    return f"; rename {', '.join(dict.fromkeys(pairs))} if it holds these values" if pairs else ""


def _encoding_error(path: Path) -> str:
    """The end of an error about a file that is not UTF-8: the line, and the word as Windows-1252 would decode it."""
    content = path.read_bytes()
    try:
        content.decode("utf-16" if content[:2] in UTF16_MARKS else "utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = 1 + len(re.findall(rb"\r\n|\r|\n", before))
        if error.encoding.startswith("utf-16"):
            return f": invalid UTF-16 ({error.reason} at byte {error.start}); save the file again, as UTF-8"
        ends = before[-MAX_WORD:], content[error.start : error.start + MAX_WORD]
        word = re.search(rb"[^\s,;|\"]*$", ends[0])[0] + re.match(rb"[^\s,;|\"]*", ends[1])[0]
        guess = f"; in Windows-1252 it would be {word.decode('cp1252', errors='replace')!r}"
        return f": not UTF-8 in line {line} (byte 0x{content[error.start]:02x}{guess}); save the file as UTF-8"
    return ": not UTF-8; save the file as UTF-8"


def _lines(file: io.TextIOBase, path: Path, skipped: int) -> Iterator[str]:
    for number, line in enumerate(file, 1 + skipped):
        if "\0" in line:
            raise ManifestError(
                f"{path}, line {number}: the line holds NUL bytes: the file is not text, or is UTF-16 without a byte "
                f"order mark; save it as UTF-8"
            )
        yield line


def _find_delimiter(file: io.TextIOBase) -> tuple[str, int]:
    """The separator, and the number of lines before the header. Excel may write `sep=;` as the first line."""
    first = file.readline()
    if match := re.fullmatch(r"\"?sep=(.)\"?\s*", first):
        return match[1], 1
    while first and not first.strip():
        first = file.readline()
    file.seek(0)
    header = first.replace("\0", "")
    return max(DELIMITERS, key=lambda delimiter: _number_of_fields(header, delimiter)), 0


def _number_of_fields(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:  # a field that is too long
        return 0


def _normalise(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())


def _column_names(header: list[str], names: Sequence[str]) -> list[str]:
    """The names without spaces. Known names get their standard spelling unless that is a column as well."""
    header = [name.strip().strip("\ufeff") for name in header]
    free = {*names} - {*header}
    return [_normalise(name) if name not in names and _normalise(name) in free else name for name in header]


def _read_table(file: io.TextIOBase, path: Path, names: Sequence[str]) -> tuple[pa.Table, array]:
    delimiter, skipped = _find_delimiter(file)
    reader = csv.reader(_lines(file, path, skipped), delimiter=delimiter, skipinitialspace=True, strict=True)
    lines, batches, rows, last = array("I"), [], [], 0
    try:
        header = next((row for row in reader if any(map(str.strip, row))), [])
        fields = _NamedFields(_checked_columns(_column_names(header, names), path), delimiter)
        for row in reader:
            last = reader.line_num
            if fields.needs_check(row):
                if not any(map(str.strip, row)):
                    continue
                row = fields.select(row, f"{path}, line {last + skipped}")
            rows.append(row)
            lines.append(last + skipped)
            if len(rows) == ROWS_AT_A_TIME:
                batches.append(fields.batch(rows))
                rows = []
    except csv.Error as error:
        raise ManifestError(f"{path}, line {last + skipped + 1}: {_csv_error(str(error))}") from None
    if rows:
        batches.append(fields.batch(rows))
    if not lines:
        raise ManifestError(f"{path}: the file has no clips; add a row for each clip")
    return pa.Table.from_batches(batches, fields.schema).combine_chunks(), lines


def _checked_columns(columns: list[str], path: Path) -> list[str]:
    if not any(columns):
        raise ManifestError(f"{path}: the file is empty; its first line must name the columns {', '.join(COLUMNS)}")
    if unprintable := [name for name in columns if CONTROL.search(name)]:
        raise ManifestError(
            f"{path}, line 1: the column {unprintable[0]!r:.100} holds a line break or another control character"
        )
    if repeated := [name for name, count in Counter(filter(None, columns)).items() if count > 1]:
        name = shown(repeated[0])
        raise ManifestError(f"{path}, line 1: the column {name} occurs twice in {listed(columns)}; keep one")
    return columns


def _csv_error(message: str) -> str:
    if "unexpected end" in message or "expected after" in message or "field larger" in message:
        return (
            "a quotation mark at the start of a field is not closed, or text follows the closing mark; double the "
            "mark or remove it"
        )
    return f"cannot be read as CSV: {message}"


class _NamedFields:
    """Selects the fields of a row whose columns have a name.

    Args:
        columns: Names; "" for a column without a name.
        delimiter: The separator.
    """

    def __init__(self, columns: list[str], delimiter: str):
        self.columns, self.delimiter = columns, delimiter
        self.places = [place for place, name in enumerate(columns) if name]
        self.all_named = len(self.places) == len(columns)
        self.schema = pa.schema([(columns[place], pa.string()) for place in self.places])

    def needs_check(self, row: list[str]) -> bool:
        """Whether a row must pass `select`. Most rows do not, which saves time."""
        return len(row) != len(self.columns) or not row[0] or not self.all_named

    def select(self, row: list[str], where: str) -> list[str]:
        """Select the fields of a row in named columns.

        Args:
            row: All fields.
            where: The name of the row for errors.

        Raises:
            ManifestError: If the row has too few or too many fields, or a value in a column without a name.
        """
        size = len(self.columns)
        if len(row) < size or any(field.strip() for field in row[size:]):
            separators = DELIMITERS.get(self.delimiter, self.delimiter)
            raise ManifestError(f"{where}: {len(row)} fields for {size} columns; quote fields that hold {separators}")
        if self.all_named:
            return row[:size]
        for place in range(1, size):  # the first column may hold row numbers, which pandas writes without a name
            if not self.columns[place] and row[place].strip():
                raise ManifestError(
                    f"{where}: {row[place]!r} is in column {place + 1}, which has no name; name the column in line 1, "
                    f"or quote fields that hold the separator"
                )
        return [row[place] for place in self.places]

    def batch(self, rows: list[list[str]]) -> pa.RecordBatch:
        """Selected rows as a record batch."""
        return pa.record_batch([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], self.schema)
