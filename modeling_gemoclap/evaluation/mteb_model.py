"""GEmo-CLAP as a model of the `mteb` package.

`mteb_meta.model_file` copies this file for the repository of MTEB. It therefore imports nothing of this package, and
torch only where it is used: MTEB also imports its models without torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    import torch


class GEmoClapEncoder:
    """Embeds the texts and recordings of MTEB's tasks, as its `EncoderProtocol` requires.

    Recordings are read by the processor of the checkpoint, without torchaudio and torchcodec. An input with both text
    and audio has the sum of the two embeddings, as for the other CLAP models of MTEB.

    Args:
        model_name: Name on the Hub, or a local folder.
        revision: The hash of a commit on the Hub, whose code is run.
        device: Device of the model; None selects a GPU if there is one.
        checkpoint: Folder of a checkpoint, which is loaded instead of `model_name`.

    Raises:
        ValueError: If a name on the Hub is given without a revision: the code of the checkpoint is run.

    Example:
        >>> model = GEmoClapEncoder("me/gemoclap-base", "COMMIT")  # the 40 digits of its hash
        >>> mteb.evaluate(model, mteb.get_task("RavdessZeroshot"))
    """

    def __init__(
        self, model_name: str, revision: str | None = None, *, device: str | None = None, checkpoint: str | None = None
    ):
        import torch
        from transformers import AutoModel, AutoProcessor

        if checkpoint is None and not revision and not os.path.isdir(model_name):
            raise ValueError(f"{model_name}: its code is run, so give as revision the hash of a commit that you read")

        source, where = checkpoint or model_name, {} if checkpoint else {"revision": revision}
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = AutoModel.from_pretrained(source, trust_remote_code=True, **where).eval().to(self.device)
        self.processor = AutoProcessor.from_pretrained(source, trust_remote_code=True, **where)
        self.mteb_model_meta = None  # set by `load_encoder`, or by `ModelMeta.load_model`

    def encode(self, inputs, *, batch_size: int = 32, show_progress_bar: bool = True, **kwargs) -> torch.Tensor:
        """Embed the inputs of a task.

        Args:
            inputs: `DataLoader` of MTEB. Only its dataset is used, which has a column `text`, `audio` or both.
            batch_size: Inputs in a batch; it does not change the embeddings.
            show_progress_bar: Whether to show the progress.
            **kwargs: Ignored: task, split, subset and type of the prompt. The model has no prompts for tasks, and
                embeds queries and documents alike.

        Returns:
            `(inputs, projection_dim)`, of unit length for inputs with one modality.

        Raises:
            AudioError: If a recording cannot be used.
            ValueError: If the dataset has neither column.
        """
        import torch

        dataset = inputs.dataset
        embed = {"text": self._embed_texts, "audio": self._embed_audio}
        columns = [name for name in embed if name in dataset.column_names]
        if not columns:
            raise ValueError(f"the columns {', '.join(dataset.column_names)} contain neither text nor audio")
        with torch.inference_mode():
            return sum(_map_column(dataset, name, embed[name], batch_size, show_progress_bar) for name in columns)

    def _embed_texts(self, texts: list[str]) -> torch.Tensor:
        tokens = self.processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return self.model.get_text_features(**tokens.to(self.device))

    def _embed_audio(self, recordings: list) -> torch.Tensor:
        return self.model.get_audio_features(**self.processor(audio=recordings).to(self.device))

    def similarity(self, embeddings1, embeddings2) -> torch.Tensor:
        """Cosine similarity of all pairs.

        Args:
            embeddings1: `(n, projection_dim)` or `(projection_dim,)`, array or tensor.
            embeddings2: `(m, projection_dim)` or `(projection_dim,)`, array or tensor.

        Returns:
            `(n, m)`.
        """
        return _unit_rows(embeddings1) @ _unit_rows(embeddings2).T

    def similarity_pairwise(self, embeddings1, embeddings2) -> torch.Tensor:
        """Cosine similarity of corresponding rows.

        Args:
            embeddings1: `(n, projection_dim)`, array or tensor.
            embeddings2: `(n, projection_dim)`, array or tensor.

        Returns:
            `(n,)`.
        """
        return (_unit_rows(embeddings1) * _unit_rows(embeddings2)).sum(1)


def _map_column(
    dataset, name: str, embed: Callable[[list], torch.Tensor], batch_size: int, show_progress_bar: bool
) -> torch.Tensor:
    """Embed a column of a `datasets.Dataset`; files remain undecoded until `embed`."""
    import torch
    from datasets import Audio

    dataset = dataset.select_columns(name)
    if isinstance(dataset.features[name], Audio):
        dataset = dataset.cast_column(name, Audio(decode=False))
    starts = tqdm(range(0, len(dataset), batch_size), desc=f"embedding {name}", disable=not show_progress_bar)
    return torch.cat([embed(list(dataset[start : start + batch_size][name])).cpu() for start in starts])


def _unit_rows(embeddings) -> torch.Tensor:
    import torch

    rows = torch.atleast_2d(torch.as_tensor(embeddings).float())
    return torch.nn.functional.normalize(rows, dim=-1)
