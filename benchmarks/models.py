"""Models and inputs of the families, with random weights."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from families import AUDIO, text_config
from harness import RATE

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor, GEmoClapModel


def make_model(
    family: str, small: bool = False, small_text: bool = False, audio: dict | None = None, **fields
) -> GEmoClapModel:
    """A model with RoBERTa, in training mode; the same weights in every call.

    Args:
        family: A name of `families.AUDIO`.
        small: Whether both towers are small.
        small_text: Whether the text tower is small.
        audio: Fields of the audio tower's configuration.
        fields: Fields of the model's configuration.
    """
    torch.manual_seed(0)
    audio_config = AUDIO[family].config(small, **(audio or {}))
    config = GEmoClapConfig(audio_config=audio_config, text_config=text_config(small=small or small_text), **fields)
    return GEmoClapModel(config).train()


def make_extractor(family: str) -> GEmoClapFeatureExtractor:
    """The feature extractor of a family's small shape."""
    with tempfile.TemporaryDirectory() as folder:
        return AUDIO[family].small_extractor(folder)


def clip_of(wave: np.ndarray) -> dict:
    """A wave `(samples,)` as feature extractors take it."""
    return {"array": wave.astype(np.float32), "sampling_rate": RATE}


def noise_clips(samples: list[int], rng: np.random.Generator) -> list[dict]:
    """Clips of white noise with given numbers of samples."""
    return [clip_of(rng.standard_normal(count)) for count in samples]


def audio_inputs(family: str, clips: list[dict]) -> dict[str, torch.Tensor]:
    """A batch of clips as the input of a family's small shape."""
    return dict(make_extractor(family)(clips))


def training_batch(objective: str, batch: int, seconds: float) -> dict[str, torch.Tensor]:
    """Noise, random prompts and labels for a family of raw waves in its true shape.

    Args:
        objective: "emo", "ml" or "sl"; "ml" has gender prompts too.
        batch: Number of clips.
        seconds: Length of each clip.
    """
    waves = torch.randn(batch, int(seconds * RATE))
    inputs = {"input_values": waves, "audio_attention_mask": torch.ones_like(waves).long()}
    for kind in ("", "gender_") if objective == "ml" else ("",):
        inputs[f"{kind}input_ids"] = torch.randint(5, 50265, (batch, 12))
        inputs[f"{kind}attention_mask"] = torch.ones(batch, 12).long()
    return inputs | {"emotion_labels": torch.arange(batch) % 4, "gender_labels": torch.arange(batch) % 2}
