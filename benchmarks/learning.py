"""Check that a contrastive model with a given audio encoder learns to match tones of three classes to their texts.

A falling loss does not distinguish learning from collapse, but accuracy does. If all embeddings are alike, the model
predicts every text equally, and its divergence falls from its first value to `Learned.uniform`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from harness import RATE
from models import audio_inputs, clip_of, make_model

from modeling_gemoclap import GEmoClapModel
from modeling_gemoclap.losses_gemoclap import kl_contrastive, match_matrix, soft_targets
from modeling_gemoclap.objectives.gemo_clap.initialisation import centre_projection

PITCHES = {"angry": 1800.0, "happy": 900.0, "sad": 300.0}  # Hz
CLIPS_OF_A_CLASS = 4
LEARNING_RATE = 3e-3
TEXTS = torch.arange(12).view(3, 4) + 5  # token ids, a text for each class


@dataclass
class Learned:
    """The result of training on one batch.

    Args:
        uniform: Divergence from the targets of a model that predicts every text equally.
        before: Divergence of the untrained model.
        after: Divergence after the last step.
        accuracy: Share of the batch's clips whose nearest text is that of their class; chance is a third.
        new: The same for clips that were not trained on.
    """

    uniform: float
    before: float
    after: float
    accuracy: float
    new: float


def tones(seed: int) -> tuple[list[np.ndarray], torch.Tensor]:
    """Noisy tones of 0.5 to 1.2 s whose pitch depends on their class, and the classes `(clips,)`."""
    rng, waves = np.random.default_rng(seed), []
    classes = np.repeat(np.arange(len(PITCHES)), CLIPS_OF_A_CLASS)
    for pitch in np.array(list(PITCHES.values()))[classes]:
        time = np.arange(int(rng.uniform(0.5, 1.2) * RATE)) / RATE
        wave = np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time)
        waves.append((0.1 * wave + 0.01 * rng.standard_normal(len(time))).astype(np.float32))
    return waves, torch.from_numpy(classes)


def untrained_model(family: str, inputs: dict[str, torch.Tensor]) -> GEmoClapModel:
    """A small model with random weights, its projections centred on the inputs as `train.py` centres them."""
    fields = {"projection_dim": 16, "emotions": list(PITCHES), "objective": "emo", "targets": "row"}
    model = make_model(family, small=True, **fields).eval()
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
    """Train a small model on one batch with Adam until its divergence is a hundredth of the uniform one.

    Args:
        family: A name of `families.AUDIO`.
        steps: Maximal number of steps.
        waves: Clips to use instead of the tones, of the same classes.
    """
    tone_waves, classes = tones(0)
    inputs = audio_inputs(family, [clip_of(wave) for wave in (tone_waves if waves is None else waves)])
    model, losses = untrained_model(family, inputs), []
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
    new_waves, new_classes = tones(1)
    new_inputs = audio_inputs(family, [clip_of(wave) for wave in new_waves])
    accuracies = accuracy(model, inputs, classes), accuracy(model, new_inputs, new_classes)
    return Learned(uniform, losses[0], losses[-1], *accuracies)
