"""The trainer of the contrastive model, and that of the classifier."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch.nn import functional as F
from transformers import TrainerCallback

from ..losses_gemoclap import contrastive_loss, loss_floor
from ..modeling_gemoclap import MAX_LOGIT_SCALE
from .base_trainer import SpeechTrainer
from .collator import audio_inputs
from .gather import fill_up, gather, largest_batch
from .lora import add_scales_to, is_lora


class _KeepScalesBounded(TrainerCallback):
    """Brings the scales back to their bound: beyond it `forward` gives them no gradient, and they would stay there."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            for scale in (model.audio_logit_scale, model.text_logit_scale):
                scale.clamp_(max=MAX_LOGIT_SCALE)


class GEmoClapTrainer(SpeechTrainer):
    """Trains `GEmoClapModel` with the exact loss of the global batch.

    `forward` is called once a backward, without labels; its embeddings are gathered with their gradient over the
    processes, and each takes the rows of the loss that are its own against all columns, with targets from the gathered
    labels. Batches are those of `GEmoClapCollator`; a process with fewer clips than another is filled up with rows
    that take no part.

    Logged beside `loss` (the divergence): `cross_entropy`, its floor `cross_entropy_floor` (the entropy of the
    targets), whose difference the loss is, and both scales.

    Evaluation compares audio with the class texts: `predictions` are `(clips, emotions)` cosines and `label_ids`
    the emotion labels.

    Args:
        *args: As for `transformers.Trainer`.
        **kwargs: As for `transformers.Trainer`; `processing_class` is the processor.

    Raises:
        ValueError: If several devices would be driven by one process (`torch.nn.DataParallel`), or gradients are to be
            accumulated over several batches.

    Example:
        >>> trainer = GEmoClapTrainer(
        ...     model, args, GEmoClapCollator(processor, model.config), train_dataset, processing_class=processor
        ... )
        >>> trainer.train()
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.gradient_accumulation_steps > 1:
            raise ValueError(
                "gradient_accumulation_steps must be 1: the contrastive losses of a batch's parts do not add up to "
                "the batch's, since a clip is compared with its own part alone; give a larger batch"
            )
        self.add_callback(_KeepScalesBounded())
        self._floors: list[torch.Tensor] = []
        self._class_embeddings: torch.Tensor | None = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's rows of the loss of the global batch, times the number of processes; see the class."""
        inputs = dict(inputs)
        labels = [inputs.pop(name, None) for name in ("emotion_labels", "gender_labels")]
        outputs = model(**inputs)
        rows = largest_batch(len(outputs.audio_embeds), outputs.audio_embeds.device)
        labels = [label if label is None else gather(fill_up(label, rows, -1)) for label in labels]
        names = ("audio_embeds", "text_embeds", "gender_text_embeds")
        mine = {name: fill_up(getattr(outputs, name), rows) for name in names}
        whole = {name: None if embeds is None else gather(embeds) for name, embeds in mine.items()}
        whole = SimpleNamespace(**whole, audio_scale=outputs.audio_scale, text_scale=outputs.text_scale)
        start, processes = self.args.process_index * rows, self.args.world_size
        part = slice(start, start + rows)
        terms = self.accelerator.unwrap_model(model).objective_terms(whole, *labels, rows=part)
        loss = contrastive_loss(terms) * processes  # gradients, and losses in the log, are averaged over them
        if model.training:
            self._floors.append(loss_floor(terms).detach() * processes)
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if is_lora(self.model):
            add_scales_to(output_dir or self.args.output_dir, self.model)

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add what is needed to read a loss on flat targets; see the class."""
        if "loss" in logs and self._floors:
            floor = gather(torch.stack(self._floors).mean()[None]).mean().item()
            logs["cross_entropy"] = round(logs["loss"] + floor, 6)
            logs["cross_entropy_floor"] = round(floor, 6)
            model = self.accelerator.unwrap_model(self.model)
            logs["audio_scale"] = round(model.audio_scale.item(), 4)
            logs["text_scale"] = round(model.text_scale.item(), 4)
            self._floors.clear()
        super().log(logs, *args, **kwargs)

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


class ClassifierTrainer(SpeechTrainer):
    """Trains `GEmoClapForAudioClassification` by cross-entropy; batches are those of `AudioCollator`.

    Args:
        *args: As for `SpeechTrainer`.
        **kwargs: Likewise.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean cross-entropy over the clips of the global batch whose emotion is known."""
        labels = inputs["emotion_labels"]
        outputs = model(**audio_inputs(inputs))
        known = gather((labels != -1).sum()[None]).sum().clamp_min(1)
        total = F.cross_entropy(outputs.logits, labels, ignore_index=-1, reduction="sum")
        loss = total * self.args.world_size / known  # gradients are averaged over the processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Logits of a batch of clips: `(None, (batch, emotions), (batch,))`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**audio_inputs(inputs)).logits
        return None, logits.float(), inputs["emotion_labels"]
