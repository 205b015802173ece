"""What weights have heard, recorded by training itself: appended to the model's configuration, never rewritten."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch.utils.data import ConcatDataset, Subset
from transformers import PretrainedConfig

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..configuration_gemoclap import GEmoClapAudioConfig
from ..corpora.files import read_json, write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import training_records, with_development
from ..safety_gemoclap import tensors_sha256

CHANGED = "its weights were changed outside of recorded training"
OWN_TOWER = "its audio encoder was trained by this package and has no record of what it was trained on"
SUPERVISED = "an encoder by supervised contrast"  # a stage, as records have it
HISTORY = "training_data.json"  # in every `checkpoint-N`, some of which have no configuration


def history_of(model: GEmoClapPreTrainedModel) -> list[dict]:
    """What a model's weights have heard so far.

    Returns:
        The records of its configuration. Without any: none for freshly initialised weights, a record that names the
        encoder for a model whose audio tower was just loaded from a pretrained one, and otherwise a record that
        nothing is known. If the weights were changed outside of recorded training, a record says so.
    """
    config = model.config
    changed = [] if model.weights_as_noted() else [{"unknown": CHANGED}]
    if config.training_data is not None:
        return [*config.training_data, *changed]
    if changed or model.weights_are_new:
        return changed
    encoder = model.pretrained_encoder
    if encoder is None:
        return [{"unknown": "it was trained further from weights whose training data are not recorded"}]
    if config.audio_config.model_type == GEmoClapAudioConfig.model_type:
        return [{"unknown": OWN_TOWER}]
    return [{"encoder": Path(encoder).name if Path(encoder).exists() else encoder}]


def settle_history(model: GEmoClapPreTrainedModel) -> GEmoClapPreTrainedModel:
    """Write down what a model's weights have heard, before they are changed by what is not training.

    Returns:
        The model.
    """
    model.check_history()
    model.config.training_data = history_of(model)
    model.note_weights()
    return model


def stamp_weights(model: GEmoClapPreTrainedModel, whole: bool) -> None:
    """Note these weights as those that the record is about, in the model and, by their hash, in its configuration.

    Args:
        model: The model.
        whole: Whether this process has all of the weights; of sharded ones there is no hash.
    """
    model.note_weights()
    model.config.weights_sha256 = tensors_sha256(model.state_dict().values()) if whole else None


def corpora_of(dataset) -> Iterable[Corpus | None]:
    """The corpora whose clips a dataset has; None for one that does not name them.

    Args:
        dataset: A `ClipDataset` or `FrameDataset`, PyTorch's `Subset` or `ConcatDataset` of such, a dict of these, or
            None.
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
    """Records of the clips that a training is about to hear.

    Args:
        train_dataset: What is trained on.
        eval_dataset: What it is developed on.
    """
    train, dev = list(corpora_of(train_dataset)), list(corpora_of(eval_dataset))
    records = [record for corpus in train if corpus is not None for record in training_records(corpus)]
    for corpus in dev:
        records = records if corpus is None else with_development(records, corpus)
    named = (("trained", train, train_dataset), ("developed", dev, eval_dataset))
    return records + [_unknown(dataset, what) for what, corpora, dataset in named if None in corpora]


def _unknown(dataset, what: str) -> dict:
    return {"unknown": f"it was {what} on a {type(dataset).__name__} of clips that does not name their speakers"}


def history_of_checkpoint(checkpoint: str | Path) -> list[dict]:
    """What the weights of a `checkpoint-N` have heard; a record that this is not known, where it has none."""
    for name in (HISTORY, "config.json"):
        path = Path(checkpoint, name)
        found = read_json(path) if path.is_file() else None
        found = found.get("training_data") if isinstance(found, dict) else found
        if found is not None:
            return found
    return [{"unknown": "it was resumed from a checkpoint that has no record of what it was trained on"}]


def record_training(model: GEmoClapPreTrainedModel, records: list[dict], checkpoint: str | Path | None) -> None:
    """Append what is about to be heard to the configuration of a model, whose history is settled.

    A temperature that was fitted on the weights as they were is taken out: it says nothing of what they become.

    Args:
        model: The model, without what wraps it.
        records: What is about to be heard.
        checkpoint: The `checkpoint-N` that the training goes on from, whose record is taken over.
    """
    before = history_of_checkpoint(checkpoint) if checkpoint else model.config.training_data or []
    resumed = checkpoint is not None
    model.config.training_data = before + [record for record in records if not (resumed and record in before)]
    model.config.weights_sha256 = None
    model.config.forget_calibration()
    for config in (model.audio_model.config, model.config.audio_config):  # the record of the tower as it was
        config.__dict__.pop("training_data", None)


def record_development(model: GEmoClapPreTrainedModel, dataset) -> None:
    """Append to the record that something was chosen or fitted on clips.

    Args:
        model: The model.
        dataset: The clips; see `corpora_of`.
    """
    for corpus in corpora_of(dataset):
        records = model.config.training_data or []
        more = with_development(records, corpus) if corpus else [*records, _unknown(dataset, "developed")]
        model.config.training_data = more


def save_history(model: GEmoClapPreTrainedModel, folder: str | Path) -> None:
    """Write the record into a `checkpoint-N`."""
    write_json(Path(folder, HISTORY), model.config.training_data)


def set_tower_record(config: PretrainedConfig, records: list[dict] | None) -> None:
    """Write the training records into a tower's own configuration, for the tower that is saved alone.

    Args:
        config: Configuration of the tower.
        records: The records; None removes them.
    """
    if records:
        config.training_data = records
    elif hasattr(config, "training_data"):
        del config.training_data
