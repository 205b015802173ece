"""The trainer of the probe: a closed step instead of epochs, in the frame that all objectives share."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers.trainer_utils import TrainOutput

from ...corpora.files import write_json
from ...corpora.protocols import deal_speakers, genders_of
from ...training.card import CardText
from ...training.finite import refuse_weights_not_finite
from ...training.history import record_training, records_of, settle_history
from ..classifier import ClassifierTrainer
from .features import check_cut, fewest_layers, keep_first_layers, layer_features
from .regression import STRENGTHS, Choice, ProbeData, choose, linear_layer, regression

PROBE = "probe.json"  # the choice, in the folder of the checkpoint
SUMMARY = (
    "The baseline of a frozen encoder: logistic regression on {pooled} of a pretrained audio encoder, which is not "
    "trained and of which {layer} of its {layers} layers are kept. {how} The regression is the linear head, with the "
    "standardisation of its input folded in."
)
CHOSEN = "Chosen by UAR ({uar:.1f} %) in {folds} folds of training speakers among layers {layers} and C {strengths}."
POOLED = {"mean": "the mean over the frames", "mean_std": "the mean and standard deviation over the frames"}


class ProbeTrainer(ClassifierTrainer):
    """Fits `GEmoClapForAudioClassification` with a frozen encoder by logistic regression.

    `train` pools the clips at every layer of the encoder, chooses a layer and C by inner folds of training speakers,
    removes the layers above, fits the regression on all training clips and stores it as the linear head. The encoder
    is not trained. There are no steps, epochs or checkpoints to resume from.

    Args:
        model: The classifier, with a linear head and a pooling without weights.
        args: `GEmoClapTrainingArguments`; those of steps and epochs have no effect.
        *others: See `transformers.Trainer`.
        layer: The layer; None: chosen.
        c: Inverse strength of the L2 penalty; None: chosen.
        folds: Number of inner folds of speakers.
        cache_dir: See `layer_features`.
        **kwargs: See `transformers.Trainer`.

    Raises:
        ValueError: If `check` refuses the training arguments.
    """

    smooths_labels = False
    choice: Choice | None = None

    def __init__(
        self,
        *others,
        layer: int | None = None,
        c: float | None = None,
        folds: int = 5,
        cache_dir: str | None = None,
        **kwargs,
    ):
        super().__init__(*others, **kwargs)
        self._layer, self._c, self._folds, self._cache_dir = layer, c, folds, cache_dir

    @classmethod
    def check(cls, args) -> None:
        """See `SpeechTrainer.check`; several processes are refused too."""
        super().check(args)
        if args.world_size > 1:
            raise ValueError(
                f"--head probe is fitted in one process, and {args.world_size} were started: run python train.py, "
                f"without a launcher of several processes"
            )

    def train(self, resume_from_checkpoint=None, *args, **kwargs) -> TrainOutput:
        """Fit the regression; see the class.

        Raises:
            ValueError: If it would be resumed from a checkpoint, if the encoder has fewer layers than `layer`, or if
                the clips do not suffice for inner folds.
        """
        if resume_from_checkpoint:
            raise ValueError(
                f"--resume_from_checkpoint {resume_from_checkpoint}: --head probe has no checkpoints; leave it out"
            )
        start, model, clips = time.perf_counter(), self.trained_model, self.train_dataset
        settle_history(model)
        data, features = self._read(model, clips)
        self.choice = choice = self._choose(data, range(fewest_layers(model), data.features.shape[1]))
        keep_first_layers(model, choice.layer)
        check_cut(model, clips, features[:, choice.layer])
        loss = self._fit(model, data, choice)
        record_training(model, records_of(clips, self.eval_dataset), None)
        self._stamp()
        refuse_weights_not_finite(self.model, "after the fit and are not saved: give a smaller --probe_c.")
        self._report(choice, data)
        seconds = time.perf_counter() - start
        self.log({"loss": loss, "probe_layer": choice.layer, "probe_c": choice.c})
        self.log({"train_runtime": round(seconds, 2), "train_loss": loss})
        return TrainOutput(0, loss, {"train_runtime": seconds})

    def _read(self, model, clips) -> tuple[ProbeData, np.ndarray]:
        """The clips of known emotion, and the features of all clips."""
        features = layer_features(model, clips, self._cache_dir, self.args.disable_tqdm)
        labels, speakers = np.array(clips.emotion_labels), np.array(clips.corpus.column("speaker_id").to_pylist())
        known = labels >= 0
        return ProbeData(features[known], labels[known], speakers[known], clips.emotions), features

    def _choose(self, data: ProbeData, layers: range) -> Choice:
        if self._layer is not None and self._layer not in layers:
            last = layers[-1]
            raise ValueError(
                f"--probe_layer {self._layer}: the audio encoder has {last} layers; give {layers[0]} to {last}"
            )
        genders = genders_of(self.train_dataset.corpus)
        genders = {speaker: gender for speaker, gender in genders.items() if speaker in set(data.speakers.tolist())}
        folds = deal_speakers(genders, min(self._folds, len(genders)), self.args.seed)
        return choose(
            data, layers if self._layer is None else [self._layer], STRENGTHS if self._c is None else [self._c], folds
        )

    @staticmethod
    def _fit(model, data: ProbeData, choice: Choice) -> float:
        """Fit the regression, store it as the head, and return its mean cross-entropy on the training clips."""
        features = data.features[:, choice.layer].astype(np.float64)
        fitted = regression(choice.c).fit(features, data.labels)
        weights, bias = (torch.from_numpy(value) for value in linear_layer(fitted, len(model.config.emotions)))
        head = model.classifier[-1]
        with torch.no_grad():
            head.weight.copy_(weights)
            head.bias.copy_(bias)
        logits = torch.from_numpy(features) @ weights.T + bias
        return F.cross_entropy(logits, torch.from_numpy(data.labels)).item()

    def _report(self, choice: Choice, data: ProbeData) -> None:
        """Print the choice, and describe it for the model card."""
        layers = data.features.shape[1] - 1
        how = f"C = {choice.c:g}."
        if choice.best_uar is not None:
            words = {
                name: ", ".join(f"{value:g}" for value in getattr(choice, name)) for name in ("layers", "strengths")
            }
            how += f" {CHOSEN.format(uar=100 * choice.best_uar, folds=len(choice.folds), **words)}"
        pooled = POOLED[self.trained_model.config.pooling]
        self.card_text = CardText(
            title="logistic regression on a frozen encoder",
            summary=SUMMARY.format(pooled=pooled, layer=choice.layer, layers=layers, how=how),
            objective=f"logistic regression with an L2 penalty (C = {choice.c:g}) and equal weights of the classes",
        )
        print(f"probe: layer {choice.layer} of {layers}. {how}", flush=True)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        if self.choice is not None and self.args.should_save:
            content = asdict(self.choice) | {"best_uar": self.choice.best_uar}
            write_json(Path(output_dir or self.args.output_dir, PROBE), content)
