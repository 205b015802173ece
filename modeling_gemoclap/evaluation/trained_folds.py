"""The trained folds of a run, and the check that each belongs to the run whose folder it is in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..corpora.files import read_object
from ..corpora.protocols import Protocol
from ..fingerprint import IDENTITY, differences

SHARED = ("package", "code", "versions", "emotions")  # beside the settings, what all folds of a run have in common
CONTROL_FOLDER = "shuffled_labels"  # folder of the control models
MOST_SHOWN = 8


@dataclass(frozen=True)
class TrainedFold:
    """One fold of a run of `train.py --protocol`.

    Args:
        root: Folder of the run.
        protocol: Protocol of the seed.
        number: Number of the fold.
        seed: Seed of the training.
        control: Whether this is the control model, trained on shuffled labels.
    """

    root: Path
    protocol: Protocol
    number: int
    seed: int
    control: bool = False

    @property
    def folder(self) -> Path:
        """Folder of the checkpoint."""
        root = self.root / CONTROL_FOLDER if self.control else self.root
        return root / f"fold_{self.number}" / f"seed_{self.seed}"

    @property
    def is_complete(self) -> bool:
        """Whether the training of the fold is complete."""
        return (self.folder / "fold.json").is_file()


def folds_of(root: Path, protocol: Protocol, seed: int, control: bool = False) -> list[TrainedFold]:
    """All folds of one seed of a run.

    Args:
        root: Folder of the run.
        protocol: Protocol of the seed.
        seed: The seed.
        control: Whether to list the control models.
    """
    return [TrainedFold(root, protocol, number, seed, control) for number in range(len(protocol.folds))]


def recorded_protocol(run: dict, seed: str | int) -> Protocol:
    """The protocol of one seed, as `run.json` records it.

    Args:
        run: Content of the `run.json` of the run.
        seed: The seed.
    """
    record = run["protocols"][str(seed)]
    names = ("name", "corpus", "folds", "seed", "by")
    return Protocol(**{name: record[name] for name in names if name in record})


def check_fold(fold: TrainedFold, run: dict) -> str:
    """Check that a fold was trained by this run, with this protocol and seed.

    Args:
        fold: The fold.
        run: Content of the `run.json` of the run.

    Returns:
        A note if the fold or the run lacks a record of this; otherwise "".

    Raises:
        ValueError: If the training of the fold is not complete, or the fold belongs to another run.
    """
    if not fold.is_complete:
        raise ValueError(f"{fold.folder} is not trained to its end: run the train.py command again to complete it")
    expected = {"protocol_sha256": fold.protocol.sha256, "fold": fold.number, "seed": fold.seed}
    plan = read_object(fold.folder / "fold.json")
    recorded = {name: plan[name] for name in expected if name in plan}
    complete = len(recorded) == len(expected)
    if (fold.folder / IDENTITY).is_file():
        expected |= _expected_identity(fold, run)
        recorded |= _recorded_identity(read_object(fold.folder / IDENTITY))
    complete = complete and bool(run.get("identity")) and {"settings", *SHARED} <= set(recorded)
    _refuse_differences(expected, recorded, fold)
    return "" if complete else f"some folds do not record which run they belong to: {fold.root.name} may mix runs"


def _expected_identity(fold: TrainedFold, run: dict) -> dict:
    shared = run.get("identity", {})
    return {
        "settings": run["settings"],
        **{name: shared[name] for name in SHARED if name in shared},
        "corpus": run["corpus"],
        "labels_shuffled": fold.control,
    }


def _recorded_identity(identity: dict) -> dict:
    return {
        **{name: identity[name] for name in ("settings", *SHARED) if name in identity},
        "corpus": identity["training_clips"]["corpus"],
        "labels_shuffled": identity["training_clips"]["labels_shuffled"],
    }


def _refuse_differences(expected: dict, recorded: dict, fold: TrainedFold) -> None:
    """Compare what both the run and the fold record."""
    common = sorted(expected.keys() & recorded.keys())
    expected, recorded = ({name: record[name] for name in common} for record in (expected, recorded))
    if differing := differences(expected, recorded, ("in run.json", "in the fold")):
        shown = "; ".join(differing[:MOST_SHOWN])
        shown += f"; and {len(differing) - MOST_SHOWN} more" if len(differing) > MOST_SHOWN else ""
        raise ValueError(
            f"{fold.folder} is a fold of another run than {fold.root / 'run.json'} and differs in: {shown}. Remove "
            f"this folder and run the train.py command again, which trains the fold"
        )
