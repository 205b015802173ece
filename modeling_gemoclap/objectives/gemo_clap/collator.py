"""Collation of labelled clips into a batch with prompts."""

from __future__ import annotations

import torch

from ...command_line.ranges import check_values
from ...configuration_gemoclap import GEmoClapConfig
from ...losses_gemoclap import known_labels
from ...modeling_gemoclap import GEmoClapModel
from ...processing_gemoclap import GEmoClapProcessor
from ...training.frozen import collate_audio
from .options import GEmoClapOptions

PROMPTS_AT_ONCE = 64


class GEmoClapCollator:
    """Pads clips and adds a prompt to each.

    The prompt of a clip names its emotion, or emotion and gender if the objective is `"sl"` and `sl_texts` is
    `"joint"`. A clip of unknown gender gets an emotion prompt. A clip of unknown emotion gets the shortest prompt,
    which the loss ignores. It is not an empty text, since some tokenizers return no token for an empty text.

    Each distinct prompt of a batch is tokenized and encoded once: `input_ids` has the distinct prompts, and
    `prompt_index` the row of each clip's prompt in it.

    If the text tower is frozen, `encode_prompts` computes its output for every prompt once. Batches then have
    `text_vectors` and `gender_text_vectors` instead of tokens.

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
        self._text_vectors: dict[str, torch.Tensor] | None = None
        self._tokens: tuple[dict[str, int], dict[str, torch.Tensor]] | None = None

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """Collate a batch.

        Args:
            examples: Dicts with `clip` (features of one clip), `emotion_label`, `gender_label` and, optionally, `seed`
                of the random draws and `teacher_embed`. A negative label is unknown. Without a seed, global random
                numbers are drawn, and a resumed training may draw others than an uninterrupted one.

        Returns:
            Audio inputs; `input_ids` and `attention_mask` of the distinct prompts and `prompt_index`, `(batch,)` (or
            `text_vectors`, one for each clip); `emotion_labels` and `gender_labels` of shape `(batch,)`; for `"ml"`
            also `gender_input_ids`, `gender_attention_mask` and `gender_prompt_index` (or `gender_text_vectors`); with
            a teacher also `teacher_embeds`, `(batch, projection_dim)`.

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
        batch = collate_audio(self.processor.feature_extractor, examples)
        clips = zip(emotions, genders, generators, strict=True)
        texts = [self.text(emotion, gender, generator) for emotion, gender, generator in clips]
        batch |= self._text_inputs(texts)
        if self.config.objective == "ml":
            clips = zip(genders, generators, strict=True)
            texts = [self.gender_text(gender, generator) for gender, generator in clips]
            batch |= {f"gender_{key}": value for key, value in self._text_inputs(texts).items()}
        if "teacher_embed" in examples[0]:
            batch["teacher_embeds"] = torch.stack([example["teacher_embed"] for example in examples])
        return batch | {"emotion_labels": emotions, "gender_labels": genders}

    @torch.no_grad()
    def encode_prompts(self, model: GEmoClapModel) -> None:
        """Compute the output of a frozen text tower for every training prompt.

        If the text tower is not frozen, earlier outputs are discarded, and batches have tokens again.

        Args:
            model: The model, with the weights that it is trained from.
        """
        self._text_vectors = None
        if any(parameter.requires_grad for parameter in model.text_model.parameters()):
            return
        was_training = model.training
        model.eval()
        prompts, vectors = list(dict.fromkeys(self.config.training_prompts())), {}
        lengths = self.tokenize(prompts)["attention_mask"].sum(1)
        for length in lengths.unique():  # prompts of one length have no padding
            for rows in (lengths == length).nonzero()[:, 0].split(PROMPTS_AT_ONCE):
                texts = [prompts[row] for row in rows.tolist()]
                tokens = {name: value.to(model.device) for name, value in self.tokenize(texts).items()}
                vectors |= zip(texts, model.pool_text(**tokens).cpu(), strict=True)
        model.train(was_training)
        self._text_vectors = vectors

    def _text_inputs(self, texts: list[str]) -> dict[str, torch.Tensor]:
        if self._text_vectors is None:
            rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
            return {**self._tokens_of(list(rows)), "prompt_index": torch.tensor([rows[text] for text in texts])}
        return {"text_vectors": torch.stack([self._text_vectors[text] for text in texts])}

    def _tokens_of(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """As `tokenize`; the tokens of all training prompts are computed once."""
        if self._tokens is None:
            prompts = list(dict.fromkeys([*self.config.training_prompts(), self.placeholder]))
            self._tokens = {text: row for row, text in enumerate(prompts)}, self.tokenize(prompts)
        places, tokens = self._tokens
        rows = torch.tensor([places[text] for text in texts])
        columns = tokens["attention_mask"][rows].any(0)  # the others are padding of all of these prompts
        return {name: value[rows][:, columns] for name, value in tokens.items()}

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
