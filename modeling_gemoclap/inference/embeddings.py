"""Embeddings of recordings and texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..command_line.places import refuse_unwritable
from ..corpora.files import write_atomically
from ..pipeline_gemoclap import ZeroShotEmotionPipeline
from .classifier import AudioClassifier
from .processes import Processes
from .recordings import Recordings, read_input


def embed_recordings(
    pipe: ZeroShotEmotionPipeline | AudioClassifier, recordings: Iterable, batch_size: int, on_error: str = "raise"
) -> Iterator[np.ndarray | str]:
    """Embed recordings, in their order.

    Args:
        pipe: The model, from `load_pipeline`.
        recordings: Recordings of any type that `read_audio` accepts.
        batch_size: Number of recordings that are processed together.
        on_error: `"raise"`, or `"return"` to return the error message for a recording that cannot be used.

    Yields:
        `(dimensions,)`, float32; for GEmo-CLAP of unit length.

    Raises:
        AudioError: If a recording cannot be used and `on_error` is `"raise"`.
    """
    for answer in pipe(iter(recordings), batch_size=batch_size, on_error=on_error, return_embeddings=True):
        yield answer["error"] if "error" in answer else answer["embedding"]


@torch.no_grad()
def embed_texts(pipe: ZeroShotEmotionPipeline | AudioClassifier, texts: Sequence[str]) -> np.ndarray:
    """Embed texts.

    Args:
        pipe: The model, from `load_pipeline`.
        texts: Texts, such as "a furious woman".

    Returns:
        `(texts, projection_dim)`, float32, unit length.

    Raises:
        ValueError: If the model has no text encoder, there is no text, or an embedding is not finite.
    """
    if isinstance(pipe, AudioClassifier):
        raise ValueError("a classifier has no text encoder: leave out texts, or use a GEmo-CLAP checkpoint")
    tokens = pipe.processor(text=list(texts)).to(pipe.model.device)
    embeddings = pipe.model.get_text_features(**tokens).float().cpu().numpy()
    if not np.isfinite(embeddings).all():
        raise ValueError("the model's embeddings of texts are not finite: its weights are damaged")
    return embeddings


def check_output(output: str) -> None:
    """Check, before anything is embedded, that a file is called `.npz` and can be written.

    Raises:
        ValueError: If it is not or cannot.
    """
    if Path(output).suffix != ".npz":
        raise ValueError(f"--output {output}: give a name that ends in .npz")
    refuse_unwritable({"--output": Path(output).expanduser().parent})


def embed_files(
    pipe: ZeroShotEmotionPipeline | AudioClassifier,
    recordings: Recordings,
    output: str,
    texts: Sequence[str],
    batch_size: int,
    processes: Processes | None = None,
) -> tuple[str, list[str]]:
    """Write the embeddings of recordings and texts to a NumPy file.

    Args:
        pipe: The model, from `load_pipeline`.
        recordings: The recordings, from `find_recordings`.
        output: The file, see `check_output`. It has `files`, `embeddings` `(recordings, dimensions)` and `errors`, and
            with texts also `texts` and `text_embeddings` `(texts, projection_dim)`.
        texts: Texts to embed too.
        batch_size: Number of recordings that are processed together.
        processes: Connected processes, each of which embeds a share of the recordings; None: this one embeds all.

    Returns:
        A summary, and the messages of recordings that could not be used. These are not in the file. In processes
        other than the first, both are empty.

    Raises:
        ValueError: If no recording can be used, or if the model has no text encoder.
        OSError: If the file cannot be written.
    """
    path, processes = Path(output).expanduser(), processes or Processes()
    path.parent.mkdir(parents=True, exist_ok=True)
    names = processes.from_main(recordings.names)  # each process has listed the folder itself
    share = processes.share(names)
    answers = list(embed_recordings(pipe, list(map(read_input, share)), batch_size, on_error="return"))
    shares = processes.to_main(dict(zip(share, answers, strict=True)))
    if not processes.is_main:
        return "", []
    of_all = {name: answer for part in shares for name, answer in part.items()}
    answers = [of_all[name] for name in names]
    of_texts = {"texts": np.array(texts), "text_embeddings": embed_texts(pipe, texts)} if texts else {}
    errors = [answer for answer in answers if isinstance(answer, str)]
    pairs = zip(names, answers, strict=True)
    used = [(name, answer) for name, answer in pairs if not isinstance(answer, str)]
    if not used:
        raise ValueError("no recording can be used:\n  " + "\n  ".join(errors))
    names, embeddings = zip(*used, strict=True)
    with write_atomically(path) as part, open(part, "wb") as file:
        np.savez(file, files=np.array(names), embeddings=np.stack(embeddings), errors=np.array(errors), **of_texts)
    summary = [f"{len(used)} recordings, {embeddings[0].size} dimensions, in {output}"]
    summary += [f"{len(errors)} could not be used:", *(f"  {error}" for error in errors)] if errors else []
    return "\n".join([*summary, *filter(None, [recordings.describe_ignored()])]), errors
