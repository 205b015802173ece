"""One run: corpora, model and trainer from arguments, training, and what is written."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable

import torch
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from ..corpora.files import write_json
from ..corpora.manifest import Corpus, load_corpora
from ..corpora.protocols import deal_speakers, development_speakers, genders_of, sample_clips
from ..fingerprint import digest
from .arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments
from .assemble import build_trainer
from .base_trainer import SpeechTrainer
from .calibration import answers, calibrate, fit_temperature, store_answers, stored_answers
from .checkpoints import find_best_again
from .frozen import remove_frames
from .gather import of_all, release
from .identity import Run
from .lora import is_lora, save_adapter
from .run_folder import CALIBRATION
from .skipped import skipped_while_training
from .start import heard_before
from .tried_first import push

logger = logging.get_logger(__name__)


def select_corpus(data: DataArguments, model: ModelArguments) -> tuple[Corpus, list[str]]:
    """The clips to train and to develop on, as one corpus, and the emotions.

    Of speakers that are kept for a test nothing is taken, not even that they have an emotion.

    Raises:
        ValueError: If none is named, or names do not fit.
    """
    if not data.data_dir:
        raise ValueError("give --data_dir, a corpus folder")
    unlabelled = model.head == "speaker"
    corpus = load_corpora(data.data_dir, data.corpus_name, model.emotions, data.emotion_map, unlabelled)
    if both := sorted({*(data.exclude_speakers or [])} & {*(data.dev_speakers or [])}):
        raise ValueError(
            f"--exclude_speakers and --dev_speakers both name {', '.join(both)}: a test is not developed on"
        )
    wanted = [*data.speakers, *(data.dev_speakers or [])] if data.speakers else None
    corpus = corpus.of_speakers(wanted, data.exclude_speakers)
    if unlabelled:
        return corpus, []
    emotions = model.emotions or corpus.emotions
    return corpus.of_emotions(emotions, data.drop_other_emotions), emotions


def split(corpus: Corpus, data: DataArguments, seed: int, labelled: bool = True) -> tuple[Corpus, Corpus | None]:
    """The training clips and, where speakers for them are named or counted, the development clips.

    Args:
        corpus: The clips.
        data: Which speakers are developed on, and the share of the training clips that is used.
        seed: Of what is dealt and drawn.
        labelled: Whether emotions are asked for.

    Raises:
        ValueError: If emotions are asked for and there are too few, or development speakers are named twice over.
    """
    if data.dev_speakers and data.num_dev_speakers:
        raise ValueError("--dev_speakers names them, --num_dev_speakers deals them: give one of the two")
    dev = data.dev_speakers or (
        development_speakers(corpus, data.num_dev_speakers, seed) if data.num_dev_speakers else []
    )
    train = corpus.of_speakers(exclude=dev)
    if not labelled:
        return train, corpus.of_speakers(dev) if dev else None
    every, train = train.emotions, sample_clips(train, data.label_fraction, seed)
    if lost := sorted(set(every) - set(train.emotions)):
        logger.warning(f"{corpus.name}: with --label_fraction {data.label_fraction} no clip is {', '.join(lost)}")
    if len(train.emotions) < 2:
        raise ValueError(
            f"{corpus.name}: the training clips have {train.emotions or 'no emotion'}; two classes are the least"
        )
    if dev and not corpus.of_speakers(dev).emotions:
        raise ValueError(f"{corpus.name}: no clip of the development speakers {', '.join(dev)} has an emotion")
    return train, corpus.of_speakers(dev) if dev else None


def choosing_on_dev(arguments: GEmoClapTrainingArguments, data: DataArguments) -> GEmoClapTrainingArguments:
    """The arguments under `--select dev`: the epoch with the best UAR on the development speakers is kept."""
    if data.select == "last":
        return arguments
    if not (data.dev_speakers or data.num_dev_speakers):
        raise ValueError("--select dev needs development speakers: give --num_dev_speakers 2, or --dev_speakers")
    return dataclasses.replace(
        arguments,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="uar",
        greater_is_better=True,
    )


def out_of_fold_answers(run: Run, begin: Callable = lambda: None) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Answers to every training speaker by models that were trained without; finished folds are not run again.

    Args:
        run: The run; `data.calibration_folds` is how many.
        begin: Called when a training is about to begin: all that was asked for could be had.

    Returns:
        Logits `(clips, emotions)`, labels `(clips,)`, and what they are, in words.

    Raises:
        ValueError: If there are fewer speakers than folds, or development speakers too.
    """
    train, dev = run.parts
    count, seed = run.data.calibration_folds, run.arguments.seed
    if dev:
        raise ValueError("--calibration_folds calibrates on training speakers: leave out development speakers")
    if not 2 <= count <= len(train.speakers):
        raise ValueError(f"--calibration_folds {count}: 2 to {len(train.speakers)} speakers")
    found = []
    for number, speakers in enumerate(deal_speakers(genders_of(train), count, seed)):
        halves = (train.of_speakers(exclude=speakers), train.of_speakers(speakers))
        own = copy.copy(run.arguments)
        own.output_dir, own.load_best_model_at_end = str(run.folder / CALIBRATION / f"fold_{number}"), False
        own.save_strategy, own.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
        fold = dataclasses.replace(run, parts=halves, arguments=own)
        path, made_of = fold.folder.with_suffix(".safetensors"), digest(fold.identity)
        if not of_all(stored_answers(path, made_of) is not None)[0]:
            set_seed(seed)
            trainer, _ = build_trainer(fold, resumed=False)
            begin()
            trainer.train()
            logits, labels = answers(trainer)
            if trainer.is_world_process_zero():
                store_answers(path, made_of, logits, labels)
                remove_frames(own)
            trainer.accelerator.wait_for_everyone()
            release(trainer)
        found.append(stored_answers(path, made_of))
    logits, labels = map(torch.cat, zip(*found, strict=True))
    heard = heard_before(run.model, train)
    return logits, labels, f"out-of-fold answers to the training speakers, {len(found)} folds{heard}"


def train_and_save(run: Run, checkpoint: str | None = None, begin: Callable = lambda: None) -> SpeechTrainer:
    """Train a model and write its checkpoint.

    Args:
        run: The run.
        checkpoint: A `checkpoint-N` to go on from.
        begin: Called when a training is about to begin: all that was asked for could be had.

    Returns:
        The trainer; `finish` it.

    Raises:
        ValueError: As `build_trainer`.
    """
    arguments = run.arguments
    held_out = out_of_fold_answers(run, begin) if run.data.calibration_folds else None
    set_seed(arguments.seed)
    trainer, skipped = build_trainer(run, checkpoint is not None)
    if checkpoint and arguments.load_best_model_at_end:
        find_best_again(checkpoint, arguments.output_dir)
    begin()
    trainer.train(resume_from_checkpoint=checkpoint)
    if held_out:
        calibrate(trainer, *held_out)
    elif trainer.eval_dataset is not None:
        fit_temperature(trainer, heard_before(run.model, run.parts[1]))
    errors, left_out = skipped_while_training(trainer)
    skipped += errors
    if is_lora(trainer.model):
        if trainer.is_world_process_zero():
            save_adapter(trainer.model, run.folder / "adapter")
        trainer.model = trainer.model.merge_and_unload()  # the checkpoint itself loads without PEFT
    wanted, arguments.push_to_hub = arguments.push_to_hub, False  # save_model would push what is not yet whole
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    if trainer.is_world_process_zero():
        remove_frames(arguments)
        if skipped:
            write_json(run.folder / "skipped_clips.json", skipped)
        clips = f"{len(trainer.train_dataset) - left_out} clips" + (f", {len(skipped)} skipped" if skipped else "")
        print(f"Trained on {clips}. The checkpoint is in {os.path.relpath(run.folder)}", flush=True)
    arguments.push_to_hub = wanted
    if wanted:
        push(trainer)
    return trainer
