"""Options of GEmo-CLAP."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...command_line.parser import option
from ...command_line.ranges import COUNT, DROPOUT, NOT_NEGATIVE, POSITIVE, SHARE, Range
from ...configuration_gemoclap import OBJECTIVES, SIMILARITIES, SL_TEXTS, TARGETS, TEXT_POOLINGS
from ...training.lora import RANGES as LORA_RANGES


@dataclass
class GEmoClapOptions:
    """GEmo-CLAP (--head contrastive)."""

    objective: str = option("sl", "Loss: Emo-CLAP, ML-GEmo-CLAP or SL-GEmo-CLAP", choices=list(OBJECTIVES))
    alpha: float = option(0.9, "Weight of emotion against gender", within=SHARE)
    similarity: str = option(
        "cross",
        "Embeddings that the loss compares: audio with text, each with itself, or both",
        choices=list(SIMILARITIES),
    )
    targets: str = option(
        "softmax",
        "Normalisation of the match matrix into targets: softmax, or division by the row sum",
        choices=list(TARGETS),
    )
    sl_texts: str = option(
        "joint", "Prompt of a clip with --objective sl: emotion and gender, or emotion only", choices=list(SL_TEXTS)
    )
    text_model: str | None = option(
        None, "Pretrained text encoder, name or path; none: a small encoder from scratch", path=True
    )
    text_config: str | None = option(None, "Fields of the text encoder's configuration, a JSON object", as_json=True)
    text_layers: int | None = option(
        None, "Keep only this number of first Transformer layers of the pretrained text encoder", within=COUNT
    )
    text_pooling: str = option("first", "Pooling of tokens into one vector", choices=list(TEXT_POOLINGS))
    freeze_text_encoder: bool = option(False, "Do not train the text encoder")
    lora_towers: list[str] | None = option(None, "Towers with LoRA: audio, text, or both", nargs="+")
    lora_rank: int = option(8, "Rank of LoRA", within=LORA_RANGES["lora_rank"])
    lora_alpha: float = option(16.0, "Scale of LoRA, multiplied by the rank", within=LORA_RANGES["lora_alpha"])
    lora_dropout: float = option(0.0, "Dropout of the input of LoRA", within=LORA_RANGES["lora_dropout"])
    projection_dim: int = option(512, "Dimension of the joint embedding space", within=COUNT)
    projection_dropout: float = option(0.0, "Dropout inside the projection of audio", within=DROPOUT)
    logit_scale_init_value: float = option(
        math.log(1 / 0.07), "Initial logarithm of both logit scales", within=Range(at_most=math.log(100))
    )
    logit_scale_trainable: bool = option(True, "Train the logit scales")
    centre_projections: bool = option(True, "Centre the projections on 64 training clips before the first step")
    prompt_steps: int = option(
        0, "Steps of training the text encoder on prompts only, before the first step", within=NOT_NEGATIVE
    )
    distil_from: str | None = option(
        None, "Teacher: a GEmo-CLAP checkpoint, or a protocol run with a teacher for each fold", path=True
    )
    distil_weight: float = option(
        1.0, "Weight of the distillation loss against the contrastive loss", within=NOT_NEGATIVE
    )
    distil_temperature: float = option(
        1.0, "Divisor of the logits of teacher and student before their scores are compared", within=POSITIVE
    )
    emotion_synonyms: str | None = option(
        None, "Synonyms of emotions for training prompts, a JSON object of lists", as_json=True
    )
    emotion_templates: list[str] = option(["this person is feeling {}"], "Templates of emotion prompts", nargs="+")
    gender_templates: list[str] = option(["this person is {}"], "Templates of gender prompts", nargs="+")
    joint_templates: list[str] = option(
        ["this {gender} person is feeling {emotion}"], "Templates of prompts with emotion and gender", nargs="+"
    )
    unknown_gender_prob: float = option(
        0.0, "Share of the clips whose gender is hidden, to train on prompts without gender", within=SHARE
    )
    contrastive_chunk_size: int | None = option(
        None, "Clips in memory at a time, by exact gradient caching; none: the complete batch", within=COUNT
    )
