"""Train a model: parse, build, train, save."""

from __future__ import annotations


def main(argv: list[str]) -> None:
    """Train a model, or every fold of a protocol.

    Args:
        argv: The command line without the program's name.
    """
    from ..evaluation.metrics import war_uar_of_scores
    from ..training.arguments import parse_arguments
    from ..training.checkpoints import resume_point
    from ..training.gather import finish, refuse_different_options
    from ..training.identity import Run
    from ..training.protocol_runs import train_protocol
    from ..training.run import choosing_on_dev, select_corpus, split, train_and_save
    from ..training.run_folder import RunFolder, begin_run
    from ..training.tried_first import try_first

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
