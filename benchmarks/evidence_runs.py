"""The plan in evidence.yaml, and how `evidence.py` runs the project's programs for a part of it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from harness import ROOT

from modeling_gemoclap.command_line.files import read_yaml, typed

PLAN = typed(read_yaml(Path(__file__).with_name("evidence.yaml")), keys=True)
NOT_IN_RECIPE = ("title", "beside", "untouched")


def recipe_sha256(name: str) -> str:
    """Hash of everything that determines a part: its options, its grid and its configurations without comments."""
    part = (PLAN | PLAN["rows"] | PLAN["tables"])[name]
    recipe = [PLAN["options"], {key: part[key] for key in part if key not in NOT_IN_RECIPE}]
    for path in {PLAN["config"], part.get("grid", PLAN["config"]), *part.get("configs", ())}:
        recipe.append(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(sorted(map(str, recipe))).encode()).hexdigest()


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
        output_dir: The part's folder is made in it; `RUN` stands for the part's folder in `commands`.
        overwrite: Whether to remove the part's folder first.

    Attributes:
        commands: The commands that were run.
        hashes: Hashes of the recipe and of the code, as they are stored in the record.

    Raises:
        SystemExit: If the folder has results of another recipe and `overwrite` is False.
    """

    def __init__(self, name: str, corpora: Path, output_dir: Path, overwrite: bool):
        self.corpora, self.folder, self.commands = corpora, output_dir.resolve() / name, []
        path, recipe = self.folder.with_suffix(".json"), recipe_sha256(name)
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
            path.unlink(missing_ok=True)
        self.hashes = {"recipe_sha256": recipe, "code_sha256": []}
        if path.is_file():
            self.hashes = json.loads(path.read_text())
        elif self.folder.exists():
            self.hashes["recipe_sha256"] = None
        if self.hashes["recipe_sha256"] != recipe:
            sys.exit(
                f"{self.folder} has results of another recipe: remove them with --overwrite, or use another folder"
            )
        self.hashes["code_sha256"] = sorted({*self.hashes["code_sha256"], code_sha256()})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.hashes, indent=2) + "\n")

    def __call__(self, *command, skip: bool = False) -> None:
        """Run a program, and stop if it fails.

        Args:
            command: The program and its options; `CORPORA/` at the start of an option becomes the folder.
            skip: Whether the program has been run before, so that only its command is collected.
        """
        command = [str(word).replace("CORPORA/", f"{self.corpora}/", 1) for word in command]
        line = shlex.join(["python", *command])
        if not skip:
            print(f"+ {line}", flush=True)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            if code := subprocess.run([sys.executable, *command], cwd=ROOT, env=environment).returncode:
                sys.exit(f"a program failed with exit status {code}, see above; run the same command to continue")
        self.commands.append(line.replace(f"{self.corpora}/", "CORPORA/").replace(str(self.folder), "RUN"))

    def train_and_evaluate(self, folder: Path, train: list, data: list, protocol: list, more: tuple = ()) -> None:
        """Train and evaluate the runs of a protocol.

        Args:
            folder: Folder of the runs.
            train: Options of `train.py` alone.
            data: The corpus, for both programs.
            protocol: The protocol and the seeds, for both programs.
            more: Further options of `train.py`, after the protocol.
        """
        self("train.py", *train, *data, *protocol, *more, "--output_dir", folder)
        self("evaluate.py", "--model", folder, *data, *protocol)
