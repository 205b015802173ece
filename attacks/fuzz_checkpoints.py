"""The files of checkpoints, and what must hold for damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from fuzz_audio import RATE, wave
from fuzz_judge import BrokenPromise

ROOT = Path(__file__).resolve().parent.parent
COMPACT = ROOT / "checkpoints" / "gemoclap-compact"


def seed_of(name: str) -> list[bytes]:
    """A file of the included compact checkpoint."""
    return [(COMPACT / name).read_bytes()]


def prepare_checkpoint(folder: Path) -> None:
    """Copy the JSON files of the compact checkpoint, and its weights."""
    for path in COMPACT.iterdir():
        if path.suffix in (".json", ".safetensors"):
            shutil.copy(path, folder / path.name)


def describe(path: Path) -> None:
    """Describe a checkpoint, and render the prompts of its configuration."""
    from modeling_gemoclap.inference.information import describe
    from modeling_gemoclap.inference.loading import load_config

    config = load_config(str(path.parent))
    if not describe(str(path.parent)):
        raise BrokenPromise("no description")
    prompts = config.class_prompts() if config.emotions else [["-"], ["-"]]
    if len(prompts) < 2 or not all(prompt.strip() for group in prompts for prompt in group):
        raise BrokenPromise(f"prompts {prompts}")


def extract(path: Path) -> None:
    """Load the processor of a checkpoint, and compute the features of half a second and the tokens of a prompt."""
    from modeling_gemoclap import AudioError
    from modeling_gemoclap.inference.loading import load_config, load_processor

    load_config(str(path.parent))
    processor = load_processor(str(path.parent))
    try:
        features = processor.feature_extractor(
            {"array": wave(0.5, 1)[:, 0], "sampling_rate": RATE}, return_tensors="np"
        )
    except AudioError as error:  # of a minimum length, for example
        raise AudioError(f"{path}: {error}") from None
    for name, values in features.items():
        if not values.size or not np.isfinite(values).all():
            raise BrokenPromise(f"{name} {values.shape} not finite, or empty")
    if not processor.tokenizer(["this person is feeling angry"])["input_ids"][0]:
        raise BrokenPromise("no tokens")


def load_and_predict(path: Path) -> None:
    """Load a checkpoint and predict the emotion of a recording."""
    from modeling_gemoclap.inference.loading import load_pipeline

    [*answers] = load_pipeline(str(path.parent), "cpu")({"array": wave(0.5, 1)[:, 0], "sampling_rate": RATE})
    total = sum(answer["score"] for answer in answers)
    if not answers or not abs(total - 1) < 1e-3:
        raise BrokenPromise(f"scores sum to {total}")


def read_training_clips(path: Path) -> None:
    """Read what a checkpoint keeps of its training clips, and compare a recording with it."""
    from modeling_gemoclap.inference.loading import _clip_seconds
    from modeling_gemoclap.training_clips import MEASURES, load_training_clips

    clips = load_training_clips(path.parent)
    distance = clips.distance(np.ones(clips.embeddings.shape[1]))
    ranges = [clips.range_of(name) for name in MEASURES]
    known = [value for each in ranges if each for value in each]
    seconds = _clip_seconds(str(path.parent), None)
    if not np.isfinite([distance, *known]).all() or not 0 <= clips.percentile(distance) <= 100:
        raise BrokenPromise(f"distance {distance}, ranges {ranges}")
    if any(each and list(each) != sorted(each) for each in ranges) or not (seconds is None or seconds > 0):
        raise BrokenPromise(f"ranges {ranges}")


def read_card_facts(path: Path) -> None:
    """Read the facts of a model card, and render the card."""
    from modeling_gemoclap.publishing.card import card_content, read_checkpoint

    if "Results" not in card_content(read_checkpoint(path.parent), []) and not path.is_file():
        raise BrokenPromise("no card")
