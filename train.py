"""Train GEmo-CLAP, or with `--head classifier` the baseline.

    accelerate launch train.py --config configs/compact.yaml --data_dir corpora/emodb --output_dir runs/sl

Every field of the YAML file can be given on the command line too, and then takes precedence:

    accelerate launch train.py --config configs/compact.yaml --objective ml --num_train_epochs 10
    accelerate launch train.py --config configs/compact.yaml --resume_from_checkpoint true

With a protocol it trains every fold, into RUN/fold_k/seed_s; started again, it goes on where it was:

    accelerate launch train.py --config configs/compact.yaml --protocol 5-folds-by-speaker --seeds 0 1 2 ...
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> None:
    """Parse, build, train, save."""
    from modeling_gemoclap.evaluation.metrics import war_uar_of_scores
    from modeling_gemoclap.training.arguments import parse_arguments
    from modeling_gemoclap.training.checkpoints import resume_point
    from modeling_gemoclap.training.gather import finish, refuse_different_options
    from modeling_gemoclap.training.identity import Run
    from modeling_gemoclap.training.protocol_runs import train_protocol
    from modeling_gemoclap.training.run import choosing_on_dev, select_corpus, split, train_and_save
    from modeling_gemoclap.training.run_folder import RunFolder, begin_run
    from modeling_gemoclap.training.tried_first import try_first

    model_args, data_args, arguments = parse_arguments(argv)
    try_first(data_args, arguments)
    refuse_different_options({**vars(model_args), **vars(data_args), **arguments.to_dict()})
    if data_args.protocol or data_args.folds_file:
        return train_protocol(model_args, data_args, arguments, war_uar_of_scores)
    if data_args.folds is not None or data_args.seeds:
        raise ValueError("--folds and --seeds are for a protocol: give --protocol, or --seed")
    checkpoint = resume_point(arguments)
    arguments = choosing_on_dev(arguments, data_args)
    corpus, emotions = select_corpus(data_args, model_args)
    parts = split(corpus, data_args, arguments.seed, labelled=model_args.head != "speaker")
    run = Run(parts, emotions, model_args, data_args, arguments, war_uar_of_scores)
    with RunFolder(arguments, lambda: begin_run(run, checkpoint)) as folder:
        trainer = train_and_save(run, checkpoint, folder.training_begins)
    finish(trainer)


if __name__ == "__main__":
    try:  # the libraries take seconds to import
        from modeling_gemoclap.command_line.failures import run_main
    except KeyboardInterrupt:
        print("train.py: interrupted before it began", file=sys.stderr)
        sys.exit(130)
    run_main("train.py", main)
