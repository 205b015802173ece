"""What a checkpoint is, as text."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, snapshot_download

from ..command_line.shipped import shipped_checkpoint
from ..configuration_gemoclap import GEmoClapConfig
from ..fingerprint import file_sha256
from .loading import load_config

UNKNOWN = "unknown"
TITLES = {
    "GEmoClapModel": "GEmo-CLAP, zero-shot: audio and text encoder",
    "GEmoClapForAudioClassification": "classifier of emotions: audio encoder and head",
    "GEmoClapForXVector": "audio encoder for embeddings; it predicts no emotions",
}


def describe(model: str, revision: str | None = None) -> str:
    """Describe a checkpoint: kind, labels, words, calibration, training data, licence, files and their hashes.

    Args:
        model: A folder, a name on the Hub, or `base` or `compact`.
        revision: Commit, tag or branch of a model on the Hub.

    Returns:
        Lines of text. What the checkpoint does not record is "unknown".

    Raises:
        ValueError: If there is no such checkpoint.
    """
    config = load_config(model, revision)
    folder = _folder_of(shipped_checkpoint(model), revision)
    licence, base_models = _card_of(folder)
    weights = sorted(folder.glob("*.safetensors"))
    lines = {
        "model": _kind(config),
        "labels": ", ".join(config.emotions) or "none",
        "other labels": _words(config),
        "gender": _gender(config),
        "scores": _calibration(config),
        "trained on": "; ".join(_history(config)),
        "encoders": base_models,
        "licence": licence,
        "weights": f"{sum(path.stat().st_size for path in weights) / 1e6:.1f} MB" if weights else "not downloaded",
        "folder": str(folder),
    }
    text = [f"{name + ':':<14}{value}" for name, value in lines.items()]
    text.append("SHA-256 of its code, which trust_remote_code=True runs:")
    text += [f"  {file_sha256(path)}  {path.name}" for path in sorted(folder.glob("*.py"))] or ["  no code"]
    return "\n".join(text)


def _folder_of(model: str, revision: str | None) -> Path:
    """The folder of a checkpoint; of one on the Hub, everything but the weights is downloaded."""
    if Path(model).is_dir():
        return Path(model)
    return Path(snapshot_download(model, revision=revision, allow_patterns=["*.py", "*.json", "*.md"]))


def _kind(config: GEmoClapConfig) -> str:
    kinds = [TITLES[name] for name in config.architectures or [] if name in TITLES]
    objective = f", objective {config.objective}" if kinds and kinds[0] == TITLES["GEmoClapModel"] else ""
    return (kinds[0] if kinds else UNKNOWN) + objective


def _gender(config: GEmoClapConfig) -> str:
    trained = "GEmoClapModel" in (config.architectures or []) and config.objective != "emo"
    return ", ".join(config.genders) if trained else "not predicted"


def _words(config: GEmoClapConfig) -> str:
    if "GEmoClapModel" not in (config.architectures or []):
        return "none: it has no text encoder"
    if config.known_words is None:
        return "any words in the language of its text encoder, less reliable than the labels"
    return f"the words of its training: {', '.join(sorted(config.known_words))}"


def _calibration(config: GEmoClapConfig) -> str:
    if config.calibration_temperature is None:
        return "not calibrated: they rank the labels"
    return f"calibrated for its labels, temperature {config.calibration_temperature:.3f} ({config.calibrated_on})"


def _history(config: GEmoClapConfig) -> list[str]:
    """What the weights were trained on, from the records of their training."""
    records = []
    for record in config.training_data or [{"unknown": "the checkpoint has no record"}]:
        if "encoder" in record:
            records.append(f"pretrained encoder {record['encoder']}, whose training data are not recorded")
        elif "unknown" in record:
            records.append(f"{UNKNOWN}: {record['unknown']}")
        else:
            stage = f" ({record['stage']})" if "stage" in record else ""
            development = record.get("dev_speakers")
            development = f", development speakers {', '.join(development)}" if development else ""
            speakers = f"{record['num_clips']} clips by speakers {', '.join(record['speakers'])}"
            records.append(f"{record['corpus']}{stage}: {speakers}{development}")
    return records


def _card_of(folder: Path) -> tuple[str, str]:
    """The licence and the base models that the model card names."""
    path = folder / "README.md"
    if not path.is_file():
        return UNKNOWN, UNKNOWN
    data = ModelCard.load(path).data
    base = data.base_model or []
    base = [base] if isinstance(base, str) else base
    return data.license or UNKNOWN, ", ".join(base) or "none pretrained, or not recorded"
