"""The recipe of a run: options from a YAML file and the command line, by group, checked before any clip is read."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from transformers import TrainingArguments
from transformers.utils import logging

from ..command_line.files import read_yaml
from ..command_line.parser import Inherited, OptionParser, RaisingParser, config_of, default_of
from ..command_line.ranges import ranges_of, refuse, refuse_out_of_range
from ..objectives.base import Objective
from ..objectives.registry import OBJECTIVES, objective_named
from ..training.arguments import (
    TRAINER_PATHS,
    TRAINER_RANGES,
    DataArguments,
    GEmoClapTrainingArguments,
    ModelArguments,
    Recipe,
)

logger = logging.get_logger(__name__)
SCRATCH = "compact"  # value of --audio_model that stands for none


def parse_recipe(argv: list[str]) -> Recipe:
    """Read `[--config FILE] [--field value ...]`; the command line takes precedence over the file.

    Args:
        argv: The command line without the program name.

    Returns:
        The options by group.

    Raises:
        ValueError: If the file is missing, is not a mapping or has an unknown field, if an option belongs to another
            objective, or if a value has the wrong type or is out of range.
    """
    objective, parser, values = _read(argv)
    return _checked(objective, Recipe(*parser.groups(values)))


def recipe_of(head: str = ModelArguments().head, **options) -> Recipe:
    """Create a recipe in Python.

    Args:
        head: Name of the objective.
        **options: Options of all groups by name. Other options have their defaults.

    Raises:
        ValueError: If there is no such objective or option, or a value is out of its range.
    """
    objective = objective_named(head)
    groups = (ModelArguments, objective.Options, DataArguments, GEmoClapTrainingArguments)
    if unknown := options.keys() - set().union(*map(option_names, groups)):
        raise ValueError(f"--head {head} has no option {', '.join(sorted(unknown))}")
    refuse_out_of_range(options, ranges_of(*groups) | TRAINER_RANGES)
    refuse(_unsupported(objective, options))
    options["head"] = head
    return _checked(
        objective,
        Recipe(*(group(**{name: options[name] for name in option_names(group) & options.keys()}) for group in groups)),
    )


def _checked(objective: type[Objective], recipe: Recipe) -> Recipe:
    """Return a recipe whose options do not contradict each other."""
    if recipe.model.audio_model == SCRATCH:
        recipe.model.audio_model = None
    objective(recipe).check()
    return recipe


def check_recipe(argv: list[str], source: str) -> None:
    """Check a command line like `parse_recipe`, without initialising devices and processes.

    Args:
        argv: See `parse_recipe`.
        source: Name of the command line in error messages.

    Raises:
        ValueError: See `parse_recipe`.
    """
    try:
        _read(argv)
    except ValueError as error:
        message = str(error).removeprefix(f"{source}: ")  # a file names itself
        raise ValueError(f"{source}: {message}") from None


def _read(argv: list[str]) -> tuple[type[Objective], OptionParser, dict]:
    """Return the objective of a command line, its parser, and the values of all options."""
    objective, ignored = _parse_objective(argv)
    parser = _create_parser(objective)
    values = parser.read(argv, ignored)
    refuse(_unsupported(objective, values))
    return objective, parser, values


def option_names(group: type) -> set[str]:
    """Return the names of the options in a dataclass."""
    return {field.name for field in dataclasses.fields(group)}


def _parse_objective(argv: list[str]) -> tuple[type[Objective], set[str]]:
    """Return the objective, and the fields of the file to ignore.

    If the command line names another objective than the file, the options of the file's objective are ignored.
    """
    parser = RaisingParser(add_help=False, allow_abbrev=False)
    default = ModelArguments().head
    parser.add_argument("--head")
    parser.add_argument("--no-head", "--no_head", dest="head", action="store_const", const=default)
    config = config_of(argv)
    fields = read_yaml(config) if config else {}
    head_of_file = fields.get("head") or default
    if not isinstance(head_of_file, str):
        raise ValueError(f"{config}: head must be the name of one objective")
    head = parser.parse_known_args(argv)[0].head or head_of_file
    objective = objective_named(head)
    ignored = {*fields} & (option_names(objective_named(head_of_file).Options) - option_names(objective.Options))
    if ignored:
        logger.warning(
            f"{config} is for --head {head_of_file}; with --head {head} these fields are ignored: "
            f"{', '.join(sorted(ignored))}"
        )
    return objective, ignored


def _create_parser(objective: type[Objective]) -> OptionParser:
    groups = (ModelArguments, objective.Options, DataArguments, GEmoClapTrainingArguments)
    own_options = set().union(*map(option_names, groups))
    foreign_options = {
        name: f"is an option of --head {other.name} ({other.title}); this run has --head {objective.name} "
        f"({objective.title}): leave it out, or give --head {other.name}"
        for other in reversed(OBJECTIVES.values())  # an option that a subclass inherits is its parent's
        for name in option_names(other.Options) - own_options
    }
    may_be_json = getattr(TrainingArguments, "_VALID_DICT_FIELDS", ())
    names = frozenset(option_names(TrainingArguments))
    inherited = Inherited(names, TRAINER_RANGES, TRAINER_PATHS, may_be_json)
    heads = "\n".join(f"  --head {name:<12} {other.title}" for name, other in OBJECTIVES.items())
    parser = OptionParser(
        groups,
        inherited,
        foreign_options,
        prog=_program(),
        description=f"Train {objective.title}. Every option is also a field of the YAML file.",
        epilog=f"Objectives; for the options of one, run for example {_program()} --head supcon --help\n{heads}\n\n"
        "All fields of transformers.TrainingArguments are options too, such as --learning_rate, --num_train_epochs.\n"
        "--no-FIELD or --FIELD none unsets a field of the file.\n",
    )
    parser.add_argument("--config", help="YAML file with options as fields")
    return parser


def _program() -> str:
    """The name of the script that was started, or of `train.py` if that is not known."""
    name = Path(sys.argv[0]).name
    return name if name.endswith(".py") and name != "__main__.py" else "train.py"


def _unsupported(objective: type[Objective], values: dict) -> list[str]:
    """Return an error for each shared option that is set but not supported by the objective."""
    groups = (ModelArguments, DataArguments, GEmoClapTrainingArguments)
    defaults = {field.name: default_of(field) for group in groups for field in dataclasses.fields(group)}
    return [
        f"--{name} {values[name]}: not supported by {objective.title}, since {reason}; leave it out, or unset a field "
        f"of the file by --no-{name}"
        for name, reason in objective.unsupported.items()
        if values.get(name, defaults[name]) != defaults[name]
    ]
