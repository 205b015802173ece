"""Build the page for a model: a folder of static files that any web server serves, and that opens from the disk.

    python web/build.py compact                  # exports the checkpoint, then builds web/dist
    python web/build.py emotions.onnx --output site

Beside an `.onnx` file lies its description, `.json`, as `gemoclap export` writes it. The page's scripts are bundled by
esbuild; WebAssembly and model are compressed and written as scripts with base64, because browsers load nothing else
from the disk. A part has at most 4 MB, so that loading can be shown.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WEB = Path(__file__).resolve().parent
RUNTIME = WEB / "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
COPIED = ("page.css", "licences.txt")
PART = 4_000_000  # characters of base64; a multiple of 4
FIELDS = {"sha256": str, "model": str, "labels": list, "sampling_rate": int, "min_seconds": (int, float)}
FIELDS |= {"silence_peak": (int, float), "calibrated": bool}  # that the page reads


def run(*command: str | Path, folder: Path = WEB, **variables: str) -> None:
    """Run a command, and end with its error if it fails."""
    program = shutil.which(command[0]) or sys.exit(f"{command[0]} is not installed: install Node.js 20 or later")
    done = subprocess.run([program, *map(str, command[1:])], cwd=folder, env={**os.environ, **variables})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command[:3]))} failed; see the messages above")


def install() -> None:
    """Install what the lock file names, unless that was done before."""
    stamp = WEB / "node_modules/.installed"
    lock = (WEB / "package-lock.json").read_text(encoding="utf-8")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != lock:
        run("npm", "ci")
        stamp.write_text(lock, encoding="utf-8")


def read_model(path: Path) -> tuple[bytes, dict]:
    """The bytes of an exported model and its description, which must belong to each other."""
    source = path.with_suffix(".json")
    for file in (path, source):
        if not file.is_file():
            sys.exit(f"{file} does not exist: give a file that gemoclap export wrote, with its .json beside it")
    model, description = path.read_bytes(), json.loads(source.read_text(encoding="utf-8"))
    wrong = [name for name, kind in FIELDS.items() if not isinstance(description.get(name), kind)]
    if description.get("format") != 1 or wrong:
        sys.exit(f"{source}: not a description that this page reads ({', '.join(wrong) or 'format'}); export it again")
    if hashlib.sha256(model).hexdigest() != description["sha256"]:
        sys.exit(f"{path} differs from the SHA-256 in {source.name}; export it again")
    return model, description


def export(checkpoint: str, folder: Path) -> Path:
    """Export a checkpoint by the command of this project."""
    path = folder / "model.onnx"
    root = os.pathsep.join(filter(None, [str(WEB.parent), os.environ.get("PYTHONPATH")]))
    command = (sys.executable, "-m", "modeling_gemoclap", "export", checkpoint, "--output", path)
    run(*command, folder=Path.cwd(), PYTHONPATH=root)
    return path


def write_package(name: str, content: bytes, output: Path) -> list[dict]:
    """Write compressed bytes as scripts, whose names change with the content; their paths and sizes."""
    text = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
    version, parts = hashlib.sha256(content).hexdigest()[:8], []
    for number, start in enumerate(range(0, len(text), PART)):
        path = output / "data" / f"{name}.{version}.{number}.js"
        path.write_text(f'gemoclapPart("{text[start : start + PART]}");\n', encoding="ascii")
        parts.append({"file": path.relative_to(output).as_posix(), "bytes": path.stat().st_size})
    return parts


def bundle(output: Path, folder: Path) -> None:
    """Bundle the scripts of the page; the worker and the worklet become texts in it."""
    options = ("--bundle", "--minify", "--target=es2022", "--log-level=warning", "--charset=utf8")
    worker = folder / "worker.txt"
    # A worker of type module does not start from the disk, and a classic one has no import.meta.
    address = "--define:import.meta.url=self.location.href"
    run("npx", "--no-install", "esbuild", "worker.js", *options, address, f"--outfile={worker}")
    texts = ("--loader:.worklet.js=text", f"--alias:worker-source={worker}")
    run("npx", "--no-install", "esbuild", "main.js", *options, *texts, f"--outfile={output / 'page.js'}")


def build(path: Path, output: Path) -> None:
    """Write the page with an exported model; an earlier build in the folder is replaced."""
    model, description = read_model(path)
    install()
    if output.exists() and any(output.iterdir()) and not (output / "page.js").is_file():
        sys.exit(f"{output} holds other files; give an empty or a new folder")
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder, "page")
        (new / "data").mkdir(parents=True)
        bundle(new, Path(folder))
        packages = {"runtime": RUNTIME.read_bytes(), "model": model}
        packages = {name: write_package(name, content, new) for name, content in packages.items()}
        for name in COPIED:
            shutil.copy(WEB / name, new / name)
        manifest = json.dumps({"description": description, "packages": packages}).replace("<", "\\u003c")
        head, tail = (WEB / "index.html").read_text(encoding="utf-8").split("{}", 1)
        (new / "index.html").write_text(head + manifest + tail, encoding="utf-8")
        total = sum(file.stat().st_size for file in new.rglob("*") if file.is_file())
        shutil.rmtree(output / "data", ignore_errors=True)
        shutil.copytree(new, output, dirs_exist_ok=True)  # other files of the folder, such as .git, remain
    print(f"{output}: {total / 1e6:.1f} MB. Open {output / 'index.html'}, or copy the folder to a web server.")


def main() -> None:
    """Parse the options and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported .onnx file; or a checkpoint: base, compact or a folder")
    parser.add_argument("--output", type=Path, default=WEB / "dist", help="folder of the page (default: web/dist)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = Path(options.model)
        build(given if given.suffix == ".onnx" else export(options.model, Path(folder)), options.output)


if __name__ == "__main__":
    main()
