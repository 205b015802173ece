"""The command `gemoclap`: predict, embed, info, doctor."""

import csv
import hashlib
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from modeling_gemoclap import cli
from modeling_gemoclap.inference import output

COMPACT = ("--model", "compact")
RATE = 16000


def run(*words):
    """Run the command in this process and return its exit status."""
    with pytest.raises(SystemExit) as error:
        cli.main([str(word) for word in words])
    return error.value.code


def predict(*words):
    return run("predict", *words, *COMPACT)


@pytest.fixture
def folder(tmp_path):
    """Recordings with difficult names, a broken one, and other files."""
    place = tmp_path / "recordings"
    (place / "in it").mkdir(parents=True)
    names = ["a.wav", "in it/b 'c' \"d\".flac", "é\nü.wav", os.fsdecode(b"\xff.wav")]
    for index, name in enumerate(names):
        wave = 0.3 * np.sin(2 * np.pi * (150 + 80 * index) * np.arange(RATE) / RATE)
        with open(place / name, "wb") as file:
            soundfile.write(file, wave, RATE, format="FLAC" if name.endswith(".flac") else "WAV")
    (place / "broken.wav").write_bytes(b"no audio")
    (place / "notes.txt").write_text("not audio")
    (place / ".hidden.wav").write_bytes(b"")
    (place / "metadata.csv").write_text("file_name\n")
    return place


def usable(folder):
    paths = [path for path in folder.rglob("*") if path.suffix in (".wav", ".flac") and path.name[0] != "."]
    return {str(path) for path in paths if path.name != "broken.wav"}


def rows_of(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def labels_in(path):
    """The label of each recording, by name; every recording has one row."""
    rows = rows_of(path) if path.suffix == ".csv" else [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["file"] for row in rows}) == len(rows)
    return {row["file"]: row["label"] for row in rows}


def test_table_on_the_terminal(folder, capsys):
    assert predict(folder) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["file", "label", "score"] and len(lines) == 6
    assert [line for line in lines if line.split()[-1] == "error"] == [lines[2]] and "broken.wav" in lines[2]
    assert "4 predicted, 1 could not be used:" in captured.err
    assert "broken.wav: not audio" in captured.err and "ignored 2 other files" in captured.err
    assert captured.err.rstrip().splitlines()[-1].startswith("Next: gemoclap info compact")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_files_have_every_recording_by_its_name(folder, suffix, tmp_path, capsys):
    path = tmp_path / f"out{suffix}"
    assert predict(folder, "--output", path, "--gender") == 1
    assert capsys.readouterr().out == ""
    if suffix == ".csv":
        rows = rows_of(path)
        scores = [[float(row[name]) for name in row if name.startswith("score_")] for row in rows if not row["error"]]
        assert {row["gender"] for row in rows if not row["error"]} <= {"female", "male"}
        assert [row["label"] for row in rows if row["error"]] == [""]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        scores = [list(row["scores"].values()) for row in rows if not row["error"]]
        assert all(row["scores"][row["label"]] == row["score"] == max(row["scores"].values()) for row in rows[:1])
        assert [row["label"] for row in rows if row["error"]] == [None]
    assert {row["file"] for row in rows if not row["error"]} == usable(folder)
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert np.allclose(np.sum(scores, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("cut", [0, 1, 9])
def test_an_interrupted_run_is_continued(folder, suffix, cut, tmp_path, monkeypatch, capsys):
    """The last line may be cut anywhere; the result is that of a run without interruption."""
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    predict(folder, "--output", whole)
    write, count = output.PredictionFile.write, []

    def interrupt(self, name, answer):
        write(self, name, answer)
        count.append(name)
        if len(count) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output.PredictionFile, "write", interrupt)
        assert predict(folder, "--output", path, "--batch-size", 1) == 130
    assert "interrupted" in capsys.readouterr().err
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    seen = []
    monkeypatch.setattr(
        output.PredictionFile, "write", lambda self, name, answer: (seen.append(name), write(self, name, answer))
    )
    assert predict(folder, "--output", path) == 1
    done = 2 - (cut > 0)  # of the three rows, one is an error
    assert f"{done} already in {path}" in capsys.readouterr().err and len(seen) == 5 - done
    assert labels_in(path) == labels_in(whole)


def test_errors_are_tried_again(folder, tmp_path):
    path = tmp_path / "out.csv"
    assert predict(folder, "-o", path) == 1
    soundfile.write(folder / "broken.wav", 0.3 * np.sin(np.arange(RATE) / 7), RATE)
    assert predict(folder, "-o", path) == 0
    rows = rows_of(path)
    assert len(rows) == 5 and not any(row["error"] for row in rows)


def quoted(data):
    """CSV whose first row has been written by another program."""
    header, first, rest = data.split(b"\r\n", 2)
    name, cells = first.split(b",", 1)
    return b"\r\n".join([header, b'"' + name + b'",' + cells, rest])


@pytest.mark.parametrize(
    ("prepare", "words", "message"),
    [
        (None, ("--labels", "furious,gloomy"), "has predictions made otherwise (labels"),
        (None, ("--template", "a {} voice"), "has predictions made otherwise (templates"),
        (None, ("--gender",), "has predictions made otherwise (gender"),
        (lambda path: path.with_name("out.csv.settings.json").unlink(), (), "it is not known what made it"),
        (lambda path: path.write_text("file,label\na,b\n"), (), "was changed (its columns are"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\r\n"), (), "was changed (row 6 has 0 columns"),
        (lambda path: path.write_bytes(quoted(path.read_bytes())), (), "was changed (row 1 is not as it was written)"),
    ],
)
def test_other_predictions_are_not_continued(prepare, words, message, folder, tmp_path, capsys):
    path = tmp_path / "out.csv"
    predict(folder, "-o", path)
    if prepare:
        prepare(path)
    before = path.read_bytes()
    capsys.readouterr()
    assert predict(folder, "-o", path, *words) == 2
    error = capsys.readouterr().err
    assert message in error and "--restart" in error and path.read_bytes() == before
    assert predict(folder, "-o", path, *words, "--restart") == 1
    assert len(rows_of(path)) == 5


def test_a_changed_recording_is_predicted_again(folder, tmp_path, monkeypatch, capsys):
    path, clip = tmp_path / "out.csv", folder / "a.wav"
    predict(folder, "-o", path)
    written = path.stat().st_mtime
    os.utime(clip, (written + 10, written + 10))
    capsys.readouterr()
    predict(folder, "-o", path)
    assert "1 predicted, 3 already in" in capsys.readouterr().err and len(rows_of(path)) == 5


def test_relative_names_are_not_continued_in_another_folder(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert predict("a.wav", "-o", tmp_path / "out.csv") == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes((folder / "a.wav").read_bytes())
    assert predict("a.wav", "-o", tmp_path / "out.csv") == 2
    assert "predictions made otherwise (folder" in capsys.readouterr().err


def test_a_killed_restart_leaves_no_old_rows_beside_new_settings(folder, tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    predict(folder, "-o", path)

    def kill(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output, "write_atomically", kill)
        assert predict(folder, "-o", path, "--restart", "--gender") == 130
    assert not path.exists()
    assert predict(folder, "-o", path, "--gender") == 1 and "gender" in rows_of(path)[0]


def test_an_output_that_cannot_be_written_is_a_usage_error(folder, capsys):
    assert predict(folder, "-o", "/proc/out.csv") == 2
    assert "--output /proc: cannot be written" in capsys.readouterr().err
    assert run("demo-corpus", "/proc/demo") == 2
    assert "FOLDER /proc/demo: cannot be written" in capsys.readouterr().err


def test_two_processes_cannot_write_one_output(folder, tmp_path, capsys):
    from filelock import FileLock

    path = tmp_path / "out.csv"
    with FileLock(tmp_path / ".out.csv.lock"):
        assert predict(folder, "-o", path) == 2
    assert "another process is writing it" in capsys.readouterr().err and not path.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("absent.wav",), "'absent.wav': no such file or folder"),
        (("EMPTY",), "no recordings there (it is empty)"),
        (("TEXTS",), "no recordings there (ignored 1 other file (1 .txt))"),
        (("CLIP", "CLIP"), "is given twice"),
        (("CLIP", "--labels", ""), "--labels must be a non-empty list"),
        (("CLIP", "--labels", "sad,angry,sad"), "--labels names a word twice: 'sad' and 'sad'"),
        (("CLIP", "--labels", "sad"), "--labels names only 'sad'"),
        (("CLIP", "--template", "a voice"), "--template: the template 'a voice' lacks {}"),
        (("CLIP", "--output", "out.txt"), "give a name that ends in .csv or .jsonl"),
        (("CLIP", "--output", "out.csv", "--format", "table"), "give a name that ends in .csv or .jsonl"),
        (("CLIP", "--device", "cuda:9"), "--device cuda:9"),
        (("CLIP", "--model", "absent/model"), "absent/model: no such folder"),
        (("CLIP", "--model", "ROBERTA"), "a checkpoint of roberta, not of GEmo-CLAP"),
        (("CLIP", "--batch-size", "0"), "Invalid value for '--batch-size'"),
        (("CLIP", "--fromat", "csv"), "No such option: --fromat"),
    ],
)
def test_wrong_arguments_end_with_status_2(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("EMPTY", "TEXTS", "ROBERTA"):
        (tmp_path / name).mkdir()
    (tmp_path / "TEXTS/a.txt").write_text("text")
    (tmp_path / "ROBERTA/config.json").write_text('{"model_type": "roberta"}')
    words = [str(folder / "a.wav") if word == "CLIP" else word for word in words]
    model = () if "--model" in words else COMPACT
    assert run("predict", *words, *model) == 2
    assert message.lower() in capsys.readouterr().err.lower()
    assert not (tmp_path / "out.csv").exists()


def test_an_output_that_cannot_be_written_is_an_error(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert predict(folder, "-o", tmp_path / "file/out.csv") == 2
    assert f"--output {tmp_path / 'file'}: cannot be written" in capsys.readouterr().err


def test_the_folder_of_the_output_is_created(folder, tmp_path):
    assert predict(folder / "a.wav", "-o", tmp_path / "new/out.csv") == 0
    names = [".out.csv.lock", "out.csv", "out.csv.settings.json"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names


def test_a_hundred_labels(folder, tmp_path):
    labels = [f"word{index}" for index in range(100)]
    assert predict(folder / "a.wav", "-o", tmp_path / "out.csv", "--labels", ",".join(labels)) == 0
    assert len(rows_of(tmp_path / "out.csv")[0]) == 104


def test_quiet_prints_predictions_alone(folder, capsys):
    assert predict(folder / "a.wav", "--quiet", "--format", "jsonl") == 0
    captured = capsys.readouterr()
    assert captured.err == "" and json.loads(captured.out)["error"] is None


def test_standard_input(folder):
    command = [sys.executable, "-m", "modeling_gemoclap", "predict", "-", "--format", "csv", *COMPACT]
    with open(folder / "a.wav", "rb") as file:
        done = subprocess.run(command, cwd=ROOT, stdin=file, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [row] = csv.DictReader(done.stdout.splitlines())
    assert row["file"] == "-" and row["label"] and "Loading" not in done.stderr


def test_each_standard_input_is_a_recording_of_its_own(folder, tmp_path, monkeypatch):
    for name in ("a.wav", "é\nü.wav"):
        monkeypatch.setattr(sys, "stdin", open(folder / name))
        assert predict("-", "-o", tmp_path / "out.jsonl") == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_the_answer_is_that_of_the_pipeline(tones, capsys):
    from transformers import pipeline

    clip = next(tones.glob("audio/*.wav"))
    assert predict(clip, "-q", "--format", "jsonl", "--labels", "furious,gloomy", "--template", "a {} voice") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    pipe = pipeline(model=str(ROOT / "checkpoints/gemoclap-compact"), trust_remote_code=True)
    answer = pipe(str(clip), candidate_labels=["furious", "gloomy"], hypothesis_template="a {} voice")
    assert list(scores) == [item["label"] for item in answer]
    assert np.allclose(list(scores.values()), [item["score"] for item in answer], atol=1e-6)


def test_embeddings_of_recordings_and_texts(folder, tmp_path, capsys):
    path = tmp_path / "o'ut put.npz"
    words = ("embed", folder, "--output", path, "--text", "an angry voice", "--text", "a sad voice", *COMPACT)
    assert run(*words) == 1
    message = capsys.readouterr().err
    assert "broken.wav" in message
    hinted = shlex.split(message.partition("Next: python ")[2])
    assert subprocess.run([sys.executable, *hinted], capture_output=True, text=True).stdout == "(4, 128)\n"
    stored = np.load(path)
    assert stored["embeddings"].shape == (4, 128) and stored["text_embeddings"].shape == (2, 128)
    assert len(stored["files"]) == 4 and list(stored["texts"]) == ["an angry voice", "a sad voice"]
    for name in ("embeddings", "text_embeddings"):
        assert np.allclose(np.linalg.norm(stored[name], axis=1), 1, atol=1e-5)
    assert len(stored["errors"]) == 1 and "broken.wav" in stored["errors"][0]
    assert run("embed", folder / "broken.wav", "--output", tmp_path / "none.npz", *COMPACT) == 1
    assert run("embed", folder, "--output", tmp_path / "out.npy", *COMPACT) == 2
    assert not (tmp_path / "none.npz").exists()


def test_info_tells_what_the_configuration_records(capsys):
    assert run("info", "compact") == 0
    text = capsys.readouterr().out
    config = json.loads((ROOT / "checkpoints/gemoclap-compact/config.json").read_text())
    [record] = config["training_data"]
    assert f"emodb: {record['num_clips']} clips by speakers {', '.join(record['speakers'])}" in text
    assert "apache-2.0" in text and all(word in text for word in config["known_words"])
    assert not [line for line in text.splitlines() if line.endswith(".py")]
    assert run("info", "compact", "--files") == 0
    rows = [line.strip() for line in capsys.readouterr().out.splitlines() if line.endswith(".py")]
    files = sorted((ROOT / "checkpoints/gemoclap-compact").glob("*.py"))
    assert rows == [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    combined = hashlib.sha256("".join(f"{row}\n" for row in rows).encode()).hexdigest()
    assert f"code SHA-256: {combined} ({len(files)} files" in text


def test_info_without_records_says_unknown(tmp_path, capsys):
    config = json.loads((ROOT / "checkpoints/gemoclap-compact/config.json").read_text())
    del config["training_data"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run("info", tmp_path) == 0
    text = capsys.readouterr().out
    assert "trained on:   unknown: the checkpoint has no record" in text and "licence:      unknown" in text


def test_doctor_names_the_command_for_what_is_missing(monkeypatch, capsys):
    from modeling_gemoclap.command_line import doctor

    assert run("doctor") == 0
    assert "torch" in capsys.readouterr().out
    version = doctor.version

    def missing(name):
        if name in ("soxr", "peft"):
            raise doctor.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", missing)
    assert run("doctor") == 1
    text = capsys.readouterr().out
    assert "missing: pip install 'soxr" in text


def test_help_starts_without_the_libraries():
    code = (
        "import sys; from modeling_gemoclap import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("predict", "train", "doctor"))


def test_no_model_of_another_kind(tones, capsys):
    assert run("predict", next(tones.glob("audio/*.wav")), "--model", ROOT / "configs") == 2
    assert "no config.json there" in capsys.readouterr().err


def test_training_shows_its_own_messages_and_no_noise_of_transformers(caplog, capsys, monkeypatch):
    from transformers.utils import logging

    from modeling_gemoclap.command_line.library_output import without_library_noise

    models, trainer = (
        logging.get_logger("transformers.modeling_utils"),
        logging.get_logger("transformers.trainer_utils"),
    )
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)  # to caplog
    logging.enable_progress_bar()  # other commands of this process may have disabled it
    unused = "BertModel LOAD REPORT from: x\nKey | Status\npooler.dense.bias | UNEXPECTED"

    def messages():
        caplog.clear()
        models.warning(unused)
        models.warning(unused.replace("UNEXPECTED", "MISSING"))
        trainer.warning("mtime may not be reliable on this filesystem, falling back to numerical ordering")
        trainer.warning("something else")
        list(logging.tqdm(range(2), desc="Writing model shards"))
        return {message.split()[-1] for message in caplog.messages}, "Writing" in capsys.readouterr().err

    with without_library_noise():
        assert messages() == ({"MISSING", "else"}, False)
    assert messages() == ({"UNEXPECTED", "MISSING", "ordering", "else"}, True)
