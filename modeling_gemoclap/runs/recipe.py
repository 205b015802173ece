"""The recipe of a run: options from a YAML file and the command line, by group, checked before anything is read."""

from __future__ import annotations

import dataclasses

from transformers import TrainingArguments
from transformers.utils import logging

from ..command_line.files import read_yaml
from ..command_line.parser import Inherited, OneSentence, OptionParser, config_of
from ..command_line.ranges import refuse
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
SCRATCH = "compact"  # a value of --audio_model: as if it were not given


def parse_recipe(argv: list[str]) -> Recipe:
    """Read `[--config FILE] [--field value ...]`; the command line takes precedence over the file.

    Args:
        argv: The command line without the program's name.

    Returns:
        The options by group.

    Raises:
        ValueError: If the file is missing, is not a mapping or has an unknown field, an option belongs to another
            objective, or a value has the wrong type or is out of its range.
    """
    objective, left_out = _objective_of(argv)
    recipe = Recipe(*_parser(objective).read(argv, left_out))
    if recipe.model.audio_model == SCRATCH:
        recipe.model.audio_model = None
    refuse(_unsupported(objective, recipe))
    return recipe


def recipe_of(head: str = ModelArguments().head, **options) -> Recipe:
    """A recipe from Python.

    Args:
        head: The objective.
        **options: Options of all groups by name; those that are left out have their defaults.

    Raises:
        ValueError: If there is no such objective or option.
    """
    objective = objective_named(head)
    groups = []
    for group in (ModelArguments, objective.Options, DataArguments, GEmoClapTrainingArguments):
        groups.append(group(**{name: options.pop(name) for name in option_names(group) & options.keys()}))
    if options:
        raise ValueError(f"--head {head} has no option {', '.join(options)}")
    groups[0].head = head
    return Recipe(*groups)


def check_recipe(argv: list[str], source: str) -> None:
    """As `parse_recipe`, without setting up devices and processes as a training does.

    Args:
        argv: See `parse_recipe`.
        source: What the command line belongs to, for the error.

    Raises:
        ValueError: See `parse_recipe`.
    """
    try:
        objective, left_out = _objective_of(argv)
        _parser(objective).values(argv, left_out)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def option_names(group: type) -> set[str]:
    """The names of the options in a dataclass."""
    return {field.name for field in dataclasses.fields(group)}


def _objective_of(argv: list[str]) -> tuple[type[Objective], set[str]]:
    """The objective, and the fields of the file that are left out.

    If the command line names another objective than the file does, the options of the file's objective have no
    meaning, and are left out.
    """
    parser = OneSentence(add_help=False, allow_abbrev=False)
    parser.add_argument("--head")
    config = config_of(argv)
    fields = read_yaml(config) if config else {}
    default = ModelArguments().head
    in_file = fields.get("head") or default
    head = parser.parse_known_args(argv)[0].head or in_file
    objective = objective_named(head)
    if head == in_file or in_file not in OBJECTIVES:
        return objective, set()
    left_out = {*fields} & (option_names(OBJECTIVES[in_file].Options) - option_names(objective.Options))
    if left_out:
        logger.warning(
            f"{config} is for --head {in_file}; with --head {head} these fields are left out: "
            f"{', '.join(sorted(left_out))}"
        )
    return objective, left_out


def _parser(objective: type[Objective]) -> OptionParser:
    groups = (ModelArguments, objective.Options, DataArguments, GEmoClapTrainingArguments)
    here = set().union(*map(option_names, groups))
    elsewhere = {
        name: f"is an option of --head {other.name} ({other.title}); this run has --head {objective.name} "
        f"({objective.title}): leave it out, or give --head {other.name}"
        for other in OBJECTIVES.values()
        for name in option_names(other.Options) - here
    }
    inherited = Inherited(TRAINER_RANGES, TRAINER_PATHS, getattr(TrainingArguments, "_VALID_DICT_FIELDS", ()))
    heads = "\n".join(f"  --head {name:<12} {other.title}" for name, other in OBJECTIVES.items())
    parser = OptionParser(
        groups,
        inherited,
        elsewhere,
        prog="train.py",
        description=f"Train {objective.title}. Every option is also a field of the YAML file.",
        epilog=f"Objectives; each has options of its own, as train.py --head supcon --help\n{heads}\n\n"
        "All fields of transformers.TrainingArguments are options too, as --learning_rate and --num_train_epochs.\n"
        "--no-FIELD or --FIELD none unsets a field of the file.\n",
    )
    parser.add_argument("--config", help="YAML file; its fields are the options")
    return parser


def _unsupported(objective: type[Objective], recipe: Recipe) -> list[str]:
    """What is wrong with shared options that the objective does not support."""
    found = []
    groups = (recipe.model, recipe.data, recipe.training)
    for name, reason in objective.unsupported.items():
        group = next(group for group in groups if name in option_names(type(group)))
        default = next(field.default for field in dataclasses.fields(group) if field.name == name)
        value = getattr(group, name)
        if value != default:
            found.append(f"--{name} {value}: not for {objective.title}, since {reason}; leave it out")
    return found
