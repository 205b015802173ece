"""Whether a contrastive model on an encoder learns: tones of three classes, matched to the text of their own class.

Accuracy tells learning from collapse; a falling loss does not. A model whose embeddings are all alike predicts every
text equally, and its divergence from the targets falls from wherever it began to `Learned.uniform`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import numpy as np
import torch
from families import AUDIO, text_config

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel
from modeling_gemoclap.losses_gemoclap import kl_contrastive, match_matrix, soft_targets

RATE = 16000
PITCHES = {"angry": 1800.0, "happy": 900.0, "sad": 300.0}
CLIPS_OF_A_CLASS = 4
LEARNING_RATE = 3e-3
TEXTS = torch.arange(12).view(3, 4) + 5


@dataclass
class Learned:
    """What training on one batch came to.

    Args:
        uniform: Divergence from the targets of a model that predicts every text equally.
        before: Divergence of the fresh model.
        after: Divergence at the end.
        accuracy: Share of the batch's clips whose nearest text is that of their class; chance is a third.
        new: The same of clips that were not trained on.
    """

    uniform: float
    before: float
    after: float
    accuracy: float
    new: float


def tones(seed: int) -> tuple[list[np.ndarray], torch.Tensor]:
    """Clips of 0.5 to 1.2 s whose pitch tells their class, in noise, and their classes."""
    rng, waves = np.random.default_rng(seed), []
    classes = np.repeat(np.arange(len(PITCHES)), CLIPS_OF_A_CLASS)
    for pitch in np.array(list(PITCHES.values()))[classes]:
        time = np.arange(int(rng.uniform(0.5, 1.2) * RATE)) / RATE
        wave = np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time)
        waves.append((0.1 * wave + 0.01 * rng.standard_normal(len(time))).astype(np.float32))
    return waves, torch.from_numpy(classes)


def inputs_of(family: str, waves: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Clips as the family's input, of its small shape."""
    with tempfile.TemporaryDirectory() as folder:
        extractor = AUDIO[family].small_extractor(folder)
    return dict(extractor([{"array": wave, "sampling_rate": RATE} for wave in waves]))


def fresh_model(family: str, inputs: dict[str, torch.Tensor]) -> GEmoClapModel:
    """A small model with random weights, its projections centred as training centres them."""
    from modeling_gemoclap.objectives.gemo_clap.initialisation import centre_projection  # needs the extra `train`

    torch.manual_seed(0)
    towers = {"audio_config": AUDIO[family].config(small=True), "text_config": text_config(small=True)}
    fields = {"projection_dim": 16, "emotions": list(PITCHES), "objective": "emo", "targets": "row"}
    model = GEmoClapModel(GEmoClapConfig(**towers, **fields)).eval()
    with torch.no_grad():
        centre_projection(model.audio_projection, model.pool_audio(**inputs))
        centre_projection(model.text_projection, model.pool_text(TEXTS, torch.ones_like(TEXTS)))
    return model


@torch.no_grad()
def accuracy(model: GEmoClapModel, inputs: dict[str, torch.Tensor], classes: torch.Tensor) -> float:
    """Share of the clips whose nearest text is that of their class."""
    texts = model.get_text_features(input_ids=TEXTS, attention_mask=torch.ones_like(TEXTS))
    nearest = (model.eval().get_audio_features(**inputs) @ texts.T).argmax(-1)
    return (nearest == classes).float().mean().item()


def learn(family: str, steps: int = 150, waves: list[np.ndarray] | None = None) -> Learned:
    """Train a small model of a family on one batch of tones with Adam, until its divergence is near 0 or steps end.

    Args:
        family: A name of `families.AUDIO`.
        steps: How many at most.
        waves: Other clips in place of the tones, of the same classes.
    """
    own, classes = tones(0)
    inputs = inputs_of(family, own if waves is None else waves)
    model, losses = fresh_model(family, inputs), []
    targets = soft_targets(match_matrix(classes, classes), "row")
    uniform = kl_contrastive(torch.zeros_like(targets), targets).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    texts = {"input_ids": TEXTS[classes], "attention_mask": torch.ones_like(TEXTS[classes])}
    model.train()
    while len(losses) < steps and (not losses or losses[-1] > uniform / 100):
        loss = model(**inputs, **texts, emotion_labels=classes).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    new, new_classes = tones(1)
    found = accuracy(model, inputs, classes), accuracy(model, inputs_of(family, new), new_classes)
    return Learned(uniform, losses[0], losses[-1], *found)
