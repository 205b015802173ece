"""Which files of a folder are a checkpoint that can be pushed to the Hub."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ..configuration_gemoclap import SENTENCE_TRANSFORMERS_FILES
from ..corpora.files import read_object
from ..fingerprint import TRAINING_CLIPS, code_sha256
from .card import CARD, read_checkpoint
from .facts import LICENCE_FILES
from .notebook import NOTEBOOK
from .weights import INDEX, check_weights, refuse_other_training_clips, refuse_other_weights

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
# Files that belong to a checkpoint. What else is in the folder, such as results, the `checkpoint-N` from which a
# training resumes, and the `adapter` that is merged into the checkpoint, is neither refused nor pushed.
FILES = (
    *SENTENCE_TRANSFORMERS_FILES,
    *("config.json", "card.json", CARD, NOTEBOOK, *PROCESSORS, INDEX, ".eval_results/*.yaml", "probe.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", *LICENCE_FILES, "*.safetensors", "*.py"),
)
# Files of the repository that a push removes if the new checkpoint lacks them. Code and weights of other names may be
# the user's own; code that the earlier card lists was pushed too. Adapters and `training_args.bin` are what
# `Trainer.push_to_hub` writes, and an adapter at the top would be loaded in place of the checkpoint.
PUSHED = (
    *(pattern for pattern in FILES if pattern not in ("*.safetensors", "*.py")),
    *("model*.safetensors", TRAINING_CLIPS, "*_gemoclap.py", "training_args.bin"),
    *("adapter_config.json", "adapter_model*.safetensors", "adapter_model*.bin"),
    *("adapter/adapter_config.json", "adapter/adapter_model*.safetensors"),
)
# Files of a training or an adapter. A folder with one of them is not the finished checkpoint, or not only that.
NOT_OF_A_CHECKPOINT = {
    "optimizer*": "the state of an optimizer",
    "scheduler*": "the state of a schedule",
    "rng_state*": "the state of random numbers",
    "adapter_config.json": "a LoRA adapter, which is not a checkpoint by itself",
    "adapter_model*": "a LoRA adapter, which is not a checkpoint by itself",
    "fold_*/": "a fold of a protocol",
    "run.json": "the run of a protocol",
}
CODE_ROW = re.compile(r"^\| `([^`]+\.py)` \| `([0-9a-f]{64})` \|$", re.M)  # of the table of code on a card
IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.M)  # as transformers finds the files that code needs


def checkpoint_files(folder: Path) -> list[str]:
    """Check that a folder is a complete checkpoint, and list the files that are pushed.

    Args:
        folder: The folder.

    Returns:
        Their paths within the folder, with `/`, sorted.

    Raises:
        ValueError: If the folder is not a checkpoint of this package; if a file is missing, damaged or a link; if the
            folder has files of a training or an adapter; if the weights are not those of `config.weights_sha256` or of
            the sample of training clips; or if the code is not that of the card. The message names the file and what
            to do.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of a trained checkpoint")
    _refuse_other_files(folder)
    checkpoint = read_checkpoint(folder)
    for name in (CARD, _one_of(folder, PROCESSORS)):
        if not (folder / name).is_file():
            made = "write_card of this package writes it" if name == CARD else "save the processor there too"
            raise ValueError(f"{folder}: no {name} there, so the checkpoint is not complete: {made}")
    check_weights(folder)
    _check_code(folder)
    found = {path for pattern in FILES for path in folder.glob(pattern) if path.is_file() or path.is_symlink()}
    for path in sorted(found):
        if path.is_symlink():
            raise ValueError(
                f"{path} is a link, and the Hub would store a copy that may change: copy the folder with its files "
                f"(cp -rL {folder} COPY), and push the copy"
            )
    _refuse_card_of_other_code(folder)
    refuse_other_weights(folder, checkpoint.config)
    refuse_other_training_clips(folder)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def is_pushed(name: str, card: str) -> bool:
    """Whether a file of a repository was written by a push; see `PUSHED`.

    Args:
        name: Its path within the repository, with `/`.
        card: Content of the card in the repository; code that it lists was pushed with it.
    """
    parts = PurePosixPath(name).parts
    patterns = [PurePosixPath(pattern).parts for pattern in PUSHED]
    known = any(len(parts) == len(each) and all(map(fnmatchcase, parts, each)) for each in patterns)
    return known or name in dict(CODE_ROW.findall(card))


def _refuse_other_files(folder: Path) -> None:
    for pattern, meaning in NOT_OF_A_CHECKPOINT.items():
        for path in sorted(folder.glob(pattern.rstrip("/"))):
            if path.is_dir() or not pattern.endswith("/"):
                raise ValueError(
                    f"{path} is {meaning}, and does not belong on the Hub: move it out of the folder, or give the "
                    f"folder of the finished checkpoint"
                )


def _one_of(folder: Path, names: tuple[str, ...]) -> str:
    return next((name for name in names if (folder / name).is_file()), names[0])


def _refuse_card_of_other_code(folder: Path) -> None:
    """Check that the hashes of code on the card, if it has any, are those of the code files.

    Raises:
        ValueError: If they are not.
    """
    listed, found = dict(CODE_ROW.findall((folder / CARD).read_text(encoding="utf-8"))), code_sha256(folder)
    if listed and listed != found:
        names = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
        raise ValueError(
            f"{folder / CARD} has other hashes than the code, of {', '.join(names)}: write the card again: "
            f"gemoclap card {folder}, with the --results that it had"
        )


def _check_code(folder: Path) -> None:
    """Check that the Python files that `auto_map` and `custom_pipelines` name, and those that they import, are there.

    Raises:
        ValueError: If a file is not there, or if no code is named.
    """
    named = set()
    for name in ("config.json", *PROCESSORS, "tokenizer_config.json"):
        if (folder / name).is_file():
            named |= set(_named_code(read_object(folder / name), f"{folder / name}"))
    if not named:
        raise ValueError(
            f"{folder}: config.json names no code (auto_map), so the checkpoint would not load from the Hub: save it "
            f"with save_pretrained of this package"
        )
    checked: set[str] = set()
    while missing := sorted(named - checked):
        name = missing[0]
        path = folder / f"{name}.py"
        if not path.exists():
            raise ValueError(
                f"{folder}: no {name}.py there, which its configuration or its other code names, so it would not load "
                f"from the Hub: save it with save_pretrained of this package"
            )
        named |= set(IMPORT.findall(path.read_text(encoding="utf-8")))
        checked.add(name)


def _named_code(content: dict, place: str) -> list[str]:
    """The modules that a configuration names, also in its nested configurations.

    Raises:
        ValueError: If the code of another repository is named.
    """
    values = []
    for mapping in (content.get("auto_map"), (content.get("feature_extractor") or {}).get("auto_map")):
        for value in (mapping or {}).values():
            values += value if isinstance(value, list) else [value]
    values += [task.get("impl") for task in (content.get("custom_pipelines") or {}).values()]
    values = [value for value in values if value]
    if other := [value for value in values if "--" in value or "/" in value]:
        raise ValueError(
            f"{place}: {other[0]} is the code of another repository, so the checkpoint would load code that is not "
            f"pushed with it: save it with save_pretrained of this package"
        )
    return [value.rpartition(".")[0] for value in values]
