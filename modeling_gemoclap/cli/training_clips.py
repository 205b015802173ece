"""The command training-clips, which writes the sample of training clips of an existing checkpoint."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from ..command_line.failures import usage_errors
from ..command_line.hints import hint
from .common import BatchSize, Device, Quiet, command, show_no_loading


@command
def training_clips(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    corpora: Annotated[list[str], typer.Argument(metavar="CORPUS...", help="Folders of the corpora of its training.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw, if there are more than 512 clips.")] = 0,
    batch_size: BatchSize = 16,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Store embeddings of training clips beside the weights, for predict --report.

    Training does this itself. This is for a checkpoint without them, such as a compressed copy.
    """
    show_no_loading(quiet)
    from ..runs.training_clips import recorded_training_clips, write_training_clips

    with usage_errors():
        clips = recorded_training_clips(model, corpora)
        written = write_training_clips(model, clips, seed, device, batch_size)
    print(f"embeddings of {len(written)} of {len(clips)} training clips")
    hint(f"gemoclap card {shlex.quote(model)}  (with the --results that the card had: it names the new file)", quiet)
