"""Batches of clips of similar length, and clips that are read while the model trains."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, TONES, batch_of, tone
from lengths import clip_seconds

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor, GEmoClapModel
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.training.clips import ClipDataset, ClipOptions, read_clips
from modeling_gemoclap.training.samplers import (
    ClassBalancedSampler,
    EpochSampler,
    FilledSampler,
    LengthSampler,
    batch_mix,
    lengths_of,
)
from modeling_gemoclap.training.trainer_options import set_workers

CORPORA = os.environ.get("GEMOCLAP_CORPORA")


@pytest.fixture
def lengths_corpus(tmp_path):
    """Tones of 0.4 to 1.2 s by four speakers."""
    folder, rows = tmp_path / "lengths", ["file_name,emotion,gender,speaker_id"]
    folder.mkdir()
    for number in range(24):
        emotion = list(TONES)[number % 3]
        wave = tone(emotion, number, 0.4 + 0.8 * (number * 7 % 24) / 24)
        soundfile.write(folder / f"{number}.wav", wave, RATE)
        rows.append(f"{number}.wav,{emotion},{('male', 'female')[number % 2]},0{number % 4 + 1}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def by_length(lengths, step, epoch=0, seed=0, sampler=None):
    sampler = LengthSampler(sampler or EpochSampler(len(lengths), seed), lengths, step, seed)
    sampler.set_epoch(epoch)
    return sampler


@pytest.mark.parametrize(("batch", "processes"), [(32, 1), (32, 2), (16, 4), (8, 1)])
def test_little_of_a_batch_is_padding(batch, processes):
    """Lengths distributed as those of Emo-DB and RAVDESS."""
    lengths, corpora = clip_seconds()
    random = batch_mix(EpochSampler(len(lengths)), batch, lengths, corpora)
    sorted_mix = batch_mix(by_length(lengths, batch * processes), batch, lengths, corpora)
    assert sorted_mix.padding < 0.08 < 0.15 < random.padding
    assert sorted_mix.largest_share > random.largest_share, "the corpora differ in length"


@pytest.mark.skipif(not CORPORA, reason="GEMOCLAP_CORPORA is not set")
def test_little_of_a_batch_of_real_clips_is_padding():
    names = [path for corpus in ("emodb", "ravdess") for path in load_corpus(Path(CORPORA, corpus)).clips["path"]]
    lengths = np.array([soundfile.info(name).duration for name in names])
    random = batch_mix(EpochSampler(len(lengths)), 32, lengths, lengths)
    assert batch_mix(by_length(lengths, 32), 32, lengths, lengths).padding <= 0.08 < 0.25 < random.padding


def test_every_clip_once_in_an_order_of_seed_and_epoch():
    lengths = clip_seconds()[0][:505]
    orders = [list(by_length(lengths, 16, epoch, seed)) for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert all(sorted(order) == list(range(505)) for order in orders)
    assert orders[0] == orders[1] and orders[0] != orders[2] != orders[3] != orders[0]
    first = [lengths[order[:16]].mean() for order in map(list, (by_length(lengths, 16, epoch) for epoch in range(9)))]
    assert np.std(first) > 0.2, "the steps are shuffled, so that an epoch does not begin with its shortest clips"
    sampler = by_length(lengths, 16)
    sampler.set_epoch(3)  # a resumed run begins with this epoch
    assert list(sampler) == list(by_length(lengths, 16, 3))


def test_the_clips_that_do_not_fill_a_step_are_as_long_as_others():
    """With --dataloader_drop_last true, no length is left out more often than others."""
    lengths = clip_seconds()[0][:505]
    left_out = [lengths[list(by_length(lengths, 32, epoch))[-(505 % 32) :]].mean() for epoch in range(40)]
    assert np.mean(left_out) == pytest.approx(lengths.mean(), rel=0.03)


def test_a_step_of_several_processes_has_neighbours_in_length():
    """Process `p` of 4 takes batch `p`, `p + 4`, ...; clips that fill the last step come last."""
    lengths = clip_seconds()[0]
    order = list(FilledSampler(by_length(lengths, 32), 32))
    assert len(order) % 32 == 0 and order[len(lengths) :] == [-1] * (-len(lengths) % 32)
    longest = lengths[np.array(order[: len(lengths) // 32 * 32])].reshape(-1, 4, 8).max(2)
    random = lengths[np.array(list(EpochSampler(len(lengths))))[: longest.size * 8]].reshape(-1, 4, 8).max(2)
    waiting, waiting_at_random = ((1 - times / times.max(1, keepdims=True)).mean() for times in (longest, random))
    assert waiting < 0.04 < 0.08 < waiting_at_random


def test_balanced_classes_are_sorted_within_groups_of_steps():
    lengths, labels = clip_seconds()[0][:600], [0] * 500 + [1] * 100
    balanced = ClassBalancedSampler(labels)
    order = list(by_length(lengths, 10, sampler=balanced))
    assert sorted(order) == sorted(balanced), "the same clips and repetitions"
    assert batch_mix(order, 10, lengths, labels).padding < 0.08 < batch_mix(balanced, 10, lengths, labels).padding


@pytest.mark.parametrize("feature_type", ["log_mel", "wave"])
def test_lengths_are_known_before_training(lengths_corpus, tmp_path, feature_type):
    extractor = GEmoClapFeatureExtractor(feature_type=feature_type, num_mel_bins=16)
    corpus, _ = read_clips(load_corpus(lengths_corpus), extractor, cache_dir=tmp_path / "cache")
    config = GEmoClapConfig(emotions=list(TONES))
    clips = ClipDataset(corpus, extractor, config)
    assert clips.lengths.tolist() == [len(clips[index]["clip"]) for index in range(len(clips))]
    cut = ClipDataset(corpus, extractor, config, ClipOptions(max_seconds=0.7))
    assert cut.lengths.tolist() == [len(cut[index]["clip"]) for index in range(len(cut))]
    assert cut.lengths.max() < clips.lengths.max()
    same = ClipDataset(corpus, extractor, config, ClipOptions(max_seconds=0.3))
    with pytest.raises(ValueError, match="the same length.*--max_seconds"):
        lengths_of(same, config)


def test_training_by_length_resumes_in_the_same_order(train, lengths_corpus, tmp_path):
    """Resumed within an epoch, whose last step has fewer clips."""
    options = ("--data_dir", lengths_corpus, "--batch_by_length", "true", "--per_device_train_batch_size", "5")
    options += ("--num_train_epochs", "2", "--save_strategy", "steps", "--save_steps", "3")
    train(*options, "--output_dir", tmp_path / "complete")
    resume = ("--resume_from_checkpoint", tmp_path / "complete/checkpoint-3")
    train(*options, "--output_dir", tmp_path / "again", *resume)
    first, second = (GEmoClapModel.from_pretrained(tmp_path / run).state_dict() for run in ("complete", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "supcon"), "leave out batch_by_length"),
        (("--head", "speaker"), "leave out batch_by_length"),
    ],
)
def test_refusals(train, lengths_corpus, tmp_path, options, message):
    options += ("--data_dir", lengths_corpus, "--output_dir", tmp_path / "run", "--batch_by_length", "true")
    with pytest.raises((ValueError, SystemExit), match=message):
        train(*options)


def test_windows_of_fixed_length_are_refused(make_model):
    clips = SimpleNamespace(lengths=np.arange(9), frames=None)
    with pytest.raises(ValueError, match="'whisper' model pads every clip to its window"):
        lengths_of(clips, make_model("whisper").config)
    assert len(lengths_of(SimpleNamespace(lengths=np.arange(9), frames=True), make_model("whisper").config)) == 9
    with pytest.raises(ValueError, match="unknown before training"):
        lengths_of(SimpleNamespace(), None)


@pytest.mark.parametrize(
    "given", [("--dataloader_drop_last", "true"), ("--dev_speakers", "04", "--eval_strategy", "epoch")]
)
def test_workers_do_not_change_the_weights(train, lengths_corpus, tmp_path, given):
    """Persistent workers draw no number when an epoch or evaluation begins, as new ones do; dropout depends on it."""
    options = ("--data_dir", lengths_corpus, "--num_train_epochs", "3", *given)
    weights = []
    for workers, persistent in ((0, "false"), (1, "true"), (1, "false")):
        run = tmp_path / f"{workers}-{persistent}"
        train(
            *options,
            *("--audio_config", '{"num_mel_bins": 16, "conv_channels": [8, 8], "hidden_size": 32}'),
            *("--dataloader_num_workers", workers, "--dataloader_persistent_workers", persistent),
            *("--output_dir", run),
        )
        weights.append(GEmoClapModel.from_pretrained(run).state_dict())
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in other)


def test_one_process_reads_clips_where_a_core_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr("multiprocessing.get_context", lambda: SimpleNamespace(get_start_method=lambda: "fork"))

    def workers(given=None, processes="1", **clips):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        args = GEmoClapTrainingArguments(tmp_path, use_cpu=True, dataloader_num_workers=given)
        set_workers(args, SimpleNamespace(**clips))
        return args.dataloader_num_workers, args.dataloader_persistent_workers

    assert workers() == (1, True) and workers(0) == (0, False) and workers(3) == (3, False)
    assert workers(frames=["stored"]) == (0, False) and workers(processes="2") == (0, False)
    log_mel, wave = (SimpleNamespace(feature_type=name) for name in ("log_mel", "wave"))
    assert workers(extractor=log_mel, reader=None) == (0, False), "cached features"
    assert workers(extractor=log_mel, reader="shards") == workers(extractor=wave, reader=None) == (1, True)


def assert_same_gradients(model, first, second, bound=1e-6):
    losses, gradients = [], []
    for batch in (first, second):
        model.zero_grad()
        losses.append(model(**batch).loss)
        losses[-1].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert abs(losses[0] - losses[1]) <= bound and gradients[0].keys() == gradients[1].keys()
    assert max((gradients[0][name] - gradients[1][name]).abs().max() for name in gradients[0]) <= bound


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_distinct_prompts_give_the_gradient_of_one_prompt_for_each_clip(make_model, objective):
    model = make_model(objective=objective).double()
    audio, _ = batch_of(model, [8000, 6000, 9000, 7000, 5000])
    ids, index = torch.arange(5, 17).view(2, 6), torch.tensor([0, 1, 1, 0, 1])
    labels = {"emotion_labels": torch.tensor([0, 1, 1, 2, -1]), "gender_labels": torch.tensor([0, 1, 0, 1, 1])}
    kinds = ("", "gender_") if objective == "ml" else ("",)
    each = {f"{kind}input_ids": ids[index] for kind in kinds}
    distinct = {f"{kind}input_ids": ids for kind in kinds} | {f"{kind}prompt_index": index for kind in kinds}
    assert_same_gradients(model, audio | each | labels, audio | distinct | labels)
    with pytest.raises(AssertionError):
        assert_same_gradients(model, audio | each | labels, audio | distinct | labels | {"prompt_index": 1 - index})
