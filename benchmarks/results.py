"""How a benchmark writes what it found into RESULTS.md, with the machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch
import transformers

PATH = Path(__file__).with_name("RESULTS.md")


def machine() -> str:
    """The machine and the versions, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{len(os.sched_getaffinity(0))} {platform.machine()} cores, {torch.get_num_threads()} of them used"
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    return f"{cores}, {memory:.0f} GiB of memory, {gpu}; {versions}"


def write(command: str, text: str) -> None:
    """Put a section in the place of that of the same command, or at the end.

    Args:
        command: The command that was run: the section's heading.
        text: Markdown.
    """
    heading = f"## `{command}`"
    sections = PATH.read_text(encoding="utf-8").split("\n## ")
    new = f"{heading[3:]}\n\nMachine: {machine()}.\n\n{text.strip()}\n"
    places = [place for place, section in enumerate(sections) if section.split("\n")[0] == heading[3:]]
    if places:
        sections[places[0]] = new
    else:
        sections[-1] = sections[-1].rstrip() + "\n"
        sections.append(new)
    PATH.write_text("\n## ".join(sections), encoding="utf-8")
    print(f"{heading}\n\n{text.strip()}\n", flush=True)
