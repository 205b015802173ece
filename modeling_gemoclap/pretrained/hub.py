"""Fetch an encoder from the Hugging Face Hub, if it can be reached."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from .sources import Encoder

SECONDS = 5  # to wait for the Hub's first answer


def why_unreachable(encoder: Encoder) -> str | None:
    """Ask the Hub for a repository.

    Args:
        encoder: The encoder.

    Returns:
        None if the Hub has the repository; otherwise the reason in one line.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().model_info(encoder.repository, revision=encoder.revision, timeout=SECONDS)
    except Exception as error:  # the client raises the errors of any of several HTTP libraries
        return _one_line(error)
    return None


def download(encoder: Encoder, folder: Path) -> str | None:
    """Download the files of an encoder. A download that was interrupted is continued.

    Args:
        encoder: The encoder.
        folder: Folder to write to.

    Returns:
        None if the files are complete; otherwise the reason in one line.

    Raises:
        OSError: If the disk is full.
    """
    from huggingface_hub import snapshot_download

    options = {"revision": encoder.revision, "allow_patterns": list(encoder.hub_files), "local_dir": folder}
    try:
        snapshot_download(encoder.repository, **options)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _one_line(error)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes on the download
    missing = [name for name in encoder.required if not (folder / name).is_file()]
    return f"the repository has no {missing[0]}" if missing else None


def _one_line(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0][:150]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
