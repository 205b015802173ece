"""What weights have heard, recorded by training itself: appended to the model's configuration, never rewritten."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch.utils.data import ConcatDataset, Subset

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.files import read_json, write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import training_records, with_development

HISTORY = "training_data.json"  # in every `checkpoint-N`, some of which have no configuration


def history_of(model: GEmoClapPreTrainedModel) -> list[dict]:
    """What a model's weights have heard so far.

    Returns:
        The records of its configuration. Without any: none for freshly initialised weights, the audio encoder's own
        for a model that was built on a pretrained one, and otherwise a record that nothing is known.
    """
    config = model.config
    if config.training_data is not None:
        return list(config.training_data)
    if model.weights_are_new:
        return []
    tower = config.audio_config
    source = getattr(tower, "_name_or_path", "")
    if getattr(tower, "training_data", None) is not None:
        return list(tower.training_data)
    if source and not getattr(config, "_name_or_path", ""):
        return [{"encoder": Path(source).name if Path(source).exists() else source}]
    return [{"unknown": "it was trained further from weights whose training data are not recorded"}]


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
    """Append what is about to be heard to the configuration of a model, before its first step.

    A temperature that was fitted on the weights as they were is taken out: it says nothing of what they become.

    Args:
        model: The model, without what wraps it.
        records: What is about to be heard.
        checkpoint: The `checkpoint-N` that the training goes on from, whose record is taken over.
    """
    before = history_of_checkpoint(checkpoint) if checkpoint else history_of(model)
    resumed = checkpoint is not None
    model.config.training_data = before + [record for record in records if not (resumed and record in before)]
    model.config.forget_calibration()


def save_history(model: GEmoClapPreTrainedModel, folder: str | Path) -> None:
    """Write the record into a `checkpoint-N`."""
    write_json(Path(folder, HISTORY), model.config.training_data)
