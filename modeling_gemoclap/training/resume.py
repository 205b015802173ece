"""What a checkpoint needs so that a training can go on from it."""

from __future__ import annotations

from pathlib import Path

from .gather import of_all

ONE_PROCESS = "rng_state.pth"


def refuse_partial_checkpoint(folder: str | Path, processes: int, process: int, scaled: bool, sharded: bool) -> None:
    """Make sure that a checkpoint has all of a training's state; transformers would begin anew with what is missing.

    Args:
        folder: The `checkpoint-N`.
        processes: How many processes there are.
        process: The number of this one.
        scaled: Whether gradients are scaled (fp16).
        sharded: Whether DeepSpeed keeps the optimizer's state: it checks that itself.

    Raises:
        ValueError: If something is missing on any process; it is named.
    """
    present = {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()
    random_state = f"rng_state_{process}.pth" if processes > 1 else ONE_PROCESS
    needed = ["trainer_state.json", "scheduler.pt", random_state] + ["scaler.pt"] * scaled
    missing = [name for name in needed if name not in present]
    if not sharded and not any(name.startswith("optimizer") for name in present):
        missing.append("the optimizer's state")
    missing = sorted({name for names in of_all(missing) for name in names})
    if not missing:
        return
    states = sorted(name for name in present if name.startswith("rng_state"))
    others = f"; it was saved by {'one process' if states == [ONE_PROCESS] else f'{len(states)} processes'}"
    reason = others if states and random_state in missing else ""
    raise ValueError(
        f"{folder}: the training cannot go on from it, since {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing{reason}. A checkpoint of --save_only_model true holds "
        f"weights alone: start anew with --overwrite_output true, or give a whole checkpoint"
    )
