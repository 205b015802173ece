"""Tables in text files, as spreadsheets and scripts write them: commas, semicolons or tabs; UTF-8 or UTF-16."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from .tables import COLUMNS, ROWS_AT_A_TIME, ManifestError

DELIMITERS = (",", ";", "\t", "|")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# What other projects call a manifest's columns: an error then says which one to rename.
OTHER_NAMES = {
    "file_name": ("file", "filename", "path", "wav", "audio", "name", "id", "segment_id"),
    "emotion": ("label", "labels", "emotions", "emotion_label", "class", "category", "target"),
    "gender": ("sex", "speaker_gender"),
    "speaker_id": ("speaker", "speakerid", "spk", "spk_id", "actor", "actor_id", "subject"),
    "audio": ("speech", "wav", "recording", "sound", "file", "path"),
}


def read_csv(path: Path, names: Sequence[str] = (*COLUMNS, "session", "transcript")) -> tuple[pa.Table, array]:
    """Read a text file whose first line names its columns.

    The separator is the one that occurs most often in the first line: comma, semicolon, tab or bar. Blanks around
    names, columns without name and content, and empty rows are ignored.

    Args:
        path: The file, in UTF-8, or in UTF-16 with a byte order mark.
        names: Column names that may be spelled in other ways (`File Name` for `file_name`).

    Returns:
        A table of text ("03" stays "03", and "NA" is a word like any other), and the line that each row ends on.

    Raises:
        ManifestError: If it is no such file, or a row has more or fewer fields than there are columns.
    """
    try:
        if is_pointer(path):
            raise ManifestError(f"{path}: a git-lfs pointer, not the file itself; fetch it by git lfs pull")
        with open(path, "rb") as file:
            marked = file.read(2) in UTF16_MARKS
        with open(path, newline="", encoding="utf-16" if marked else "utf-8-sig") as file:
            return _read(file, path, names)
    except UnicodeDecodeError:
        raise ManifestError(f"{path}{_not_utf8(path)}") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be opened ({error.strerror})") from None


def is_pointer(path: Path) -> bool:
    """Whether a file is what git-lfs leaves in place of a file that was not fetched."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def rename_hint(missing: Iterable[str], found: Iterable[str]) -> str:
    """The end of an error about missing columns: which columns may have to be renamed."""
    plain = {_plain(name): name for name in found}
    pairs = [f"{plain[other]} to {name}" for name in missing for other in OTHER_NAMES.get(name, ()) if other in plain]
    return f"; rename {', '.join(dict.fromkeys(pairs))}, if that is what it holds" if pairs else ""


def _not_utf8(path: Path) -> str:
    """The end of an error about a file that is not UTF-8: the line, and what the word would be in Windows-1252."""
    content = path.read_bytes()
    try:
        content.decode("utf-16" if content[:2] in UTF16_MARKS else "utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = 1 + len(re.findall(rb"\r\n|\r|\n", before))
        if error.encoding.startswith("utf-16"):
            return f": cut off in UTF-16 ({error.reason} at byte {error.start}); save it anew, as UTF-8"
        word = re.search(rb"[^\s,;|\"]*$", before)[0] + re.match(rb"[^\s,;|\"]*", content[error.start :])[0]
        meant = f"; in Windows-1252 it would be {word.decode('cp1252', errors='replace')!r}"
        return f": not UTF-8 in line {line} (byte 0x{content[error.start]:02x}{meant}); save it as UTF-8"
    return ": not UTF-8; save it as UTF-8"


def _lines(file: io.TextIOBase, path: Path, skipped: int) -> Iterator[str]:
    for number, line in enumerate(file, 1 + skipped):
        if "\0" in line:
            raise ManifestError(
                f"{path}, line {number}: it holds NUL bytes: no text, or UTF-16 without its mark; save it as UTF-8"
            )
        yield line


def _delimiter(file: io.TextIOBase) -> tuple[str, int]:
    """The separator, and the number of lines before the header: Excel may write `sep=;` first."""
    first = file.readline()
    if match := re.fullmatch(r"\"?sep=(.)\"?\s*", first):
        return match[1], 1
    while first and not first.strip():
        first = file.readline()
    file.seek(0)
    first = first.replace("\0", "")
    return max(DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), []))), 0


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().casefold())


def _names_of(header: list[str], names: Sequence[str]) -> list[str]:
    """The column names without blanks; known names in their standard spelling, unless that is a column as well."""
    header = [name.strip().strip("\ufeff") for name in header]
    return [_plain(name) if name not in names and _plain(name) in {*names} - {*header} else name for name in header]


def _read(file: io.TextIOBase, path: Path, names: Sequence[str]) -> tuple[pa.Table, array]:
    delimiter, skipped = _delimiter(file)
    reader = csv.reader(_lines(file, path, skipped), delimiter=delimiter, skipinitialspace=True, strict=True)
    lines, parts, rows, last = array("I"), [], [], 0
    try:
        columns = _names_of(next((row for row in reader if any(map(str.strip, row))), []), names)
        if not any(columns):
            raise ManifestError(f"{path}: the file is empty; its first line names the columns {', '.join(COLUMNS)}")
        if twice := [name for name, count in Counter(filter(None, columns)).items() if count > 1]:
            raise ManifestError(f"{path}, line 1: a column stands twice, {twice[0]}, in {', '.join(columns)}")
        fields = _Fields(columns, delimiter)
        schema = pa.schema([(column, pa.string()) for column in fields.named])

        def store() -> None:
            parts.append(pa.record_batch([pa.array(one, pa.string()) for one in zip(*rows, strict=True)], schema))
            rows.clear()

        for row in reader:
            last = reader.line_num
            if len(row) != len(columns) or not row[0] or not fields.all_named:  # the others need no second look
                if not any(map(str.strip, row)):
                    continue
                row = fields.of(row, f"{path}, line {last + skipped}")
            rows.append(row)
            lines.append(last + skipped)
            if len(rows) == ROWS_AT_A_TIME:
                store()
    except csv.Error as error:
        raise ManifestError(f"{path}, line {last + skipped + 1}: {_csv_error(str(error))}") from None
    if rows:
        store()
    if not lines:
        raise ManifestError(f"{path}: it names no clips")
    return pa.Table.from_batches(parts, schema).combine_chunks(), lines


def _csv_error(message: str) -> str:
    if "unexpected end" in message or "expected after" in message or "field larger" in message:
        return "a quotation mark that begins a field here has no end, or text behind its end; double or remove it"
    return f"cannot be read as CSV: {message}"


class _Fields:
    """The fields of a row that have a column.

    Args:
        columns: Names; "" where a column has none.
        delimiter: The separator.
    """

    def __init__(self, columns: list[str], delimiter: str):
        self.columns, self.delimiter = columns, delimiter
        self.kept = [place for place, name in enumerate(columns) if name]
        self.named = [columns[place] for place in self.kept]
        self.all_named = len(self.kept) == len(columns)

    def of(self, row: list[str], where: str) -> list[str]:
        """The row's fields under named columns.

        Args:
            row: All fields.
            where: The row, for errors.

        Raises:
            ManifestError: If there are too few, too many, or one lies under a column without a name.
        """
        size = len(self.columns)
        if len(row) < size or any(field.strip() for field in row[size:]):
            what = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}.get(self.delimiter, self.delimiter)
            raise ManifestError(f"{where}: {len(row)} fields under {size} columns; quote fields that hold {what}")
        if self.all_named:
            return row[:size]
        for place in range(1, size):  # the first may be a number of the row, as pandas writes it
            if not self.columns[place] and row[place].strip():
                raise ManifestError(
                    f"{where}: {row[place]!r} stands in column {place + 1}, which has no name; name it in line 1, or "
                    f"quote fields that hold the separator"
                )
        return [row[place] for place in self.kept]
