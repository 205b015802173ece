"""One run: corpora, model and trainer from arguments, training, and what is written."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from ..corpora.manifest import Corpus, load_corpora, seen_speakers
from ..corpora.protocols import deal_speakers, development_speakers, genders_of
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from .arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments
from .augmentation import Augmentation
from .base_trainer import SpeechTrainer
from .build import build_audio_model, build_model_and_processor, choose_what_to_train, whole_weights
from .calibration import answers, calibrate, fit_temperature, store_answers, stored_answers
from .checkpoints import find_best_again
from .clips import ClipDataset, read_clips
from .collator import AudioCollator, GEmoClapCollator
from .frozen import FrameCollator, frozen_frames
from .gather import of_all, refuse_differences, release
from .initialisation import centre_projections, learn_prompts
from .lora import is_lora, save_adapter
from .settings import digest, settings_of
from .supcon_trainer import SupConTrainer
from .trainer import ClassifierTrainer, GEmoClapTrainer

logger = logging.get_logger(__name__)
TRAINERS = {"contrastive": GEmoClapTrainer, "classifier": ClassifierTrainer, "supcon": SupConTrainer}
SUPCON = ("temperature", "alpha", "margin", "negatives")
AUGMENTATIONS = ("time_warp", "mel_warp", "equalizer_db", "noise_prob", "reverb_prob", "mix_prob")


def select_corpus(data: DataArguments, model: ModelArguments) -> tuple[Corpus, list[str]]:
    """The clips to train and to develop on, as one corpus, and the emotions.

    Of speakers that are kept for a test nothing is taken, not even that they have an emotion.

    Raises:
        ValueError: If none is named, or names do not fit.
    """
    if not data.data_dir:
        raise ValueError("give --data_dir, a corpus folder")
    corpus = load_corpora(data.data_dir, data.corpus_name, model.emotions, data.emotion_map)
    if both := sorted({*(data.exclude_speakers or [])} & {*(data.dev_speakers or [])}):
        raise ValueError(
            f"--exclude_speakers and --dev_speakers both name {', '.join(both)}: a test is not developed on"
        )
    wanted = [*data.speakers, *(data.dev_speakers or [])] if data.speakers else None
    corpus = corpus.of_speakers(wanted, data.exclude_speakers)
    emotions = model.emotions or corpus.emotions
    return corpus.of_emotions(emotions, data.drop_other_emotions), emotions


def split(corpus: Corpus, data: DataArguments, seed: int) -> tuple[Corpus, Corpus | None]:
    """The training clips and, where speakers for them are named or counted, the development clips."""
    if data.dev_speakers and data.num_dev_speakers:
        raise ValueError("--dev_speakers names them, --num_dev_speakers deals them: give one of the two")
    dev = data.dev_speakers or (
        development_speakers(corpus, data.num_dev_speakers, seed) if data.num_dev_speakers else []
    )
    train = corpus.of_speakers(exclude=dev)
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


def refuse_different_clips(train: Corpus, dev: Corpus | None) -> None:
    """Make sure that all processes have the same clips in the same order."""
    refuse_differences(train.sha256_in_order(), f"{train.name}: metadata.csv")
    refuse_differences(dev.sha256_in_order() if dev else "none", f"{train.name}: the development clips")


def augmentation_of(data: DataArguments, extractor: GEmoClapFeatureExtractor) -> Augmentation | None:
    """What is changed in training clips, or None."""
    features = {name: getattr(extractor, name) for name in ("log_mel_mean", "log_mel_std", "hop_seconds")}
    features |= {name: getattr(data, name) for name in (*AUGMENTATIONS, "noise_snr_db")}
    return Augmentation(**features) or None


def build_trainer(
    parts: tuple[Corpus, Corpus | None],
    emotions: list[str],
    model_args: ModelArguments,
    data_args: DataArguments,
    arguments: GEmoClapTrainingArguments,
    compute_metrics: Callable,
    resumed: bool,
) -> tuple[SpeechTrainer, list[str]]:
    """Read the clips, make the model, and put both into a trainer.

    Args:
        parts: Training clips and, if any, development clips.
        emotions: Emotion classes.
        model_args: What to train.
        data_args: On what.
        arguments: How.
        compute_metrics: As for `transformers.Trainer`.
        resumed: Whether the weights will come from a checkpoint.

    Returns:
        The trainer, and what is wrong with each clip that was skipped.
    """
    contrastive = model_args.head == "contrastive"
    trainer_class = TRAINERS[model_args.head]
    trainer_class.check(arguments)
    train, dev = parts
    refuse_what_is_not_for_it(model_args, data_args, arguments, dev)
    refuse_different_clips(train, dev)
    with whole_weights(arguments):
        model, processor = (build_model_and_processor if contrastive else build_audio_model)(model_args, emotions)
    extractor, config = getattr(processor, "feature_extractor", processor), model.config
    if train.parts and not extractor.do_normalize:
        logger.warning("corpora of different levels are mixed: each clip is brought to unit variance (do_normalize)")
        extractor.do_normalize = True
    options = (data_args.on_bad_audio, data_args.feature_cache_dir, data_args.preprocessing_num_workers)
    with arguments.main_process_first(desc="reading audio"):
        train, skipped = read_clips(train, extractor, *options)
        dev, skipped_dev = read_clips(dev, extractor, *options) if dev else (None, [])
    refuse_different_clips(train, dev)  # what one process cannot read is missing there alone
    if len(train.emotions) < 2:
        raise ValueError(f"{train.name}: fewer than two emotions are left after bad clips were skipped")
    if dev and (heard := seen_speakers(dev, config.training_data)):
        logger.warning(
            f"the development speakers {', '.join(heard)} were heard in pretraining: what is chosen or calibrated on "
            f"them is too favourable"
        )
    config.training_data = [*(config.training_data or []), *train.training_records(dev)]
    augmentation = augmentation_of(data_args, extractor)
    options = (data_args.max_seconds, augmentation, arguments.seed, data_args.on_bad_audio)
    dataset = ClipDataset(train, extractor, config, *options)
    hidden = data_args.unknown_gender_prob
    collator = GEmoClapCollator(processor, config, hidden) if contrastive else AudioCollator(extractor)
    if contrastive and model_args.centre_projections and not resumed:
        sample = torch.randperm(len(dataset))[:64].split(4)
        batches = (collator([dataset[index] for index in part.tolist()]) for part in sample)
        centre_projections(model.to(arguments.device), batches, processor.tokenizer)
    if contrastive and model_args.prompt_steps and not resumed:
        learn_prompts(model.to(arguments.device), collator, model_args.prompt_steps, arguments.seed)
    model = choose_what_to_train(model, model_args)
    held_out = dev and ClipDataset(dev, extractor, config, on_bad_audio=data_args.on_bad_audio)
    if arguments.cache_frozen_frames:
        model, collator = model.to(arguments.device), FrameCollator()
        with arguments.main_process_first(desc="encoding audio"):
            dataset = frozen_frames(model, train, dataset, extractor, data_args.feature_cache_dir)
            held_out = dev and frozen_frames(model, dev, held_out, extractor, data_args.feature_cache_dir)
    more = {}
    if model_args.head == "supcon":
        names = [part.name for part, _ in train.by_part()], config.emotions
        more = {"corpora": train.part_numbers(), "names": names}
        more |= {name: getattr(model_args, f"supcon_{name}") for name in SUPCON}
    trainer = trainer_class(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=dataset,
        eval_dataset=held_out,
        processing_class=processor,
        compute_metrics=compute_metrics,
        **more,
    )
    return trainer, skipped + skipped_dev


def refuse_what_is_not_for_it(
    model: ModelArguments, data: DataArguments, arguments: GEmoClapTrainingArguments, dev: Corpus | None
) -> None:
    """Make sure that what is asked for can be had of this head and of frozen frames.

    Raises:
        ValueError: If not; it says what to leave out.
    """
    if model.head == "supcon" and (dev or data.calibration_folds):
        raise ValueError(
            "head supcon names no emotion, so there is nothing to develop on or to calibrate: leave out "
            "--num_dev_speakers, --dev_speakers, --select and --calibration_folds"
        )
    if not arguments.cache_frozen_frames:
        return
    changed = [name for name in (*AUGMENTATIONS, "max_seconds") if getattr(data, name)]
    if model.head != "classifier" or not model.freeze_audio_encoder:
        raise ValueError("--cache_frozen_frames is for --head classifier with --freeze_audio_encoder true")
    if changed or model.use_weighted_layer_sum:
        wrong = ", ".join(f"--{name}" for name in changed) or "--use_weighted_layer_sum"
        raise ValueError(
            f"--cache_frozen_frames keeps the last layer's frames of whole clips as they are: leave out {wrong}, or "
            f"give --cache_frozen_frames false"
        )


def out_of_fold_answers(
    parts: tuple[Corpus, Corpus | None],
    emotions: list[str],
    model_args: ModelArguments,
    data_args: DataArguments,
    arguments: GEmoClapTrainingArguments,
    compute_metrics: Callable,
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Answers to every training speaker by models that were trained without; finished folds are not run again.

    Args:
        parts: See `build_trainer`, as for all others.
        emotions: See there.
        model_args: See there.
        data_args: See there; `calibration_folds` is how many.
        arguments: See there.
        compute_metrics: See there.

    Returns:
        Logits `(clips, emotions)`, labels `(clips,)`, and what they are, in words.

    Raises:
        ValueError: If there are fewer speakers than folds, or development speakers too.
    """
    train, dev = parts
    if dev:
        raise ValueError("--calibration_folds calibrates on training speakers: leave out development speakers")
    if not 2 <= data_args.calibration_folds <= len(train.speakers):
        raise ValueError(f"--calibration_folds {data_args.calibration_folds}: 2 to {len(train.speakers)} speakers")
    found = []
    for number, speakers in enumerate(deal_speakers(genders_of(train), data_args.calibration_folds, arguments.seed)):
        folder = Path(arguments.output_dir, "calibration", f"fold_{number}")
        path = folder.with_suffix(".safetensors")
        halves = (train.of_speakers(exclude=speakers), train.of_speakers(speakers))
        clips = [half.sha256_in_order() for half in halves]
        made_of = digest({"clips": clips, "seed": arguments.seed} | settings_of(model_args, data_args, arguments))
        if not of_all(stored_answers(path, made_of) is not None)[0]:
            own = copy.copy(arguments)
            own.output_dir, own.load_best_model_at_end = str(folder), False
            own.save_strategy, own.eval_strategy = SaveStrategy.NO, IntervalStrategy.NO
            set_seed(arguments.seed)
            trainer, _ = build_trainer(halves, emotions, model_args, data_args, own, compute_metrics, resumed=False)
            trainer.train()
            logits, labels = answers(trainer)
            if trainer.is_world_process_zero():
                store_answers(path, made_of, logits, labels)
            trainer.accelerator.wait_for_everyone()
            release(trainer)
        found.append(stored_answers(path, made_of))
    logits, labels = map(torch.cat, zip(*found, strict=True))
    return logits, labels, f"out-of-fold answers to the training speakers, {len(found)} folds"


def train_and_save(
    parts: tuple[Corpus, Corpus | None],
    emotions: list[str],
    model_args: ModelArguments,
    data_args: DataArguments,
    arguments: GEmoClapTrainingArguments,
    compute_metrics: Callable,
    checkpoint: str | None = None,
) -> SpeechTrainer:
    """Train a model and write its checkpoint; see `build_trainer`.

    Args:
        parts: See `build_trainer`, as for all others.
        emotions: See there.
        model_args: See there.
        data_args: See there.
        arguments: See there.
        compute_metrics: See there.
        checkpoint: A `checkpoint-N` to go on from.

    Returns:
        The trainer; `finish` it.
    """
    held_out = None
    if data_args.calibration_folds:
        held_out = out_of_fold_answers(parts, emotions, model_args, data_args, arguments, compute_metrics)
    set_seed(arguments.seed)
    trainer, skipped = build_trainer(
        parts, emotions, model_args, data_args, arguments, compute_metrics, checkpoint is not None
    )
    if checkpoint and arguments.load_best_model_at_end:
        find_best_again(checkpoint, arguments.output_dir)
    trainer.train(resume_from_checkpoint=checkpoint)
    if held_out:
        calibrate(trainer, *held_out)
    elif trainer.eval_dataset is not None:
        fit_temperature(trainer)
    if is_lora(trainer.model):
        if trainer.is_world_process_zero():
            save_adapter(trainer.model, Path(arguments.output_dir, "adapter"))
        trainer.model = trainer.model.merge_and_unload()  # the checkpoint itself loads without PEFT
    trainer.save_model()
    trainer.save_state()
    trainer.create_model_card()
    if trainer.is_world_process_zero():
        if skipped:
            Path(arguments.output_dir, "skipped_clips.json").write_text(json.dumps(skipped, indent=2) + "\n")
        clips = f"{len(trainer.train_dataset)} clips" + (f", {len(skipped)} skipped" if skipped else "")
        print(f"Trained on {clips}. The checkpoint is in {os.path.relpath(arguments.output_dir)}", flush=True)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return trainer
