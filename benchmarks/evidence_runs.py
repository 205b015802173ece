"""How `evidence.py` runs the project's programs: told, remembered, and never mixed with what another recipe left."""

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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from modeling_gemoclap.command_line.files import read_yaml, typed  # noqa: E402

PLAN = typed(read_yaml(Path(__file__).with_name("evidence.yaml")), keys=True)


def recipe_sha256(name: str) -> str:
    """Hash of all that a part is made by: its options, its grid, the configuration; comments have no part in it."""
    part = (PLAN | PLAN["rows"] | PLAN["tables"])[name]
    made_by = [PLAN["options"], {key: part[key] for key in part if key not in ("title", "beside", "untouched")}]
    for path in {PLAN["config"], part.get("grid", PLAN["config"]), *part.get("configs", ())}:
        made_by.append(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(sorted(map(str, made_by))).encode()).hexdigest()


def code_sha256() -> str:
    """Hash of the code that trains and judges."""
    found = hashlib.sha256()
    for path in sorted([*(ROOT / "modeling_gemoclap").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"]):
        found.update(path.read_bytes())
    return found.hexdigest()


class Runner:
    """Runs programs into one part's folder, and remembers how one would type them.

    Sums depend on their order, so there is one thread and no GPU: elsewhere the last digits, and with them some
    answers, would be others.

    Args:
        name: The part.
        corpora: Folder of the corpora.
        output_dir: The part's folder is made in it; `RUN` stands for it.
        overwrite: Whether what another recipe left there is removed.

    Raises:
        SystemExit: If the folder holds what another recipe left, and is not to be overwritten.
    """

    def __init__(self, name: str, corpora: Path, output_dir: Path, overwrite: bool):
        self.corpora, self.folder, self.typed = corpora, output_dir.resolve() / name, []
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.with_suffix(".json").unlink(missing_ok=True)
        path, mine = self.folder.with_suffix(".json"), {"recipe_sha256": recipe_sha256(name), "code_sha256": []}
        self.made_of = json.loads(path.read_text()) if path.is_file() else mine
        if (self.folder.exists() and not path.is_file()) or self.made_of["recipe_sha256"] != mine["recipe_sha256"]:
            sys.exit(f"{self.folder} holds what another recipe left: give another --output_dir, or --overwrite")
        self.made_of["code_sha256"] = sorted({*self.made_of["code_sha256"], code_sha256()})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.made_of, indent=2) + "\n")

    def words(self, items: list) -> list[str]:
        """Options of the plan, the corpora's folders put in."""
        return [str(item).replace("CORPORA/", f"{self.corpora}/", 1) for item in items]

    def __call__(self, *command, skip: bool = False) -> None:
        """Run a program, unless that was done; its failure ends us."""
        command = self.words(command)
        typed = shlex.join(["python", *command])
        if not skip:
            print(f"+ {typed}", flush=True)
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            if code := subprocess.run([sys.executable, *command], cwd=ROOT, env=environment).returncode:
                sys.exit(f"stopped, a program ended with {code}: see above; started again, it goes on from here")
        self.typed.append(typed.replace(f"{self.corpora}/", "CORPORA/").replace(str(self.folder), "RUN"))
