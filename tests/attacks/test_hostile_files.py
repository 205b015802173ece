"""Files that are no recordings, lead elsewhere, or expand to more than they hold."""

import csv
import logging
import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset

from modeling_gemoclap.audio_files_gemoclap import DEMUXERS
from modeling_gemoclap.corpora import shard_reader
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.corpora.shards import CONTAINER, write_shards
from modeling_gemoclap.corpora.tables import ManifestError
from modeling_gemoclap.evaluation.prediction_files import EMBEDDINGS, PREDICTIONS, RECORD, load_fold
from modeling_gemoclap.inference.streaming.files import open_recording
from modeling_gemoclap.objectives.speaker_clusters import embeddings

SECRET = b"-----BEGIN PRIVATE KEY-----"


def test_a_link_copies_no_other_file_into_a_shard(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (tmp_path / "key").write_bytes(SECRET)
    (corpus / "a.wav").symlink_to(tmp_path / "key")
    soundfile.write(tmp_path / "b.wav", np.ones(1600) / 10, 16000)
    (corpus / "b.wav").symlink_to(tmp_path / "b.wav")  # links to recordings are followed
    rows = [["file_name", "emotion", "gender", "speaker_id"], ["a.wav", "sad", "female", "1"]]
    with open(corpus / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(ManifestError, match=r"a\.wav: not an audio file, so it is not copied into a shard"):
        write_shards(load_corpus(corpus), tmp_path / "shards")
    assert not list((tmp_path / "shards").iterdir())
    (corpus / "metadata.csv").write_text((corpus / "metadata.csv").read_text().replace("a.wav", "b.wav"))
    [path] = write_shards(load_corpus(corpus), tmp_path / "shards")
    assert b"RIFF" in path.read_bytes() and SECRET not in path.read_bytes()


def test_the_formats_of_ffmpeg_are_recordings():
    assert all(CONTAINER.match(start) for start in (*DEMUXERS, b"\0\0\0\x20ftypM4A ", b"\xff\xf1", b"ID3\x04"))
    assert not any(CONTAINER.match(start) for start in (SECRET, b"root:x:0:0", b"\x7fELF", b"PK\x03\x04", b""))


def shard(folder, path, rows=1, name="a.wav"):
    folder.mkdir(parents=True)
    columns = {"emotion": "sad", "gender": "female", "speaker_id": "1", "file_name": name, "audio": path}
    zeros = pa.array(np.zeros(rows, np.int8))
    table = {key: pa.DictionaryArray.from_arrays(zeros, [value]) for key, value in columns.items()}
    pq.write_table(pa.table(table), folder / "x.parquet", compression="zstd")


@pytest.mark.parametrize("path", ["../secret.wav", "a/../../secret.wav", "..\\secret.wav"])
def test_a_path_in_a_shard_does_not_leave_the_corpus(tmp_path, path):
    shard(tmp_path / "corpus", path)
    with pytest.raises(ManifestError, match=r"x\.parquet, a\.wav: its path in the column audio leads out of"):
        list(load_corpus(tmp_path / "corpus").recordings())
    shard(tmp_path / "nested/data", "../audio/a.wav")
    [recording] = load_corpus(tmp_path / "nested").recordings()
    assert recording["path"].endswith(os.path.join("data", "../audio/a.wav")), "a shard in a folder of the corpus"


def test_a_shard_with_more_rows_than_bytes_is_refused(tmp_path, monkeypatch):
    shard(tmp_path / "corpus", "a.wav", rows=1_100_000)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("the columns were read"))
    with pytest.raises(ManifestError, match=r"1,100,000 rows in [\d,]+ bytes cannot be recordings"):
        load_corpus(tmp_path / "corpus")


def test_a_shard_of_numbered_paths_may_have_more_rows_than_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_reader, "ROWS_IN_ANY_SHARD", 0)  # the rule for millions of rows
    rows, path = 60_000, tmp_path / "x.parquet"
    table = {"emotion": ["sad"] * rows, "gender": ["male"] * rows, "speaker_id": ["1"] * rows}
    table["audio"] = [f"audio/clip{number:07d}.wav" for number in range(rows)]
    pq.write_table(pa.table(table), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < rows
    assert len(shard_reader.read_labels(tmp_path)) == rows


def test_embeddings_that_expand_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path, member = tmp_path / "speakers.npz", "embeddings.npy"
    monkeypatch.setattr(embeddings, "LARGE_ARRAY", 10**6)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(2 * 10**6))
        archive.writestr("file_name.npy", b"")
    with pytest.raises(ValueError, match=rf"speakers\.npz: cannot be read \({member} expands to 2,000,000 bytes"):
        embeddings.read_embeddings(path, Dataset.from_dict({}))


def test_a_damaged_cache_of_speakers_is_computed_again(tmp_path):
    path = tmp_path / "cache.npz"
    assert embeddings._read_cache(path) == {}
    for content in ({"keys": np.array([{}], dtype=object), "values": np.ones((1, 2))}, {"keys": np.array(["a"])}):
        np.savez(path, **content)
        assert embeddings._read_cache(path) == {}
    embeddings._save_cache(path, {"a": np.ones(2)})
    assert list(embeddings._read_cache(path)) == ["a"]


def test_damaged_embeddings_of_a_fold_are_named(tmp_path):
    (tmp_path / RECORD).write_text('{"made_of": {}, "skipped": [], "method": "", "heard": {}}')
    (tmp_path / PREDICTIONS).write_text("file_name\na.wav\n")
    np.save(tmp_path / EMBEDDINGS, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=rf"{EMBEDDINGS}: its embeddings cannot be used"):
        load_fold(tmp_path)


@pytest.mark.parametrize("kind", ["W64", "RF64"])
def test_a_wrong_size_prints_no_traceback_of_a_callback(tmp_path, kind, capfd, caplog):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(1600) / 10, 16000, format=kind, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.find(b"ds64") + 16 if kind == "RF64" else data.find(b"data\xf3") + 16
    data[place : place + 8] = (2**47).to_bytes(8, "little")
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert sum(len(block) for block in open_recording(path).blocks) == 1600
    assert "Traceback" not in capfd.readouterr().err and "its header specifies" in caplog.text
