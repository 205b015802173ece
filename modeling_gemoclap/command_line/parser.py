"""Parser of options: dataclasses from a YAML file and the command line, which takes precedence."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import json
import os
import re
from collections.abc import Callable, Collection

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from .files import json_object, read_yaml, typed
from .ranges import Range, out_of_range, refuse
from .shipped import shipped_config

OPTION_WIDTH = 25  # width of the column of options in the help
UNSET = ("none", "null", "~")
NONE_IS_VALUE = ("report_to",)  # options of transformers for which `none` is a value


def option(default, help: str, **metadata):
    """A field of a dataclass of options.

    Args:
        default: The default value.
        help: One line of help.
        **metadata: Metadata of `OptionParser` and argparse: `within`, `path`, `as_json`, `choices`, `nargs`.
    """
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.copy(default), metadata={"help": help, **metadata})
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclasses.dataclass(frozen=True)
class Inherited:
    """Metadata of options that a dataclass inherits from a library.

    Args:
        names: All of them; the help does not list them.
        within: Ranges by option.
        paths: Options that are paths, whose `~` is expanded.
        may_be_json: Options that may be JSON objects.
    """

    names: frozenset[str] = frozenset()
    within: dict[str, Range] = dataclasses.field(default_factory=dict)
    paths: tuple[str, ...] = ()
    may_be_json: tuple[str, ...] = ()


class RaisingParser(argparse.ArgumentParser):
    """An argument parser that raises a `ValueError` instead of printing the usage and exiting."""

    def error(self, message: str) -> None:
        """Raise an error.

        Raises:
            ValueError: Always, with the message.
        """
        raise ValueError(" ".join(message.removeprefix("argument ").split()))


class OptionParser(RaisingParser, HfArgumentParser):
    """Parses dataclasses from a YAML file and the command line.

    The metadata of a field may have `within` (a `Range`), `path` (whether it is a file or folder, whose `~` is
    expanded) and `as_json` (whether it is a JSON object). Every field has an option `--no-FIELD`, which sets a switch
    to false and any other field to its default. `--FIELD none` unsets an optional field too.

    `HfArgumentParser.parse_yaml_file` is not used: it reads `01` as 1 and `no` as false, ignores duplicate keys, and
    checks neither types nor ranges.

    Args:
        groups: The dataclasses. The first line of a docstring is the title of a group in the help.
        inherited: Metadata of inherited fields.
        foreign_options: Options of other objectives by name; the value completes the message `--NAME ...`.
        **kwargs: As for `argparse.ArgumentParser`.
    """

    def __init__(
        self, groups, inherited: Inherited = Inherited(), foreign_options: dict[str, str] | None = None, **kwargs
    ):
        self.within, self.paths = dict(inherited.within), set(inherited.paths)
        self.as_json, self.may_be_json, self.optional = set(), set(inherited.may_be_json), set()
        self.foreign_options, self.inherited = foreign_options or {}, set(inherited.names)
        super().__init__(groups, allow_abbrev=False, **kwargs)

    def format_help(self) -> str:
        """The help: one line for each option, by group. Options inherited from a library are not listed."""
        lines = [f"usage: {self.prog} --config FILE [--FIELD VALUE ...]", "", self.description or ""]
        for group in self.dataclass_types:
            lines += ["", (group.__doc__ or group.__name__).partition("\n")[0]]
            options = [field for field in dataclasses.fields(group) if field.name not in self.inherited]
            lines += [f"  --{field.name:<{OPTION_WIDTH}}  {_help_text(field)}" for field in options]
        return "\n".join([*lines, "", self.epilog or ""])

    def add_argument(self, *flags: str, within: Range | None = None, path=False, as_json=False, **kwargs):
        """As `ArgumentParser.add_argument`, with metadata of a field, and `--no-FIELD` for options with a type."""
        name = flags[0].removeprefix("--")
        if kwargs.get("action") == "store_false" and name.startswith("no_"):
            return None  # HfArgumentParser adds it for some switches; below it is added for all
        if within is not None:
            self.within[name] = within
        self.paths |= {name} if path else set()
        self.as_json |= {name} if as_json else set()
        default, convert = kwargs.get("default"), kwargs.get("type")
        if convert is None:
            return super().add_argument(*flags, **kwargs)
        if default is None and name not in NONE_IS_VALUE:
            self.optional.add(name)
            if not (kwargs.get("nargs") and convert is str):  # in a list of words, `none` may be a name
                kwargs["type"] = _or_none(convert)
            if "choices" in kwargs:
                kwargs["choices"] = [*kwargs["choices"], None]
        action = super().add_argument(*flags, **kwargs)
        unset = sorted({f"--no-{name}", f"--no_{name}", f"--no-{name.replace('_', '-')}"})
        constant = False if convert is string_to_bool else default
        options = {"dest": name, "action": "store_const", "const": constant, "default": argparse.SUPPRESS}
        super().add_argument(*unset, help=argparse.SUPPRESS, **options)
        return action

    def read(self, argv: list[str], ignored: Collection[str] = ()) -> dict:
        """Read `[--config FILE] [--field value ...]`.

        Args:
            argv: The command line without the program name.
            ignored: Fields of the file to ignore.

        Returns:
            The values of all fields of the dataclasses by name.

        Raises:
            ValueError: If the file cannot be read, or an option is unknown or has a wrong value.
        """
        config = config_of(argv)
        words = self._file_words(config, ignored) if config else []
        try:
            self._namespace(words)
        except ValueError as error:
            raise ValueError(f"{config}: {error}") from None
        values = vars(self._namespace([*words, *argv]))
        for name in self.paths:
            values[name] = expanded(values.get(name))
        refuse(self._problems(values))
        return values

    def groups(self, values: dict) -> tuple:
        """Create the dataclasses from the values that `read` returned."""
        return tuple(
            group(**{field.name: values[field.name] for field in dataclasses.fields(group) if field.init})
            for group in self.dataclass_types
        )

    def _fields(self) -> list[str]:
        return [field.name for group in self.dataclass_types for field in dataclasses.fields(group)]

    def _file_words(self, path: str, ignored: Collection[str]) -> list[str]:
        """The fields of the file as options, so that they are parsed and checked as the command line is."""
        words, known = [], self._fields()
        for name, value in read_yaml(path).items():
            if name in ignored:
                continue
            if name in self.foreign_options and name not in known:
                raise ValueError(f"{path}: {name} {self.foreign_options[name]}")
            if name not in known:
                raise ValueError(f"{path}: no field {name!r}{near_name(name, [*known, *self.foreign_options])}")
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise ValueError(f"{path}: {name} must be a list of plain values, without lists, mappings or null")
            try:
                words += words_of(name, value)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        return words

    def _namespace(self, words: list[str]) -> argparse.Namespace:
        namespace, unknown = self.parse_known_args(words)
        if unknown:
            word = unknown[0].partition("=")[0]
            name = re.sub("^no_", "", word.lstrip("-").replace("-", "_"))
            if word[:1] == "-" and name in self.foreign_options:
                raise ValueError(f"--{name} {self.foreign_options[name]}")
            near = near_name(word.lstrip("-").replace("-", "_"), self._fields(), "--")
            raise ValueError(f"no option {word}{near}" if word[:1] == "-" else f"unexpected {unknown[0]!r}")
        for name, value in vars(namespace).items():
            if isinstance(value, list) and len(value) == 1 and name in self.optional and value[0] in (None, *UNSET):
                setattr(namespace, name, None)
            elif isinstance(value, list) and None in value:
                raise ValueError(f"--{name}: none cannot be combined with other values")
        return namespace

    def _problems(self, values: dict) -> list[str]:
        """Messages for values that are out of range or invalid JSON."""
        problems = out_of_range(values, self.within, "--")
        for name in sorted(self.as_json | self.may_be_json):
            value = values.get(name)
            if isinstance(value, str) and (name in self.as_json or value.lstrip()[:1] == "{"):
                try:
                    json_object(value, f"--{name}")
                except ValueError as error:
                    problems.append(str(error))
        return problems


def config_of(argv: list[str]) -> str | None:
    """The path of `--config` on a command line, or None.

    Raises:
        ValueError: If neither such a file nor such a configuration of the package exists.
    """
    parser = RaisingParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    path = expanded(parser.parse_known_args(argv)[0].config)
    return shipped_config(path) if path else None


def default_of(field: dataclasses.Field) -> object:
    """The default of a field of a dataclass; None if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _help_text(field: dataclasses.Field) -> str:
    default = default_of(field)
    text = str(default).lower() if default is None or isinstance(default, bool) else default
    text = f"{text:.4g}" if isinstance(text, float) else text
    choices = field.metadata.get("choices")
    listing = f" ({', '.join(choices)})" if choices else ""
    return f"{field.metadata['help']}{listing}" + (f" [{text}]" if not isinstance(text, list) else "")


def words_of(name: str, value) -> list[str]:
    """Convert a field of `read_yaml` to words of a command line.

    Args:
        name: The field.
        value: Text, a list of texts, a mapping, or None, which gives no words.

    Raises:
        ValueError: If an item of a list would be parsed as an option.
    """
    if value is None:
        return []
    if isinstance(value, list):
        if options := [item for item in value if isinstance(item, str) and item.startswith("--")]:
            raise ValueError(
                f"{name}: the item {options[0]!r} would be parsed as an option; items cannot begin with --"
            )
        return [f"--{name}", *value]
    return [f"--{name}={json.dumps(typed(value)) if isinstance(value, dict) else value}"]


def number(convert: Callable[[str], float], allowed: Range) -> Callable[[str], float]:
    """Create a `type` for `argparse` that checks a range.

    Args:
        convert: `int` or `float`.
        allowed: The range.
    """

    def read(text: str) -> float:
        value = convert(text)
        if value not in allowed:
            raise argparse.ArgumentTypeError(f"{text} must be {allowed}")
        return value

    read.__name__ = convert.__name__
    return read


def switch(text: str) -> bool:
    """The value of `--option true` or `--option false`, as in train.py.

    Raises:
        ValueError: If `text` is neither `true` nor `false`.
    """
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def expanded(value):
    """Replace `~` by the home folder in a path or a list of paths. Other values are returned unchanged."""
    if isinstance(value, list):
        return [expanded(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _or_none(convert: Callable) -> Callable:
    """A `type` for `argparse` that also accepts `none`."""

    def read(text):
        return None if isinstance(text, str) and text.lower() in UNSET else convert(text)

    read.__name__ = getattr(convert, "__name__", "value")
    return read


def near_name(name: str, known: list[str], prefix: str = "") -> str:
    """Suggest the known name that is most similar to an unknown name.

    Args:
        name: The unknown name.
        known: The known names.
        prefix: Prefix of names in the question: `--` for options.

    Returns:
        A question for the end of a message, or "" if no name is similar.
    """
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{matches[0]}?" if matches else ""
