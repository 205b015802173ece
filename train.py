"""Train GEmo-CLAP, or with `--head classifier` the baseline.

    accelerate launch train.py --config configs/compact.yaml --data_dir corpora/emodb --output_dir runs/sl

Every field of the YAML file can be given on the command line too, and then takes precedence:

    accelerate launch train.py --config configs/compact.yaml --objective ml --num_train_epochs 10
    accelerate launch train.py --config configs/compact.yaml --resume_from_checkpoint true
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from transformers import set_seed

from modeling_gemoclap.corpora.manifest import Corpus, load_corpus
from modeling_gemoclap.evaluation.metrics import war_uar_of_scores
from modeling_gemoclap.training.arguments import (
    DataArguments,
    GEmoClapTrainingArguments,
    ModelArguments,
    parse_arguments,
)
from modeling_gemoclap.training.augmentation import WarpAugmentation
from modeling_gemoclap.training.build import (
    build_classifier,
    build_model_and_processor,
    choose_what_to_train,
    whole_weights,
)
from modeling_gemoclap.training.checkpoints import resume_point
from modeling_gemoclap.training.clips import ClipDataset, read_clips
from modeling_gemoclap.training.collator import AudioCollator, GEmoClapCollator
from modeling_gemoclap.training.gather import finish, refuse_differences, refuse_different_options
from modeling_gemoclap.training.initialisation import centre_projections
from modeling_gemoclap.training.lora import is_lora, save_adapter
from modeling_gemoclap.training.trainer import ClassifierTrainer, GEmoClapTrainer


def select_corpora(data: DataArguments, model: ModelArguments) -> tuple[Corpus, Corpus | None, list[str]]:
    """The training clips, the development clips where speakers for them are named, and the emotions."""
    if not data.data_dir:
        raise ValueError("give --data_dir, a corpus folder with metadata.csv")
    corpus = load_corpus(data.data_dir, data.corpus_name, model.emotions)
    emotions = model.emotions or corpus.emotions
    corpus = corpus.of_emotions(emotions, data.drop_other_emotions)
    held_out = [*(data.exclude_speakers or []), *(data.dev_speakers or [])]
    train = corpus.of_speakers(data.speakers, held_out)
    if len(train.emotions) < 2:
        raise ValueError(
            f"{corpus.name}: the training clips have {train.emotions or 'no emotion'}; two classes are the least"
        )
    return train, corpus.of_speakers(data.dev_speakers) if data.dev_speakers else None, emotions


def refuse_different_clips(train: Corpus, dev: Corpus | None) -> None:
    """Make sure that all processes have the same clips in the same order."""
    refuse_differences(train.sha256_in_order(), f"{train.name}: metadata.csv")
    refuse_differences(dev.sha256_in_order() if dev else "none", f"{train.name}: the development clips")


def build_trainer(
    model_args: ModelArguments, data_args: DataArguments, arguments: GEmoClapTrainingArguments, resumed: bool
):
    """Read the clips, make the model, and put both into a trainer."""
    contrastive = model_args.head == "contrastive"
    trainer_class = GEmoClapTrainer if contrastive else ClassifierTrainer
    trainer_class.check(arguments)
    train, dev, emotions = select_corpora(data_args, model_args)
    refuse_different_clips(train, dev)
    with whole_weights(arguments):
        model, processor = (build_model_and_processor if contrastive else build_classifier)(model_args, emotions)
    extractor, config = getattr(processor, "feature_extractor", processor), model.config
    options = (data_args.on_bad_audio, data_args.feature_cache_dir, data_args.preprocessing_num_workers)
    with arguments.main_process_first(desc="reading audio"):
        train, skipped = read_clips(train, extractor, *options)
        dev, skipped_dev = read_clips(dev, extractor, *options) if dev else (None, [])
    refuse_different_clips(train, dev)  # what one process cannot read is missing there alone
    if len(train.emotions) < 2:
        raise ValueError(f"{train.name}: fewer than two emotions are left after bad clips were skipped")
    config.training_data = [train.training_record()]
    warps = (data_args.time_warp, data_args.mel_warp)
    augmentation = WarpAugmentation(*warps) if any(warps) else None
    options = (data_args.max_seconds, augmentation, arguments.seed, data_args.on_bad_audio)
    dataset = ClipDataset(train, extractor, config, *options)
    hidden = data_args.unknown_gender_prob
    collator = GEmoClapCollator(processor, config, hidden) if contrastive else AudioCollator(extractor)
    if contrastive and model_args.centre_projections and not resumed:
        sample = torch.randperm(len(dataset))[:64].split(4)
        batches = (collator([dataset[index] for index in part.tolist()]) for part in sample)
        centre_projections(model.to(arguments.device), batches, processor.tokenizer)
    model = choose_what_to_train(model, model_args)
    trainer = trainer_class(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=dataset,
        eval_dataset=dev and ClipDataset(dev, extractor, config, on_bad_audio=data_args.on_bad_audio),
        processing_class=processor,
        compute_metrics=war_uar_of_scores,
    )
    return trainer, skipped + skipped_dev


def main(argv: list[str]) -> None:
    """Parse, build, train, save."""
    model_args, data_args, arguments = parse_arguments(argv)
    refuse_different_options({**vars(model_args), **vars(data_args), **arguments.to_dict()})
    checkpoint = resume_point(arguments)
    set_seed(arguments.seed)
    trainer, skipped = build_trainer(model_args, data_args, arguments, resumed=checkpoint is not None)
    trainer.train(resume_from_checkpoint=checkpoint)
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
        print(f"Trained on {clips}. The checkpoint is in {os.path.relpath(arguments.output_dir)}")
    if arguments.push_to_hub:
        trainer.push_to_hub()
    finish(trainer)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("GEMOCLAP_TRACEBACK"):
            raise
        sys.exit(f"train.py: {error}")
