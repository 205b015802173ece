"""A trainer from arguments and clips: model, data, collator."""

from __future__ import annotations

import hashlib

import torch
from transformers.utils import logging

from ..corpora.manifest import Corpus
from ..feature_extraction_gemoclap import GEmoClapFeatureExtractor
from ..speakers.clusters import cluster_within_speakers
from ..speakers.embeddings import speaker_embeddings
from .arguments import DataArguments, ModelArguments
from .augmentation import Augmentation
from .base_trainer import SpeechTrainer
from .build import build_audio_model, build_model_and_processor, choose_what_to_train, whole_weights
from .clips import ClipDataset, read_clips
from .collator import AudioCollator, GEmoClapCollator
from .frozen import collate_frames, frames_folder, frozen_frames
from .gather import refuse_differences
from .identity import Run
from .initialisation import centre_projections, learn_prompts
from .speaker_trainer import SpeakerClips, SpeakerCollator, SpeakerPretraining, SpeakerTrainer
from .start import heard_before
from .supcon_trainer import SupConTrainer
from .trainer import ClassifierTrainer, GEmoClapTrainer
from .trainer_options import refuse_evaluation

logger = logging.get_logger(__name__)
TRAINERS = {"contrastive": GEmoClapTrainer, "classifier": ClassifierTrainer}
TRAINERS |= {"supcon": SupConTrainer, "speaker": SpeakerTrainer}
OF_HEAD = {
    "supcon": ("temperature", "alpha", "margin", "negatives"),
    "speaker": ("task", "weight", "temperature", "group_size"),
}
AUGMENTATIONS = ("time_warp", "mel_warp", "equalizer_db", "noise_prob", "reverb_prob", "mix_prob")


def build_trainer(run: Run, resumed: bool) -> tuple[SpeechTrainer, list[str]]:
    """Read the clips, make the model, and put both into a trainer.

    Args:
        run: The run.
        resumed: Whether the weights will come from a checkpoint.

    Returns:
        The trainer, and what is wrong with each clip that was skipped.

    Raises:
        ValueError: If options do not go together, or the clips do not suffice.
    """
    model_args, data_args, arguments = run.model, run.data, run.arguments
    contrastive = model_args.head == "contrastive"
    trainer_class = TRAINERS[model_args.head]
    trainer_class.check(arguments)
    refuse_what_is_not_for_it(run)
    _refuse_different_clips(*run.parts)
    with whole_weights(arguments):
        build = build_model_and_processor if contrastive else build_audio_model
        model, processor = build(model_args, run.emotions)
    extractor, config = getattr(processor, "feature_extractor", processor), model.config
    train, dev, skipped = _read(run.parts, extractor, data_args, arguments)
    labels = {}
    if model_args.head == "speaker":
        train, labels, errors = _cluster(train, model_args, data_args, arguments)
        skipped += errors
    if heard := heard_before(model_args, dev):
        logger.warning(f"development clips{heard}: what is chosen or calibrated on them is too favourable")
    augmentation = augmentation_of(data_args, extractor)
    options = (data_args.max_seconds, augmentation, arguments.seed, data_args.on_bad_audio)
    dataset = (SpeakerClips if labels else ClipDataset)(train, extractor, config, *options, **labels)
    held_out = dev and ClipDataset(dev, extractor, config, on_bad_audio=data_args.on_bad_audio)
    collator = AudioCollator(extractor)
    if contrastive:
        collator = GEmoClapCollator(processor, config, data_args.unknown_gender_prob)
        if not resumed:
            _prepare(model.to(arguments.device), dataset, collator, model_args, arguments.seed)
    model = choose_what_to_train(model, model_args)
    if arguments.cache_frozen_frames:
        model, collator = model.to(arguments.device), collate_frames
        with arguments.main_process_first(desc="encoding audio"):
            dataset, held_out = (
                clips and frozen_frames(model, corpus, clips, extractor, frames_folder(arguments))
                for corpus, clips in ((train, dataset), (dev, held_out))
            )
    more = {name: getattr(model_args, f"{model_args.head}_{name}") for name in OF_HEAD.get(model_args.head, ())}
    if model_args.head == "speaker":
        classified = len(train.speakers) if model_args.speaker_task != "contrastive" else 0
        model, collator = SpeakerPretraining(model, classified), SpeakerCollator(extractor)
    if model_args.head == "supcon":
        names = [part.name for part, _ in train.by_part()], config.emotions
        more |= {"corpora": train.part_numbers(), "names": names}
    data = {"data_collator": collator, "train_dataset": dataset, "eval_dataset": held_out}
    more |= {"processing_class": processor, "compute_metrics": run.compute_metrics}
    trainer = trainer_class(model=model, args=arguments, **data, **more)
    trainer.run_identity = run.identity
    return trainer, skipped


def augmentation_of(data: DataArguments, extractor: GEmoClapFeatureExtractor) -> Augmentation | None:
    """What is changed in training clips, or None."""
    features = {name: getattr(extractor, name) for name in ("log_mel_mean", "log_mel_std", "hop_seconds")}
    features |= {name: getattr(data, name) for name in (*AUGMENTATIONS, "noise_snr_db")}
    return Augmentation(**features) or None


def refuse_what_is_not_for_it(run: Run) -> None:
    """Make sure that what is asked for can be had of this head, and of frozen frames.

    Args:
        run: The run.

    Raises:
        ValueError: If not; it says what to leave out.
    """
    model, data, arguments = run.model, run.data, run.arguments
    train, dev = run.parts
    refuse_evaluation(arguments, dev is not None)
    if model.head in ("supcon", "speaker") and (dev or data.calibration_folds):
        raise ValueError(
            f"head {model.head} names no emotion, so there is nothing to develop on or to calibrate: leave out "
            "--num_dev_speakers, --dev_speakers, --select and --calibration_folds"
        )
    if train.shards and (model.head in ("supcon", "speaker") or arguments.cache_frozen_frames):
        raise ValueError(
            f"{train.name}: shards are read in their order, which heads supcon and speaker and --cache_frozen_frames "
            f"do not: give the recordings"
        )
    if model.head == "speaker" and (data.mix_prob or data.label_fraction < 1):
        raise ValueError(
            "head speaker tells voices apart and reads no labels: leave out --mix_prob, which lays another voice "
            "under a clip, and --label_fraction"
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


def _refuse_different_clips(train: Corpus, dev: Corpus | None) -> None:
    """Make sure that all processes have the same clips in the same order."""
    refuse_differences(train.sha256_in_order(), f"{train.name}: metadata.csv")
    refuse_differences(dev.sha256_in_order() if dev else "none", f"{train.name}: the development clips")


def _read(parts, extractor, data: DataArguments, arguments) -> tuple[Corpus, Corpus | None, list[str]]:
    """The clips that can be used, and what is wrong with the others; the extractor is told of mixed levels."""
    train, dev = parts
    if train.parts and not extractor.do_normalize:
        logger.warning("corpora of different levels are mixed: each clip is brought to unit variance (do_normalize)")
        extractor.do_normalize = True
    options = (data.on_bad_audio, data.feature_cache_dir, data.preprocessing_num_workers)
    with arguments.main_process_first(desc="reading audio"):
        train, skipped = read_clips(train, extractor, *options)
        dev, skipped_dev = read_clips(dev, extractor, *options) if dev else (None, [])
    _refuse_different_clips(train, dev)  # what one process cannot read is missing there alone
    if parts[0].emotions and len(train.emotions) < 2:
        raise ValueError(f"{train.name}: fewer than two emotions are left after bad clips were skipped")
    return train, dev, skipped + skipped_dev


def _cluster(train: Corpus, model: ModelArguments, data: DataArguments, arguments) -> tuple[Corpus, dict, list[str]]:
    """The clips that have a speaker embedding, numbers of speaker and cluster, and what is wrong with other clips."""
    options = (model.speaker_embeddings, data.on_bad_audio, data.feature_cache_dir, str(arguments.device))
    with arguments.main_process_first(desc="speaker embeddings"):
        train, embeddings, errors = speaker_embeddings(train, *options)
    speakers = train.column("speaker_id").to_pylist()
    found = cluster_within_speakers(embeddings, speakers, model.speaker_clusters, arguments.seed)
    for note in [*found.notes, *errors]:
        logger.warning(f"{train.name}: {note}")
    refuse_differences(hashlib.sha256(found.labels.tobytes()).hexdigest(), f"{train.name}: the clusters")
    numbers = {speaker: number for number, speaker in enumerate(train.speakers)}
    labels = {"speakers": [numbers[speaker] for speaker in speakers], "clusters": found.labels.tolist()}
    return train, labels, errors


def _prepare(model, dataset: ClipDataset, collator: GEmoClapCollator, options: ModelArguments, seed: int) -> None:
    """The start of a contrastive training: centred projections, and words that are learnt first."""
    if options.centre_projections:
        sample = torch.randperm(len(dataset))[:64].split(4)
        batches = (collator([dataset[index] for index in part.tolist()]) for part in sample)
        centre_projections(model, batches, collator.processor.tokenizer)
    if options.prompt_steps:
        learn_prompts(model, collator, options.prompt_steps, seed)
