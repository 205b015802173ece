"""A checkpoint with its metadata for MTEB. What is unknown is None."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from huggingface_hub import ModelCard

from ..corpora.catalogue import CORPORA
from ..modeling_gemoclap import GEmoClapModel
from ..processing_gemoclap import GEmoClapProcessor
from ..towers_gemoclap import load_complete_model
from . import mteb_model
from .mteb_model import GEmoClapEncoder

LANGUAGES = {"de": "deu-Latn", "en": "eng-Latn", "pl": "pol-Latn", "zh": "zho-Hans"}
# The tasks of MTEB whose clips come from a corpus.
TASKS = {
    "casia": (),
    "cremad": ("CREMA_D", "CREMADPairClassification", "CREMA_DClustering"),
    "emodb": (),
    "esd": (),
    "iemocap": ("IEMOCAPEmotion", "IEMOCAPGender"),
    "nemo": ("CAMEOEmotionClassification",),
    "ravdess": (
        *("RavdessZeroshot", "RAVDESSAVClassification", "RAVDESSAVClustering", "RAVDESSAVVAPairClassification"),
        *("RAVDESSAVVPairClassification", "RAVDESSAVZeroShot", "RAVDESSVClassification", "RAVDESSVideoClustering"),
        "RAVDESSVZeroShot",
    ),
}


def load_encoder(checkpoint: str | Path, device: str | None = None, **known) -> GEmoClapEncoder:
    """Load a local checkpoint for `mteb.evaluate`.

    `ModelMeta.load_model` would require torchaudio and torchcodec, which the model does not use.

    Args:
        checkpoint: Folder of a checkpoint with a text encoder.
        device: Device of the model; None selects a GPU if there is one.
        **known: See `model_meta`.

    Returns:
        The model, with `mteb_model_meta`.

    Raises:
        ImportError: If mteb is not installed.
        ValueError: If the checkpoint is incomplete or has no text encoder.

    Example:
        >>> mteb.evaluate(load_encoder("checkpoints/gemoclap-base"), mteb.get_task("RavdessZeroshot"))
    """
    meta = model_meta(checkpoint, **known)
    model = GEmoClapEncoder(meta.name, meta.revision, device=device, checkpoint=str(checkpoint))
    model.mteb_model_meta = meta
    return model


def model_meta(checkpoint: str | Path, name: str | None = None, **known):
    """Build the `ModelMeta` of a checkpoint from its weights, configuration, model card and record of training.

    `languages` are those of the labelled recordings, and English for the prompts. `training_datasets` are the tasks of
    MTEB whose corpora the checkpoint was trained or developed on; they are None, unknown, if a pretrained encoder or a
    training without a record is among its training data.

    Args:
        checkpoint: Folder of a checkpoint with a text encoder.
        name: Name on the Hub, `organisation/model`. With it, `load_model()` loads from the Hub; by default it loads
            the folder, which is called `local/FOLDER`.
        **known: Fields of `ModelMeta` that override these, such as `revision`, `release_date` and `reference`.

    Returns:
        An `mteb.models.ModelMeta`.

    Raises:
        ImportError: If mteb is not installed.
        ValueError: If the checkpoint is incomplete or has no text encoder.

    Example:
        >>> print(model_meta("checkpoints/gemoclap-base", "me/gemoclap-base", release_date="2026-11-30").to_python())
    """
    from mteb.models import ModelMeta

    folder = Path(checkpoint)
    model = load_complete_model(GEmoClapModel, str(folder))
    model.check_history()
    parameters = list(model.parameters())
    records = model.config.training_data
    fields = {
        "loader": GEmoClapEncoder,
        "loader_kwargs": {} if name else {"checkpoint": str(folder)},
        "name": name or f"local/{folder.resolve().name}",
        "revision": None,
        "release_date": None,
        "languages": _languages(records),
        "n_parameters": sum(parameter.numel() for parameter in parameters),
        "n_embedding_parameters": model.text_model.get_input_embeddings().weight.numel(),
        "memory_usage_mb": round(sum(parameter.nbytes for parameter in parameters) / 2**20),
        "max_tokens": GEmoClapProcessor.from_pretrained(folder).tokenizer.model_max_length,
        "embed_dim": model.config.projection_dim,
        "license": _licence(folder / "README.md"),
        "open_weights": True if name else None,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["PyTorch", "Transformers", "Sentence Transformers", "safetensors"],
        "reference": f"https://huggingface.co/{name}" if name else None,
        "similarity_fn_name": "cosine",
        "use_instructions": False,
        "training_datasets": _tasks(records),
        "modalities": ["text", "audio"],
    }
    return ModelMeta(**(fields | known))


def model_file(checkpoint: str | Path, name: str, revision: str, **known) -> str:
    """Write the file that adds a checkpoint to the repository of MTEB.

    Args:
        checkpoint: Folder of a checkpoint with a text encoder.
        name: Its name on the Hub, `organisation/model`.
        revision: Its revision on the Hub, the hash of a commit.
        **known: See `model_meta`.

    Returns:
        The content of a file for `mteb/models/model_implementations/`: the class and the metadata.

    Raises:
        ImportError: If mteb is not installed.
        ValueError: If the checkpoint is incomplete or has no text encoder.
    """
    meta = model_meta(checkpoint, name, revision=revision, **known)
    source = Path(mteb_model.__file__).read_text(encoding="utf-8")
    head, imports, body = source.partition("from tqdm.auto import tqdm\n")
    head = f'"""GEmo-CLAP."""{head.rpartition(chr(34) * 3)[2]}'
    imports = f"{imports}\nfrom mteb.models.model_meta import ModelMeta, ScoringFunction\n"
    variable = re.sub(r"\W", "_", name.rpartition("/")[2])
    return f"{head}{imports}{body}\n\n{variable} = {meta.to_python()}\n"


def _licence(card: Path) -> str | None:
    """The licence in a model card; None if it names none that MTEB knows."""
    from mteb.types import Licenses

    licence = ModelCard.load(card).data.license if card.is_file() else None
    return licence if licence in get_args(Licenses) else None


def _corpora(records: list[dict] | None) -> set[str] | None:
    """Names of the published corpora in a record of training; None if it has others, or is unknown."""
    names = {record.get("known") for record in records or [] if "encoder" not in record}
    return names if names and names <= CORPORA.keys() else None


def _languages(records: list[dict] | None) -> list[str] | None:
    corpora = _corpora(records)
    if corpora is None:
        return None
    codes = {"en"}.union(*(CORPORA[name].language.split(", ") for name in corpora))
    return sorted(LANGUAGES[code] for code in codes)


def _tasks(records: list[dict] | None) -> set[str] | None:
    corpora = _corpora(records)
    if corpora is None or any("encoder" in record for record in records):
        return None
    return {task for name in corpora for task in TASKS[name]}
