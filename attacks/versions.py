"""Use checkpoints by their own code with old and new versions of transformers, in processes without the package.

    python attacks/versions.py [--minutes 5] [--small]

Each version is installed by pip into a temporary folder, which precedes the environment on the import path; torch is
that of the environment. The tiny checkpoints of `tests/archive` and the included ones are loaded, predict, train for
two steps and are saved; their answers must be those of the archive. A version that is too old must be refused in one
line. `--small` uses the installed version, the oldest and one that is too old, with one checkpoint each.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attack import ROOT, Attack, parse_options

RESULT = "RESULT "  # begins the lines of attacks/versions_worker.py
ARCHIVE, CODE = ROOT / "tests/archive", ROOT / "modeling_gemoclap"
SUPPORTED = ("4.57.0", "4.57.6", "5.0.0", "5.5.4", "5.10.4", "5.15.1", "5.20.2")
TOO_OLD = ("4.40.2", "4.48.3", "4.56.2")
LOAD = "import sys, transformers as t; t.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)"
LATER = 10**6  # a checkpoint format that no version has


def install(version: str, folder: Path) -> str:
    """Install a version of transformers, with what it needs, into a folder; the import path."""
    pins = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    numpy = [line for line in pins.splitlines() if line.startswith("numpy==")]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([*pip, "--no-compile", f"transformers=={version}", *numpy], check=True, capture_output=True)
    return str(folder)


def run(path: str, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Run Python with an import path, an empty cache of remote code, and no network."""
    env = {**os.environ, "PYTHONPATH": path, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=600)


def with_code(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint with the code of its archive or, if that has none, with the present code."""
    target = folder / f"{source.parent.name}-{source.name}".replace(".", "_")  # older versions make a module of it
    shutil.copytree(source, target)
    stored = sorted(source.parent.glob("*/configuration_gemoclap.py")) if source.parent.parent == ARCHIVE else []
    for path in (stored[0].parent if stored else CODE).glob("*_gemoclap.py"):
        if not (target / path.name).exists():
            shutil.copy(path, target)
    return target


def checkpoints(small: bool) -> list[Path]:
    """The folders of the archive and the included checkpoints."""
    archived = sorted(path.parent for path in ARCHIVE.glob("*/*/expected.json"))
    return archived[:1] if small else [*archived, ROOT / "checkpoints/gemoclap-compact"]


def use(attack: Attack, version: str, path: str, sources: list[Path]) -> None:
    """Use checkpoints with one supported version, all in one process."""
    kind = f"load, predict, train and save with transformers {version}"
    with tempfile.TemporaryDirectory() as home:
        folders = [with_code(source, Path(home)) for source in sources]
        done = run(path, Path(home), ROOT / "attacks/versions_worker.py", *folders)
    lines = [line.removeprefix(RESULT) for line in done.stdout.splitlines() if line.startswith(RESULT)]
    results = {result["name"]: result for result in map(json.loads, lines)}
    for folder in folders:
        with attack.case(kind, folder.name):
            found = results.get(folder.name, {"error": f"the process ended: {done.stderr[-200:]}"})
            assert "error" not in found, found["error"]
            assert found["transformers"] == version, found
            name = "largest difference from the answers of the archive"
            attack.figures[name] = max(attack.figures.get(name, 0.0), found["difference"])


def refuse(attack: Attack, version: str, path: str, source: Path) -> None:
    """A version that is too old is refused in one line, by a checkpoint's own code and by the command."""
    message = f"GEmo-CLAP needs transformers 4.57 or later, and {version} is installed: pip install -U transformers"
    with attack.case("transformers that is too old", version), tempfile.TemporaryDirectory() as home:
        done = run(path, Path(home), "-c", LOAD, with_code(source, Path(home)))
        last = done.stderr.strip().rpartition("\n")[2]
        assert done.returncode and last == f"ImportError: {message}", last
        done = run(os.pathsep.join([path, str(ROOT)]), Path(home), "-m", "modeling_gemoclap", "info", "compact")
        assert done.returncode and done.stderr.strip() == f"gemoclap info: {message}", done.stderr[-400:]


def refuse_later(attack: Attack, source: Path) -> None:
    """A checkpoint of a later format is refused in one line."""
    with attack.case("checkpoint of a later format"), tempfile.TemporaryDirectory() as home:
        folder = with_code(source, Path(home))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"checkpoint_format": LATER}), encoding="utf-8")
        words = ("-m", "modeling_gemoclap", "info", str(folder))
        done = run(str(ROOT), Path(home), *words)
        lines = done.stderr.strip().splitlines()
        assert done.returncode and len(lines) == 1 and str(LATER) in lines[0], done.stderr[-400:]


def main() -> None:
    """Try the versions, and write the record."""
    options = parse_options(__doc__)
    attack, sources = Attack("versions", options), checkpoints(options.small)
    installed = run("", Path(tempfile.gettempdir()), "-c", "import transformers; print(transformers.__version__)")
    use(attack, installed.stdout.strip(), "", sources)
    refuse_later(attack, sources[0])
    for version in SUPPORTED[:1] if options.small else SUPPORTED:
        if attack.seconds_left() < 0:
            break
        with tempfile.TemporaryDirectory() as folder:
            use(attack, version, install(version, Path(folder)), sources)
    for version in TOO_OLD[1:2] if options.small else TOO_OLD:
        with tempfile.TemporaryDirectory() as folder:
            refuse(attack, version, install(version, Path(folder)), sources[0])
    attack.finish()


if __name__ == "__main__":
    main()
