"""Options of GEmo-CLAP."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...command_line.parser import option
from ...command_line.ranges import COUNT, DROPOUT, NOT_NEGATIVE, POSITIVE, SHARE, Range
from ...configuration_gemoclap import OBJECTIVES, SIMILARITIES, SL_TEXTS, TARGETS, TEXT_POOLINGS


@dataclass
class GEmoClapOptions:
    """GEmo-CLAP (--head contrastive)."""

    objective: str = option("sl", "Emo-CLAP, ML-GEmo-CLAP or SL-GEmo-CLAP", choices=list(OBJECTIVES))
    alpha: float = option(0.9, "Weight of emotion against gender", within=SHARE)
    similarity: str = option("cross", "Embeddings that the loss compares", choices=list(SIMILARITIES))
    targets: str = option("softmax", "How match matrices become targets", choices=list(TARGETS))
    sl_texts: str = option("joint", "Text of a clip under sl: both attributes, or emotion", choices=list(SL_TEXTS))
    text_model: str | None = option(
        None, "Pretrained text encoder, name or path; none: a small one from scratch", path=True
    )
    text_config: str | None = option(None, "Fields of the text encoder's configuration, a JSON object", as_json=True)
    text_pooling: str = option("first", "Pooling of tokens into one vector", choices=list(TEXT_POOLINGS))
    freeze_text_encoder: bool = option(False, "Do not train the text encoder")
    lora_towers: list[str] | None = option(None, "Towers with low-rank updates: audio, text, or both", nargs="+")
    lora_rank: int = option(8, "Rank of the updates", within=COUNT)
    lora_alpha: float = option(16.0, "Scale of the updates, times the rank", within=POSITIVE)
    lora_dropout: float = option(0.0, "Dropout before the updates", within=DROPOUT)
    projection_dim: int = option(512, "Dimension of the joint space", within=COUNT)
    projection_dropout: float = option(0.0, "Dropout inside the projections", within=DROPOUT)
    logit_scale_init_value: float = option(
        math.log(1 / 0.07), "Initial logarithm of both scales", within=Range(at_most=math.log(100))
    )
    logit_scale_trainable: bool = option(True, "Train the scales")
    centre_projections: bool = option(True, "Centre the projections on 64 training clips before the first step")
    prompt_steps: int = option(
        0, "Steps that train the text encoder on the prompts alone before the first step", within=NOT_NEGATIVE
    )
    emotion_synonyms: str | None = option(
        None, "Other words for emotions, drawn in training, a JSON object of lists", as_json=True
    )
    emotion_templates: list[str] = option(["this person is feeling {}"], "Emotion prompts", nargs="+")
    gender_templates: list[str] = option(["this person is {}"], "Gender prompts", nargs="+")
    joint_templates: list[str] = option(
        ["this {gender} person is feeling {emotion}"], "Prompts with emotion and gender", nargs="+"
    )
    unknown_gender_prob: float = option(
        0.0, "Share of the clips whose gender is hidden, so that prompts without gender are learnt", within=SHARE
    )
    contrastive_chunk_size: int | None = option(
        None, "Clips in memory at a time, by gradient caching (exact); none: the complete batch", within=COUNT
    )
