"""Stored frames of frozen encoders: the store, its versions of clips, and training on it by every objective."""

import json
import os
import pickle
import shutil
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from conftest import TINY, TONES, TORCHRUN, run_script, tone, write_corpus
from families import AUDIO
from safetensors.torch import load_file

from modeling_gemoclap import GEmoClapForXVector, GEmoClapModel
from modeling_gemoclap.corpora.manifest import load_corpora, load_corpus
from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.training import frozen
from modeling_gemoclap.training.augmentation import Augmentation, collate_whisper, log_mel_scale, whisper_log_mel
from modeling_gemoclap.training.clips import ClipDataset, ClipOptions, read_clips
from modeling_gemoclap.training.frozen import attach_frames, collate_audio


@pytest.fixture
def encoded(monkeypatch):
    """A list to which each encoding of a clip adds its name."""
    names, encode = [], frozen._encode

    def record(model, clips, index, copy):
        names.append((clips.name_of(index), copy))
        return encode(model, clips, index, copy)

    monkeypatch.setattr(frozen, "_encode", record)
    return names


@pytest.fixture
def make_clips(make_model, tones, tmp_path):
    """A model with a frozen tower, and clips of some speakers."""

    def make(speakers=None, family="compact", seed=0, pooling="self_attention", weighted=None, **changes):
        weighted = family == "whisper" if weighted is None else weighted
        settings = {"use_weighted_layer_sum": weighted, "pooling": pooling}
        model = make_model(family, model_class=GEmoClapForXVector, **settings)
        model.freeze_audio_encoder()
        extractor = AUDIO[family].small_extractor(tmp_path / "extractor")
        corpus, _ = read_clips(
            load_corpus(tones).of_speakers(speakers), extractor, "raise", str(tmp_path / "features")
        )
        augmentation = Augmentation(**changes, **(log_mel_scale(extractor) or {})) or None
        options = ClipOptions(augmentation=augmentation, seed=seed)
        return model, ClipDataset(corpus, extractor, model.config, options)

    return make


# ---- the store ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["compact", "whisper", "hubert-base", "sew"])
def test_stored_frames_are_those_of_the_tower(family, make_clips, tmp_path, encoded):
    model, clips = make_clips(family=family)
    plain = collate_audio(clips.extractor, [clips[index] for index in (0, 13, 40)])
    attach_frames(model, clips, tmp_path / "store", quiet=True)
    batch = collate_audio(clips.extractor, [clips[index] for index in (0, 13, 40)])
    assert batch["audio_frames"].dtype == torch.float16 and len(encoded) == len(clips) == 48
    with torch.no_grad():
        torch.testing.assert_close(model.pool_audio(**batch), model.pool_audio(**plain), atol=2e-3, rtol=2e-3)
    assert batch["audio_frames"].shape[2] > 2
    filler = clips[-1]
    assert filler["emotion_label"] == -1 and not filler["clip"].states.any()
    assert collate_audio(clips.extractor, [clips[0], filler])["audio_attention_mask"].sum(1)[1] == 1


@pytest.mark.parametrize(
    ("pooling", "weighted", "frames"),
    [("mean", False, 1), ("mean", True, 1), ("mean_std", False, 2), ("mean_std", True, None)],
)
def test_a_clip_is_pooled_before_it_is_stored(pooling, weighted, frames, make_clips, tmp_path):
    """Only where the pooled vector of the frames that are stored is that of all."""
    model, clips = make_clips(family="whisper", pooling=pooling, weighted=weighted)
    if weighted:
        with torch.no_grad():
            model.audio_pooling.layer_weights.normal_(generator=torch.Generator().manual_seed(0))
    plain = collate_audio(clips.extractor, [clips[index] for index in (0, 13, 40)])
    store = attach_frames(model, clips, tmp_path / "store", quiet=True).folder
    batch = collate_audio(clips.extractor, [clips[index] for index in (0, 13, 40)])
    stored = batch["audio_frames"].shape[2]
    assert stored == frames if frames else stored > 2
    with torch.no_grad():
        pooled = model.pool_audio(**plain)
        torch.testing.assert_close(model.pool_audio(**batch), pooled, atol=2e-3, rtol=2e-3)
    assert pooled.std(0).max() > 0.05, "the clips differ"
    model.unfreeze_last_n_layers(1)
    other = attach_frames(model, clips, tmp_path / "store", quiet=True).folder
    assert other != store and clips[0]["clip"].states.shape[1] > 2, "trained layers need all frames"


def test_a_clip_is_encoded_once_for_all_selections(make_clips, tmp_path, encoded):
    """As in the folds of a protocol: training and test speakers, and a selection of the clips."""
    for speakers, new in ((["01", "02"], 24), (["02", "03"], 12), (["01", "03"], 0), (None, 12), (["04"], 0)):
        model, clips = make_clips(speakers)
        encoded.clear()
        attach_frames(model, clips, tmp_path / "store", quiet=True)
        assert len(encoded) == new
        for index in range(0, len(clips), 5):
            stored, alone = clips[index]["clip"], model.frozen_states(**_inputs(clips, index))[0][0]
            np.testing.assert_array_equal(stored.states, alone.detach().half().numpy()), "not of another clip"
    [store] = (tmp_path / "store").iterdir()
    assert store.name.startswith("frozen-") and len(list(store.glob("part-*"))) == 3
    assert json.loads((store / "made_of.json").read_text())["weights"]


def _inputs(clips, index):
    return collate_audio(clips.extractor, [{"clip": clips.clip_features(index, None)}])


def test_what_changes_frames_makes_another_store(make_clips, tmp_path, tones, encoded):
    model, clips = make_clips(["01"])
    first = attach_frames(model, clips, tmp_path, quiet=True).folder
    assert attach_frames(model, clips, tmp_path, quiet=True).folder == first and len(encoded) == 12
    with torch.no_grad():
        next(model.audio_model.parameters()).add_(0.1)
    assert attach_frames(model, clips, tmp_path, quiet=True).folder != first and len(encoded) == 24
    model, clips = make_clips(["01"])
    model.unfreeze_last_n_layers(1)
    assert attach_frames(model, clips, tmp_path, quiet=True).folder != first and len(encoded) == 36
    model, clips = make_clips(["01"])
    clips.extractor.do_normalize = False
    assert attach_frames(model, clips, tmp_path, quiet=True).folder != first and len(encoded) == 48


def test_a_changed_recording_is_encoded_again(make_model, tmp_path, encoded):
    folder = write_corpus(tmp_path / "corpus", clips=1)
    model = make_model("hubert-base", model_class=GEmoClapForXVector)
    model.freeze_audio_encoder()
    extractor = AUDIO["hubert-base"].small_extractor(tmp_path / "extractor")
    for _ in range(2):
        clips = ClipDataset(read_clips(load_corpus(folder), extractor)[0], extractor, model.config)
        attach_frames(model, clips, tmp_path / "store", quiet=True)
        path = clips.clips[3]["path"]
        os.utime(path, ns=(0, time.time_ns()))
    assert len(encoded) == 12 + 1 and encoded[-1][0] == clips.name_of(3)


def test_an_interrupted_encoding_leaves_nothing_that_is_trusted(make_clips, tmp_path, encoded, monkeypatch):
    monkeypatch.setattr(frozen, "PART_SECONDS", -1)  # one clip in each part
    write, written = frozen._flush, []

    def killed(file):
        written.append(1)
        if len(written) == 4:  # in the second part, after its frames and before its index is complete
            raise KeyboardInterrupt
        write(file)

    model, clips = make_clips(["01"])
    monkeypatch.setattr(frozen, "_flush", killed)
    with pytest.raises(KeyboardInterrupt):
        attach_frames(model, clips, tmp_path, quiet=True)
    assert clips.frames is None and model.audio_model.training is False
    [store] = tmp_path.glob("frozen-*")
    assert [path.name for path in store.glob("part-*")] == ["part-000000"]
    assert not list(store.glob(".unfinished-*")), "removed at once"
    (store / ".unfinished-1").mkdir()  # of a process that was killed
    (store / ".unfinished-1" / frozen.FRAMES).write_bytes(b"half")
    encoded.clear()
    attach_frames(model, clips, tmp_path, quiet=True)
    assert len(encoded) == 12 - 1 and not list(store.glob(".unfinished-*"))


@pytest.mark.parametrize("name", [frozen.FRAMES, frozen.INDEX])
def test_damaged_frames_are_computed_again(name, make_clips, tmp_path, encoded):
    model, clips = make_clips(["01"])
    store = attach_frames(model, clips, tmp_path, quiet=True).folder
    expected = clips[3]["clip"].states.copy()
    path = store / "part-000000" / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-100])
    attach_frames(model, clips, tmp_path, quiet=True)
    assert len(encoded) == 24 and np.array_equal(clips[3]["clip"].states, expected)
    assert len(list(store.glob("part-*"))) == 1
    attach_frames(model, clips, tmp_path, quiet=True)
    assert len(encoded) == 24


def test_the_disk_is_measured_before_it_is_full(make_clips, tmp_path, encoded, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 3000))
    model, clips = make_clips()
    with pytest.raises(
        ValueError, match=r"about [\d.e-]+ GiB .*frozen-\w+, and 2.79e-06 GiB are free.*--feature_cache_dir"
    ):
        attach_frames(model, clips, tmp_path, quiet=True)
    assert len(encoded) == frozen.ESTIMATE_CLIPS and clips.frames is None
    [store] = tmp_path.glob("frozen-*")
    assert {path.name for path in store.iterdir()} <= {"lock", frozen.MADE_OF}


def test_two_processes_do_not_encode_the_same_clip(make_clips, tmp_path, encoded):
    """A second encoder waits for the first, and then finds its frames."""
    both = [make_clips(["01", "02"]), make_clips(["02", "03"])]
    threads = [threading.Thread(target=attach_frames, args=(*each, tmp_path), kwargs={"quiet": True}) for each in both]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(encoded) == len(set(encoded)) == 36
    assert all(clips.frames for _, clips in both)


def test_workers_map_the_file_themselves(make_clips, tmp_path):
    model, clips = make_clips()
    attach_frames(model, clips, tmp_path, quiet=True)
    first = clips[5]["clip"].states
    assert isinstance(first.base, np.memmap) or isinstance(first, np.memmap)
    content = pickle.dumps(clips.frames)
    assert len(content) < 20_000, "no frames are copied"
    copy = pickle.loads(content)
    assert np.array_equal(copy.draw(5, torch.Generator()).states, first)


def test_frames_beyond_half_precision_are_refused(make_clips, tmp_path):
    model, clips = make_clips(["01"])
    with torch.no_grad():
        model.audio_model.final_norm.weight.fill_(1e6)
    with pytest.raises(ValueError, match=r"audio/01_\w+_\d.wav: the frames .* half precision"):
        attach_frames(model, clips, tmp_path, quiet=True)


# ---- versions of a clip ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["compact", "whisper"])
def test_versions_are_drawn_by_epoch_and_depend_on_seed_and_clip(family, make_clips, tmp_path, encoded):
    changes = {"family": family, "time_warp": 0.2, "equalizer_db": 3.0}
    model, clips = make_clips(["01"], **changes)
    attach_frames(model, clips, tmp_path / "store", 3, quiet=True)
    assert sorted(copy for _, copy in encoded) == sorted([0, 1, 2] * 12)
    versions = [clips.frames._versions[4][copy] for copy in range(3)]
    states = [part[place].states for part, place in versions]
    alone = model.frozen_states(**_inputs(clips, 4))[0][0].detach().half().numpy()
    assert np.array_equal(states[0], alone), "the first is unchanged"
    assert all(other.shape != alone.shape or not np.array_equal(other, alone) for other in states[1:])
    drawn = []
    for epoch in range(30):
        clips.set_epoch(epoch)
        drawn.append(next(n for n, state in enumerate(states) if np.array_equal(clips[4]["clip"].states, state)))
        assert np.array_equal(clips[4]["clip"].states, clips[4]["clip"].states), "the same within an epoch"
    assert set(drawn) == {0, 1, 2}
    encoded.clear()
    model, plain = make_clips(["01"], family=family)
    attach_frames(model, plain, tmp_path / "store", quiet=True)
    assert not encoded, "development and evaluation share the unchanged version"
    model, more = make_clips(["01", "02"], **changes)
    attach_frames(model, more, tmp_path / "store", 4, quiet=True)
    assert len(encoded) == 12 + 4 * 12, "one version more, and another speaker"
    encoded.clear()
    model, other = make_clips(["01"], seed=1, **changes)
    attach_frames(model, other, tmp_path / "store", 3, quiet=True)
    assert len(encoded) == 2 * 12, "another seed has other changes"
    shutil.rmtree(tmp_path / "store")
    model, again = make_clips(["01"], **changes)
    attach_frames(model, again, tmp_path / "store", 3, quiet=True)
    part, place = again.frames._versions[4][2]
    assert np.array_equal(part[place].states, states[2])


# ---- augmentation of Whisper's features -----------------------------------------------------------------------------
@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.0033, 1.985, 2.0])
def test_without_a_change_whisper_gets_its_own_features(seconds, tmp_path):
    extractor = AUDIO["whisper"].small_extractor(tmp_path)
    waves = [extractor.features(tone("sad", 0, seconds)), extractor.features(tone("angry", 1, 0.7))]
    expected = extractor.collate(waves)
    batch = collate_whisper(extractor, [whisper_log_mel(extractor, wave) for wave in waves])
    torch.testing.assert_close(batch["input_features"], expected["input_features"])
    assert torch.equal(batch["audio_attention_mask"], expected["audio_attention_mask"])


def test_whisper_silence_is_the_floor_of_the_changed_clip(tmp_path):
    extractor = AUDIO["whisper"].small_extractor(tmp_path)
    clip = whisper_log_mel(extractor, extractor.features(tone("sad", 0, 0.5)))
    for gain in (1.0, -0.9):  # 40 dB louder, 36 dB softer
        values = collate_whisper(extractor, [clip + gain])["input_features"][0]
        assert values[:, 60:].unique().item() == pytest.approx(max(-1.5, float(values.max()) - 2.0))
        assert values.min() >= values.max() - 2.0


def test_a_slower_clip_continues_in_another_window_or_is_cut_at_max_seconds(tmp_path):
    extractor = AUDIO["whisper"].small_extractor(tmp_path)
    extractor.max_seconds = 2.0
    clip = whisper_log_mel(extractor, extractor.features(tone("sad", 0, 1.9)))
    slow = np.repeat(clip, 2, axis=0)
    batch = collate_whisper(extractor, [slow, clip])
    assert batch["input_features"].shape == (2, 16, 200) and batch["audio_attention_mask"].sum(1).tolist() == [
        200,
        190,
    ]
    extractor.max_seconds = None
    batch = collate_whisper(extractor, [slow, clip])
    assert batch["input_features"].shape == (2, 16, 400), "a second window"
    assert batch["audio_attention_mask"].sum(1).tolist() == [len(slow) - 2, 190]
    torch.testing.assert_close(batch["input_features"][1, :, 200:], torch.full((16, 200), -1.5))


def test_scale_of_whisper_is_that_of_its_power(tmp_path):
    """Noise at the level of the clip doubles its power: 3 dB, or 0.3 / 4 in Whisper's features."""
    extractor = AUDIO["whisper"].small_extractor(tmp_path)
    scale = log_mel_scale(extractor)
    louder = (
        extractor.collate([2 * tone("sad", 0)])["input_features"]
        - extractor.collate([tone("sad", 0)])["input_features"]
    )
    power = np.log(4) / scale["log_mel_std"]
    assert louder[0].median().item() == pytest.approx(power, abs=1e-4)
    assert scale["hop_seconds"] == 0.01 and log_mel_scale(AUDIO["hubert-base"].small_extractor(tmp_path / "w")) is None


def test_whisper_is_augmented_in_training(make_clips):
    changes = {"time_warp": 0.3, "mel_warp": 0.1, "equalizer_db": 3.0, "noise_prob": 1.0, "reverb_prob": 1.0}
    _, clips = make_clips(["01"], family="whisper", mix_prob=1.0, **changes)
    _, plain = make_clips(["01"], family="whisper")
    batch, expected = (collate_audio(each.extractor, [each[0], each[1], each[-1]]) for each in (clips, plain))
    assert batch["input_features"].shape == expected["input_features"].shape
    assert not torch.allclose(batch["input_features"][0], expected["input_features"][0], atol=0.1)
    assert torch.allclose(batch["input_features"][2], expected["input_features"][2], atol=1e-5), "the filling clip"
    assert torch.equal(
        batch["input_features"], collate_audio(clips.extractor, [clips[0], clips[1], clips[-1]])["input_features"]
    )
    with pytest.raises(ValueError, match="log-mel features of the compact encoder and of Whisper"):
        make_clips(["01"], family="hubert-base", time_warp=0.1)


# ---- training -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def vectors(tones, tmp_path_factory):
    """Speaker embeddings with a cluster for each emotion."""
    corpus, generator = load_corpora([str(tones)]), np.random.default_rng(0)
    names, emotions = (corpus.column(name).to_pylist() for name in ("file_name", "emotion"))
    values = [np.eye(8)[list(TONES).index(emotion)] + 0.1 * generator.standard_normal(8) for emotion in emotions]
    path = tmp_path_factory.mktemp("vectors") / "vectors.npz"
    np.savez(path, file_name=np.array(names), embeddings=np.stack(values))
    return path


def options_of(head, trained, vectors):
    """Options of an objective that trains something besides the frozen encoder of a checkpoint."""
    options = ("--init_from", trained, "--freeze_audio_encoder", "true", "--num_train_epochs", 3)
    return (
        options
        + {
            "contrastive": ("--freeze_text_encoder", "true", "--prompt_steps", 5),
            "ml": ("--objective", "ml", "--freeze_text_encoder", "true", "--contrastive_chunk_size", 5),
            "classifier": ("--head", "classifier"),
            "supcon": ("--head", "supcon", "--per_device_train_batch_size", 8),
            "speaker": ("--head", "speaker", "--speaker_embeddings", vectors, "--speaker_task", "multi-task"),
        }[head]
    )


@pytest.fixture(scope="module")
def attending(tones, tmp_path_factory):
    """A checkpoint whose pooling has weights, so that every objective has some to train."""
    output = tmp_path_factory.mktemp("runs") / "attending"
    options = ("--data_dir", tones, "--exclude_speakers", "04", "--pooling", "self_attention", "--max_steps", 2)
    run_script("train.py", *TINY, *options, "--output_dir", output)
    return output


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("head", ["contrastive", "ml", "classifier", "supcon", "speaker"])
def test_every_objective_trains_the_same_on_stored_frames(head, train, tones, attending, vectors, tmp_path, encoded):
    options = (*options_of(head, attending, vectors), "--pooling", "self_attention", "--data_dir", tones)
    cache = ("--cache_frozen_frames", "true", "--feature_cache_dir", tmp_path / "cache")
    train(*options, "--output_dir", tmp_path / "plain")
    assert not encoded
    train(*options, *cache, "--output_dir", tmp_path / "stored")
    assert len(encoded) == 48
    train(*options, *cache, "--output_dir", tmp_path / "again")
    assert len(encoded) == 48, "the second run finds the frames of the first"
    plain, stored, again = (weights_of(tmp_path / name) for name in ("plain", "stored", "again"))
    start = weights_of(attending)
    changed = [name for name, value in plain.items() if name not in start or not torch.equal(value, start[name])]
    assert changed and not any(name.startswith("audio_model") for name in changed)
    for name, value in plain.items():
        torch.testing.assert_close(value, stored[name], atol=5e-3, rtol=5e-2, msg=lambda text, n=name: f"{n} {text}")
        assert torch.equal(stored[name], again[name])


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--frozen_copies", 3, "--time_warp", 0.1),
        ("--freeze_audio_encoder", "false", "--unfreeze_last_n_layers", 1),
    ],
)
def test_a_resumed_run_on_stored_frames_equals_an_uninterrupted_one(more, train, tones, attending, tmp_path, vectors):
    options = (*options_of("contrastive", attending, vectors), "--pooling", "self_attention", "--data_dir", tones)
    options += ("--cache_frozen_frames", "true", "--feature_cache_dir", tmp_path / "cache", "--save_strategy", "epoch")
    options += ("--exclude_speakers", "04", "--lr_scheduler_type", "constant", *more)
    train(*options, "--output_dir", tmp_path / "straight")
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / "straight" / IDENTITY, tmp_path / "resumed")
    shutil.copytree(tmp_path / "straight/checkpoint-3", tmp_path / "resumed/checkpoint-3")
    shutil.rmtree(tmp_path / "cache")  # the frames are computed again, and are the same
    train(*options, "--output_dir", tmp_path / "resumed", "--resume_from_checkpoint", "true")
    straight, resumed = (weights_of(tmp_path / name) for name in ("straight", "resumed"))
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_last_layers_are_trained_on_stored_frames(train, tones, attending, tmp_path, encoded):
    """All options of a run at once: the last layer is trained, with development speakers and calibration folds."""
    options = (
        "--init_from",
        attending,
        "--pooling",
        "self_attention",
        "--unfreeze_last_n_layers",
        1,
        "--data_dir",
        tones,
    )
    options += ("--freeze_text_encoder", "true", "--num_train_epochs", 2, "--feature_cache_dir", tmp_path / "cache")
    train(*options, "--output_dir", tmp_path / "plain", "--num_dev_speakers", 1, "--select", "dev")
    cache = ("--cache_frozen_frames", "true")
    train(*options, *cache, "--output_dir", tmp_path / "stored", "--num_dev_speakers", 1, "--select", "dev")
    assert len(encoded) == 48, "development clips too"
    plain, stored = (weights_of(tmp_path / name) for name in ("plain", "stored"))
    moved = [name for name, value in weights_of(attending).items() if not torch.equal(value, stored[name])]
    assert any(name.startswith("audio_model.layers.0") for name in moved)
    assert not any("conv" in name for name in moved)
    for name, value in plain.items():
        torch.testing.assert_close(value, stored[name], atol=5e-3, rtol=5e-2, msg=lambda text, n=name: f"{n} {text}")
    train(*options, *cache, "--output_dir", tmp_path / "calibrated", "--calibration_folds", 2)
    assert len(encoded) == 48, "the folds of the calibration find the frames"
    assert GEmoClapModel.from_pretrained(tmp_path / "calibrated").config.calibrated_on


def test_folds_and_seeds_of_a_protocol_encode_each_clip_once(train, tones, attending, tmp_path, encoded):
    options = ("--init_from", attending, "--pooling", "self_attention", "--freeze_audio_encoder", "true")
    options += ("--cache_frozen_frames", "true", "--feature_cache_dir", tmp_path / "cache", "--num_train_epochs", 1)
    with pytest.raises(ValueError, match="no fold|leaves out|was trained on"):  # the encoder heard the test speakers
        train(*options, "--data_dir", tones, "--protocol", "2-folds-by-speaker", "--output_dir", tmp_path / "run")
    other = write_corpus(tmp_path / "other", salt="x", clips=2)
    train(
        *options,
        "--data_dir",
        other,
        "--protocol",
        "2-folds-by-speaker",
        "--seeds",
        0,
        1,
        "--output_dir",
        tmp_path / "run",
    )
    assert len(list(tmp_path.glob("run/fold_*/seed_*/fold.json"))) == 4
    assert len(encoded) == len(set(encoded)) == 24


@pytest.mark.slow
def test_grids_share_frames(tones, attending, tmp_path):
    other = write_corpus(tmp_path / "other", salt="x", clips=2)
    (tmp_path / "grid.yaml").write_text("cells: [{name: first}, {name: second, alpha: 0.5}]\n")
    words = ("--config", tmp_path / "grid.yaml", "--base", "tests/tiny.yaml", "--protocol", "2-folds-by-speaker")
    more = ("--init_from", attending, "--pooling", "self_attention", "--freeze_audio_encoder", "true")
    more += ("--cache_frozen_frames", "true", "--feature_cache_dir", tmp_path / "cache", "--num_train_epochs", 1)
    run_script("grid.py", *words, "--data_dir", other, "--output_dir", tmp_path / "grid", "--", *more)
    [store] = (tmp_path / "cache").glob("frozen-*")
    keys = [key for path in store.glob("part-*") for key in np.load(path / frozen.INDEX)["keys"]]
    assert len(keys) == len(set(keys)) == 24


@pytest.mark.slow
def test_two_ranks_train_on_the_frames_of_one(tones, attending, tmp_path):
    options = ("--init_from", attending, "--pooling", "self_attention", "--freeze_audio_encoder", "true")
    options += ("--freeze_text_encoder", "true", "--data_dir", tones, "--num_train_epochs", 2)
    options += ("--optimizer", "optim", "--optim", "sgd", "--unknown_gender_prob", 0)
    options += ("--cache_frozen_frames", "true", "--feature_cache_dir", tmp_path / "cache")
    run_script("train.py", *TINY, *options, "--output_dir", tmp_path / "one")
    shutil.rmtree(tmp_path / "cache")
    half = ("--per_device_train_batch_size", 6, "--output_dir", tmp_path / "two")
    run_script("train.py", *TINY, *options, *half, launcher=TORCHRUN)
    [store] = (tmp_path / "cache").glob("frozen-*")
    assert len(list(store.glob("part-*"))) == 1
    one, two = (weights_of(tmp_path / name) for name in ("one", "two"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze_audio_encoder", "false"), "needs --freeze_audio_encoder true or --unfreeze_last_n_layers"),
        (("--time_warp", 0.1), "leave out --time_warp, give --frozen_copies 8"),
        (("--frozen_copies", 2), "would store equal versions"),
        (("--frozen_copies", 2, "--max_seconds", 1), "leave out --max_seconds"),
        (("--frozen_copies", 2, "--mix_prob", 1), "leave out --mix_prob"),
        (("--frozen_copies", 2, "--cache_frozen_frames", "false"), "--frozen_copies needs --cache_frozen_frames"),
        (("--frozen_copies", 0), "frozen_copies 0 must be"),
    ],
)
def test_options_that_contradict_stored_frames(options, message, train, tones, attending, tmp_path):
    stored = ("--init_from", attending, "--freeze_audio_encoder", "true", "--cache_frozen_frames", "true")
    with pytest.raises(ValueError, match=message):
        train("--data_dir", tones, "--output_dir", tmp_path / "run", *stored, *options)


def test_shards_are_refused(train, tones, attending, tmp_path):
    run_script("-m", "modeling_gemoclap.corpora.shards", tones, tmp_path / "shards")
    stored = ("--init_from", attending, "--freeze_audio_encoder", "true", "--cache_frozen_frames", "true")
    with pytest.raises(
        ValueError, match="shards are read in their order, which --cache_frozen_frames does not support"
    ):
        train("--data_dir", tmp_path / "shards", "--output_dir", tmp_path / "run", *stored)
