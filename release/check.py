"""Check a release before it is published: build it, install it in empty environments, and predict with it.

    python release/check.py [--tag v0.1.0]

`make release-check` runs this. The wheel and the source distribution are each installed into a new environment with
the pins of constraints.txt, and must predict there in an empty folder, without the repository. `release/bill.py`
writes the bills of dependencies beside them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 100_000_000  # of a file on PyPI


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Print and run a command; its output."""
    print("+", *command, flush=True)
    return subprocess.run(list(map(str, command)), cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def check_version(tag: str | None) -> str:
    """The version of the package, after checking the changelog, the tag, and the archive of its format.

    Raises:
        SystemExit: If they differ, or a tag has no archive.
    """
    text = (ROOT / "modeling_gemoclap/version.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.+)"', text)[1]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)(.*)$", changelog, re.M)
    if newest[1] != version:
        sys.exit(f"CHANGELOG.md begins with {newest[1]}, but modeling_gemoclap/version.py has {version}")
    if tag is not None and tag.removeprefix("v") != version:
        sys.exit(f"the tag {tag} is not the version {version} of modeling_gemoclap/version.py")
    if tag is not None and "unreleased" in newest[2]:
        sys.exit(f"CHANGELOG.md says that {version} is unreleased; write the date instead")
    archived = [path.name for path in (ROOT / "tests/archive").glob(f"{version}-*") if [*path.rglob("*_gemoclap.py")]]
    if tag is not None and len(archived) < 2:
        sys.exit(f"tests/archive has no checkpoints of {version} with their code: python release/archive.py --code")
    return version


def build() -> list[Path]:
    """Build the wheel and the source distribution.

    Raises:
        SystemExit: If one is too large for PyPI.
    """
    for folder in ("build", "dist"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", ".")
    files = sorted((ROOT / "dist").iterdir())
    for path in files:
        if path.stat().st_size > MAX_BYTES:
            sys.exit(f"{path.name} has {path.stat().st_size:,} bytes; PyPI takes at most {MAX_BYTES:,}")
    return files


def write_tone(path: Path) -> None:
    """Write half a second of a square wave, which needs no library."""
    samples = b"".join(
        (8000 if index // 40 % 2 else -8000).to_bytes(2, "little", signed=True) for index in range(8000)
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples)


def check_installation(distribution: Path, version: str) -> None:
    """Install a distribution into a new environment, and use it in an empty folder.

    Raises:
        SystemExit: If it does not predict, or has another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "venv", place / "environment")
        programs = place / "environment" / ("Scripts" if sys.platform == "win32" else "bin")
        install = (programs / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt")
        run(*install, "torch")  # by its pin: what asks for it afterwards finds it there
        run(*install, distribution)
        empty = place / "empty"
        empty.mkdir()
        write_tone(empty / "tone.wav")
        gemoclap = programs / "gemoclap"
        if run(gemoclap, "--version", cwd=empty).split() != ["gemoclap", version]:
            sys.exit(f"{distribution.name} does not install version {version}")
        print(run(gemoclap, "doctor", cwd=empty))
        for model in ("base", "compact"):
            answer = run(gemoclap, "predict", "tone.wav", "-q", "--format", "jsonl", "--model", model, cwd=empty)
            if not json.loads(answer)["label"]:
                sys.exit(f"{distribution.name}: {model} does not predict: {answer}")
        code = "from modeling_gemoclap import GEmoClap; print(GEmoClap.from_pretrained().encode_text('a voice').shape)"
        print(run(programs / "python", "-c", code, cwd=empty))
        if distribution.suffix == ".whl":  # the environment has the package and what it needs, and nothing else
            print(run(sys.executable, ROOT / "release/bill.py", "--base", programs / "python"))


def main() -> None:
    """Build and check both distributions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", help="the tag of the release, which must be the version")
    version = check_version(parser.parse_args().tag)
    for distribution in build():
        check_installation(distribution, version)
    print(f"\nversion {version} can be released: dist/")


if __name__ == "__main__":
    main()
