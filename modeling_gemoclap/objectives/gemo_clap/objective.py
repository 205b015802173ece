"""The three objectives of GEmo-CLAP: Emo-CLAP, ML-GEmo-CLAP and SL-GEmo-CLAP."""

from __future__ import annotations

import torch
from transformers.utils import logging

from ...corpora.manifest import Corpus
from ...training.clips import ClipDataset, ClipOptions
from ...training.history import add_teacher
from ...training.lora import add_lora, check_towers
from ..audio_encoder import freeze_parts
from ..base import Objective
from .build import build_model_and_processor
from .collator import GEmoClapCollator
from .distillation import Distillation, TaughtClips, teach_prompts
from .gradient_cache import refuse_chunk_size
from .initialisation import centre_projections, train_on_prompts
from .options import GEmoClapOptions
from .teacher import Teacher
from .trainer import GEmoClapTrainer

logger = logging.get_logger(__name__)
CENTRING_CLIPS, CENTRING_BATCH_SIZE = 64, 4


class GEmoClap(Objective):
    """Contrastive language-audio pretraining with gender-aware targets."""

    name, title = "contrastive", "GEmo-CLAP"
    Options, trainer_class = GEmoClapOptions, GEmoClapTrainer
    weight_options = ("text_model", "distil_from")
    teacher: Teacher | None = None  # from `build` until the trainer is created

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
        if options.distil_from:
            self._check_distillation()
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

    def _check_distillation(self) -> None:
        if self.options.text_model:
            raise ValueError("--distil_from teaches a text encoder from scratch: leave out --text_model")
        if not self.options.prompt_steps:
            raise ValueError(
                "--distil_from teaches the text encoder before the first step: give the number of steps by "
                "--prompt_steps, for example 3000"
            )

    def check_clips(self, train: Corpus) -> None:
        """See `Objective`."""
        if self.options.distil_from and train.shards:
            raise ValueError(
                f"{train.name}: shards are read in their order, but the teacher of --distil_from encodes each clip "
                f"before training; give the recordings"
            )

    def build(self, emotions: list[str]) -> tuple:
        """Build the model, and load its teacher; see `Objective`."""
        options = self.options
        if options.distil_from:  # first, since it may be refused
            self.teacher = Teacher(options.distil_from, options.projection_dim)
        model, processor = build_model_and_processor(self.recipe.model, options, emotions)
        if self.teacher:
            add_teacher(model, self.teacher.model, self.teacher.name)
        return model, processor

    def dataset(self, corpus: Corpus, extractor, config, options: ClipOptions) -> tuple[ClipDataset, list[str]]:
        """See `Objective`. With a teacher, every clip is embedded by it."""
        if not self.teacher:
            return super().dataset(corpus, extractor, config, options)
        training, clips = self.recipe.training, TaughtClips(corpus, extractor, config, options)
        self.teacher.model.to(training.device)
        clips.teacher_embeds = self.teacher.embed_clips(corpus, training.disable_tqdm)
        return clips, []

    def collator(self, processor, config) -> GEmoClapCollator:
        """See `Objective`."""
        return GEmoClapCollator(processor, config, self.options.unknown_gender_prob)

    def initialise(self, model, dataset: ClipDataset, collator: GEmoClapCollator) -> None:
        """Centre the projections, and train the text encoder on the prompts or by the teacher; see `Objective`."""
        training = self.recipe.training
        model.to(training.device)
        if self.options.centre_projections:
            sample = torch.randperm(len(dataset))[:CENTRING_CLIPS].split(CENTRING_BATCH_SIZE)
            batches = (collator([dataset[index] for index in part.tolist()]) for part in sample)
            centre_projections(model, batches, collator.processor.tokenizer)
        if self.teacher:
            steps = self.options.prompt_steps
            cosine = teach_prompts(model, collator, self.teacher, steps, training.seed)
            logger.info(f"after {steps} steps, the cosine of the teacher's and the student's prompts is {cosine:.3f}")
        elif self.options.prompt_steps:
            train_on_prompts(model, collator, self.options.prompt_steps, training.seed)

    def trained_module(self, model, dataset: ClipDataset):
        """Add LoRA to the towers, or freeze parts of them, with a teacher the text side; see `Objective`."""
        options = self.options
        if options.lora_towers:
            return add_lora(model, options.lora_towers, options.lora_rank, options.lora_alpha, options.lora_dropout)
        freeze_parts(model, self.recipe.model)
        if options.freeze_text_encoder or options.distil_from:
            model.freeze_text_encoder()
        if options.distil_from:  # its texts are the teacher's; contrastive training would forget all other words
            model.text_projection.requires_grad_(False)
        return model

    def trainer_options(self, dataset: ClipDataset) -> dict:
        """See `Objective`. The teacher is not needed afterwards."""
        options, distillation = self.options, None
        if teacher := self.teacher:
            class_embeds, scale = teacher.embed_classes(dataset.emotions), teacher.model.audio_scale.item()
            distillation = Distillation(class_embeds, scale, options.distil_weight, options.distil_temperature)
            self.teacher = None
        return {"contrastive_chunk_size": options.contrastive_chunk_size, "distillation": distillation}
