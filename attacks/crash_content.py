"""What a training printed, and what it left in its folder."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

TIMES = re.compile(r"_runtime|_per_second")


def log_of(place: Path) -> str:
    """What the processes of a training printed."""
    return "".join(path.read_text(errors="replace") for path in sorted(place.glob("log-*")))


def wait_for_checkpoint(place: Path) -> None:
    """Wait until a training has written the last file but one of a checkpoint."""
    while not list(place.glob("run/checkpoint-*/trainer_state.json")):
        time.sleep(0.002)


def _comparable(path: Path) -> bytes:
    """The content of a file without times, and without the option that resumes a training."""
    if path.name == "trainer_state.json":
        state = json.loads(path.read_text())
        entries = state["log_history"]
        state["log_history"] = [{k: v for k, v in entry.items() if not TIMES.search(k)} for entry in entries]
        return json.dumps(state).encode()
    if path.name == "training_args.bin":
        import torch

        options = torch.load(path, weights_only=False).to_dict()  # of a training of this attack  # nosec B614
        return json.dumps(options | {"resume_from_checkpoint": None}, default=str).encode()
    if path.name in ("README.md", "card.json", "notebook.ipynb"):
        return re.sub(rb" --(resume_from_checkpoint|feature_cache_dir) \S+?(?=[\s\"\\])", b"", path.read_bytes())
    return path.read_bytes()


def content_of(place: Path) -> dict[str, str]:
    """The SHA-256 of all files of a training, without times in its log."""
    files = {}
    for path in sorted((place / "run").rglob("*")):
        if path.is_file():
            name = path.relative_to(place / "run").as_posix()
            if path.name != "checkpoint_files.json":  # it has the hash of trainer_state.json, with its times
                files[name] = hashlib.sha256(_comparable(path)).hexdigest()
    return files


def refuse_difference(place: Path, whole: dict[str, str], stopped: bool = False) -> None:
    """Raise an error if a training left other files than the uninterrupted one.

    Args:
        place: Where it ran.
        whole: The files of the uninterrupted training.
        stopped: Whether SIGTERM stopped it between two entries of its log. Its log and its earlier checkpoints are
            not compared: an entry averages over the steps after the resumption, and a checkpoint is added.
    """
    present = content_of(place)
    if stopped:
        last = max(int(name.partition("/")[0].rpartition("-")[2]) for name in whole if name.startswith("checkpoint-"))
        present, whole = (
            {
                name: value
                for name, value in files.items()
                if not name.endswith("trainer_state.json") and name.split("/")[0] in (name, f"checkpoint-{last}")
            }
            for files in (present, whole)
        )
    different = {name for name in {*present, *whole} if present.get(name) != whole.get(name)}
    if different:
        raise AssertionError(f"these files differ from those of the uninterrupted run: {sorted(different)[:8]}")
