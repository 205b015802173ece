"""A run: one training with its clips, options and folder. Each fold of a protocol is a run in its own folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..corpora.manifest import Corpus
from ..objectives.base import Objective
from ..objectives.registry import objective_named
from ..training.arguments import GEmoClapTrainingArguments, Recipe
from .identity import identity_of


def objective_of(recipe: Recipe) -> Objective:
    """Return the objective of a recipe, with its options."""
    return objective_named(recipe.model.head)(recipe)


@dataclass
class Run:
    """One training.

    Args:
        recipe: The options; `recipe.training.output_dir` is the folder.
        train: Training clips.
        dev: Development clips; None if there are none.
        emotions: Emotion classes; empty if labels are not read.
        run_folder: The open `RunFolder`, which removes an overwritten run once training starts; None in Python use.
    """

    recipe: Recipe
    train: Corpus
    dev: Corpus | None
    emotions: list[str]
    run_folder: Any = None

    @property
    def training(self) -> GEmoClapTrainingArguments:
        """The training arguments."""
        return self.recipe.training

    @property
    def folder(self) -> Path:
        """The folder that the run is written to."""
        return Path(self.training.output_dir)

    @cached_property
    def objective(self) -> Objective:
        """The objective with the options of this run."""
        return objective_of(self.recipe)

    @cached_property
    def identity(self) -> dict:
        """Everything that the weights depend on: code, versions, settings, seeds, recordings, initial weights."""
        return identity_of(self)

    def within(self, folder: Path, train: Corpus, dev: Corpus | None, **training: Any) -> Run:
        """Return the run of a fold: the same options, with other clips and another folder.

        Args:
            folder: Folder of the fold.
            train: Training clips of the fold.
            dev: Development clips of the fold; None if there are none.
            **training: Training arguments that differ, such as `seed`.
        """
        arguments = copy.copy(self.training)  # dataclasses.replace would initialise devices and processes again
        for name, value in {**training, "output_dir": str(folder)}.items():
            setattr(arguments, name, value)
        return replace(self, recipe=replace(self.recipe, training=arguments), train=train, dev=dev)

    def on_training_start(self) -> None:
        """Notify the `RunFolder` that training starts."""
        if self.run_folder is not None:
            self.run_folder.on_training_start()
