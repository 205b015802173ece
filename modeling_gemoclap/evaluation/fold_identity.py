"""Whether a fold's checkpoint is of the run whose folder it lies in."""

from __future__ import annotations

from pathlib import Path

from ..corpora.files import read_object
from ..corpora.protocols import Protocol
from ..fingerprint import IDENTITY, differences

SHARED = ("package", "code", "versions", "emotions")  # what all folds of a run have in common, beside the settings
CONTROL = "shuffled_labels"  # the folder of a run's control
MOST_SHOWN = 8


def refuse_fold_of_another_run(root: Path, run: dict, protocol: Protocol, fold: int, folder: Path) -> str:
    """Make sure that a fold was trained by the run, the protocol and the seed that it is judged for.

    Args:
        root: Folder of the run.
        run: What its `run.json` says.
        protocol: The protocol of the fold's seed.
        fold: Number of the fold.
        folder: The fold's checkpoint, `.../fold_K/seed_S`.

    Returns:
        Why this is unknown; empty where all is recorded.

    Raises:
        ValueError: If the fold is not trained to its end, or is of another run; it says what differs.
    """
    if not (folder / "fold.json").is_file():
        raise ValueError(f"{folder} is not trained to its end: run the train.py command again, it goes on from there")
    seed = int(folder.name.removeprefix("seed_"))
    expected = {"protocol_sha256": protocol.sha256, "fold": fold, "seed": seed}
    plan = read_object(folder / "fold.json")
    found = {name: plan[name] for name in expected if name in plan}
    unknown = len(found) < len(expected)
    if (folder / IDENTITY).is_file():
        own, shared = read_object(folder / IDENTITY), run.get("identity", {})
        expected |= {"settings": run["settings"]} | {name: shared[name] for name in SHARED if name in shared}
        found |= {name: own[name] for name in ("settings", *SHARED) if name in own}
        expected["corpus"], found["corpus"] = run["corpus"], own["training_clips"]["corpus"]
        expected["labels_shuffled"] = folder.relative_to(root).parts[0] == CONTROL
        found["labels_shuffled"] = own["training_clips"]["labels_shuffled"]
    unknown |= not run.get("identity") or not {"settings", *SHARED} <= set(found)
    expected = {name: value for name, value in expected.items() if name in found}
    found = {name: value for name, value in found.items() if name in expected}
    if others := differences(expected, found, ("in run.json", "in the fold")):
        shown = "; ".join(others[:MOST_SHOWN])
        shown += f"; and {len(others) - MOST_SHOWN} more" if len(others) > MOST_SHOWN else ""
        raise ValueError(
            f"{folder} is a fold of another run than {root / 'run.json'} tells of, and differs in: {shown}. Remove it "
            f"and run the train.py command again, which trains this fold anew"
        )
    return f"some folds do not record which run they are of: {root.name} may hold those of several" * unknown
