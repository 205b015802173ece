"""What a model card states besides the configuration: `card.json` in the folder of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..corpora.files import read_object, require, write_json

CARD_FACTS = "card.json"
LICENCE_FILES = ("LICEN[CS]E*", "NOTICE*")  # patterns of names, at the top of a checkpoint
TEXT, NUMBER = (str, type(None)), (int, float, type(None))


@dataclass(frozen=True)
class Compression:
    """What `modeling_gemoclap compress` changed.

    Args:
        source: Name of the folder of the original.
        sentences: What was changed.
        parameters: Number of parameters of the original; None if it is unknown.
    """

    source: str
    sentences: list[str]
    parameters: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """Facts for a model card. Training writes them; what is None is unknown, and the card says so.

    Texts are Markdown.

    Args:
        title: Name of the method.
        summary: Description of the checkpoint, one or two sentences.
        objective: The loss, for a table cell.
        references: Papers in addition to that of GEmo-CLAP.
        parameters: Number of parameters.
        trained_parameters: Number of parameters that were trained; the others were frozen.
        epochs: Epochs of the training.
        steps: Optimizer steps of the training.
        kept: Which epoch was kept.
        development: Result on the development speakers, a sentence.
        commands: Commands that made the checkpoint.
        compression: What compression changed; None if it was not compressed.
        license: Licence of the weights as an identifier of the Hub.
        licences: Licence of the weights in words.
        limits: What is known of the limits of this checkpoint.
        notes: Further results, below those of an evaluation.
    """

    title: str | None = None
    summary: str | None = None
    objective: str | None = None
    references: str | None = None
    parameters: int | None = None
    trained_parameters: int | None = None
    epochs: float | None = None
    steps: int | None = None
    kept: str | None = None
    development: str | None = None
    commands: list[str] = field(default_factory=list)
    compression: Compression | None = None
    license: str | None = None
    licences: str | None = None
    limits: str | None = None
    notes: str | None = None


def save_facts(folder: Path, facts: CardFacts) -> None:
    """Write `card.json`."""
    write_json(folder / CARD_FACTS, asdict(facts))


def load_facts(folder: Path) -> CardFacts:
    """Read `card.json`; without the file nothing is known.

    Args:
        folder: Folder of a checkpoint.

    Raises:
        ValueError: If the file has a field of another type. The message names the file and the field.
    """
    path = folder / CARD_FACTS
    if not path.is_file():
        return CardFacts()
    numbers = ("parameters", "trained_parameters", "epochs", "steps")
    types = {each.name: NUMBER if each.name in numbers else TEXT for each in fields(CardFacts)}
    types |= {"commands": list, "compression": (dict, type(None))}
    values = read_object(path)
    values = {name: value for name, value in values.items() if name in types}
    require(values, str(path), **{name: types[name] for name in values})
    if compression := values.get("compression"):
        known = {name: compression.get(name) for name in ("source", "sentences", "parameters")}
        require(known, f"{path}, compression", source=str, sentences=list, parameters=NUMBER)
        values["compression"] = Compression(**known)
    return CardFacts(**values)
