"""Recordings that several processes share."""

import csv
import os
import shutil

import pytest
from conftest import ROOT, run_script

from modeling_gemoclap.command_line.failures import UsageError
from modeling_gemoclap.inference.output import PredictionFile, Rows
from modeling_gemoclap.inference.predictions import Prediction
from modeling_gemoclap.inference.processes import (
    Processes,
    launched_processes,
    refuse_unshared,
    shares_by_size,
)
from modeling_gemoclap.inference.recordings import Recordings

LAUNCHER = ("-m", "accelerate.commands.launch", "--config_file", ROOT / "configs/accelerate/cpu.yaml")
ANSWER = Prediction("sad", 0.75, {"sad": 0.75, "angry": 0.25})


def test_shares_have_the_same_size(tmp_path):
    sizes = [900, 10, 20, 500, 400, 30, 840]
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.wav").write_bytes(bytes(size))
    names = [str(tmp_path / f"{number}.wav") for number in range(len(sizes))]
    shares = shares_by_size(names, 3)
    assert sorted(name for share in shares for name in share) == names
    assert all(share == sorted(share) for share in shares)
    assert max(sum(map(os.path.getsize, share)) for share in shares) == 900
    assert shares_by_size(names, 3) == shares and shares_by_size(["missing.wav"], 2) == [["missing.wav"], []]


def test_the_launch_is_read_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launched_processes() == Processes(0, 1, 0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    processes = launched_processes()
    assert processes == Processes(5, 8, 1) and not processes.is_main
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [processes.device(name) for name in (None, "cuda", "cpu", "cuda:3")] == [
        "cuda:1",
        "cuda:1",
        "cpu",
        "cuda:3",
    ]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched_processes().device(None) is None


@pytest.mark.parametrize(
    ("names", "output", "report", "message"),
    [
        (["a.wav"], None, None, "2 processes cannot share the standard output: give --output FILE"),
        (["-"], "a.csv", None, "cannot share the standard input"),
        (["a.wav"], "a.csv", "a.html", "--report needs one process"),
    ],
)
def test_what_cannot_be_shared_is_refused(names, output, report, message):
    refuse_unshared(Processes(), Recordings(names), output, report)
    with pytest.raises(UsageError, match=message):
        refuse_unshared(Processes(1, 2, 1), Recordings(names), output, report)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_of_several_processes_are_merged_also_after_an_interruption(tmp_path, kind):
    names = [str(tmp_path / f"{letter}.wav") for letter in "abcde"]
    path, rows = tmp_path / f"it[1].{kind}", Rows(kind, ["sad", "angry"], False)

    def new_file():
        return PredictionFile(path, rows, {"package": "1"})

    with new_file().open() as file:
        with file.open_part(1) as write:
            write(names[3], ANSWER)
            write(names[1], ANSWER)
        with file.open_part(0) as write:
            write(names[0], "broken")
    part = tmp_path / f"it[1].{kind}.part-1"
    part.write_bytes(part.read_bytes()[:-4])  # killed while it wrote the last row
    (tmp_path / f"it[1].{kind}.part-7").write_bytes(b"")  # killed before it wrote anything
    with new_file().open() as file:
        assert file.done == [names[3]] and not list(tmp_path.glob("*.part-*"))
        with file.open_part(0) as write:
            write(names[4], ANSWER)
            write(names[0], "broken")
        with file.open_part(1) as write:
            write(names[1], ANSWER)
            write(names[2], ANSWER)
        assert file.merge([*names, "f.wav"]) == ["f.wav"], "a recording without a row"
    assert not list(tmp_path.glob("*.part-*"))
    written = [name for name, _, _ in rows.read(path.read_bytes().decode())]
    assert written == names
    with new_file().open() as file:
        assert file.done == names[1:]


def test_process_0_divides_the_recordings(tmp_path, monkeypatch):
    """A file that is being written has another size for each process."""
    names = [tmp_path / "a", tmp_path / "b"]
    for name in names:
        name.write_bytes(bytes(10))
    sent = []
    monkeypatch.setattr(Processes, "from_main", lambda self, value: sent.append(value) or sent[0])
    first = Processes(0, 2, 0).share(names)
    names[1].write_bytes(bytes(20))
    assert sorted(first + Processes(1, 2, 1).share(names)) == names


def predict(folder, output, *options, launcher=()):
    arguments = ("modeling_gemoclap", "predict", folder, "--model", "compact", "--output", output, *options)
    return run_script("-m", *arguments, launcher=launcher, check=False)


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(tones, tmp_path):
    folder, launcher = tmp_path / "recordings", (*LAUNCHER, "--num_processes", 2)
    folder.mkdir()
    for path in sorted((tones / "audio").iterdir())[:9]:
        shutil.copy(path, folder)
    (folder / "broken.wav").write_bytes(b"no audio")
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert predict(folder, one).returncode == 1
    done = predict(folder, two, launcher=launcher)
    assert done.returncode == 1 and done.stderr.count("9 predicted, 1 could not be used:") == 1, done.stderr[-3000:]
    assert done.stderr.count("broken.wav: ") == 1

    def read(path):
        rows = list(csv.DictReader(path.open(newline="")))
        scores = [float(row[name] or 0) for row in rows for name in row if name.startswith("score")]
        return [(row["file"], row["label"], row["error"]) for row in rows], scores

    names, scores = read(one)
    assert read(two) == (names, pytest.approx(scores, abs=1e-5)) and not list(tmp_path.glob("*.part-*"))
    lines = two.read_bytes().splitlines(keepends=True)  # as if the processes had been killed
    two.write_bytes(b"".join(lines[:3]))
    (tmp_path / "two.csv.part-1").write_bytes(b"".join([lines[0], *lines[5:7], lines[7][:20]]))
    done = predict(folder, two, launcher=launcher)
    assert "5 predicted, 4 already in" in done.stderr, done.stderr[-3000:]
    assert read(two) == (names, pytest.approx(scores, abs=1e-5)) and not list(tmp_path.glob("*.part-*"))
