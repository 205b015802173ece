"""Check the JSON files of a checkpoint before transformers reads them, because its errors do not name the file."""

from __future__ import annotations

from pathlib import Path

from .files import read_object, require

FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json")
LISTS_OR_NULL = ("emotions", "genders", "architectures", "known_words", "training_data")


def check_checkpoint_files(name: str | Path) -> None:
    """Check that the JSON files of a checkpoint can be read and that the fields of `config.json` have valid types.

    Args:
        name: The folder of a checkpoint. A name on the Hub is not checked.

    Raises:
        ValueError: If a file is not a JSON object, or if a field of `config.json` has an invalid type. The message
            names the file and the field.
    """
    for file in FILES:
        if Path(name, file).is_file():
            read_object(Path(name, file))
    path = Path(name, "config.json")
    if not path.is_file():
        return
    config = read_object(path)
    require(config, str(path), **{tower: dict for tower in ("audio_config", "text_config") if tower in config})
    for field in LISTS_OR_NULL:
        items = config.get(field)
        if items is None:
            continue
        require(config, str(path), **{field: list})
        kind, words = (dict, "objects") if field == "training_data" else (str, "texts")
        if not all(isinstance(item, kind) for item in items):
            raise ValueError(f"{path}: {field} must be a list of {words}; download or create the file again")
