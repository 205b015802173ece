"""Training from the command line: `train.py`."""

from __future__ import annotations

from dataclasses import replace

from ..command_line.library_output import without_library_noise
from ..training.arguments import Recipe
from ..training.gather import finish, refuse_different_options
from .folder import RunFolder, begin_run, resume_point
from .preflight import check_environment, refuse_missing_encoders
from .protocol import train_protocol
from .recipe import parse_recipe
from .run import Run, objective_of
from .selection import select_corpus, split, with_selection
from .train_run import train_run
from .training_clips import store_training_clips


@without_library_noise()
def main(argv: list[str]) -> None:
    """Parse the options, train, and save.

    Args:
        argv: The command line without the program name.
    """
    recipe = parse_recipe(argv)
    options, weight_options = recipe.to_dict(), objective_of(recipe).weight_options
    refuse_missing_encoders({name: options[name] for name in ("audio_model", *weight_options)})
    check_environment(recipe.data, recipe.training)
    refuse_different_options(options, weight_options)
    if recipe.data.protocol or recipe.data.folds_file:
        if recipe.training.push_to_hub:
            raise ValueError(
                "--push_to_hub true: a protocol has a model for each fold, which would replace one another on the "
                "Hub; leave it out, and push one checkpoint with gemoclap push"
            )
        return train_protocol(recipe)
    if recipe.data.folds is not None or recipe.data.seeds:
        raise ValueError("--folds and --seeds need a protocol: give --protocol, or --seed")
    with RunFolder(recipe.training) as folder:
        checkpoint = resume_point(recipe.training)
        run = folder.begin(plain_run(recipe), lambda run: begin_run(run, checkpoint))
        trainer = train_run(run, checkpoint, store_training_clips)
    finish(trainer)


def plain_run(recipe: Recipe) -> Run:
    """Return the run of a recipe without a protocol.

    Raises:
        ValueError: If the clips do not suffice, or if options for speakers contradict each other.
    """
    recipe = replace(recipe, training=with_selection(recipe.training, recipe.data))
    reads_emotions = objective_of(recipe).reads_emotions
    corpus, emotions = select_corpus(recipe, reads_emotions)
    train, dev = split(corpus, recipe.data, recipe.training.seed, reads_emotions)
    return Run(recipe, train, dev, emotions)
