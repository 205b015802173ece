"""How `evidence.py` runs the project's programs for a part of the plan."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from evidence_plan import recipe_sha256, record_name, system_of
from harness import ROOT

from modeling_gemoclap.corpora.files import write_json

PURPOSES = {"train.py": "training", "evaluate.py": "evaluation", "grid.py": "training_and_evaluation"}
PURPOSES |= {"-m": "compression"}


def code_sha256() -> str:
    """Hash of the code that trains and evaluates."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "modeling_gemoclap").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Runner:
    """Runs programs into the folder of one part, and collects the commands as a user would type them.

    Programs run on one thread without a GPU. Sums depend on their order, so the last digits, and with them some
    predictions, would differ elsewhere.

    Args:
        name: The part.
        corpora: Folder of the corpora; `CORPORA` stands for it in `commands`.
        output_dir: The part's folder is `output_dir/SYSTEM/name`; `RUN` stands for it in `commands`.
        overwrite: Whether to remove the part's folder first.
        system: The system of a row; None: the main one.

    Attributes:
        system: The system of the part.
        commands: The commands that were run.
        hashes: Hashes of the recipe and of the code, as they are stored in the record.

    Raises:
        SystemExit: If the folder has results of another recipe and `overwrite` is False.
    """

    def __init__(self, name: str, corpora: Path, output_dir: Path, overwrite: bool, system: str | None = None):
        self.system, self.corpora, self.commands = system_of(name, system), corpora, []
        self.folder = output_dir.resolve() / record_name(name, system)
        self._path, recipe = self.folder.with_suffix(".json"), recipe_sha256(name, system)
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._path.unlink(missing_ok=True)
        self.hashes, self._seconds = {"recipe_sha256": recipe, "code_sha256": []}, {}
        if self._path.is_file():
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            self._seconds = stored.pop("seconds", {})
            self.hashes = stored
        elif self.folder.exists():
            self.hashes["recipe_sha256"] = None
        if self.hashes["recipe_sha256"] != recipe:
            sys.exit(
                f"{self.folder} has results of another recipe: remove them with --overwrite, or use another folder"
            )
        self.hashes["code_sha256"] = sorted({*self.hashes["code_sha256"], code_sha256()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._store()

    def _store(self) -> None:
        write_json(self._path, self.hashes | {"seconds": self._seconds})

    def __call__(self, *command, skip: bool = False) -> None:
        """Run a program, and stop if it fails.

        Args:
            command: The program and its options; `CORPORA/` at the start of an option becomes the folder.
            skip: Whether the program has been run before, so that only its command is collected.
        """
        command = [str(word).replace("CORPORA/", f"{self.corpora}/", 1) for word in command]
        line = shlex.join(["python", *command])
        written = line.replace(f"{self.corpora}/", "CORPORA/").replace(str(self.folder), "RUN")
        if not skip:
            print(f"+ {line}", flush=True)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            start = time.perf_counter()
            try:
                code = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment).returncode
            finally:  # an interrupted command continues when it is run again, except if it overwrites
                before = 0 if "--overwrite_output" in command else self._seconds.get(written, 0)
                self._seconds[written] = before + time.perf_counter() - start
                self._store()
            if code:
                sys.exit(f"a program failed with exit status {code}, see above; run the same command to continue")
        self.commands.append(written)

    @property
    def wall_seconds(self) -> dict[str, int]:
        """Seconds by the clock that the commands took, by what they did (`PURPOSES`)."""
        seconds = {}
        for line in self.commands:
            purpose = PURPOSES[line.split()[1]]
            seconds[purpose] = seconds.get(purpose, 0) + self._seconds.get(line, 0)
        return {purpose: round(value) for purpose, value in seconds.items()}

    def train_and_evaluate(
        self, folder: Path, train: list, data: list, protocol: list, more: tuple = (), evaluate: list = ()
    ) -> None:
        """Train and evaluate the runs of a protocol.

        Args:
            folder: Folder of the runs.
            train: Options of `train.py` alone.
            data: The corpus, for both programs.
            protocol: The protocol and the seeds, for both programs.
            more: Further options of `train.py`, after the protocol.
            evaluate: Further options of `evaluate.py`.
        """
        self("train.py", *train, *data, *protocol, *more, "--output_dir", folder)
        self("evaluate.py", "--model", folder, *data, *protocol, *evaluate)
