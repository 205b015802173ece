"""Read the columns of Parquet shards from any program: labels as text; recordings as bytes, paths or arrays."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..command_line.files import listed
from .delimited import rename_hint
from .tables import COLUMNS, ManifestError

RATE = "sampling_rate"


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_binary(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@dataclass(frozen=True)
class AudioColumn:
    """The form of the column `audio` of a shard.

    Args:
        form: `"struct"` (of `bytes`, `path`, or `array` and `sampling_rate`), `"path"`, `"bytes"` or `"array"`.
        parts: The fields of a struct.
    """

    form: str
    parts: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that hold the recordings."""
        if self.form == "struct":
            return [f"audio.{part}" for part in self.parts]
        return ["audio", RATE] if self.form == "array" else ["audio"]

    @property
    def name_column(self) -> str | None:
        """The column that names the recordings if there is no `file_name`, or None."""
        if self.form == "path":
            return "audio"
        return "audio.path" if "path" in self.parts else None

    def recording(self, table: pa.Table, row: int, folder: Path, name: str) -> dict:
        """Read one recording, as a dict for `read_audio`.

        Args:
            table: The `columns` of a row group.
            row: The row in the group.
            folder: The folder of the shard, to which relative paths refer.
            name: The name of the recording in errors.

        Returns:
            `bytes`, or `array` and `sampling_rate`, with the name as `path`; or only the `path` of an audio file.
        """
        value = table["audio"][row]
        if self.form == "array":
            return {"array": _as_array(value), RATE: table[RATE][row].as_py(), "path": name}
        if self.form == "bytes":
            return {"bytes": value.as_py() or b"", "path": name}
        if self.form == "path":
            return {"path": resolve(folder, value.as_py() or "")}
        if not value.is_valid:
            return {"bytes": b"", "path": name}
        if "bytes" in self.parts and (content := value["bytes"].as_py()) is not None:
            return {"bytes": content, "path": name}
        if "array" in self.parts:
            return {"array": _as_array(value["array"]), RATE: value[RATE].as_py(), "path": name}
        path = value["path"].as_py() if "path" in self.parts else None
        return {"path": resolve(folder, path)} if path else {"bytes": b"", "path": name}


def _as_array(value: pa.Scalar) -> np.ndarray:
    """Convert a list of numbers, or lists of numbers as `(channels, time)`."""
    if not value.is_valid:
        return np.zeros(0, np.float32)
    values = value.values
    if _is_list(values.type):
        return np.stack([_as_array(channel) for channel in values])
    return values.to_numpy(zero_copy_only=False)


def resolve(folder: Path, path: str) -> str:
    """The full path of a recording. A relative path refers to the folder of the shard."""
    return os.path.join(folder, path.replace("\\", "/"))


def audio_column(schema: pa.Schema, path: Path) -> AudioColumn:
    """Find the form of the column `audio` of a shard.

    Args:
        schema: The schema of the shard.
        path: The shard, for errors.

    Raises:
        ManifestError: If there is no column `audio`, or if its form is not supported.
    """
    if "audio" not in schema.names:
        typed = [name for name, feature in features_of(schema).items() if feature.get("_type") == "Audio"]
        hint = f"; rename {typed[0]} to audio" if typed else rename_hint(["audio"], schema.names)
        raise ManifestError(f"{path}: no column audio; its columns are {listed(schema.names)}{hint}")
    kind = _plain(schema.field("audio").type)
    if pa.types.is_struct(kind):
        known = {"bytes": _is_binary, "path": _is_text, "array": _is_list, RATE: _is_number}
        parts = tuple(field.name for field in kind if known.get(field.name, lambda _: False)(_plain(field.type)))
        if {"bytes", "path"} & {*parts} or {"array", RATE} <= {*parts}:
            return AudioColumn("struct", parts)
    for form, test in (("path", _is_text), ("bytes", _is_binary), ("array", _is_list)):
        if test(kind) and (form != "array" or RATE in schema.names):
            return AudioColumn(form)
    raise ManifestError(
        f"{path}: column audio is {kind}; it must hold paths, the bytes of files, arrays beside a column {RATE} in "
        f"Hz, or a struct of bytes and path, or of array and {RATE}"
    )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def features_of(schema: pa.Schema) -> dict[str, dict]:
    """The features that `datasets` stores in a schema, by column: `{"_type": "ClassLabel", "names": [...]}`."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    features = features if isinstance(features, dict) else {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def text_columns(schema: pa.Schema) -> list[str]:
    """The text columns other than `COLUMNS`: session, transcript, language and so on."""
    classes = {name for name, feature in features_of(schema).items() if feature.get("_type") == "ClassLabel"}
    fields = [field for field in schema if field.name not in {*COLUMNS, "audio"}]
    return [
        field.name
        for field in fields
        if _is_text(_plain(field.type)) or field.name in classes or field.name in ("session", "transcript")
    ]


def as_text(column: pa.ChunkedArray, feature: dict | None, where: str) -> pa.ChunkedArray:
    """Convert a column of labels to text.

    Args:
        column: Words, integers, class numbers or only nulls, possibly dictionary-encoded.
        feature: The feature of the column, see `features_of`. It names the classes.
        where: The file and column, for errors.

    Returns:
        Text, or "" where unknown.

    Raises:
        ManifestError: If the column holds other values, or a number without a class name.
    """
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    kind = column.type
    if _is_text(kind) or pa.types.is_null(kind):
        return pc.fill_null(column.cast(pa.string()), "")
    if pa.types.is_floating(kind) and pc.all(pc.is_null(column, nan_is_null=True), min_count=0).as_py():
        return pa.chunked_array([pa.array([""] * len(column), pa.string())])
    if not pa.types.is_integer(kind):
        raise ManifestError(f"{where} is {kind}; it must hold text, or class numbers with names (ClassLabel)")
    names = (feature or {}).get("names")
    if not isinstance(names, list):
        return pc.fill_null(column.cast(pa.string()), "")
    numbers = pc.fill_null(column.cast(pa.int64()), -1)  # -1 is unknown, as in datasets
    if len(numbers) and not -1 <= (limits := pc.min_max(numbers).as_py())["min"] <= limits["max"] < len(names):
        raise ManifestError(
            f"{where}: numbers {limits['min']} to {limits['max']} of {len(names)} classes ({listed(names)}); "
            f"write the file again"
        )
    words = pa.array(["", *names], pa.string())
    return pa.chunked_array([words.take(pc.add(numbers, 1).combine_chunks())])


def repeated_names(shards: Iterable[Sequence[str | None]]) -> set[str]:
    """Find the names that several embedded recordings share.

    `datasets` stores the bytes of a file with the last part of its path: `01/angry/0.wav` and `02/sad/0.wav` both
    become `0.wav`.

    Args:
        shards: The paths in the column `audio` of each shard. Absolute paths are ignored, because each of them names
            one file.
    """
    names = (_plain_name(name) for shard in shards for name in shard if name)
    counts = Counter(name for name in names if not os.path.isabs(name))
    return {name for name, count in counts.items() if count > 1}


def _plain_name(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))  # macOS stores accents as separate characters


def names_in(
    names: Sequence[str | None], shard: Path, folder: Path, files: bool, root: str, repeated: Collection[str] = ()
) -> list[str]:
    """Name the recordings of a shard without a column `file_name`.

    Args:
        names: The paths in the column `audio`, or None for a recording without a path.
        shard: The shard.
        folder: The corpus folder.
        files: Whether the paths lead to files, relative to the folder of the shard. Otherwise they are only names.
        root: The folder to which absolute paths are made relative, see `common_root`.
        repeated: Names that several recordings share, see `repeated_names`.

    Returns:
        Paths relative to the corpus folder or to `root`. A recording without a path is named by its shard and row,
        which are also put before a repeated name.
    """
    inside, unique_names = shard.relative_to(folder), []
    for row, name in enumerate((name or "").replace("\\", "/") for name in names):
        if os.path.isabs(name):
            unique_names.append(os.path.relpath(name, root).replace(os.sep, "/"))
        elif name and files:
            unique_names.append(os.path.normpath(inside.parent / name).replace(os.sep, "/"))
        elif name and _plain_name(name) not in repeated:
            unique_names.append(name)
        else:
            unique_names.append("/".join(filter(None, (inside.as_posix(), str(row), name))))
    return unique_names


def common_root(names: Iterable[str | None], folder: Path) -> str:
    """The folder to which absolute paths are made relative: the corpus folder, or their common parent."""
    absolute, root = [name for name in names if name and os.path.isabs(name)], folder.resolve().as_posix()
    if all(name.startswith(f"{root}/") for name in absolute):
        return root
    return os.path.commonpath([os.path.dirname(name) for name in absolute])
