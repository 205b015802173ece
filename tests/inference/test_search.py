"""Search: indexes are complete, updated and continued; hits are those of a matrix product; bad input is refused."""

import csv
import json
import os
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import AUDIO, RATE, TONES, tone

from modeling_gemoclap import AudioError, GEmoClap, GEmoClapForAudioClassification, cli
from modeling_gemoclap.inference import index as index_module
from modeling_gemoclap.inference import indexing
from modeling_gemoclap.inference import search as search_module
from modeling_gemoclap.inference.classifier import AudioClassifier
from modeling_gemoclap.inference.embeddings import embed_recordings, embed_texts
from modeling_gemoclap.inference.index import EMBEDDING, KEY, Index, open_index
from modeling_gemoclap.inference.indexing import IndexOptions, build_index
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.inference.search import Hit, embed_query, format_hits, search

MARKUP = "<b>[red]&amp;.wav"
BYTES = os.fsdecode(b"in it/\xff\n.wav")  # not valid text


def write_tone(path, emotion="sad", seed=0):
    with open(path, "wb") as file:
        soundfile.write(file, tone(emotion, seed), RATE, format="WAV")


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("compact")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    from conftest import audio_config

    from modeling_gemoclap import GEmoClapConfig

    config = GEmoClapConfig(audio_config=audio_config("compact"), emotions=list(TONES), pooling="mean_std")
    extractor = AUDIO["compact"].small_extractor(tmp_path_factory.mktemp("extractor"))
    return AudioClassifier(GEmoClapForAudioClassification(config), extractor, "cpu")


@pytest.fixture
def folder(tmp_path):
    """Six usable recordings, two of them the same, and one broken."""
    place = tmp_path / "recordings"
    (place / "in it").mkdir(parents=True)
    for number, name in enumerate(["a.wav", "b.wav", "in it/a.wav", MARKUP, BYTES]):
        write_tone(place / name, list(TONES)[number % 3], seed=number)
    shutil.copy(place / "a.wav", place / "copy.wav")
    (place / "broken.wav").write_bytes(b"no audio")
    return place


NAMES = {"a.wav", "b.wav", "in it/a.wav", MARKUP, BYTES, "copy.wav"}


@pytest.fixture
def path(pipe, folder, tmp_path):
    """The index of the folder."""
    build_index(pipe, folder, tmp_path / "index.parquet")
    return tmp_path / "index.parquet"


def content(path):
    """The embeddings of an index by name."""
    index = Index(path)
    recordings = index.recordings(range(len(index)))
    return {item.name: row for item, row in zip(recordings, index.embeddings, strict=True)}


@pytest.fixture
def embedded(monkeypatch):
    """The names of the recordings that are embedded by `build_index`."""
    names = []

    def embed(pipe, paths, *arguments, **options):
        paths = list(paths)
        names.extend(os.path.basename(path) for path in paths)
        return embed_recordings(pipe, paths, *arguments, **options)

    monkeypatch.setattr(indexing, "embed_recordings", embed)
    return names


# ---- the index ------------------------------------------------------------------------------------------------------
def test_an_index_has_every_usable_recording_and_the_embeddings_of_the_pipeline(pipe, folder, tmp_path, embedded):
    report = build_index(pipe, folder, tmp_path / "index.parquet")
    assert (report.recordings, report.embedded, report.reused, report.removed) == (6, 5, 1, 0)
    assert [error for error in report.errors if "broken.wav: not audio" in error] == report.errors != []
    assert "1 could not be used:" in report.summary() and len(embedded) == 6
    stored = content(tmp_path / "index.parquet")
    assert stored.keys() == NAMES and (stored["a.wav"] == stored["copy.wav"]).all()
    expected = embed_recordings(pipe, [str(folder / name) for name in stored], 4)
    assert np.allclose(list(stored.values()), list(expected), atol=1e-5)
    header = Index(tmp_path / "index.parquet").header
    assert (header.model, header.revision, header.folder, header.dimensions) == ("compact", None, str(folder), 128)
    assert {path.name for path in tmp_path.iterdir()} == {"recordings", "index.parquet", ".index.parquet.lock"}


def test_an_update_embeds_what_is_new_or_changed_and_drops_what_is_gone(pipe, folder, path, embedded):
    before = content(path)
    written = path.stat().st_mtime_ns
    assert build_index(pipe, folder, path).embedded == 0 and path.stat().st_mtime_ns == written
    assert embedded == ["broken.wav"]
    write_tone(folder / "broken.wav", "angry", seed=7)
    write_tone(folder / "b.wav", "angry", seed=8)
    (folder / MARKUP).unlink()
    (folder / "in it/a.wav").rename(folder / "renamed.wav")
    os.utime(folder / "copy.wav", (0, 0))
    embedded.clear()
    report = build_index(pipe, folder, path)
    assert (report.recordings, report.embedded, report.reused, report.removed) == (6, 2, 2, 2) and not report.errors
    assert sorted(embedded) == ["b.wav", "broken.wav"]
    after = content(path)
    assert after.keys() == NAMES - {MARKUP, "in it/a.wav"} | {"renamed.wav", "broken.wav"}
    assert (after["renamed.wav"] == before["in it/a.wav"]).all() and not np.allclose(after["b.wav"], before["b.wav"])
    assert (after["copy.wav"] == before["copy.wav"]).all()
    build_index(pipe, folder, path, IndexOptions(restart=True))
    assert len(embedded) == 2 + 5 and content(path).keys() == after.keys()


def test_an_interrupted_build_is_continued(pipe, folder, path, tmp_path, embedded, monkeypatch):
    whole, other = content(path), tmp_path / "other.parquet"
    monkeypatch.setattr(indexing, "SEGMENT", 2)
    write, segments = indexing._Builder._write_segment, []

    def interrupt(self, number, rows):
        if len(segments) == 2:
            raise KeyboardInterrupt
        segments.append(number)
        write(self, number, rows)

    with monkeypatch.context() as patch:
        patch.setattr(indexing._Builder, "_write_segment", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_index(pipe, folder, other)
    assert not other.exists() and len(segments) == 2
    last = sorted((tmp_path / ".other.parquet.segments").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-9])  # a power failure
    done = list(embedded)
    embedded.clear()
    report = build_index(pipe, folder, other)
    assert 0 < len(embedded) < len(done) + 2 and report.embedded < 5 and report.recordings == 6
    again = content(other)
    assert again.keys() == whole.keys() and all(np.allclose(again[name], whole[name], atol=1e-6) for name in whole)
    assert not (tmp_path / ".other.parquet.segments").exists()


def test_rows_are_read_and_written_in_groups(pipe, folder, path, monkeypatch):
    whole = content(path)
    path.unlink()
    monkeypatch.setattr(index_module, "ROWS_IN_MEMORY", 2)
    monkeypatch.setattr(indexing, "SEGMENT", 1)
    build_index(pipe, folder, path)
    assert pq.ParquetFile(path).num_row_groups > 2
    again = content(path)
    assert all(np.allclose(again[name], whole[name], atol=1e-6) for name in whole)


def test_an_index_of_another_model_is_neither_searched_nor_updated(pipe, folder, path):
    other = load_pipeline("compact")
    other.model.audio_projection.float()
    next(iter(other.model.audio_projection.parameters())).data.add_(0.01)
    before = path.read_bytes()
    for action in (lambda: search(other, path, "sad"), lambda: build_index(other, folder, path)):
        with pytest.raises(ValueError, match=r"index\.parquet: an index of another model or revision.*weights"):
            action()
    assert path.read_bytes() == before
    build_index(other, folder, path, IndexOptions(restart=True))
    assert search(other, path, "sad", top=1)
    with pytest.raises(ValueError, match="another model"):
        search(pipe, path, "sad")


def test_other_versions_of_libraries_are_reported(pipe, folder, path, monkeypatch):
    warned = []
    monkeypatch.setattr(indexing.logger, "warning_once", warned.append)
    build_index(pipe, folder, path)
    assert warned == []
    monkeypatch.setattr(index_module, "AUDIO_LIBRARIES", ("numpy",))
    build_index(pipe, folder, path)
    assert len(warned) == 1 and "made with other versions (the version of soundfile" in warned[0]


def test_a_moved_folder_keeps_its_index_and_another_folder_is_refused(pipe, folder, path, tmp_path, embedded):
    moved = folder.rename(tmp_path / "moved")
    assert {hit.state for hit in search(pipe, path, "sad")} == {"missing"}
    assert build_index(pipe, moved, path).embedded == 0
    assert {hit.state for hit in search(pipe, path, "sad")} == {"unchanged"}
    (tmp_path / "another").mkdir()
    write_tone(tmp_path / "another/a.wav")
    with pytest.raises(ValueError, match=r"the index of another folder, .*moved.*--restart"):
        build_index(pipe, tmp_path / "another", path)
    assert len(content(path)) == 6


def test_two_processes_cannot_build_one_index(pipe, folder, path):
    from filelock import FileLock

    with (
        FileLock(path.with_name(".index.parquet.lock")),
        pytest.raises(ValueError, match="another process is writing"),
    ):
        build_index(pipe, folder, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "no such folder"),
        (lambda place: place.mkdir(), "no recordings there"),
        (lambda place: (place.mkdir(), (place / "a.wav").write_bytes(b"")), "no recording can be used:\n.*a.wav"),
        (lambda place: (place.mkdir(), soundfile.write(place / "a.wav", np.zeros(RATE), RATE)), "a.wav: silent"),
    ],
)
def test_folders_without_usable_recordings_are_refused(make, message, pipe, tmp_path):
    make(tmp_path / "place")
    with pytest.raises(ValueError, match=message):
        build_index(pipe, tmp_path / "place", tmp_path / "index.parquet")
    assert not (tmp_path / "index.parquet").exists()


def test_a_recording_that_cannot_be_read_is_listed(pipe, folder, path, monkeypatch):
    def refuse(place):
        if place.name == "new.wav":
            raise PermissionError(13, "Permission denied")
        return state(place)

    state = indexing._state
    monkeypatch.setattr(indexing, "_state", refuse)
    write_tone(folder / "new.wav")
    [broken, unreadable] = sorted(build_index(pipe, folder, path).errors)
    assert "new.wav: cannot be read (Permission denied)" in unreadable and "broken.wav" in broken


# ---- damaged files --------------------------------------------------------------------------------------------------
def flip(path):
    """Change one bit of an embedding."""
    data = bytearray(path.read_bytes())
    place = data.find(Index(path).embeddings[0].tobytes())
    assert place > 0
    data[place] ^= 1
    path.write_bytes(data)


def rewrite(path, change=lambda table: table, **header):
    """Write an index again, with other values in its header."""
    table = change(pq.read_table(path))
    metadata = dict(table.schema.metadata)
    metadata[KEY] = json.dumps(json.loads(metadata[KEY]) | header).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="none", use_dictionary=False)


def twice_as_long(table):
    values = pa.array(2 * table[EMBEDDING].combine_chunks().flatten().to_numpy())
    column = pa.FixedSizeListArray.from_arrays(values, type=table.schema.field(EMBEDDING).type)
    return table.set_column(table.schema.get_field_index(EMBEDDING), table.schema.field(EMBEDDING), column)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "no such index; make one with gemoclap index"),
        (lambda path: (path.unlink(), path.mkdir()), "a folder, not the file of an index"),
        (lambda path: path.write_bytes(b""), "not a Parquet file, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a Parquet file, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[4000:]), "not a Parquet file, or damaged"),
        (flip, "damaged .*checksum"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), "no index of gemoclap"),
        (lambda path: rewrite(path, format=2), "written by a newer version of gemoclap; update"),
        (lambda path: rewrite(path, format="1"), "format must not be text"),
        (lambda path: rewrite(path, dimensions=64), "its columns are not those of its header"),
        (lambda path: rewrite(path, lambda table: table.slice(0, 0)), "it cannot hold 0 embeddings"),
        (lambda path: rewrite(path, lambda table: table.drop_columns("size")), "its columns are not those"),
        (lambda path: rewrite(path, identity=[]), "identity must not be a list"),
        (lambda path: rewrite(path, twice_as_long), "not of unit length"),
    ],
)
def test_damaged_and_foreign_files_are_refused(change, message, pipe, folder, path):
    change(path)
    with pytest.raises(ValueError, match=rf"index\.parquet: .*{message}"):
        search(pipe, path, "sad")


def test_an_update_does_not_overwrite_foreign_files(pipe, folder, path):
    pq.write_table(pa.table({"a": [1]}), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no index of gemoclap.*to overwrite it, give --restart"):
        build_index(pipe, folder, path)
    assert path.read_bytes() == before


# ---- search ---------------------------------------------------------------------------------------------------------
def test_hits_are_those_of_the_matrix_product(pipe, folder, path):
    stored = content(path)
    names, query = sorted(stored), embed_texts(pipe, ["a sad voice"])[0]
    similarities = np.array([stored[name] @ query for name in names])
    order = np.argsort(-similarities, kind="stable")
    hits = search(pipe, Index(path), "a sad voice", top=4)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert [hit.file for hit in hits] == [str(folder / names[row]) for row in order[:4]]
    assert np.allclose([hit.similarity for hit in hits], similarities[order[:4]], atol=1e-6)
    median = np.median(similarities)
    deviation = 1.4826 * np.median(abs(similarities - median))
    assert np.allclose([hit.margin for hit in hits], (similarities[order[:4]] - median) / deviation, rtol=1e-3)
    gaps = (similarities[order[:4]] - similarities[order[1:5]]) / deviation
    assert np.allclose([hit.gap for hit in hits], gaps, atol=1e-3)
    everything = search(pipe, path, "a sad voice", top=100)
    assert len(everything) == 6 and everything[:4] == hits and everything[-1].gap is None


def test_a_recording_finds_itself_its_copy_and_the_mean_is_that_of_both(pipe, folder, path):
    hits = search(pipe, path, like=folder / "a.wav", top=3)
    assert [hit.file for hit in hits[:2]] == [str(folder / "a.wav"), str(folder / "copy.wav")]
    assert [hit.copy_of for hit in hits] == [None, hits[0].file, None]
    assert hits[0].similarity == pytest.approx(1, abs=1e-5) and hits[0].gap == pytest.approx(0, abs=1e-3)
    text, audio = embed_query(pipe, "sad"), embed_query(pipe, like=(RATE, tone("angry", 3)))
    both = embed_query(pipe, "sad", (RATE, tone("angry", 3)))
    assert np.allclose(both, (text + audio) / np.linalg.norm(text + audio), atol=1e-6)
    assert both @ text == pytest.approx(both @ audio, abs=1e-5)


def test_a_margin_that_is_not_defined_is_none(pipe, tmp_path):
    (tmp_path / "one").mkdir()
    write_tone(tmp_path / "one/a.wav")
    build_index(pipe, tmp_path / "one", tmp_path / "index.parquet")
    [hit] = search(pipe, tmp_path / "index.parquet", "sad")
    assert hit.margin is None and hit.gap is None and -1 <= hit.similarity <= 1
    assert format_hits([hit], "table").splitlines()[1].split()[2:4] == ["-", "-"]


def test_changed_and_missing_recordings_are_flagged(pipe, folder, path):
    (folder / "b.wav").unlink()
    write_tone(folder / "in it/a.wav", seed=9)
    states = {os.path.relpath(hit.file, folder): hit.state for hit in search(pipe, path, "sad")}
    assert states.pop("b.wav") == "missing" and states.pop("in it/a.wav") == "changed"
    assert set(states.values()) == {"unchanged"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "no query"),
        ({"text": " \n"}, "the text is empty"),
        ({"text": "sad \udcff"}, "not valid Unicode"),
        ({"text": "sad", "top": 0}, "top=0 must be a whole number of at least 1"),
        ({"like": np.zeros(RATE, np.float32)}, "silent"),
        ({"like": "absent.wav"}, "absent.wav"),
    ],
)
def test_bad_queries_are_refused(query, message, pipe, path):
    if isinstance(query.get("like"), np.ndarray):
        query = {"like": {"array": query["like"], "sampling_rate": RATE}}
    with pytest.raises(AudioError if "like" in query else ValueError, match=message):
        search(pipe, path, **query)


def test_unknown_words_are_reported(pipe, path, monkeypatch):
    warned = []
    monkeypatch.setattr(search_module.logger, "warning", warned.append)
    search(pipe, path, "a sad voice")
    assert warned == []
    search(pipe, path, "a stressed voice")
    assert len(warned) == 1 and "not trained on 'stressed'" in warned[0]


def test_a_classifier_searches_by_recordings_alone(classifier, folder, tmp_path):
    path = tmp_path / "index.parquet"
    assert build_index(classifier, folder, path).recordings == 6
    index = Index(path)
    assert np.allclose(np.linalg.norm(index.embeddings, axis=1), 1, atol=1e-5)
    assert search(classifier, index, like=folder / "b.wav")[0].file == str(folder / "b.wav")
    with pytest.raises(ValueError, match="a classifier has no text encoder"):
        search(classifier, index, "sad")
    with pytest.raises(ValueError, match="dimensions"):
        search(load_pipeline("compact"), index, "sad")


def test_the_python_interface(folder, path):
    model = GEmoClap.from_pretrained("compact")
    assert model.index(folder, path).embedded == 0
    [hit] = model.search(path, "a sad voice", top=1)
    assert isinstance(hit, Hit) and hit == model.search(path, "a sad voice")[0]


# ---- the command ----------------------------------------------------------------------------------------------------
def run(*words):
    """Run the command in this process and return its exit status."""
    with pytest.raises(SystemExit) as error:
        cli.main([str(word) for word in words])
    return error.value.code


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_names_in_files_are_complete(kind, folder, path, tmp_path, capsys):
    output = tmp_path / f"new/hits.{kind}"
    assert run("search", "a sad voice", "--index", path, "--output", output) == 0
    assert capsys.readouterr().out == ""
    with open(output, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file)) if kind == "csv" else list(map(json.loads, file))
    assert {os.path.relpath(row["file"], folder) for row in rows} == NAMES
    assert list(rows[0]) == ["rank", "file", "similarity", "margin", "gap", "state", "copy_of"]
    assert [row["copy_of"] for row in rows if row["copy_of"]] == [str(folder / "a.wav")]


def test_the_command_indexes_and_searches(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("index", "recordings", "--model", "compact") == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "6 recordings in index.parquet, 5 embedded" in captured.err
    assert "broken.wav: not audio" in captured.err
    assert captured.err.rstrip().splitlines()[-1] == "Next: gemoclap search 'a sad voice' --index index.parquet"
    (folder / "broken.wav").unlink()
    assert run("index", "recordings", "--model", "compact", "--quiet") == 0 and capsys.readouterr().err == ""
    assert run("search", "--like", folder / "b.wav", "--top", 2) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["rank", "similarity", "margin", "gap", "file"] and len(lines) == 3
    assert lines[1].split()[:2] == ["1", "1.000"] and lines[1].endswith("b.wav")
    assert captured.err.startswith("Next: gemoclap predict RECORDING --model compact")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search",), "give TEXT, --like RECORDING, or both"),
        (("search", " ", "--index", "INDEX"), "the text is empty"),
        (("search", "sad", "--top", "0"), "Invalid value for '--top'"),
        (("search", "sad", "--index", "absent.parquet"), "absent.parquet: no such index"),
        (("search", "sad", "--index", "INDEX", "--output", "hits.txt"), "ends in .csv or .jsonl"),
        (("search", "sad", "--index", "INDEX", "--output", "/proc/hits.csv"), "--output /proc: cannot be written"),
        (("search", "sad", "--index", "INDEX", "--model", "absent/model"), "absent/model: no such folder"),
        (("search", "sad", "--index", "INDEX", "--device", "cuda:9"), "--device cuda:9"),
        (("search", "--like", "absent.wav", "--index", "INDEX"), "absent.wav"),
        (("search", "sad", "--index", "MOVED"), "its model absent cannot be loaded"),
        (("index", "absent", "--model", "compact"), "'absent': no such folder"),
        (
            ("index", "FOLDER", "--model", "compact", "--output", "/proc/i.parquet"),
            "--output /proc: cannot be written",
        ),
    ],
)
def test_wrong_arguments_end_with_status_2(words, message, folder, path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    places = {"INDEX": path, "FOLDER": folder, "MOVED": tmp_path / "moved.parquet"}
    shutil.copy(path, places["MOVED"])
    rewrite(places["MOVED"], model="absent")
    assert run(*(places.get(word, word) for word in words)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", [("index", "FOLDER", "--model", "compact"), ("search", "sad")])
def test_without_pyarrow_the_extra_is_named(command, folder, monkeypatch, capsys):
    for name in ("index", "indexing", "search"):
        monkeypatch.delitem(sys.modules, f"modeling_gemoclap.inference.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(*(str(folder) if word == "FOLDER" else word for word in command)) == 1
    assert "pip install 'gemoclap[search]'" in capsys.readouterr().err


def test_the_index_is_opened_without_its_rows(path):
    file, header = open_index(path)
    with file:
        assert file.metadata.num_rows == 6 and header.schema.names == [*index_module.COLUMNS, EMBEDDING]
