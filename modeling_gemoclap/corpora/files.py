"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write a file that then takes the place of `path`; if killed meanwhile, what was there stays."""
    part = path.with_name(f".{path.name}.part")
    yield part
    os.replace(part, path)


def write_json(path: Path, value) -> None:
    """Write a JSON file; it is there whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
