"""The sample of training clips that a training stores, and that of an existing checkpoint."""

import random
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, SPEAKERS, write_corpus
from safetensors.numpy import load_file

from modeling_gemoclap.cli import main
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.fingerprint import TRAINING_CLIPS
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.report import training_clips_for
from modeling_gemoclap.runs import training_clips as module
from modeling_gemoclap.runs.training_clips import recorded_training_clips, write_training_clips
from modeling_gemoclap.training_clips import OTHER_SPEAKERS, load_training_clips


def command(*words):
    with pytest.raises(SystemExit) as error:
        main([str(word) for word in words])
    return error.value.code


def test_training_stores_a_sample_of_its_clips_without_names(trained, tones):
    clips = load_training_clips(trained)
    assert len(clips) == 36 and clips.compared_with == OTHER_SPEAKERS, "three speakers of 12 clips"
    assert 0.4 <= clips.range_of("seconds")[0] < clips.range_of("seconds")[2] <= 0.7
    content = (trained / TRAINING_CLIPS).read_bytes()
    assert not any(word in content for word in (b".wav", b"angry", b"speaker_id", str(tones).encode()))
    pipe = load_pipeline(str(trained))
    assert training_clips_for(pipe, str(trained)).weights_sha256 == clips.weights_sha256
    own = load_corpus(tones).of_speakers(exclude=["04"]).clips["path"][0]
    embedding = pipe(own, return_embeddings=True)["embedding"]
    assert clips.distance(embedding) == pytest.approx(0, abs=2e-3)
    assert f"`{TRAINING_CLIPS}` holds embeddings of 36 of these clips" in (trained / "README.md").read_text()


def test_the_sample_does_not_change_the_training(train, tones, tmp_path):
    folders = [tmp_path / "with", tmp_path / "without"]
    for folder, switch in zip(folders, ("true", "false"), strict=True):
        options = ("--exclude_speakers", "04", "--output_dir", folder, "--store_training_clips", switch)
        train("--data_dir", tones, *options, "--num_train_epochs", "1")
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
    assert (folders[0] / TRAINING_CLIPS).is_file() and not (folders[1] / TRAINING_CLIPS).exists()
    assert TRAINING_CLIPS not in (folders[1] / "README.md").read_text()


def test_random_numbers_are_left_as_they_are():
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate()
    with module._unchanged_random_numbers():
        torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(before[0], torch.get_rng_state()) and before[2] == random.getstate()
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_sample_is_drawn_by_the_seed_and_leaves_out_what_cannot_be_read(trained, tmp_path, monkeypatch):
    checkpoint = shutil.copytree(trained, tmp_path / "checkpoint")
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "audio/01_angry_0.wav").write_bytes(b"no audio")
    clips = load_corpus(corpus)
    assert len(write_training_clips(checkpoint, clips)) == 12 * len(SPEAKERS) - 1
    monkeypatch.setattr(module, "MAX_CLIPS", 10)
    first, again, other = (write_training_clips(checkpoint, clips, seed).embeddings for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and 9 <= len(first) <= 10


def test_the_command_takes_the_clips_of_the_record(trained, tones, tmp_path, capsys):
    checkpoint = shutil.copytree(trained, tmp_path / "checkpoint")
    (checkpoint / TRAINING_CLIPS).unlink()
    assert command("training-clips", checkpoint, tones) == 0
    assert "embeddings of 36 of 36 training clips" in capsys.readouterr().out
    written, before = (load_file(folder / TRAINING_CLIPS) for folder in (checkpoint, trained))
    assert written["embeddings"].shape == before["embeddings"].shape
    assert np.allclose(written["distances"], before["distances"], atol=1e-3)
    assert command("training-clips", checkpoint, write_corpus(tmp_path / "other", salt="x")) == 2
    assert "was not trained on this corpus or this version of its manifest" in capsys.readouterr().err


def test_the_sample_of_a_shipped_checkpoint_is_that_of_its_record(corpora):
    for name in ("base", "compact"):
        folder = ROOT / f"checkpoints/gemoclap-{name}"
        clips = recorded_training_clips(str(folder), [str(corpora / "emodb")])
        assert len(clips) == len(load_training_clips(folder)) == 410 and not {"14", "15"} & {*clips.speakers}
        assert not isinstance(training_clips_for(load_pipeline(str(folder)), str(folder)), str)
