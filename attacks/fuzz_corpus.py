"""The inputs that once broke a promise: `attacks/corpus/KIND/OUTCOME-NAME`; the outcome is `read` or `refused`."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from attack import ROOT
from fuzz_judge import judge
from fuzz_targets import ATTACKED, Target

CORPUS = ROOT / "attacks" / "corpus"
KINDS = {re.sub(r"\W+", "_", target.kind).strip("_"): target for target in ATTACKED}


def inputs() -> list[Path]:
    """All files of the corpus."""
    return sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def outcome_of(path: Path) -> tuple[str, str, str]:
    """Use a file of the corpus.

    Args:
        path: The file. The name of its folder is its kind.

    Returns:
        `"answered"`, `"refused"` or `"broken"`, the message, and the place in the package; see `fuzz_judge.judge`.
    """
    target: Target = KINDS[path.parent.name]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder, "checkpoint" if "checkpoint" in target.words else "folder")
        folder.mkdir()
        if target.prepare:
            target.prepare(folder)
        data = path.read_bytes()
        (folder / target.name).write_bytes(data)
        return judge(lambda: target.run(folder / target.name), (target.name, *target.words), len(data))
