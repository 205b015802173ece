"""Indexes for search: embeddings of recordings in a Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..command_line.shipped import CHECKPOINTS, shipped_path
from ..corpora.files import require
from ..fingerprint import AUDIO_LIBRARIES, differences, fingerprint
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from ..safety_gemoclap import tensors_sha256
from .classifier import AudioClassifier
from .predictions import extractor_of

try:  # other modules of the package need pyarrow for training, so the message cannot depend on its name alone
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError(
        f"pyarrow cannot be imported ({error}), and indexes need it: pip install 'gemoclap[search]'"
    ) from error

FORMAT = 1
KEY = b"gemoclap_index"  # of the header in the metadata of the schema
ROWS_IN_MEMORY = 8192  # of a row group, which is written and read at once
COLUMNS = ["file", "size", "mtime_ns", "sha256"]  # beside the embedding
EMBEDDING = "embedding"
FLOAT_BYTES = 4
UNIT_TOLERANCE = 1e-3


class Recording(NamedTuple):
    """The state of a recording when it was embedded.

    Args:
        name: Its path below the folder of the index.
        size: In bytes.
        mtime_ns: Time of its last modification, in nanoseconds.
        sha256: Hash of its content.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: bytes


@dataclass(frozen=True)
class Header:
    """What an index records about itself.

    Args:
        model: The model: `base`, `compact`, a folder, or a name on the Hub.
        revision: The commit of a model on the Hub.
        folder: Absolute path of the folder of the recordings.
        dimensions: Number of dimensions of an embedding.
        identity: The fingerprint of the embeddings, from `identity_of_embeddings`.
    """

    model: str
    revision: str | None
    folder: str
    dimensions: int
    identity: dict

    @classmethod
    def of(cls, pipe: ZeroShotEmotionPipeline | AudioClassifier, folder: str | Path = "") -> Header:
        """The header of an index that a model makes of a folder."""
        model, config = pipe.model, pipe.model.config
        is_classifier = isinstance(pipe, AudioClassifier)
        return cls(
            short_name(config.name_or_path),
            getattr(config, "_commit_hash", None),
            os.path.abspath(folder),
            model.audio_pooling.output_size if is_classifier else config.projection_dim,
            identity_of_embeddings(pipe),
        )

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file, with this header. Names are bytes, since they may not be valid text."""
        types = {"file": pa.binary(), "size": pa.int64(), "mtime_ns": pa.int64(), "sha256": pa.binary(32)}
        types[EMBEDDING] = pa.list_(pa.field("element", pa.float32(), nullable=False), self.dimensions)
        fields = [pa.field(name, kind, nullable=False) for name, kind in types.items()]
        return pa.schema(fields, {KEY: json.dumps({"format": FORMAT, **asdict(self)}).encode()})

    def describe(self) -> str:
        """The model and its revision."""
        return f"{self.model} (revision {self.revision})" if self.revision else self.model

    def check_model(self, now: Header, path: Path) -> None:
        """Check that a model makes embeddings that can be compared with those of the index.

        Args:
            now: The header that the model gives to an index.
            path: The file of the index, for the message.

        Raises:
            ValueError: If it is another model or another revision, or reads recordings otherwise.
        """
        then = {**self.identity["model"], "dimensions": self.dimensions}
        changed = differences(then, {**now.identity["model"], "dimensions": now.dimensions}, ("in the index", "now"))
        if changed:
            raise ValueError(
                f"{path}: an index of another model or revision: {self.describe()}, not {now.describe()} "
                f"(different: {', '.join(changed[:3])}); use the model of the index, or make another index"
            )


def short_name(model: str) -> str:
    """The name of an included checkpoint, the absolute path of another folder, or a name on the Hub."""
    if not os.path.isdir(model):
        return model
    for name, folder in CHECKPOINTS.items():
        try:
            if os.path.samefile(shipped_path("checkpoints", folder), model):
                return name
        except ValueError:  # this installation lacks the checkpoint
            continue
    return os.path.abspath(model)


def identity_of_embeddings(pipe: ZeroShotEmotionPipeline | AudioClassifier) -> dict:
    """Fingerprint of what embeddings depend on, apart from the recordings.

    Embeddings can be compared if its part `model` is the same: weights, feature extractor and poolings.
    """
    config = pipe.model.config
    extractor = extractor_of(pipe)
    model = {
        "weights": tensors_sha256(pipe.model.state_dict().values()),
        "extractor": {name: value for name, value in extractor.to_dict().items() if name != "auto_map"},
        "pooling": config.pooling,
        "text_pooling": config.text_pooling,
    }
    return fingerprint([], (*AUDIO_LIBRARIES, "tokenizers", "torch"), model=model)


def open_index(path: Path) -> tuple[pq.ParquetFile, Header]:
    """Open the file of an index, without reading its rows.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file, or if it is damaged, has another content or a newer format. The message
            names the file.
        OSError: If it cannot be opened.
    """
    if not path.is_file():
        problem = "a folder, not the file of an index" if path.is_dir() else "no such index"
        raise ValueError(f"{path}: {problem}; make one with gemoclap index FOLDER --output INDEX.parquet")
    file = _reading(path, lambda: pq.ParquetFile(path, page_checksum_verification=True))
    try:
        text = (file.schema_arrow.metadata or {}).get(KEY)
        if text is None:
            raise ValueError(f"{path}: a Parquet file, but no index of gemoclap; give the file of an index")
        return file, _check_header(path, json.loads(text), file)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        file.close()
        raise _damaged(path, error) from None
    except ValueError:
        file.close()
        raise


def _check_header(path: Path, values, file: pq.ParquetFile) -> Header:
    if not isinstance(values, dict):
        raise _damaged(path, "its header is not an object")
    require(values, str(path), format=int)
    if values.pop("format") > FORMAT:
        raise ValueError(
            f"{path}: written by a newer version of gemoclap; update gemoclap, or index the recordings again with "
            f"another --output"
        )
    types = {"model": str, "revision": (str, type(None)), "folder": str, "dimensions": int, "identity": dict}
    require(values, str(path), **types)
    require(values["identity"], str(path), model=dict)
    header = Header(**{name: values[name] for name in types})
    if header.dimensions < 1 or not file.schema_arrow.equals(header.schema):
        raise _damaged(path, "its columns are not those of its header")
    least = file.metadata.num_rows * header.dimensions * FLOAT_BYTES  # embeddings are stored as they are
    if not 0 < least <= path.stat().st_size:
        raise _damaged(path, f"it cannot hold {file.metadata.num_rows} embeddings")
    return header


def read_rows(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read columns of an index, a row group at a time: `iter_batches` would buffer the whole file.

    Raises:
        ValueError: If the file is damaged.
    """
    for group in range(file.num_row_groups):
        for batch in _reading(path, lambda group=group: file.read_row_group(group, columns)).to_batches():
            if any(column.null_count for column in batch.columns):
                raise _damaged(path, "values are missing")
            yield batch


def recordings_in(batch: pa.RecordBatch) -> list[Recording]:
    """The recordings of the rows that `read_rows` yields."""
    names, *others = (batch.column(name).to_pylist() for name in COLUMNS)
    return [Recording(*row) for row in zip(map(os.fsdecode, names), *others, strict=True)]


def rows_of(recordings: list[Recording], embeddings: pa.Array, header: Header) -> pa.Table:
    """Rows of an index.

    Args:
        recordings: Their recordings.
        embeddings: Their embeddings, a list array as in the schema.
        header: The header of the index.
    """
    names, *others = zip(*recordings, strict=True)
    columns = [list(map(os.fsencode, names)), *others]
    arrays = [pa.array(values, header.schema.field(name).type) for name, values in zip(COLUMNS, columns, strict=True)]
    return pa.Table.from_arrays([*arrays, embeddings], schema=header.schema)


def list_array(embeddings: np.ndarray, header: Header) -> pa.Array:
    """Embeddings `(recordings, dimensions)` as a column of an index."""
    values = pa.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, type=header.schema.field(EMBEDDING).type)


def write_rows(path: Path, header: Header, tables: Iterable[pa.Table]) -> None:
    """Write an index from small tables, as soon as they have `ROWS_IN_MEMORY` rows together.

    Embeddings hardly compress, so they are stored as they are. Checksums detect damage.
    """
    storage = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(path, header.schema, **storage) as writer:
        for table in tables:
            waiting.append(table)
            if sum(map(len, waiting)) >= ROWS_IN_MEMORY:
                writer.write_table(pa.concat_tables(waiting), ROWS_IN_MEMORY)
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting), ROWS_IN_MEMORY)


class Index:
    """An index in memory.

    Args:
        path: Its file.

    Attributes:
        header: What the index records about itself.
        embeddings: `(recordings, dimensions)`, float32, unit length.

    Raises:
        ValueError: If there is no such file, or if it is damaged, has another content or a newer format.
        OSError: If it cannot be opened.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        file, self.header = open_index(self.path)
        with file:
            self.embeddings = np.empty((file.metadata.num_rows, self.header.dimensions), np.float32)
            batches, start = [], 0
            for batch in read_rows(self.path, file, [*COLUMNS, EMBEDDING]):
                rows = batch.column(EMBEDDING).flatten().to_numpy().reshape(-1, self.header.dimensions)
                self.embeddings[start : start + len(rows)] = rows
                lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
                if not (np.abs(lengths - 1) < UNIT_TOLERANCE).all():
                    raise _damaged(self.path, "embeddings are not of unit length")
                batches.append(batch.select(COLUMNS))
                start += len(rows)
        self._rows = pa.Table.from_batches(batches)
        self._checked: object = None

    def __len__(self) -> int:
        return len(self.embeddings)

    def recordings(self, rows: Sequence[int]) -> list[Recording]:
        """The recordings of some rows of `embeddings`."""
        taken = self._rows.take(pa.array(rows, pa.int64()))
        return [recording for batch in taken.to_batches() for recording in recordings_in(batch)]

    def check_model(self, pipe: ZeroShotEmotionPipeline | AudioClassifier) -> None:
        """Check, once for each model object, that a model is that of the index; see `Header.check_model`."""
        if self._checked is not pipe:
            self.header.check_model(Header.of(pipe), self.path)
            self._checked = pipe


def _reading(path: Path, read):
    """What a function returns that reads a Parquet file."""
    try:
        return read()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    except OSError as error:  # pyarrow raises one without a number for damaged pages
        if error.errno:
            raise
        raise _damaged(path, error) from None


def _damaged(path: Path, reason: object) -> ValueError:
    reason = str(reason).partition("\n")[0].rstrip(".")
    return ValueError(
        f"{path}: not a Parquet file, or damaged ({reason}); make the index again with gemoclap index FOLDER "
        f"--output INDEX.parquet --restart"
    )
