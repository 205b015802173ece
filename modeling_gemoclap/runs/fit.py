"""Training a run: check the options, build the model, read the clips, train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from transformers import TrainingArguments, set_seed
from transformers.integrations import unset_hf_deepspeed_config
from transformers.utils import logging

from ..command_line.commands import typed_command, typed_words
from ..command_line.compilers import compile_layers
from ..evaluation.metrics import war_uar_of_scores
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..frozen_gemoclap import refuse_last_layers
from ..objectives.audio_encoder import freeze_parts
from ..training.arguments import DataArguments
from ..training.augmentation import AUGMENTATIONS, Augmentation, log_mel_scale
from ..training.clips import ClipDataset, ClipOptions, cache_folder, read_parts, refuse_different_clips
from ..training.frozen import attach_frames
from ..training.trainer import SpeechTrainer
from ..training.trainer_options import refuse_evaluation
from .memory import explain_memory
from .provenance import seen_speakers_note
from .run import Run
from .termination import checkpoint_on_sigterm

logger = logging.get_logger(__name__)


def fit(run: Run, checkpoint: str | None = None, resumable: bool = True) -> tuple[SpeechTrainer, list[str]]:
    """Train a run from its first step or from a checkpoint. Only checkpoints to resume from are saved.

    Args:
        run: The run.
        checkpoint: The `checkpoint-N` to resume from, or None.
        resumable: Whether SIGTERM saves a checkpoint.

    Returns:
        The trainer, and the errors of the clips that were skipped.

    Raises:
        ValueError: If options contradict each other, or the clips do not suffice.
        TerminatedError: After SIGTERM and a checkpoint.
        StepMemoryError: If a step does not fit into memory.
    """
    set_seed(run.training.seed)
    trainer, skipped = build_trainer(run, resumed=checkpoint is not None)
    run.on_training_start()
    with explain_memory(trainer), checkpoint_on_sigterm(trainer) if resumable else nullcontext():
        trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, skipped


def build_trainer(run: Run, resumed: bool) -> tuple[SpeechTrainer, list[str]]:
    """Read the clips, build the model, and create the trainer of the objective.

    Args:
        run: The run.
        resumed: Whether the weights will be loaded from a checkpoint.

    Returns:
        The trainer, and the errors of the clips that were skipped.

    Raises:
        ValueError: See `fit`.
    """
    objective, training = run.objective, run.training
    _check_run(run)
    with unsharded_weights(training):
        model, processor = objective.build(run.emotions)
    _freeze_for_cache(run, model)
    extractor, config = getattr(processor, "feature_extractor", processor), model.config
    train, dev, skipped = read_parts((run.train, run.dev), extractor, run.recipe.data, training)
    dataset, errors = objective.dataset(train, extractor, config, clip_options(run, extractor))
    dev_dataset = dev and ClipDataset(dev, extractor, config, ClipOptions(on_bad_audio=run.recipe.data.on_bad_audio))
    _attach_frames(run, model, dataset, dev_dataset)
    collator = objective.collator(processor, config)
    if not resumed:
        objective.initialise(model, dataset, collator)
    module = objective.trained_module(model, dataset)
    trainer = objective.trainer_class(
        model=module,
        args=training,
        data_collator=collator,
        train_dataset=dataset,
        eval_dataset=dev_dataset,
        processing_class=processor,
        compute_metrics=war_uar_of_scores,
        **objective.trainer_options(dataset),
    )
    compile_layers(trainer)
    trainer.run_identity = run.identity
    trainer.commands = _commands()
    return trainer, skipped + errors


def _commands() -> list[str]:
    """The command that started the training; none if Python code did, in a notebook for example."""
    return [typed_command()] if typed_words()[0] in ("-m", "train.py") else []


def _freeze_for_cache(run: Run, model) -> None:
    """With `cache_frozen_frames`, freeze parts of the audio tower, and check that the others can run alone."""
    if run.recipe.model.cache_frozen_frames:
        freeze_parts(model, run.recipe.model)
        if model.num_trained_layers:
            refuse_last_layers(model.config.audio_config)


def _attach_frames(run: Run, model, dataset: ClipDataset, dev_dataset: ClipDataset | None) -> None:
    """With `cache_frozen_frames`, let the clips be read as stored frames. The main process encodes first."""
    data, training = run.recipe.data, run.training
    if not run.recipe.model.cache_frozen_frames:
        return
    folder, quiet = cache_folder(data.feature_cache_dir), training.disable_tqdm
    with training.main_process_first(desc="encoding audio"):
        attach_frames(model.to(training.device), dataset, folder, data.frozen_copies, quiet)
        if dev_dataset is not None:
            attach_frames(model, dev_dataset, folder, quiet=quiet)


@contextmanager
def unsharded_weights(arguments: TrainingArguments) -> Iterator[None]:
    """Within this context DeepSpeed ZeRO-3 does not shard new models, so that their weights can be changed.

    Args:
        arguments: Training arguments. Without DeepSpeed the context has no effect.
    """
    plugin = getattr(arguments, "deepspeed_plugin", None)
    if plugin is not None:
        unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if plugin is not None:
            plugin.set_deepspeed_weakref()


def clip_options(run: Run, extractor: GEmoClapFeatureExtractor) -> ClipOptions:
    """Return how training clips are cut and augmented."""
    data = run.recipe.data
    return ClipOptions(data.max_seconds, augmentation_of(data, extractor), run.training.seed, data.on_bad_audio)


def augmentation_of(data: DataArguments, extractor: GEmoClapFeatureExtractor) -> Augmentation | None:
    """Return the augmentation of training clips, or None."""
    changes = {name: getattr(data, name) for name in (*AUGMENTATIONS, "noise_snr_db")}
    return Augmentation(**changes, **(log_mel_scale(extractor) or {})) or None


def _check_run(run: Run) -> None:
    """Check options against the objective and the clips, before any recording is read."""
    objective, train, dev = run.objective, run.train, run.dev
    objective.trainer_class.check(run.training)
    refuse_evaluation(run.training, dev is not None)
    if dev:
        objective.check_development()
    if train.shards and (not objective.reads_shards or run.recipe.model.cache_frozen_frames):
        unsupported_by = "--cache_frozen_frames" if objective.reads_shards else objective.title
        raise ValueError(
            f"{train.name}: shards are read in their order, which {unsupported_by} does not support; give the "
            f"recordings"
        )
    objective.check()
    objective.check_clips(train)
    refuse_different_clips(train, dev)
    if note := seen_speakers_note(run.recipe, dev):
        logger.warning(f"development clips{note}: the epoch and the temperature chosen on them may be too favourable")
