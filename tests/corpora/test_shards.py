"""Corpora in Parquet shards: writing, reading, sampling, training and evaluation."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY, run_script, write_corpus

from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapModel
from modeling_gemoclap.corpora.manifest import ManifestError, load_corpus
from modeling_gemoclap.corpora.shard_reader import ShardReader
from modeling_gemoclap.corpora.shards import write_shards
from modeling_gemoclap.training.clips import ClipDataset
from modeling_gemoclap.training.samplers import ShardSampler


@pytest.fixture(scope="module")
def sharded(tones, tmp_path_factory):
    """The tones in four shards of twelve clips, each with four groups of three."""
    folder = tmp_path_factory.mktemp("sharded") / "tones"
    write_shards(load_corpus(tones), folder, clips_per_shard=12, clips_per_group=3)
    return folder


def test_shards_have_the_content_of_the_files(tones, sharded):
    files, shards = load_corpus(tones), load_corpus(sharded)
    assert shards.manifest_sha256 == files.manifest_sha256 and shards.speakers == files.speakers
    assert len(list(sharded.glob("*.parquet"))) == 4
    held = {clip["file_name"]: sound["bytes"] for clip, sound in zip(shards.clips, shards.recordings(), strict=True)}
    assert held == {name: (tones / name).read_bytes() for name in files.clips["file_name"]}
    names = list(shards.clips["file_name"])
    assert names != sorted(names), "the clips are shuffled"
    part = shards.of_speakers(["02"]).of_emotions(["sad"], drop_others=True)
    assert len(part) == 4 and {clip["speaker_id"] for clip in part.clips} == {"02"} and part.shards == shards.shards


def test_the_command_writes_shards(tones, tmp_path):
    done = run_script("-m", "modeling_gemoclap.corpora.shards", tones, tmp_path / "out")
    assert "1 shards" in done.stdout and len(load_corpus(tmp_path / "out")) == 48
    with pytest.raises(ManifestError, match="already holds shards"):
        write_shards(load_corpus(tones), tmp_path / "out")


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("file_name", "emotion", "gender", "speaker_id")),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ]
)


def write(path, rows, schema=SCHEMA):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=2)


def row(name="a.wav", emotion="sad", gender="f", speaker_id="1", audio=None):
    audio = audio or {"bytes": b"x", "path": name}
    return {"file_name": name, "emotion": emotion, "gender": gender, "speaker_id": speaker_id, "audio": audio}


def test_errors_name_the_shard_and_row(tmp_path):
    write(tmp_path / "x/a.parquet", [row(), row("b.wav"), row("c.wav", "gloomy")])
    with pytest.raises(ManifestError, match="a.parquet, row 0 of group 1: emotion 'gloomy'"):
        load_corpus(tmp_path / "x")
    write(tmp_path / "y/a.parquet", [row()])
    write(tmp_path / "y/b.parquet", [row()])
    with pytest.raises(ManifestError, match="b.parquet, row 0 of group 0: a.wav already occurs in row 0 of group 0"):
        load_corpus(tmp_path / "y")
    write(tmp_path / "z/a.parquet", [{"emotion": "sad", "audio": "a.wav"}], None)
    with pytest.raises(ManifestError, match=r"a.parquet: no column gender, speaker_id; its columns are"):
        load_corpus(tmp_path / "z")
    (tmp_path / "z/a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ManifestError, match="a.parquet: cannot be read as Parquet"):
        load_corpus(tmp_path / "z")


def test_names_from_the_audio_column(tmp_path):
    """`datasets` writes an Audio column and no file_name."""
    rows = [{name: value for name, value in row(f"{i}.wav").items() if name != "file_name"} for i in range(3)]
    write(tmp_path / "data/train-00000-of-00001.parquet", rows, None)
    assert list(load_corpus(tmp_path).clips["file_name"]) == ["0.wav", "1.wav", "2.wav"]


@pytest.mark.parametrize(
    ("clips", "batch", "processes", "workers"), [(535, 32, 1, 8), (2056, 32, 1, 8), (48, 12, 2, 8), (535, 4, 8, 8)]
)
def test_only_the_last_batch_is_incomplete(clips, batch, processes, workers):
    """Even with few clips for many workers, only the last step of an epoch is padded."""
    step = batch * processes
    for drop_last in (False, True):
        order = list(ShardSampler(np.arange(clips) // 8, batch, processes, workers, drop_last=drop_last))
        true = [sum(index != -1 for index in order[start : start + step]) for start in range(0, len(order), step)]
        left = [clips % step] if clips % step and not drop_last else []
        assert true == [step] * (clips // step) + left
        drawn = [index for index in order if index != -1]
        assert len(drawn) == len(set(drawn)) == sum(true)


@pytest.mark.parametrize(("processes", "workers", "drop_last"), [(1, 1, False), (2, 3, False), (3, 2, True)])
def test_each_worker_of_each_process_reads_its_own_groups(processes, workers, drop_last, monkeypatch):
    groups, size = np.repeat(np.arange(40), 5), 4
    monkeypatch.setattr(ShardSampler, "groups_at_a_time", 3)
    sampler = ShardSampler(groups, size, processes, workers, seed=1, drop_last=drop_last)
    orders = []
    for epoch in (0, 0, 1):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler) and len(sampler) % (size * processes) == 0
    assert orders[0] == orders[1] != orders[2]
    drawn = [index for index in orders[0] if index != -1]
    assert len(drawn) == len(set(drawn)) and (len(drawn) == 200 or drop_last and len(drawn) > 170)
    assert not drop_last or -1 not in orders[0]
    batches = [orders[0][start : start + size] for start in range(0, len(orders[0]), size)]
    read = {}  # the groups that accelerate and torch give to each worker of each process
    for process in range(processes):
        for number, batch in enumerate(batches[process::processes]):
            read.setdefault((process, number % workers), []).extend(groups[i] for i in batch if i != -1)
    shared = sum(len(set(part)) for part in read.values()) - len({group for part in read.values() for group in part})
    few = 2 * processes * workers
    assert len(read) == processes * workers and shared < few, (
        "only groups on a border and the remaining groups are read twice"
    )
    assert max(map(len, read.values())) - min(map(len, read.values())) <= size


def test_each_group_is_read_once(sharded, make_model, monkeypatch):
    """In the order of the sampler, the cache of the reader is large enough."""
    corpus, model = load_corpus(sharded), make_model()
    clips = ClipDataset(corpus, GEmoClapFeatureExtractor(feature_type="log_mel", num_mel_bins=16), model.config)
    clips.reader.groups = 5
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(a[1]) or original(*a, **k))
    monkeypatch.setattr(ShardSampler, "groups_at_a_time", 3)
    for index in ShardSampler(clips.groups, 4):
        clips[index]
    assert len(read) == 16, "16 groups of three"


def weights(folder):
    return GEmoClapModel.from_pretrained(folder).state_dict()


@pytest.mark.slow
def test_a_run_from_shards_resumes_exactly(sharded, tmp_path):
    """With two workers, a run that is interrupted within an epoch ends with the same weights."""
    options = ("--data_dir", sharded, "--num_train_epochs", "2", "--dataloader_num_workers", "2")
    options += ("--per_device_train_batch_size", "5", "--save_strategy", "steps", "--save_steps", "7")
    options += ("--max_seconds", "0.5", "--exclude_speakers", "04", "--dev_speakers", "03", "--eval_strategy", "epoch")
    run_script("train.py", *TINY, *options, "--output_dir", tmp_path / "complete")
    state = json.loads((tmp_path / "complete/trainer_state.json").read_text())
    assert state["global_step"] == 10, "24 clips in batches of five: twice five steps"
    assert sum("eval_uar" in entry for entry in state["log_history"]) == 2
    more = ("--resume_from_checkpoint", tmp_path / "complete/checkpoint-7", "--output_dir", tmp_path / "resumed")
    run_script("train.py", *TINY, *options, *more)
    first, second = weights(tmp_path / "complete"), weights(tmp_path / "resumed")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_from_shards_is_resumed_only_with_the_same_number_of_workers(train, sharded, tmp_path):
    """The order of the clips depends on it, and so do the weights; without workers it is that of one."""
    options = ("--data_dir", sharded, "--num_train_epochs", "1", "--save_strategy", "epoch", "--output_dir")
    options += (tmp_path / "run",)
    train(*options)
    resume = ("--resume_from_checkpoint", "true", "--dataloader_num_workers")
    with pytest.raises(ValueError, match=r"differs in: dataloader_num_workers \(1 then, 2 now\)"):
        train(*options, *resume, "2")
    train(*options, *resume, "0")


@pytest.mark.slow
def test_training_from_shards_in_two_processes(tones, sharded, tmp_path):
    options = ("--data_dir", sharded, "--num_train_epochs", "12", "--exclude_speakers", "04")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    run_script("train.py", *TINY, *options, "--output_dir", tmp_path / "run", launcher=launcher)
    results = []
    for folder in (tones, sharded):
        output = tmp_path / f"results-{len(results)}"
        run_script(
            "evaluate.py",
            "--model",
            tmp_path / "run",
            "--data_dir",
            folder,
            "--speakers",
            "04",
            "--output_dir",
            output,
        )
        results.append(json.loads((output / "results.json").read_text()))
    assert results[0]["uar"] == results[1]["uar"] > 0.8 and results[0]["n"] == 12


def test_unreadable_clips_in_shards_are_refused_or_skipped(tones, tmp_path):
    folder = write_corpus(tmp_path / "tones", [["audio/bad.wav", "sad", "female", "05"]])
    (folder / "audio/bad.wav").write_bytes(b"RIFF")
    write_shards(load_corpus(folder), tmp_path / "shards")
    options = ("--data_dir", tmp_path / "shards", "--num_train_epochs", "1", "--output_dir", tmp_path / "run")
    done = run_script("train.py", *TINY, *options, check=False)
    assert done.returncode == 1 and "clips-00000-of-00001.parquet, audio/bad.wav" in done.stderr
    assert "--on_bad_audio skip" in done.stderr
    done = run_script("train.py", *TINY, *options, "--on_bad_audio", "skip", "--overwrite_output", "true")
    assert done.stderr.count("skipped a clip") == 1
    assert "Trained on 48 clips, 1 skipped" in done.stdout
    more = ("--on_bad_audio", "skip", "--class_balanced_sampling", "true", "--overwrite_output", "true")
    done = run_script("train.py", *TINY, *options, *more, check=False)
    assert done.returncode == 1 and "does not support shards" in done.stderr


def test_skipped_clips_of_shards_are_reported_and_not_counted(tones, tmp_path):
    """Two of the six unreadable clips are development clips. There are two worker processes and three epochs."""
    bad = [[f"audio/{speaker}_bad_{n}.wav", "sad", "male", speaker] for speaker in ("02", "04") for n in range(2)]
    bad += [[f"audio/03_bad_{n}.wav", "angry", "female", "03"] for n in range(2)]
    folder = write_corpus(tmp_path / "tones", bad)
    for name, *_ in bad:
        (folder / name).write_bytes(b"RIFF")
    write_shards(load_corpus(folder), tmp_path / "shards", clips_per_group=5)
    run = tmp_path / "run"
    options = ("--data_dir", tmp_path / "shards", "--num_train_epochs", "3", "--output_dir", run)
    options += ("--on_bad_audio", "skip", "--dataloader_num_workers", "2", "--dev_speakers", "04")
    done = run_script("train.py", *TINY, *options)
    assert "Trained on 36 clips, 6 skipped" in done.stdout
    for name, *_ in bad:
        warnings = [line for line in done.stderr.splitlines() if "skipped" in line and name in line]
        assert len(warnings) == 1, done.stderr
    skipped = json.loads((run / "skipped_clips.json").read_text())
    assert len(skipped) == 6 and all(any(name in error for error in skipped) for name, *_ in bad)
    [record] = json.loads((run / "config.json").read_text())["training_data"]
    assert record["num_clips"] == 36 and record["speakers"] == ["01", "02", "03"]
    card = (run / "README.md").read_text()
    assert "| 36 |" in card and "| 40 |" not in card


def test_a_pickled_reader_has_an_empty_cache(sharded):
    import pickle

    reader = ShardReader(sharded)
    clip = load_corpus(sharded).clips[0]
    assert len(pickle.dumps(reader)) < 2000 < len(reader.read(clip)["bytes"])
    assert pickle.loads(pickle.dumps(reader)).read(clip) == reader.read(clip) and len(pickle.dumps(reader)) < 2000
