"""Records of the training data, which training appends to the model's configuration and never rewrites."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch.utils.data import ConcatDataset, Subset
from transformers import PretrainedConfig, TrainerCallback

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..configuration_gemoclap import GEmoClapAudioConfig
from ..corpora.files import read_json, write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import TEACHER, training_records, with_development
from ..safety_gemoclap import tensors_sha256
from .checkpoints import settle_checkpoints
from .gather import all_gather_object

CHANGED_OUTSIDE = "its weights were changed outside of recorded training"
UNRECORDED_TOWER = "its audio encoder was trained by this package and has no record of what it was trained on"
HISTORY = "training_data.json"  # in every `checkpoint-N`; some have no configuration


def history_of(model: GEmoClapPreTrainedModel) -> list[dict]:
    """Records of the data that a model's weights were trained on.

    Returns:
        The records of the configuration. If it has none: an empty list for newly initialised weights, a record with
        the encoder's name if the audio tower was just loaded from a pretrained encoder, and a record with `unknown`
        otherwise. If the weights were changed outside of recorded training, a record with `unknown` is appended.
    """
    config = model.config
    changed = [] if model.weights_as_noted() else [{"unknown": CHANGED_OUTSIDE}]
    if config.training_data is not None:
        return [*config.training_data, *changed]
    if changed or model.weights_are_new:
        return changed
    encoder = model.pretrained_encoder
    if encoder is None:
        return [{"unknown": "it was trained further from weights whose training data are not recorded"}]
    if config.audio_config.model_type == GEmoClapAudioConfig.model_type:
        return [{"unknown": UNRECORDED_TOWER}]
    return [{"encoder": Path(encoder).name if Path(encoder).exists() else encoder}]


def add_teacher(model: GEmoClapPreTrainedModel, teacher: GEmoClapPreTrainedModel, name: str) -> None:
    """Add the records of a teacher to those of its student, so that what it has heard counts as heard by the student.

    Args:
        model: The student. Its configuration also gets `distilled_from`: name, hash of the weights and encoders of the
            teacher.
        teacher: The teacher.
        name: Name of the teacher, without the path of the folder that contains it.
    """
    settle_history(model)
    teacher.check_history()
    records = [record | {"stage": TEACHER} for record in history_of(teacher)]
    model.config.training_data = [*model.config.training_data, *records]
    config = teacher.config
    encoders = (getattr(tower, "_name_or_path", "") for tower in (config.audio_config, config.text_config))
    model.config.distilled_from = {
        "name": name,
        "weights_sha256": tensors_sha256(teacher.state_dict().values()),
        "encoders": [Path(encoder).name for encoder in encoders if encoder],
    }


def settle_history(model: GEmoClapPreTrainedModel) -> GEmoClapPreTrainedModel:
    """Store the records in the configuration before weights are changed by something other than training.

    Returns:
        The model.
    """
    model.check_history()
    model.config.training_data = history_of(model)
    model.note_weights()
    return model


def stamp_weights(model: GEmoClapPreTrainedModel, complete: bool) -> None:
    """Mark the present weights as those that the records describe: in the model, and by a hash in its configuration.

    Args:
        model: The model.
        complete: Whether this process has all weights. The hash is None otherwise.
    """
    model.note_weights()
    model.config.weights_sha256 = tensors_sha256(model.state_dict().values()) if complete else None


def corpora_of(dataset) -> Iterable[Corpus | None]:
    """The corpora of a dataset. None stands for a part whose corpus is unknown.

    Args:
        dataset: A `ClipDataset`, a PyTorch `Subset` or `ConcatDataset` of these, a dict of these, or None.
    """
    if dataset is None:
        return
    if isinstance(dataset, Subset):
        yield from corpora_of(dataset.dataset)
    elif isinstance(dataset, (ConcatDataset, dict)):
        for part in dataset.values() if isinstance(dataset, dict) else dataset.datasets:
            yield from corpora_of(part)
    else:
        yield getattr(dataset, "corpus", None)


def records_of(train_dataset, eval_dataset=None) -> list[dict]:
    """Records of the clips of a training.

    Args:
        train_dataset: The training clips.
        eval_dataset: The development clips.
    """
    train, dev = list(corpora_of(train_dataset)), list(corpora_of(eval_dataset))
    records = [record for corpus in train if corpus is not None for record in training_records(corpus)]
    for corpus in dev:
        records = records if corpus is None else with_development(records, corpus)
    datasets = (("trained", train, train_dataset), ("developed", dev, eval_dataset))
    return records + [_unknown_record(dataset, use) for use, corpora, dataset in datasets if None in corpora]


def _unknown_record(dataset, use: str) -> dict:
    return {"unknown": f"it was {use} on a {type(dataset).__name__} of clips that does not name their speakers"}


def history_of_checkpoint(checkpoint: str | Path) -> list[dict]:
    """Records of a `checkpoint-N`; one record with `unknown` if it has none."""
    for name in (HISTORY, "config.json"):
        path = Path(checkpoint, name)
        content = read_json(path) if path.is_file() else None
        records = content.get("training_data") if isinstance(content, dict) else content
        if records is not None:
            return records
    return [{"unknown": "it was resumed from a checkpoint that has no record of what it was trained on"}]


def record_training(model: GEmoClapPreTrainedModel, records: list[dict], checkpoint: str | Path | None) -> None:
    """Append the records of a training to the configuration of a model.

    A calibration temperature is removed, since it was fitted to the previous weights.

    Args:
        model: The unwrapped model, prepared by `settle_history`.
        records: Records of the training.
        checkpoint: The `checkpoint-N` that the training is resumed from, whose records are kept; None if there is
            none.
    """
    before = history_of_checkpoint(checkpoint) if checkpoint else model.config.training_data or []
    resumed = checkpoint is not None
    model.config.training_data = before + [record for record in records if not (resumed and record in before)]
    model.config.weights_sha256 = None
    model.config.forget_calibration()
    for config in (model.audio_model.config, model.config.audio_config):  # records of the initial tower
        config.__dict__.pop("training_data", None)


class RecordTraining(TrainerCallback):
    """Adds the records of the clips to the configuration before the first step, and settles the run's checkpoints.

    Args:
        trainer: The `SpeechTrainer`.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        """See the class."""
        trainer = self.trainer
        main = trainer.is_world_process_zero()
        records = all_gather_object(records_of(trainer.train_dataset, trainer.eval_dataset) if main else None)[0]
        record_training(trainer.trained_model, records, trainer.resumed_from)
        if trainer.resumed_from:
            settle_checkpoints(trainer.resumed_from, args, state)


def record_development(model: GEmoClapPreTrainedModel, dataset) -> None:
    """Record that something was chosen by, or fitted on, clips.

    Args:
        model: The model.
        dataset: The clips; see `corpora_of`.
    """
    for corpus in corpora_of(dataset):
        records = model.config.training_data or []
        extended = with_development(records, corpus) if corpus else [*records, _unknown_record(dataset, "developed")]
        model.config.training_data = extended


def save_history(model: GEmoClapPreTrainedModel, folder: str | Path) -> None:
    """Write the records into a `checkpoint-N`."""
    write_json(Path(folder, HISTORY), model.config.training_data)


def set_tower_record(config: PretrainedConfig, records: list[dict] | None) -> None:
    """Store the training records in the configuration of a tower, which can be saved without the model.

    Args:
        config: Configuration of the tower.
        records: The records; None removes them.
    """
    if records:
        config.training_data = records
    elif hasattr(config, "training_data"):
        del config.training_data
