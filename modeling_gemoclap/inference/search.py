"""Search of indexed recordings by text, by a recording, or by both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from transformers.utils import logging

from ..command_line.places import refuse_unwritable
from ..corpora.files import write_atomically
from ..pipeline_gemoclap import ZeroShotEmotionPipeline, check_count
from .classifier import AudioClassifier
from .embeddings import embed_recordings, embed_texts
from .index import Index as Index
from .index import Recording
from .output import CSV, JSONL, LONGEST_NAME, csv_line, name_cell, prepare_stdout

logger = logging.get_logger(__name__)

TOP = 10
MAD_TO_STD = 1.4826  # the median absolute deviation of a normal distribution is its standard deviation over this
ROUNDING = 1e-6  # a smaller deviation is that of rounding: all similarities are equal
UNCHANGED, CHANGED, MISSING = "unchanged", "changed", "missing"


@dataclass(frozen=True)
class Hit:
    """A recording that was found.

    Args:
        rank: 1 for the recording with the highest similarity.
        file: Its path.
        similarity: Cosine similarity to the query, -1 to 1. Compare it within one query only.
        margin: How far the similarity is above the median similarity of the index, in median absolute deviations
            (scaled to standard deviations of a normal distribution). None if the deviation is 0.
        gap: How far the similarity is above that of the next recording, in the same unit. Where it is near 0, the
            order of the two is arbitrary. None for the last recording of the index, or if the deviation is 0.
        state: `"unchanged"`, `"changed"` or `"missing"`: the file now, compared with the time of its indexing.
        copy_of: The path of a hit with a lower rank and the same content; None if there is none.
    """

    rank: int
    file: str
    similarity: float
    margin: float | None
    gap: float | None
    state: str
    copy_of: str | None


def search(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    index: Index | str | Path,
    text: str | None = None,
    like=None,
    top: int = TOP,
) -> list[Hit]:
    """Find the recordings that are most similar to a query.

    Every recording is compared, by one matrix product. The query is the embedding of the text or of the recording; if
    both are given, their mean. A recording of the index that is also the query is found too, with similarity 1.

    Args:
        pipe: The model of the index, from `load_pipeline`.
        index: An index, or its file.
        text: Words such as "a furious woman". A classifier has no text encoder.
        like: A recording of any type that `read_audio` accepts.
        top: Number of hits.

    Returns:
        At most `top` hits, highest similarity first.

    Raises:
        AudioError: If `like` cannot be used.
        ValueError: If there is no query, `top` is less than 1, the text is empty or the model has no text encoder, or
            if the index cannot be read or is that of another model.

    Example:
        >>> pipe = load_pipeline("base")
        >>> search(pipe, "index.parquet", "a furious woman", top=1)[0].file
        'recordings/a.wav'
    """
    check_count("top", top)
    index = index if isinstance(index, Index) else Index(index)
    index.check_model(pipe)
    return nearest(index, embed_query(pipe, text, like), top)


def nearest(index: Index, query: np.ndarray, top: int = TOP) -> list[Hit]:
    """Find the recordings whose embeddings are nearest to that of a query.

    Args:
        index: The index.
        query: `(dimensions,)`, float32, unit length.
        top: Number of hits.
    """
    similarities = index.embeddings @ query
    median = float(np.median(similarities))
    deviation = float(MAD_TO_STD * np.median(np.abs(similarities - median)))
    ranked = _highest(index, similarities, min(top + 1, len(index)))
    hits: list[Hit] = []
    first: dict[bytes, str] = {}
    for rank, (similarity, recording) in enumerate(ranked[:top], start=1):
        margin = gap = None
        if deviation > ROUNDING:
            margin = (similarity - median) / deviation
            gap = (similarity - ranked[rank][0]) / deviation if rank < len(ranked) else None
        path = os.path.join(index.header.folder, recording.name)
        hits.append(Hit(rank, path, similarity, margin, gap, _state(path, recording), first.get(recording.sha256)))
        first.setdefault(recording.sha256, path)
    return hits


def embed_query(pipe: ZeroShotEmotionPipeline | AudioClassifier, text: str | None = None, like=None) -> np.ndarray:
    """Embed a query: a text, a recording, or the mean of the embeddings of both.

    Args:
        pipe: The model.
        text: See `search`.
        like: See `search`.

    Returns:
        `(dimensions,)`, float32, unit length.

    Raises:
        AudioError: If `like` cannot be used.
        ValueError: If both are None, or the text is empty, not valid, or not supported by the model.
    """
    if text is None and like is None:
        raise ValueError("no query: give a text, a recording (like), or both")
    parts = []
    if text is not None:
        parts.append(embed_texts(pipe, [_checked_text(text)])[0])
        if unknown := pipe.model.config.unknown_words([text]):
            logger.warning(
                f"the text encoder was not trained on {', '.join(map(repr, unknown))}: hits for this text are "
                f"unreliable; its words are {', '.join(sorted(pipe.model.config.known_words))}"
            )
    if like is not None:
        parts += embed_recordings(pipe, [like], batch_size=1)
    query = np.mean([part / np.linalg.norm(part) for part in parts], axis=0)
    return (query / np.linalg.norm(query)).astype(np.float32)


def _checked_text(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty: give words such as 'a woman speaking angrily'")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the text {text!r} is not valid Unicode: type it again") from None
    return text


def _highest(index: Index, similarities: np.ndarray, count: int) -> list[tuple[float, Recording]]:
    """The highest similarities and their recordings, in order; equal ones in the order of names."""
    lowest = np.partition(similarities, -count)[-count]
    rows = [*np.flatnonzero(similarities > lowest), *np.flatnonzero(similarities == lowest)][:count]
    found = zip(similarities[rows].tolist(), index.recordings(rows), strict=True)
    return sorted(found, key=lambda item: (-item[0], item[1].name))


def _state(path: str, recording: Recording) -> str:
    try:
        state = os.stat(path)
    except OSError:
        return MISSING
    return UNCHANGED if (state.st_size, state.st_mtime_ns) == (recording.size, recording.mtime_ns) else CHANGED


def format_hits(hits: Sequence[Hit], kind: str) -> str:
    """Hits as a table, CSV or JSON lines.

    Args:
        hits: The hits.
        kind: `"table"`, `"csv"` or `"jsonl"`. In CSV, an unknown value is an empty cell.
    """
    names = [field.name for field in fields(Hit)]
    if kind == JSONL:
        return "".join(json.dumps(asdict(hit)) + "\n" for hit in hits)
    if kind == CSV:
        return "".join(map(csv_line, [names, *(list(asdict(hit).values()) for hit in hits)]))
    width = min(LONGEST_NAME, max((len(hit.file) for hit in hits), default=0))
    lines = [("rank", "similarity", "margin", "gap", name_cell("file", width), "")]
    for hit in hits:
        margin, gap = ("-" if value is None else f"{value:.1f}" for value in (hit.margin, hit.gap))
        notes = [] if hit.state == UNCHANGED else [hit.state]
        notes += [f"copy of {name_cell(hit.copy_of, LONGEST_NAME).rstrip()}"] if hit.copy_of else []
        lines.append(
            (str(hit.rank), f"{hit.similarity:.3f}", margin, gap, name_cell(hit.file, width), ", ".join(notes))
        )
    return "".join(
        f"{rank:>4}  {similarity:>10}  {margin:>6}  {gap:>5}  {name}  {notes}".rstrip() + "\n"
        for rank, similarity, margin, gap, name, notes in lines
    )


def write_hits(hits: Sequence[Hit], kind: str, output: str | None = None) -> None:
    """Write hits to a file, or to the standard output.

    Args:
        hits: The hits.
        kind: See `format_hits`.
        output: The file, which is replaced; None is the standard output. Names that are not valid text keep their
            bytes.

    Raises:
        ValueError: If the folder of the file cannot be written.
        OSError: If the file cannot be written.
    """
    text = format_hits(hits, kind)
    if output is None:
        prepare_stdout(kind)
        sys.stdout.write(text)
        return
    path = Path(output).expanduser()
    refuse_unwritable({"--output": path.parent})
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))
