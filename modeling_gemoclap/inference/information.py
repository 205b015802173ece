"""What a checkpoint is, as text."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import ModelCard

from ..command_line.terminal import printable
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.files import damage_is_named
from ..fingerprint import code_sha256, weight_files
from .loading import checkpoint_folder, load_config

UNKNOWN = "unknown"
TITLES = {
    "GEmoClapModel": "GEmo-CLAP, zero-shot: audio and text encoder",
    "GEmoClapForAudioClassification": "classifier of emotions: audio encoder and head",
    "GEmoClapForXVector": "audio encoder for embeddings; it predicts no emotions",
}


def describe(model: str, revision: str | None = None, files: bool = False) -> str:
    """Describe a checkpoint: kind, labels, words, calibration, training data, licence, size, and the hash of its code.

    Args:
        model: A folder, a name on the Hub, or `base` or `compact`.
        revision: Commit, tag or branch of a model on the Hub.
        files: Whether to list the hash of each code file too.

    Returns:
        Lines of text. What the checkpoint does not record is "unknown".

    Raises:
        ValueError: If there is no such checkpoint.
    """
    config = load_config(model, revision)
    with damage_is_named(model, "the record of training_data in config.json", fields=True):
        history = "; ".join(_history(config))
    folder = checkpoint_folder(model, revision, ("*.py", "*.json", "*.md"))
    licence, base_models = _card_of(folder)
    weights = weight_files(folder)
    lines = {
        "model": _kind(config),
        "labels": ", ".join(config.emotions) or "none",
        "other labels": _words(config),
        "gender": _gender(config),
        "scores": _calibration(config),
        "trained on": history,
        "encoders": base_models,
        "licence": licence,
        "weights": f"{sum(path.stat().st_size for path in weights) / 1e6:.1f} MB" if weights else "not downloaded",
        "folder": str(folder),
    }
    hashes = [f"{digest}  {printable(name)}" for name, digest in code_sha256(folder).items()]
    lines["code SHA-256"] = _combined(hashes)
    text = [f"{name + ':':<14}{printable(value)}" for name, value in lines.items()]
    return "\n".join(text + [f"  {line}" for line in hashes] * files)


def licence_of(model: str, revision: str | None = None) -> str:
    """The licence in the model card of a checkpoint, or `UNKNOWN`; arguments as for `describe`."""
    return _card_of(checkpoint_folder(model, revision, ("*.md",)))[0]


def _combined(hashes: list[str]) -> str:
    """One hash of all code files, that of `sha256sum *.py | sha256sum`, and how many files there are."""
    if not hashes:
        return "no code"
    digest = hashlib.sha256("".join(f"{line}\n" for line in hashes).encode()).hexdigest()
    return f"{digest} ({len(hashes)} files that trust_remote_code=True runs; --files lists them)"


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
