"""Which checkpoint a run goes on from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)


def latest_whole_checkpoint(folder: str | Path) -> str | None:
    """The newest `checkpoint-N` of a run that was written to its end.

    A run that was killed while it wrote leaves part of one; `trainer_state.json` is the last file of a whole one.

    Args:
        folder: The run's output folder.

    Returns:
        Its path, or None where there is none.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, ValueError):
            logger.warning(f"{path} was not written to its end, and is passed over")
    return None
