"""Options from dataclasses, read from a YAML file and the command line, which takes precedence."""

from __future__ import annotations

import argparse
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

LONGEST = 25  # letters of an option in the help
UNSET = ("none", "null", "~")
MEANS_NONE = ("report_to",)  # options of transformers to which `none` is a value


def option(default, help: str, **metadata):
    """A field of a dataclass of options.

    Args:
        default: Its default.
        help: One line of help.
        **metadata: What `OptionParser` and argparse know: `within`, `path`, `as_json`, `choices`, `nargs`.
    """
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: default, metadata={"help": help, **metadata})
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclasses.dataclass(frozen=True)
class Inherited:
    """What a parser knows of the options that a dataclass inherits from a library.

    Args:
        within: Ranges.
        paths: Those that are paths, whose `~` is expanded.
        may_be_json: Those that may be JSON objects.
    """

    within: dict[str, Range] = dataclasses.field(default_factory=dict)
    paths: tuple[str, ...] = ()
    may_be_json: tuple[str, ...] = ()


class OneSentence(argparse.ArgumentParser):
    """A parser whose errors are `ValueError`s, without the usage of all options before them."""

    def error(self, message: str) -> None:
        """Raise instead of ending the program.

        Raises:
            ValueError: Always.
        """
        raise ValueError(message.removeprefix("argument "))


class OptionParser(OneSentence, HfArgumentParser):
    """Reads dataclasses from a YAML file and the command line.

    The metadata of a field may have `within` (a `Range`), `path` (whether it names a file or folder, whose `~` is
    expanded) and `as_json` (whether it is a JSON object). For every field there is `--no-FIELD`: false for a switch,
    otherwise the default; an optional field is also unset by `--FIELD none`.

    `HfArgumentParser.parse_yaml_file` is not used: it reads `01` as 1 and `no` as false, drops a key that is given
    twice, and checks neither types nor ranges.

    Args:
        groups: The dataclasses; the first line of the docstring is the title of a group in the help.
        inherited: What is known of the fields that a dataclass inherits.
        elsewhere: Options that this parser does not know, each with the reason; an error gives it.
        **kwargs: As for `argparse.ArgumentParser`.
    """

    def __init__(self, groups, inherited: Inherited = Inherited(), elsewhere: dict[str, str] | None = None, **kwargs):
        self.within, self.paths = dict(inherited.within), set(inherited.paths)
        self.as_json, self.may_be_json, self.optional = set(), set(inherited.may_be_json), set()
        self.elsewhere = elsewhere or {}
        super().__init__(groups, allow_abbrev=False, **kwargs)

    def format_help(self) -> str:
        """One line for each option, by group; of inherited options nothing but that they exist."""
        lines = [f"usage: {self.prog} --config FILE [--FIELD VALUE ...]", "", self.description or ""]
        for group in self.dataclass_types:
            lines += ["", (group.__doc__ or group.__name__).partition("\n")[0]]
            options = [field for field in dataclasses.fields(group) if field.name in vars(group)["__annotations__"]]
            lines += [f"  --{field.name:<{LONGEST}}  {_help_of(field)}" for field in options]
        return "\n".join([*lines, "", self.epilog or ""])

    def add_argument(self, *flags: str, within: Range | None = None, path=False, as_json=False, **kwargs):
        """As argparse's, with this parser's metadata, and with `--no-FIELD` for every option that has a type."""
        name = flags[0].removeprefix("--")
        if kwargs.get("action") == "store_false" and name.startswith("no_"):
            return None  # HfArgumentParser's own for some switches: all of them have one below
        if within is not None:
            self.within[name] = within
        self.paths |= {name} if path else set()
        self.as_json |= {name} if as_json else set()
        default, convert = kwargs.get("default"), kwargs.get("type")
        if convert is None:
            return super().add_argument(*flags, **kwargs)
        if default is None and name not in MEANS_NONE:
            self.optional.add(name)
            if not (kwargs.get("nargs") and convert is str):  # several words may have `none` among them, as a name
                kwargs["type"] = _or_none(convert)
            if "choices" in kwargs:
                kwargs["choices"] = [*kwargs["choices"], None]
        action = super().add_argument(*flags, **kwargs)
        unset = sorted({f"--no-{name}", f"--no_{name}", f"--no-{name.replace('_', '-')}"})
        constant = False if convert is string_to_bool else default
        options = {"dest": name, "action": "store_const", "const": constant, "default": argparse.SUPPRESS}
        super().add_argument(*unset, help=argparse.SUPPRESS, **options)
        return action

    def read(self, argv: list[str], left_out: Collection[str] = ()) -> tuple:
        """Read `[--config FILE] [--field value ...]`.

        Args:
            argv: The command line without the program's name.
            left_out: Fields of the file that are not read.

        Returns:
            The dataclasses.

        Raises:
            ValueError: If the file or an option cannot be read, is not known, or has a value that it may not have.
        """
        values, groups = self.values(argv, left_out), []
        for group in self.dataclass_types:
            names = [field.name for field in dataclasses.fields(group) if field.init]
            groups.append(group(**{name: values[name] for name in names}))
        return tuple(groups)

    def values(self, argv: list[str], left_out: Collection[str] = ()) -> dict:
        """As `read`, for all fields together and without making the dataclasses."""
        config = config_of(argv)
        words = self._words_of(config, left_out) if config else []
        try:
            self._namespace(words)
        except ValueError as error:
            raise ValueError(f"{config}: {error}") from None
        values = vars(self._namespace([*words, *argv]))
        for name in self.paths:
            values[name] = expanded(values.get(name))
        refuse(self._what_is_wrong(values))
        return values

    def _fields(self) -> list[str]:
        return [field.name for group in self.dataclass_types for field in dataclasses.fields(group)]

    def _words_of(self, path: str, left_out: Collection[str]) -> list[str]:
        """The file's fields as options, so that file and command line are checked by the same parser."""
        words, known = [], self._fields()
        for name, value in read_yaml(path).items():
            if name in left_out:
                continue
            if name in self.elsewhere and name not in known:
                raise ValueError(f"{path}: {name} {self.elsewhere[name]}")
            if name not in known:
                raise ValueError(f"{path}: no field {name!r}{near_name(name, [*known, *self.elsewhere])}")
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise ValueError(f"{path}: {name} must be a list of plain values, not of lists, mappings or nothing")
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
            if word[:1] == "-" and name in self.elsewhere:
                raise ValueError(f"--{name} {self.elsewhere[name]}")
            near = near_name(word.lstrip("-").replace("-", "_"), self._fields(), "--")
            raise ValueError(f"no option {word}{near}" if word[:1] == "-" else f"unexpected {unknown[0]!r}")
        for name, value in vars(namespace).items():
            if isinstance(value, list) and len(value) == 1 and name in self.optional and value[0] in (None, *UNSET):
                setattr(namespace, name, None)
            elif isinstance(value, list) and None in value:
                raise ValueError(f"--{name}: none stands alone, to unset it")
        return namespace

    def _what_is_wrong(self, values: dict) -> list[str]:
        found = out_of_range(values, self.within, "--")
        for name in sorted(self.as_json | self.may_be_json):
            value = values.get(name)
            if isinstance(value, str) and (name in self.as_json or value.lstrip()[:1] == "{"):
                try:
                    json_object(value, f"--{name}")
                except ValueError as error:
                    found.append(str(error))
        return found


def config_of(argv: list[str]) -> str | None:
    """The file of `--config` on a command line; None without one.

    Raises:
        ValueError: If there is no such file, neither here nor among the shipped ones.
    """
    parser = OneSentence(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    path = expanded(parser.parse_known_args(argv)[0].config)
    return shipped_config(path) if path else None


def _help_of(field: dataclasses.Field) -> str:
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    shown = str(default).lower() if default is None or isinstance(default, bool) else default
    shown = f"{shown:.4g}" if isinstance(shown, float) else shown
    choices = field.metadata.get("choices")
    more = f" ({', '.join(choices)})" if choices else ""
    return f"{field.metadata['help']}{more}" + (f" [{shown}]" if not isinstance(shown, list) else "")


def words_of(name: str, value) -> list[str]:
    """A field of `read_yaml` as words of a command line.

    Args:
        name: The field.
        value: Text, a list of texts, a mapping, or None, which is left out.

    Raises:
        ValueError: If an item of a list would be read as an option.
    """
    if value is None:
        return []
    if isinstance(value, list):
        if options := [item for item in value if isinstance(item, str) and item.startswith("--")]:
            raise ValueError(f"{name}: the item {options[0]!r} would be read as an option; items cannot begin with --")
        return [f"--{name}", *value]
    return [f"--{name}={json.dumps(typed(value)) if isinstance(value, dict) else value}"]


def number(convert: Callable[[str], float], allowed: Range) -> Callable[[str], float]:
    """A `type` for `argparse` that checks a range.

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


def expanded(value):
    """A path, or a list of paths, with the home folder in place of `~`; anything else as it is."""
    if isinstance(value, list):
        return [expanded(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _or_none(convert: Callable) -> Callable:
    def read(text):
        return None if isinstance(text, str) and text.lower() in UNSET else convert(text)

    read.__name__ = getattr(convert, "__name__", "value")
    return read


def near_name(name: str, known: list[str], prefix: str = "") -> str:
    """A question after the known name that is nearest to an unknown one, or "" if none is near.

    Args:
        name: The unknown name.
        known: The known names.
        prefix: What the question puts before the name: `--` for options.
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
