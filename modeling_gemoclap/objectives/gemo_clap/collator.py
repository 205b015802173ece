"""Collation of labelled clips into a batch with prompts."""

from __future__ import annotations

import torch

from ...command_line.ranges import check_values
from ...configuration_gemoclap import GEmoClapConfig
from ...losses_gemoclap import known_labels
from ...processing_gemoclap import GEmoClapProcessor
from .options import GEmoClapOptions


class GEmoClapCollator:
    """Pads clips and adds a prompt to each.

    The prompt of a clip names its emotion, or emotion and gender if the objective is `"sl"` and `sl_texts` is
    `"joint"`. A clip of unknown gender gets an emotion prompt. A clip of unknown emotion gets the shortest prompt,
    which the loss ignores. It is not an empty text, since some tokenizers return no token for an empty text.

    Args:
        processor: The processor, which makes the model inputs.
        config: Objective, words and templates. If a prompt has several templates, or an emotion has synonyms, one is
            drawn at random for each clip.
        unknown_gender_prob: Share of the clips whose gender is hidden.

    Raises:
        ValueError: If `unknown_gender_prob` is not between 0 and 1.
    """

    def __init__(self, processor: GEmoClapProcessor, config: GEmoClapConfig, unknown_gender_prob: float = 0.0):
        check_values(GEmoClapOptions, unknown_gender_prob=unknown_gender_prob)
        self.processor = processor
        self.config = config
        self.unknown_gender_prob = unknown_gender_prob
        self.placeholder = min(config.training_prompts(), key=len)

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Collate a batch.

        Args:
            examples: Dicts with `clip` (features of one clip), `emotion_label`, `gender_label` and, optionally, `seed`
                of the random draws. A negative label is unknown.

        Returns:
            Audio inputs, `input_ids`, `attention_mask`, and `emotion_labels` and `gender_labels` of shape `(batch,)`;
            for `"ml"` also `gender_input_ids` and `gender_attention_mask`.

        Raises:
            ValueError: If a label exceeds the number of classes.
        """
        emotions = torch.tensor([example["emotion_label"] for example in examples])
        genders = torch.tensor([example["gender_label"] for example in examples])
        emotions = known_labels("emotion_label", emotions, self.config.emotions)
        genders = known_labels("gender_label", genders, self.config.genders)
        generators = [self._generator(example) for example in examples]
        if self.unknown_gender_prob:
            uniform = torch.stack([torch.rand((), generator=generator) for generator in generators])
            genders[uniform < self.unknown_gender_prob] = -1
        batch = dict(self.processor.feature_extractor.collate([example["clip"] for example in examples]))
        clips = zip(emotions, genders, generators, strict=True)
        texts = [self.text(emotion, gender, generator) for emotion, gender, generator in clips]
        batch |= self.tokenize(texts)
        if self.config.objective == "ml":
            clips = zip(genders, generators, strict=True)
            texts = [self.gender_text(gender, generator) for gender, generator in clips]
            batch |= {f"gender_{key}": value for key, value in self.tokenize(texts).items()}
        return batch | {"emotion_labels": emotions, "gender_labels": genders}

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, each `(texts, tokens)`."""
        tokens = self.processor(text=texts)
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @staticmethod
    def _generator(example: dict) -> torch.Generator | None:
        return torch.Generator().manual_seed(example["seed"]) if "seed" in example else None

    def text(self, emotion: int, gender: int, generator: torch.Generator | None) -> str:
        """Draw a prompt for a clip's labels. If the emotion is unknown (-1), return the placeholder prompt."""
        if emotion == -1:
            return self.placeholder
        if self.config.uses_joint_texts and gender != -1:
            prompts = self.config.joint_prompts(
                self.config.emotions[emotion], self.config.genders[gender], synonyms=True
            )
        else:
            prompts = self.config.emotion_prompts(self.config.emotions[emotion], synonyms=True)
        return self._draw(prompts, generator)

    def gender_text(self, gender: int, generator: torch.Generator | None) -> str:
        """Draw a gender prompt. If the gender is unknown (-1), return the placeholder prompt."""
        if gender == -1:
            return self.placeholder
        return self._draw(self.config.gender_prompts(self.config.genders[gender]), generator)

    @staticmethod
    def _draw(prompts: list[str], generator: torch.Generator | None) -> str:
        return prompts[int(torch.randint(len(prompts), (), generator=generator))]
