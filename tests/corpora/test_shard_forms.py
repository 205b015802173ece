"""Shards from `datasets` and other programs, and incomplete shards."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import ROOT, run_script, tone, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import TREES

from modeling_gemoclap.corpora import shards
from modeling_gemoclap.corpora.manifest import ManifestError, load_corpus, mix
from modeling_gemoclap.corpora.protocols import protocol_of
from modeling_gemoclap.corpora.shard_reader import ShardReader, shard_states
from modeling_gemoclap.corpora.shards import write_shards
from modeling_gemoclap.feature_extraction_gemoclap import read_audio

EMOTIONS = ["angry", "happy", "sad"]
RATE = 16000


def encoded(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture(scope="module")
def waves():
    return {f"wav/{emotion}_{n}.wav": tone(emotion, n) for emotion in EMOTIONS for n in range(2)}


def labels(waves, classes=True) -> dict:
    words = [name.partition("/")[2].partition("_")[0] for name in waves]
    speakers = [name[-5] for name in waves]
    return {
        "emotion": [EMOTIONS.index(word) for word in words] if classes else words,
        "gender": [int(speaker) for speaker in speakers]
        if classes
        else [("female", "male")[int(s)] for s in speakers],
        "speaker_id": [f"0{speaker}" for speaker in speakers],
        "session": [f"s{speaker}" for speaker in speakers],
    }


def check(folder: Path, waves: dict, names=None) -> None:
    """Compare the labels and every sample of every recording."""
    corpus = load_corpus(folder)
    assert list(corpus.clips["file_name"]) == list(names or waves)
    plain = labels(waves, classes=False)
    for column, values in plain.items():
        assert corpus.column(column).to_pylist() == values, column
    assert len(protocol_of("leave-one-session-out", corpus).folds) == 2
    for sound, wave in zip(corpus.recordings(), waves.values(), strict=True):
        heard, rate = read_audio(sound)
        assert rate == RATE and np.array_equal(heard, wave)


@pytest.mark.parametrize("form", ["bytes", "files", "embedded", "unnamed"])
def test_an_audio_column_of_datasets(form, waves, tmp_path):
    """Files are referred to, or embedded as by `push_to_hub`. Labels are class numbers with names in the schema."""
    for name, wave in waves.items():
        (tmp_path / "files/wav").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(encoded(wave))
    audio = {
        "bytes": [{"bytes": encoded(wave), "path": name} for name, wave in waves.items()],
        "files": [str(tmp_path / "files" / name) for name in waves],
        "unnamed": [{"bytes": encoded(wave), "path": None} for wave in waves.values()],
    }
    audio = audio["files" if form == "embedded" else form]
    features = {
        "audio": datasets.Audio(decode=False),
        "emotion": datasets.ClassLabel(names=EMOTIONS),
        "gender": datasets.ClassLabel(names=["female", "male"]),
        "speaker_id": datasets.Value("large_string"),
        "session": datasets.ClassLabel(names=["s0", "s1"]),
    }
    made = datasets.Dataset.from_dict({"audio": audio, **labels(waves), "session": [0, 1] * 3})
    made = made.cast(datasets.Features(features))
    if form == "embedded":
        made = made.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)
    (tmp_path / "data/deep").mkdir(parents=True)
    made.to_parquet(tmp_path / "data/deep/train-00000-of-00001.parquet")
    for name in waves if form != "files" else ():
        (tmp_path / "files" / name).unlink()
    names = {
        "bytes": list(waves),
        "unnamed": [f"deep/train-00000-of-00001.parquet/{row}" for row in range(len(waves))],
    }.get(form, [Path(name).name for name in waves])
    check(tmp_path / "data", waves, names)


def write_tree(folder: Path, waves: dict, shards: int) -> list[str]:
    """Write recordings from a tree of folders, embedded by `datasets`. Returns their base names."""
    paths = [folder / "files" / str(place // 2) / f"{place % 2}.wav" for place in range(len(waves))]
    for path, wave in zip(paths, waves.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(wave))
    plain = labels(waves, classes=False)
    made = datasets.Dataset.from_dict({"audio": list(map(str, paths)), **plain})
    made = made.cast_column("audio", datasets.Audio(decode=False))
    made = made.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)
    (folder / "data").mkdir()
    for shard in range(shards):
        part = made.shard(shards, shard, contiguous=True)
        part.to_parquet(folder / f"data/train-{shard:05d}-of-{shards:05d}.parquet", batch_size=2)
    return [path.name for path in paths]


@pytest.mark.parametrize("shards", [1, 3])
def test_embedded_files_with_the_same_base_name(shards, waves, tmp_path):
    """`datasets` embeds a file with only the last part of its path."""
    bases = write_tree(tmp_path, waves, shards)
    assert len(set(bases)) == 2
    clips = len(waves) // shards
    names = [
        f"train-{place // clips:05d}-of-{shards:05d}.parquet/{place % clips}/{base}"
        for place, base in enumerate(bases)
    ]
    check(tmp_path / "data", waves, names)
    assert load_corpus(tmp_path / "data").manifest_sha256 == load_corpus(tmp_path / "data").manifest_sha256


def test_a_copied_shard_is_detected_when_names_repeat(waves, tmp_path):
    write_tree(tmp_path, waves, 3)
    content = (tmp_path / "data/train-00001-of-00003.parquet").read_bytes()
    (tmp_path / "data/train-00001-of-00003 (1).parquet").write_bytes(content)
    with pytest.raises(ManifestError, match=r"its content is the same as that of .*train-00001-of-00003"):
        load_corpus(tmp_path / "data")


def test_only_repeated_names_are_changed(tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = ["a.wav", "b.wav", "a.wav"]
    audio = pa.array([{"bytes": bytes([n]), "path": name} for n, name in enumerate(names)], struct)
    columns = {"emotion": ["sad"] * 3, "gender": ["f"] * 3, "speaker_id": ["1"] * 3}
    pq.write_table(pa.table({**columns, "audio": audio}), tmp_path / "x.parquet")
    names = list(load_corpus(tmp_path).clips["file_name"])
    assert names == ["x.parquet/0/a.wav", "b.wav", "x.parquet/2/a.wav"]


def forms(waves, folder: Path) -> dict[str, tuple[pa.Array, dict]]:
    """Each form of the column audio, with additional columns."""
    names, content = list(waves), [encoded(wave) for wave in waves.values()]
    arrays = [wave.tolist() for wave in waves.values()]
    for name, data in zip(names, content, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    absolute, rates = [str(folder / name) for name in names], pa.array([RATE] * len(names))
    pairs = [{"bytes": None, "path": name} for name in names]
    mixed = [{"bytes": data, "path": name} for name, data in zip(names, content, strict=True)][:1] + pairs[1:]
    struct = pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])
    arrays_of = pa.struct([("array", pa.list_(pa.float32())), ("sampling_rate", pa.int32()), ("path", pa.string())])
    named = {"file_name": pa.array(names)}
    return {
        "relative paths": (pa.array(names), {}),
        "backslashes": (pa.array([name.replace("/", "\\") for name in names]), {}),
        "absolute paths": (pa.array(absolute), {}),
        "large strings": (pa.array(names, pa.large_string()), {}),
        "dictionary": (pa.array(names).dictionary_encode(), {}),
        "bytes": (pa.array(content), named),
        "large bytes": (pa.array(content, pa.large_binary()), named),
        "struct of paths": (pa.array(pairs, struct), {}),
        "struct of both": (pa.array(mixed, struct), {}),
        "struct of arrays": (
            pa.array(
                [
                    dict(zip(("array", "sampling_rate", "path"), values, strict=True))
                    for values in zip(arrays, rates.to_pylist(), names, strict=True)
                ],
                arrays_of,
            ),
            {},
        ),
        "lists": (pa.array(arrays, pa.list_(pa.float32())), {**named, "sampling_rate": rates}),
        "two channels": (
            pa.array([[array, array] for array in arrays], pa.list_(pa.large_list(pa.float32()))),
            {**named, "sampling_rate": rates},
        ),
    }


@pytest.mark.parametrize("form", forms({}, Path()))
def test_every_form_of_the_audio_column(form, waves, tmp_path):
    audio, more = forms(waves, tmp_path / "corpus")[form]
    more |= {name: pa.array(values).dictionary_encode() for name, values in labels(waves, classes=False).items()}
    path = tmp_path / "corpus/a.parquet"
    pq.write_table(pa.table({"audio": audio, **more}), path, row_group_size=2)
    check(tmp_path / "corpus", waves)
    states = shard_states(tmp_path / "corpus")
    assert b"a.parquet" in states and states == shard_states(str(tmp_path / "corpus"))
    outside = form.endswith("paths") or form in ("backslashes", "large strings", "dictionary", "struct of both")
    os.utime(tmp_path / "corpus/wav/sad_1.wav", (1, 1))
    assert (states != shard_states(tmp_path / "corpus")) == outside
    os.utime(path, (1, 1))
    assert states != shard_states(tmp_path / "corpus")


def test_paths_are_relative_to_the_shard(waves, tmp_path):
    """A shard in a subfolder of the corpus may refer to files beside it, or above it within the corpus."""
    audio, _ = forms(waves, tmp_path / "corpus/data")["relative paths"]
    table = pa.table({"audio": audio, **labels(waves, classes=False)})
    pq.write_table(table, tmp_path / "corpus/data/a.parquet")
    check(tmp_path / "corpus", waves, [f"data/{name}" for name in waves])
    (tmp_path / "corpus/shards").mkdir()
    (tmp_path / "corpus/data/a.parquet").unlink()
    above = pa.array([f"../data/{name}" for name in waves])
    pq.write_table(table.set_column(0, "audio", above), tmp_path / "corpus/shards/a.parquet")
    check(tmp_path / "corpus", waves, [f"data/{name}" for name in waves])
    pq.write_table(
        table.set_column(0, "audio", pa.array([f"../../x/{name}" for name in waves])),
        tmp_path / "corpus/shards/a.parquet",
    )
    with pytest.raises(ManifestError, match="a.parquet, row 0 of group 0: .* must be a path inside"):
        load_corpus(tmp_path / "corpus")


def test_the_hash_does_not_depend_on_the_root_of_absolute_paths(waves, tmp_path):
    """The common root of the paths in all shards is removed from the names."""
    hashes = set()
    for home in ("/home/a/corpus", "/data"):
        folder = tmp_path / home.replace("/", "_")
        folder.mkdir()
        for shard in range(2):
            part = dict(list(waves.items())[3 * shard : 3 * shard + 3])
            audio = [{"bytes": encoded(wave), "path": f"{home}/{name}"} for name, wave in part.items()]
            table = pa.table({"audio": pa.array(audio), **labels(part, classes=False)})
            pq.write_table(table, folder / f"{shard}.parquet")
        hashes.add(load_corpus(folder).manifest_sha256)
    assert len(hashes) == 1


def rows(**columns) -> pa.Table:
    table = {"file_name": ["a.wav", "b.wav"], "emotion": ["sad", ""], "gender": ["f", "m"], "speaker_id": ["1", "2"]}
    return pa.table({**table, "audio": [b"x", b"y"], **columns})


def noted(table: pa.Table, **features) -> pa.Table:
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


CLASSES = {"names": ["sad", "angry"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows().drop_columns(["emotion"]), "no column emotion; its columns are file_name, gender, speaker_id, audio"),
        (
            rows(label=["sad", "sad"], speaker=["1", "1"]).drop_columns(["emotion", "speaker_id"]),
            "no column emotion, speaker_id; .*; rename label to emotion, speaker to speaker_id if it holds",
        ),
        (rows(speech=["x", "y"]).drop_columns(["audio"]), "no column audio; .*; rename speech to audio"),
        (noted(rows(hm=[b"x", b"y"]).drop_columns(["audio"]), hm={"_type": "Audio"}), "; rename hm to audio"),
        (rows(audio=[1, 2]), "column audio is int64; it must hold paths, the bytes of files, arrays beside a column"),
        (rows(audio=[[0.5], [0.5]]), "column audio is list<.*>; it must hold .* arrays beside a column sampling_rate"),
        (rows(speaker_id=[1.0, 2.5]), "column speaker_id is double; it must hold text, or class numbers with names"),
        (rows(session=[[1], [2]]), "column session is list<.*; it must hold text"),
        (noted(rows(emotion=[0, 2]), emotion=CLASSES), r"column emotion: numbers 0 to 2 of 2 classes \(sad, angry\)"),
        (rows(emotion=[0, 2]), "row 0 of group 0: emotion '0' is not known.*--emotion_map"),
        (rows(file_name=["a.wav", None]), "row 1 of group 0: file_name '' must be a path inside"),
    ],
)
def test_errors_for_invalid_shards(table, message, tmp_path):
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=f"a.parquet.*{message}") as error:
        load_corpus(tmp_path)
    assert "\n" not in str(error.value)


def test_numbers_and_nulls_as_labels(tmp_path):
    table = rows(
        emotion=[1, -1], gender=pa.nulls(2), speaker_id=pa.array([7, 8], pa.uint8()), session=[float("nan")] * 2
    )
    pq.write_table(noted(table, emotion=CLASSES), tmp_path / "a.parquet")
    corpus = load_corpus(tmp_path)
    columns = [corpus.column(name).to_pylist() for name in ("emotion", "gender", "speaker_id", "session")]
    assert columns == [["angry", ""], ["", ""], ["7", "8"], ["", ""]]
    pq.write_table(rows(emotion=[0, 2]), tmp_path / "a.parquet")
    corpus = load_corpus(tmp_path, emotion_map={"0": "sad", "2": "angry"})
    assert corpus.column("emotion").to_pylist() == ["sad", "angry"]
    pq.write_table(rows().drop_columns(["emotion"]), tmp_path / "a.parquet")
    assert load_corpus(tmp_path, unlabelled=True).emotions == []


def test_shards_with_different_columns(tmp_path):
    """A text column that a shard lacks is empty there, and a shard may have no rows."""
    pq.write_table(rows(session=["s1", "s2"]), tmp_path / "a.parquet")
    pq.write_table(rows(file_name=["c.wav", "d.wav"], language=["de", "pl"]), tmp_path / "b.parquet")
    struct = {"bytes": b"x", "path": "e.wav"}
    pq.write_table(rows(audio=[struct, struct])[:0].drop_columns(["file_name"]), tmp_path / "c.parquet")
    corpus = load_corpus(tmp_path)
    assert corpus.column("session").to_pylist() == ["s1", "s2", "", ""]
    assert corpus.column("language").to_pylist() == ["", "", "de", "pl"]


def test_a_note_reports_recordings_beside_shards(tmp_path):
    """Shards of some speakers in a subfolder of a corpus are read instead of it."""
    folder = TREES["emodb"](tmp_path / "emodb")
    corpus = load_corpus(folder)
    write_shards(corpus.of_speakers(["03", "08"]), folder / "shards")
    again = load_corpus(folder)
    assert again.speakers == ["03", "08"]
    assert "56 recordings beside the shards are not read, first wav/09a01Aa.wav" in again.notes
    (folder / "shards/clips-00000-of-00001.parquet").unlink()
    write_shards(corpus, folder / "shards")
    assert not any("beside the shards" in note for note in load_corpus(folder).notes)


@settings(max_examples=12, deadline=None)
@given(per_shard=st.integers(1, 60), per_group=st.integers(1, 60), seed=st.integers(0, 3))
def test_sizes_of_shards_and_groups(tones, per_shard, per_group, seed, tmp_path_factory):
    corpus, folder = load_corpus(tones), tmp_path_factory.mktemp("sizes") / "shards"
    assert len(write_shards(corpus, folder, per_shard, per_group, seed)) == -(-48 // per_shard)
    again = load_corpus(folder)
    assert again.manifest_sha256 == corpus.manifest_sha256
    held = zip(again.clips["file_name"], again.recordings(), strict=True)
    assert all(sound["bytes"] == (tones / name).read_bytes() for name, sound in held)


def test_pointers_and_deleted_files(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ManifestError, match="a.parquet: a git-lfs pointer.*git lfs pull"):
        load_corpus(tmp_path)
    pq.write_table(rows(), tmp_path / "a.parquet")
    corpus = load_corpus(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 gone")
    with pytest.raises(ManifestError, match="a.parquet: cannot be read as Parquet"):
        list(ShardReader(tmp_path).read(clip) for clip in corpus.clips)


@pytest.mark.parametrize("name", TREES)
def test_every_published_corpus_can_be_written_as_shards(name, tmp_path):
    """All text columns are the same, such as sessions and transcripts, and the corpus is identified."""
    corpus = load_corpus(TREES[name](tmp_path / "downloaded"))
    write_shards(corpus, tmp_path / "shards", clips_per_shard=40)
    again = load_corpus(tmp_path / "shards")
    assert again.known is corpus.known and again.manifest_sha256 == corpus.manifest_sha256
    columns = ("file_name", "emotion", "gender", "speaker_id", "session", "transcript")
    first, second = (
        sorted(zip(*(part.column(name).to_pylist() for name in columns), strict=True)) for part in (corpus, again)
    )
    assert first == second
    for kind in ("leave-one-session-out", "leave-one-speaker-out"):
        if name == "iemocap" or kind.endswith("speaker-out"):
            assert protocol_of(kind, again) == protocol_of(kind, corpus)


def test_all_text_columns_are_written(tmp_path):
    folder = write_corpus(tmp_path / "x", clips=1)
    lines = (folder / "metadata.csv").read_text().splitlines()
    more = [f"{lines[0]},language,path,session,row", *(f"{line},de,p{n},s{n},{n}" for n, line in enumerate(lines[1:]))]
    (folder / "metadata.csv").write_text("\n".join(more))
    write_shards(load_corpus(folder), tmp_path / "shards")
    again = load_corpus(tmp_path / "shards")
    assert set(again.column("language").to_pylist()) == {"de"}
    assert sorted(again.column("session").to_pylist()) == sorted(f"s{n}" for n in range(len(lines) - 1))
    assert again.column("row").type == pa.int32(), "the place in the shards, not the column of the manifest"


def test_a_mixture_keeps_sessions_and_other_shared_columns(tmp_path):
    parts = [load_corpus(TREES[name](tmp_path / name)) for name in ("iemocap", "emodb")]
    mixture = mix(parts)
    assert {"session", "transcript"} <= set(mixture.clips.column_names)
    assert set(mixture.column("session").to_pylist()) == {"", *(f"iemocap/0{n}" for n in range(1, 6))}
    other = load_corpus(TREES["iemocap"](tmp_path / "again"), "again")
    first, second = (
        part.where("session", keep.__contains__) for part, keep in ((parts[0], {"01", "02"}), (other, {"03"}))
    )
    second.known, second.unlabelled_sha256, second.manifest_sha256 = None, "1", "2"
    second.clips = second.clips.map(lambda row: {"path": row["path"] + "x"})
    folds = protocol_of("leave-one-session-out", mix([first, second])).folds
    assert folds == [["again/Ses03F", "again/Ses03M"], *([f"iemocap/Ses0{n}F", f"iemocap/Ses0{n}M"] for n in (1, 2))]


def test_a_missing_shard_is_detected(tmp_path):
    corpus = load_corpus(write_corpus(tmp_path / "x"))
    written = write_shards(corpus, tmp_path / "shards", clips_per_shard=10)
    assert [path.name for path in written] == [f"clips-0000{n}-of-00005.parquet" for n in range(5)]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [path.name for path in written]
    content = written[3].read_bytes()
    written[3].unlink()
    with pytest.raises(ManifestError, match="1 of 5 shards are missing, first clips-00003-of-00005.parquet"):
        load_corpus(tmp_path / "shards")
    for number, path in enumerate(path for path in written if path.exists()):
        path.rename(path.with_name(f"{number}.parquet"))  # then only the notes in the shards show it
    with pytest.raises(ManifestError, match="hold 38 clips of the 48 that were written together"):
        load_corpus(tmp_path / "shards")
    (tmp_path / "shards/x.parquet").write_bytes(content)
    assert len(load_corpus(tmp_path / "shards")) == 48


@pytest.mark.parametrize("name", ["train-{:05d}-of-00003.parquet", "test-{:05d}-of-00003-0a1b2c3d4e5f6789.parquet"])
def test_a_missing_shard_of_the_hub_is_detected(name, tmp_path):
    for number in (0, 2):
        pq.write_table(rows(file_name=[f"{number}.wav", f"{number}x.wav"]), tmp_path / name.format(number))
    with pytest.raises(ManifestError, match="1 of 3 shards are missing, first (train|test)-00001-of-00003.parquet"):
        load_corpus(tmp_path)
    pq.write_table(rows(), tmp_path / name.format(1))
    pq.write_table(rows(file_name=["c.wav", "d.wav"]), tmp_path / "validation-00000-of-00001.parquet")
    assert len(load_corpus(tmp_path)) == 8


def test_a_failed_conversion_removes_its_files(tmp_path, monkeypatch):
    corpus = load_corpus(write_corpus(tmp_path / "x"))
    original = shards._write_shard

    def fails(clips, path, *arguments):
        original(clips, path, *arguments)
        if "00002" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "_write_shard", fails)
    with pytest.raises(ManifestError, match="cannot be written .*No space left .*; incomplete shards were removed"):
        write_shards(corpus, tmp_path / "shards", clips_per_shard=10)
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_killed_conversion_leaves_no_readable_corpus(tmp_path):
    """The files of a killed conversion cannot be read as a corpus, and the next conversion replaces them."""
    folder = write_corpus(tmp_path / "x")
    script = (
        "import time, sys\n"
        "from modeling_gemoclap.corpora import shards\n"
        "from modeling_gemoclap.corpora.manifest import load_corpus\n"
        "original = shards._write_shard\n"
        "def slow(clips, path, *more):\n"
        "    original(clips, path, *more)\n"
        "    print(path, flush=True)\n"
        "    time.sleep(60 if '00002' in path.name else 0)\n"
        "shards._write_shard = slow\n"
        "shards.write_shards(load_corpus(sys.argv[1]), sys.argv[2], clips_per_shard=10)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, folder, tmp_path / "shards"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while "00002" not in process.stdout.readline():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "shards").iterdir())) == 3
    with pytest.raises(ManifestError, match="it has no metadata.csv and no recordings"):
        load_corpus(tmp_path / "shards")
    write_shards(load_corpus(folder), tmp_path / "shards")
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["clips-00000-of-00001.parquet"]
    with pytest.raises(ManifestError, match="its recordings are already in shards"):
        write_shards(load_corpus(tmp_path / "shards"), tmp_path / "more")


def command(*arguments):
    return run_script("-m", "modeling_gemoclap.corpora.shards", *arguments, check=False)


def test_options_of_the_command(tmp_path):
    folder = write_corpus(tmp_path / "x", clips=1)
    text = (folder / "metadata.csv").read_text().replace(",sad,", ",traurig,").replace(",happy,", ",sleepy,")
    (folder / "metadata.csv").write_text(text)
    done = command(folder, tmp_path / "none")
    assert (
        done.returncode == 1 and done.stderr.splitlines()[-1].startswith("shards: ") and "--emotion_map" in done.stderr
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "none").exists()
    words = ("--emotion_map", '{"traurig": "sad"}', "--emotions", "sleepy", "--corpus_name", "mine")
    done = command(folder, tmp_path / "out", *words)
    assert done.returncode == 0 and "12 clips in 1 shards" in done.stdout
    assert load_corpus(tmp_path / "out", emotions=["sleepy"]).emotions == ["angry", "sad", "sleepy"]


def test_errors_of_the_command(tmp_path):
    folder = write_corpus(tmp_path / "x", [["audio/gone.wav", "sad", "female", "05"]], clips=1)
    (tmp_path / "file").write_text("x")
    done = command(folder, tmp_path / "out")
    assert done.returncode == 1 and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    assert "shards: 1 of 13 clips of x cannot be used:" in done.stderr and "gone.wav: no such file" in done.stderr
    (folder / "audio/gone.wav").write_bytes(b"x")
    for arguments, message in (
        ((tmp_path / "absent", tmp_path / "out"), "no such folder"),
        ((tmp_path / "file", tmp_path / "out"), "this is a file; give the folder that holds it"),
        ((folder, tmp_path / "file"), "the shards cannot be written"),
        ((folder, tmp_path / "out", "--emotion_map", "{"), "must be a JSON object"),
        ((folder / "audio", tmp_path / "out", "--corpus_name", "emodb"), "not named as those of"),
    ):
        with pytest.raises(ManifestError, match=message) as error:
            shards.main(list(map(str, arguments)))
        assert "\n" not in str(error.value)
