"""Checkpoints in the format of each version, kept for ever: they are loaded, and answer as they did."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "release"))
import archive  # noqa: E402

from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapModel, GEmoClapProcessor  # noqa: E402
from modeling_gemoclap.version import __version__  # noqa: E402
from modeling_gemoclap.versions_gemoclap import CHECKPOINT_FORMAT, check_format, refuse_older  # noqa: E402

CLASSES = {kind[1].__name__: kind[1] for kind in archive.CHECKPOINTS}
FOLDERS = sorted(path.parent for path in archive.ARCHIVE.glob("*/*/expected.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_archived_checkpoint_answers_as_it_did(folder):
    config = json.loads((folder / "config.json").read_text())
    model = CLASSES[config["architectures"][0]].from_pretrained(folder).eval()
    processor = GEmoClapProcessor if isinstance(model, GEmoClapModel) else GEmoClapFeatureExtractor
    found = torch.tensor(archive.answers(model, processor.from_pretrained(folder)))
    expected = torch.tensor(json.loads((folder / "expected.json").read_text())["answers"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not expected[0].allclose(expected[1], atol=1e-3), "the two clips have different answers"


def test_this_version_is_in_the_archive():
    """A release without one could not be tested later: `python release/archive.py`."""
    folders = {path.name for path in archive.ARCHIVE.iterdir() if path.name.startswith(f"{__version__}-")}
    assert folders == {f"{__version__}-transformers4", f"{__version__}-transformers5"}
    for name in folders:
        assert {path.name for path in (archive.ARCHIVE / name).iterdir()} == {kind[0] for kind in archive.CHECKPOINTS}


def test_the_archive_is_in_the_present_format(tmp_path):
    """Files and fields of a checkpoint that is written now are those of the archive of this version."""
    major = archive.transformers.__version__.partition(".")[0]
    for kind in archive.CHECKPOINTS[:1]:
        archive.write_checkpoint(tmp_path / kind[0], kind, with_code=False)
        stored = archive.ARCHIVE / f"{__version__}-transformers{major}" / kind[0]
        assert {path.name for path in tmp_path.joinpath(kind[0]).iterdir()} == {path.name for path in stored.iterdir()}
        new, old = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / kind[0], stored))
        towers = ("audio_config", "text_config")  # their fields are those of each version of transformers
        assert new.keys() == old.keys(), "run python release/archive.py"
        different = {name for name in new if new[name] != old[name]} - {"transformers_version", *towers}
        assert not different, "run python release/archive.py"


def test_a_later_format_is_refused_in_one_line(tmp_path):
    folder = shutil.copytree(FOLDERS[0], tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    assert config["checkpoint_format"] == CHECKPOINT_FORMAT
    (folder / "config.json").write_text(json.dumps(config | {"checkpoint_format": CHECKPOINT_FORMAT + 1}))
    with pytest.raises(
        ValueError, match=r"config.json: checkpoint_format 2 is unknown .*: update the package"
    ) as error:
        CLASSES[config["architectures"][0]].from_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [0, -1, "1", 1.0, [1], {}])
def test_formats_are_numbers(number):
    with pytest.raises(ValueError, match="config.json: checkpoint_format .* is unknown"):
        check_format(number)


def test_checkpoints_without_a_format_are_of_the_first():
    assert check_format(None) == check_format(1) == CHECKPOINT_FORMAT == 1


@pytest.mark.parametrize("found", ["4.56.2", "4.9.0", "3.99", "4.56.0.dev0"])
def test_an_old_library_is_refused_in_one_line(found):
    with pytest.raises(ImportError) as error:
        refuse_older("transformers", found, "4.57")
    expected = f"GEmo-CLAP needs transformers 4.57 or later, and {found} is installed: pip install -U transformers"
    assert str(error.value) == expected


@pytest.mark.parametrize("found", ["4.57", "4.57.0", "4.100.1", "5.0.0rc1", "10.0"])
def test_a_newer_library_is_accepted(found):
    refuse_older("transformers", found, "4.57")


def test_the_archive_is_small():
    size = sum(path.stat().st_size for path in Path(archive.ARCHIVE).rglob("*") if path.suffix != ".py")
    assert size < 2_000_000 * len(list(archive.ARCHIVE.iterdir()))


def test_a_release_without_its_code_in_the_archive_is_refused(monkeypatch, tmp_path):
    """A tag needs checkpoints with code, of both major versions of transformers."""
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    import check

    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "modeling_gemoclap").mkdir()
    (tmp_path / "modeling_gemoclap/version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-01-01)\n")
    assert check.check_version(None) == "1.2.3"
    for major in (4, 5):
        with pytest.raises(SystemExit, match="no checkpoints of 1.2.3 with their code: python release/archive.py"):
            check.check_version("v1.2.3")
        folder = tmp_path / f"tests/archive/1.2.3-transformers{major}/a"
        folder.mkdir(parents=True)
        (folder / "configuration_gemoclap.py").touch()
    assert check.check_version("v1.2.3") == "1.2.3"
