"""The trainer."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..losses_gemoclap import contrastive_loss, loss_floor
from ..modeling_gemoclap import MAX_LOGIT_SCALE
from .collator import audio_inputs
from .gather import gather
from .lora import add_scales_to, is_lora
from .model_card import write_model_card
from .optimizer import layerwise_groups
from .samplers import ClassBalancedSampler

logger = logging.get_logger(__name__)


class _KeepScalesBounded(TrainerCallback):
    """Brings the scales back to their bound: beyond it `forward` gives them no gradient, and they would stay there."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            for scale in (model.audio_logit_scale, model.text_logit_scale):
                scale.clamp_(max=MAX_LOGIT_SCALE)


class _TellEpoch(TrainerCallback):
    """Tells the clips the epoch, of which their draws are a function."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(round(state.epoch or 0, 6)))


class GEmoClapTrainer(Trainer):
    """Trains `GEmoClapModel` with the exact loss of the global batch.

    `forward` is called once a backward, without labels; its embeddings are gathered over the processes, and the loss
    of the whole batch is taken from them. Batches are those of `GEmoClapCollator`.

    Logged beside `loss` (the divergence): `cross_entropy`, its floor `cross_entropy_floor` (the entropy of the
    targets), whose difference the loss is, and both scales.

    Evaluation compares audio with the class texts: `predictions` are `(clips, emotions)` cosines and `label_ids`
    the emotion labels.

    Args:
        *args: As for `transformers.Trainer`.
        **kwargs: As for `transformers.Trainer`; `processing_class` is the processor.

    Raises:
        ValueError: If several devices would be driven by one process (`torch.nn.DataParallel`).

    Example:
        >>> trainer = GEmoClapTrainer(
        ...     model, args, GEmoClapCollator(processor, model.config), train_dataset, processing_class=processor
        ... )
        >>> trainer.train()
    """

    loss_is_scaled_for_ga = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError("one process with several devices cuts the batch apart: start with accelerate launch")
        if self.args.gradient_accumulation_steps > 1:
            logger.warning("gradient accumulation does not enlarge a contrastive batch: each part has its own loss")
        if getattr(self.args, "optimizer", "adam") == "adam" and not self.optimizer_cls_and_kwargs:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            options = {"lr": self.args.learning_rate, "betas": betas, "eps": self.args.adam_epsilon}
            self.optimizer_cls_and_kwargs = (torch.optim.Adam, options)
        self.args.remove_unused_columns = False
        self.label_names = ["emotion_labels"]
        self.add_callback(_KeepScalesBounded())
        self.add_callback(_TellEpoch())
        self.trained_parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self._floors: list[torch.Tensor] = []
        self._class_embeddings: torch.Tensor | None = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of the global batch; see the class."""
        inputs = dict(inputs)
        labels = [inputs.pop(name, None) for name in ("emotion_labels", "gender_labels")]
        labels = [label if label is None else gather(label) for label in labels]
        outputs = model(**inputs)
        embeds = {"audio_embeds": outputs.audio_embeds, "text_embeds": outputs.text_embeds}
        embeds["gender_text_embeds"] = outputs.gender_text_embeds
        gathered = {name: None if embed is None else gather(embed) for name, embed in embeds.items()}
        whole = SimpleNamespace(**gathered, audio_scale=outputs.audio_scale, text_scale=outputs.text_scale)
        terms = self.accelerator.unwrap_model(model).objective_terms(whole, *labels)
        loss = contrastive_loss(terms)
        if model.training:
            self._floors.append(loss_floor(terms).detach())
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, *args, **kwargs):
        """As Trainer's, with `layerwise_lr_decay`."""
        decay = getattr(self.args, "layerwise_lr_decay", 1.0)
        if decay == 1.0 or self.optimizer is not None:
            return super().create_optimizer(*args, **kwargs)
        optimizer_class, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
            self.args, self.model
        )
        model = self.model.get_base_model() if is_lora(self.model) else self.model
        decayed = set(self.get_decay_parameter_names(model))
        groups = layerwise_groups(model, self.args.learning_rate, decay, self.args.weight_decay, decayed)
        self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if is_lora(self.model):
            add_scales_to(output_dir or self.args.output_dir, self.model)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add what is needed to read a loss on flat targets; see the class."""
        if "loss" in logs and self._floors:
            floor = torch.stack(self._floors).mean().item()
            logs["cross_entropy"] = round(logs["loss"] + floor, 6)
            logs["cross_entropy_floor"] = round(floor, 6)
            model = self.accelerator.unwrap_model(self.model)
            logs["audio_scale"] = round(model.audio_scale.item(), 4)
            logs["text_scale"] = round(model.text_scale.item(), 4)
            self._floors.clear()
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, *args, **kwargs):
        if getattr(self.args, "class_balanced_sampling", False):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return ClassBalancedSampler(self.train_dataset.emotion_labels, seed)
        return super()._get_train_sampler(*args, **kwargs)

    def _whole(self, build, *args, **kwargs):
        """Build a loader that keeps the last clips: `dataloader_drop_last` is for training batches."""
        dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return build(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = dropped

    def get_eval_dataloader(self, *args, **kwargs):
        """As Trainer's, with every clip."""
        return self._whole(super().get_eval_dataloader, *args, **kwargs)

    def get_test_dataloader(self, *args, **kwargs):
        """As Trainer's, with every clip."""
        return self._whole(super().get_test_dataloader, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        """As Trainer's, with the class texts embedded once."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        self._class_embeddings = model.get_class_embeddings(
            model.config.class_prompts(), self.processing_class.tokenizer
        )
        model.train(was_training)
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Cosines of a batch of clips with the class texts: `(None, (batch, emotions), (batch,))`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            embeds = self.accelerator.unwrap_model(model).get_audio_features(**audio_inputs(inputs))
        return None, (embeds @ self._class_embeddings.to(embeds).T).float(), inputs["emotion_labels"]

    def create_model_card(self, *args, **kwargs) -> None:
        """Write `README.md` beside the checkpoint; see `write_model_card`."""
        if self.is_world_process_zero():
            rate = self.processing_class.feature_extractor.sampling_rate
            model = self.accelerator.unwrap_model(self.model)
            write_model_card(self.args.output_dir, model, self.state, rate, self.trained_parameters)
