"""From clips with labels to a batch with prompts."""

from __future__ import annotations

import torch

from ...command_line.ranges import check_values
from ...configuration_gemoclap import GEmoClapConfig
from ...losses_gemoclap import known_labels
from ...processing_gemoclap import GEmoClapProcessor
from .options import GEmoClapOptions


class GEmoClapCollator:
    """Pads clips and writes each its text: the emotion prompt, or under `"sl"` with joint texts both attributes.

    A clip of unknown gender has the emotion prompt. One of unknown emotion has the shortest prompt there is, which the
    loss leaves out: not an empty text, of which some tokenizers make no token at all.

    Args:
        processor: Makes the model inputs.
        config: Objective, words and templates; where a kind of prompt has several templates, or an emotion synonyms,
            one of each is drawn a clip.
        unknown_gender_prob: Share of the clips whose gender is hidden.

    Raises:
        ValueError: If `unknown_gender_prob` is no share.
    """

    def __init__(self, processor: GEmoClapProcessor, config: GEmoClapConfig, unknown_gender_prob: float = 0.0):
        check_values(GEmoClapOptions, unknown_gender_prob=unknown_gender_prob)
        self.processor = processor
        self.config = config
        self.unknown_gender_prob = unknown_gender_prob
        self.left_out = min(config.training_prompts(), key=len)

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            examples: Dicts with `clip` (features of one clip), `emotion_label`, `gender_label` and, optionally, `seed`
                for what is drawn. A negative label is unknown.

        Returns:
            Audio inputs, `input_ids` and `attention_mask`, for `"ml"` also `gender_input_ids` and
            `gender_attention_mask`, and `emotion_labels` and `gender_labels` of shape `(batch,)`.

        Raises:
            ValueError: If a label has no class.
        """
        emotions = torch.tensor([example["emotion_label"] for example in examples])
        genders = torch.tensor([example["gender_label"] for example in examples])
        emotions = known_labels("emotion_label", emotions, self.config.emotions)
        genders = known_labels("gender_label", genders, self.config.genders)
        generators = [self._generator(example) for example in examples]
        if self.unknown_gender_prob:
            drawn = torch.stack([torch.rand((), generator=generator) for generator in generators])
            genders[drawn < self.unknown_gender_prob] = -1
        batch = dict(self.processor.feature_extractor.collate([example["clip"] for example in examples]))
        drawn = zip(emotions, genders, generators, strict=True)
        texts = [self.text(emotion, gender, generator) for emotion, gender, generator in drawn]
        batch |= self.tokenize(texts)
        if self.config.objective == "ml":
            drawn = zip(genders, generators, strict=True)
            texts = [self.gender_text(gender, generator) for gender, generator in drawn]
            batch |= {f"gender_{key}": value for key, value in self.tokenize(texts).items()}
        return batch | {"emotion_labels": emotions, "gender_labels": genders}

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, each `(texts, tokens)`."""
        tokens = self.processor(text=texts)
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @staticmethod
    def _generator(example: dict) -> torch.Generator | None:
        return torch.Generator().manual_seed(example["seed"]) if "seed" in example else None

    def text(self, emotion: int, gender: int, generator: torch.Generator | None) -> str:
        """A prompt for a clip's labels, one that fits; where the emotion is not known (-1), one to leave out."""
        if emotion == -1:
            return self.left_out
        if self.config.uses_joint_texts and gender != -1:
            prompts = self.config.joint_prompts(
                self.config.emotions[emotion], self.config.genders[gender], synonyms=True
            )
        else:
            prompts = self.config.emotion_prompts(self.config.emotions[emotion], synonyms=True)
        return self._draw(prompts, generator)

    def gender_text(self, gender: int, generator: torch.Generator | None) -> str:
        """A gender prompt, one to leave out where the gender is not known (-1)."""
        if gender == -1:
            return self.left_out
        return self._draw(self.config.gender_prompts(self.config.genders[gender]), generator)

    @staticmethod
    def _draw(prompts: list[str], generator: torch.Generator | None) -> str:
        return prompts[int(torch.randint(len(prompts), (), generator=generator))]
