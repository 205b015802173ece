"""The trainer of GEmo-CLAP: the exact contrastive loss of the global batch."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from transformers import TrainerCallback

from ...heads_gemoclap import MAX_LOGIT_SCALE
from ...losses_gemoclap import contrastive_loss, loss_floor
from ...training.card import CardText
from ...training.clips import audio_inputs
from ...training.gather import at_least_float32, gather, largest_batch, pad_rows
from ...training.lora import is_lora, save_logit_scales
from ...training.trainer import SpeechTrainer
from ...training.trainer_options import refuse_batch_norm
from .collator import GEmoClapCollator
from .distillation import Distillation
from .gradient_cache import EMBEDDINGS, SCALES, ChunkedBatch, GradientCache, refuse_chunk_size


class _ClampScales(TrainerCallback):
    """Clamps the scales to their bound after each step. Beyond it `forward` gives them no gradient."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            for scale in (model.audio_logit_scale, model.text_logit_scale):
                scale.clamp_(max=MAX_LOGIT_SCALE)


class _EncodePrompts(TrainerCallback):
    """Encodes the prompts once if the text tower is frozen, after the weights of a checkpoint are loaded."""

    def __init__(self, trainer: GEmoClapTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled  # a part of the model cannot run alone
        if isinstance(trainer.data_collator, GEmoClapCollator) and not sharded:
            trainer.data_collator.encode_prompts(trainer.trained_model)


class GEmoClapTrainer(SpeechTrainer):
    """Trains `GEmoClapModel` with the exact loss of the global batch.

    With the logits of the audio pipeline `C_a`, those of the text pipeline `C_t`, and a match matrix `M` whose rows
    are normalised into targets `T(M)`, the loss is `L(M) = (KL(T(M) || softmax(C_a)) + KL(T(M) || softmax(C_t))) / 2`.
    Emo-CLAP has `M = M_e` (emotions match), SL-GEmo-CLAP `M = alpha M_e + (1 - alpha) M_g` (emotions and genders), and
    ML-GEmo-CLAP the loss `alpha L(M_e) + (1 - alpha) L(M_g)` with emotion prompts and gender prompts.

    Each backward pass has one call of `forward`, without labels. Embeddings are gathered over the processes with their
    gradient. Each process computes its rows of the loss against all columns, with targets from the gathered labels.
    Batches come from `GEmoClapCollator`. If a process has fewer clips than another, its batch is padded with rows that
    the loss ignores. With `contrastive_chunk_size`, gradient caching computes the same gradient in chunks, which need
    less memory. Prompts are encoded once if the text tower is frozen.

    With a teacher, the loss is `L + distil_weight * (cosine distance + divergence of the scores)`, the mean over the
    clips of the global batch; see `Distillation`.

    Logged in addition to `loss`: `cross_entropy` and `cross_entropy_floor` (the entropy of the targets), whose
    difference is `L`, and both scales; with a teacher also `teacher_distance` and `teacher_divergence`.

    Evaluation compares audio with the class texts: `predictions` are logits `(clips, emotions)`, the cosines times the
    audio scale, and `label_ids` are the emotion labels.

    Args:
        model: A `GEmoClapModel`, or a PEFT model that wraps one.
        args: `GEmoClapTrainingArguments` or `transformers.TrainingArguments`.
        *others: See `transformers.Trainer`.
        contrastive_chunk_size: Number of clips of a batch that are in memory at a time; None: all of them.
        distillation: Settings of the loss against the embeddings of a teacher, which the batches have as
            `teacher_embeds`; None: there is no teacher.
        **kwargs: See `transformers.Trainer`; `processing_class` is the processor.

    Raises:
        ValueError: If `check` refuses the training arguments, if fewer than two training clips can be compared, or if
            a model with batch norm is trained in chunks.

    Example:
        >>> trainer = GEmoClapTrainer(
        ...     model, args, GEmoClapCollator(processor, model.config), train_dataset, processing_class=processor
        ... )
        >>> trainer.train()
    """

    comparison = (
        "a batch needs two or more clips of known emotion (with --objective ml, or of known gender). Give another "
        "--per_device_train_batch_size, or --dataloader_drop_last true if the last batch of an epoch has one clip"
    )

    card_text = CardText(
        title="{{ {'emo': 'Emo-CLAP', 'ml': 'ML-GEmo-CLAP', 'sl': 'SL-GEmo-CLAP'}[config.objective] }}",
        summary="A [GEmo-CLAP](https://arxiv.org/abs/2306.07848) checkpoint: an audio encoder and a text encoder with "
        "a joint embedding space of {{ config.projection_dim }} dimensions. The predicted emotion of a clip is the "
        "class whose prompts are nearest by cosine similarity.",
        objective="{{ title }}, alpha {{ config.alpha }}, similarity {{ config.similarity | cell_code }}, targets "
        "{{ config.targets | cell_code }}{% if config.objective == 'sl' %}, texts {{ config.sl_texts | cell_code }}"
        "{% endif %}",
    )

    def __init__(
        self,
        model=None,
        args=None,
        *others,
        contrastive_chunk_size: int | None = None,
        distillation: Distillation | None = None,
        **kwargs,
    ):
        if args is not None and contrastive_chunk_size is not None:
            refuse_chunk_size(contrastive_chunk_size, args.per_device_train_batch_size)
        super().__init__(model, args, *others, **kwargs)
        self._chunk_size = contrastive_chunk_size
        if self._chunk_size is not None:
            refuse_batch_norm(self.model, "contrastive_chunk_size")
        self.add_callback(_ClampScales())
        self.add_callback(_EncodePrompts(self))
        self._distillation = distillation
        self._floors = (0.0, 0)  # sum and number of the floors since the last log
        self._distilled = 0.0  # sum of the weighted losses against the teacher since the last log
        self._scales: dict[str, torch.Tensor] = {}
        self._class_embeddings: torch.Tensor | None = None
        self._check_labels()

    def _check_labels(self) -> None:
        clips, config = self.train_dataset, self.accelerator.unwrap_model(self.model).config
        names = ("emotion_labels", "gender_labels") if config.objective == "ml" else ("emotion_labels",)
        known = [sum(label >= 0 for label in getattr(clips, name, (0, 0))) for name in names]
        if clips is not None and max(known) < 2:
            raise ValueError(f"{max(known)} of the {len(clips)} training clips can be compared: {self.comparison}")

    @classmethod
    def check(cls, args) -> None:
        """See `SpeechTrainer.check`. Also refuses steps of one clip and gradient accumulation."""
        super().check(args)
        if args.train_batch_size * args.world_size < 2:
            raise ValueError(
                f"--per_device_train_batch_size {args.per_device_train_batch_size} on one process: a contrastive loss "
                f"compares the clips of a batch with each other, so one clip gives no gradient; give 2 or more"
            )
        if args.gradient_accumulation_steps > 1:
            raise ValueError(
                "gradient_accumulation_steps must be 1: a contrastive loss is not the sum of the losses of parts of "
                "the batch, since it compares each clip with all others; give a larger per_device_train_batch_size, "
                "and contrastive_chunk_size to limit the clips that are in memory at a time"
            )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return this process's rows of the loss of the global batch, times the number of processes."""
        inputs = dict(inputs)
        labels = [inputs.pop(name, None) for name in ("emotion_labels", "gender_labels")]
        teacher = inputs.pop("teacher_embeds", None)
        if self._chunk_size and model.training and not return_outputs:
            return self._cached_loss(model, inputs, labels, teacher)
        outputs = model(**inputs)
        loss = self._global_loss(model, outputs, labels, teacher)
        return (loss, outputs) if return_outputs else loss

    def _global_loss(self, model, outputs, labels, teacher) -> torch.Tensor:
        size = largest_batch(len(outputs.audio_embeds), outputs.audio_embeds.device)
        labels = [label if label is None else gather(pad_rows(label, size, -1)) for label in labels]
        local = {name: pad_rows(at_least_float32(getattr(outputs, name, None)), size) for name in EMBEDDINGS}
        gathered = {name: None if embeds is None else gather(embeds) for name, embeds in local.items()}
        gathered |= {name: getattr(outputs, name) for name in SCALES}
        start, processes = self.args.process_index * size, self.args.world_size
        local_rows = slice(start, start + size)
        batch, unwrapped = SimpleNamespace(**gathered), self.accelerator.unwrap_model(model)
        terms = unwrapped.objective_terms(batch, *labels, rows=local_rows)
        taught = self._teacher_terms(at_least_float32(outputs.audio_embeds), teacher)
        distilled = self._distillation.weight * sum(taught.values()) if taught else 0.0
        if model.training:
            embeddings = [getattr(outputs, name, None) for name in EMBEDDINGS]
            present = tuple(value for value in embeddings if value is not None)
            compared = taught or any(term.weight and term.logits.shape[1] > 1 for term in terms)
            self.record_step(present, not compared, taught)
            self._distilled = self._distilled + (distilled.detach() if taught else 0.0)
            total, count = self._floors
            self._floors = (total + loss_floor(terms).detach() * processes, count + 1)
            self._scales = {name: gathered[name].detach() for name in SCALES}  # the parameters may be sharded
        # gradients and logged losses are averaged over the processes
        return contrastive_loss(terms) * processes + distilled

    def _teacher_terms(self, student: torch.Tensor, teacher: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return this process's parts of the means over the clips of the global batch, times the processes."""
        if teacher is None or self._distillation is None:
            return {}
        with torch.autocast(student.device.type, enabled=False):
            values = self._distillation.losses(student, teacher.to(student))
        count = gather((teacher.square().sum(1) > 0).sum()[None]).sum().clamp_min(1)
        names = ("teacher_distance", "teacher_divergence")
        return {name: value.sum() * self.args.world_size / count for name, value in zip(names, values, strict=True)}

    def _cached_loss(self, model, inputs, labels, teacher) -> torch.Tensor:
        """Return the same loss from chunks. All but the last run backward here; the caller runs the last."""
        audio_type = self.accelerator.unwrap_model(model).config.audio_config.model_type
        cache = GradientCache(model, ChunkedBatch(inputs, self._chunk_size, audio_type))
        leaves = cache.embed()
        loss = self._global_loss(model, SimpleNamespace(**leaves), labels, teacher)
        cache.differentiate(loss, leaves)
        surrogates = cache.surrogates()
        for _ in range(len(cache.batch) - 1):
            with self._without_sync(model):
                self.accelerator.backward(next(surrogates))
        last = next(surrogates)
        return loss.detach() + (last - last.detach())

    @contextmanager
    def _without_sync(self, model):
        """Within this context gradients are accumulated locally; the next backward pass reduces them."""
        state = self.accelerator.gradient_state
        state._set_sync_gradients(False)  # otherwise DeepSpeed would make a step
        try:
            with self.accelerator.no_sync(model):
                yield
        finally:
            state._set_sync_gradients(True)

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if is_lora(self.model):
            save_logit_scales(output_dir or self.args.output_dir, self.model)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add the cross-entropy, its floor and the scales to the logs; see the class."""
        total, count = self._floors
        if "loss" in logs and count:
            floor = gather((total / count)[None]).mean().item()
            distilled = 0.0
            if self._distillation is not None:
                distilled = gather(torch.as_tensor(self._distilled / count, device=total.device)[None]).mean().item()
            logs["cross_entropy"] = round(logs["loss"] - distilled + floor, 6)
            logs["cross_entropy_floor"] = round(floor, 6)
            logs |= {name: round(scale.item(), 4) for name, scale in self._scales.items()}
            self._floors, self._distilled = (0.0, 0), 0.0
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, **kwargs):
        """See `transformers.Trainer`. The class texts are embedded once."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        self._class_embeddings = model.get_class_embeddings(
            model.config.class_prompts(), self.processing_class.tokenizer
        )
        model.train(was_training)
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return no loss, the logits against the class texts `(batch, emotions)`, and the labels `(batch,)`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**audio_inputs(inputs))
        cosines = (outputs.audio_embeds @ self._class_embeddings.to(outputs.audio_embeds).T).float()
        return None, outputs.audio_scale.float() * cosines, inputs["emotion_labels"]
