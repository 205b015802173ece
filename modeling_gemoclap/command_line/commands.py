"""Commands are started as scripts of the repository, by `gemoclap`, or by `python -m modeling_gemoclap`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath

# Names of secrets; not average_tokens_across_devices, and not a tokenizer and its special tokens
SPECIAL_TOKEN = "".join(f"(?<!{name}_)" for name in ("pad", "bos", "eos", "unk", "sep", "cls", "mask", "start"))
SECRET = re.compile(
    rf"{SPECIAL_TOKEN}token(?!s|iz|_id|_type)|passw|secret|api_?key|credential|authorization", re.IGNORECASE
)
# Secrets within a text: NAME=VALUE or NAME: VALUE, access tokens of the Hub, and the user of an address
SECRET_PAIR = re.compile(rf"(\w*(?:{SECRET.pattern})\w*[\"']?\s*[=:]\s*)(?:bearer\s+)?[^,;&\s}}]+", re.IGNORECASE)
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
USER_OF_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
REDACTED = "..."
ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:[\\/]|\\\\")  # also of Windows, with a drive or a server
# Absolute paths within a text, such as a=/home/me/b. They may contain spaces. One of a single name is not matched.
INNER_PATH = re.compile(
    r"(?:\bfile://|(?<=[=,:;\s'\"(\[{]))(?:[~/](?![/\s])|[A-Za-z]:[\\/]|\\\\)[^,;'\"\])}]*[\\/][^,;'\"\])}]*"
)


def command_words(name: str) -> list[str]:
    """The words after `python` that start a command in the same way as this process was started.

    Args:
        name: `train`, `evaluate` or `grid`.

    Returns:
        `-m modeling_gemoclap NAME` if this process runs the package, otherwise `NAME.py`.
    """
    return ["-m", "modeling_gemoclap", name] if _runs_the_package() else [f"{name}.py"]


def typed_words() -> list[str]:
    """The words after `python` that started this process, without the folder of the script and without tokens."""
    first = ["-m", "modeling_gemoclap"] if _runs_the_package() else [Path(sys.argv[0]).name]
    return [*first, *without_tokens(sys.argv[1:])]


def typed_command() -> str:
    """The command that started this process, as it may be published; see `publishable_command`."""
    return publishable_command(typed_words())


def publishable_command(words: Iterable[str]) -> str:
    """A command without secrets, and with the names of files and folders in place of absolute paths.

    Values that are JSON are searched too.

    Args:
        words: The words after `python`.
    """
    return shlex.join(["python", *(_with_texts(word, _without_folders) for word in without_tokens(words))])


def without_tokens(words: Iterable[str]) -> list[str]:
    """The words of a command without access tokens and other secrets.

    Options whose names are those of secrets, such as `--hub_token`, are left out with their values, and so are entries
    of JSON values. Secrets within other texts are replaced by `REDACTED`.

    Args:
        words: Words of a command line.
    """
    kept, within = [], False
    for word in words:
        if word.startswith("--"):
            within = bool(SECRET.search(word.partition("=")[0]))
        if not within:
            kept.append(_with_texts(word, _without_secrets))
    return kept


def _with_texts(word: str, change: Callable[[str], str]) -> str:
    """A word with its value changed, or the texts within its value if that is JSON."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + _in_json(value, change)


def _in_json(text: str, change: Callable[[str], str]) -> str:
    if text.lstrip()[:1] in ("{", "[", '"'):
        try:
            content = json.loads(text)
        except ValueError:
            return change(text)
        changed = _nested(content, change)
        return text if changed == content else json.dumps(changed, ensure_ascii=False)
    return change(text)


def _nested(value, change: Callable[[str], str]):
    """A value of JSON with its texts changed, without the entries of secrets."""
    if isinstance(value, dict):
        return {change(key): _nested(each, change) for key, each in value.items() if not SECRET.search(key)}
    if isinstance(value, list):
        return [_nested(each, change) for each in value]
    return _in_json(value, change) if isinstance(value, str) else value


def _without_secrets(text: str) -> str:
    text = SECRET_PAIR.sub(rf"\g<1>{REDACTED}", text)
    return USER_OF_ADDRESS.sub("", HUB_TOKEN.sub(REDACTED, text))


def _without_folders(text: str) -> str:
    """A text that is an absolute path, or contains some, with the names of the files or folders instead."""
    if ABSOLUTE.match(text):
        return _name_of(text)
    return INNER_PATH.sub(lambda found: _name_of(found[0].removeprefix("file://")), text)


def _name_of(path: str) -> str:
    return (Path(path) if path[0] in "/~" else PureWindowsPath(path)).name or path


def _runs_the_package() -> bool:
    script = Path(sys.argv[0])
    return script.stem == "gemoclap" or (script.parent.name, script.name) == ("modeling_gemoclap", "__main__.py")
