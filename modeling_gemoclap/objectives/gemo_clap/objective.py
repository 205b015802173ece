"""The three objectives of GEmo-CLAP: Emo-CLAP, ML-GEmo-CLAP and SL-GEmo-CLAP."""

from __future__ import annotations

import torch

from ...training.clips import ClipDataset
from ...training.lora import add_lora, check_towers
from ..audio_encoder import freeze_parts
from ..base import Objective
from .build import build_model_and_processor
from .collator import GEmoClapCollator
from .gradient_cache import refuse_chunk_size
from .initialisation import centre_projections, train_on_prompts
from .options import GEmoClapOptions
from .trainer import GEmoClapTrainer

CENTRING_CLIPS, CENTRING_BATCH_SIZE = 64, 4


class GEmoClap(Objective):
    """Contrastive language-audio pretraining with gender-aware targets."""

    name, title = "contrastive", "GEmo-CLAP"
    Options, trainer_class = GEmoClapOptions, GEmoClapTrainer
    weight_options = ("text_model",)

    def libraries(self) -> tuple[str, ...]:
        """See `Objective`."""
        return ("peft",) if self.options.lora_towers else ()

    def check(self) -> None:
        """Check the chunk size, the number of text layers, and LoRA against freezing; see `Objective`."""
        super().check()
        model, options = self.recipe.model, self.options
        if options.text_layers is not None and not options.text_model:
            raise ValueError(
                f"--text_layers {options.text_layers}: the text encoder is trained from scratch: give --text_model or "
                f"num_hidden_layers in --text_config"
            )
        refuse_chunk_size(options.contrastive_chunk_size, self.recipe.training.per_device_train_batch_size)
        if not options.lora_towers:
            return
        check_towers(options.lora_towers)
        frozen = (model.freeze_audio_encoder, model.freeze_feature_encoder, model.freeze_feature_projection)
        if any(frozen) or options.freeze_text_encoder or model.unfreeze_last_n_layers is not None:
            raise ValueError("--lora_towers freezes both towers: leave out --freeze_* and --unfreeze_last_n_layers")
        if not model.audio_model:
            raise ValueError(
                "--lora_towers needs pretrained towers: give --audio_model and --text_model, not --init_from"
            )

    def build(self, emotions: list[str]) -> tuple:
        """See `Objective`."""
        return build_model_and_processor(self.recipe.model, self.options, emotions)

    def collator(self, processor, config) -> GEmoClapCollator:
        """See `Objective`."""
        return GEmoClapCollator(processor, config, self.options.unknown_gender_prob)

    def initialise(self, model, dataset: ClipDataset, collator: GEmoClapCollator) -> None:
        """Centre the projections, and train the text encoder on the prompts; see `Objective`."""
        training = self.recipe.training
        model.to(training.device)
        if self.options.centre_projections:
            sample = torch.randperm(len(dataset))[:CENTRING_CLIPS].split(CENTRING_BATCH_SIZE)
            batches = (collator([dataset[index] for index in part.tolist()]) for part in sample)
            centre_projections(model, batches, collator.processor.tokenizer)
        if self.options.prompt_steps:
            train_on_prompts(model, collator, self.options.prompt_steps, training.seed)

    def trained_module(self, model, dataset: ClipDataset):
        """Add LoRA to the towers, or freeze parts of them; see `Objective`."""
        options = self.options
        if options.lora_towers:
            return add_lora(model, options.lora_towers, options.lora_rank, options.lora_alpha, options.lora_dropout)
        freeze_parts(model, self.recipe.model)
        if options.freeze_text_encoder:
            model.freeze_text_encoder()
        return model

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """See `Objective`."""
        return {"contrastive_chunk_size": self.options.contrastive_chunk_size}
