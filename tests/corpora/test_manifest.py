"""Corpus folders with metadata.csv, and their errors."""

import csv

import pytest
from conftest import write_corpus

from modeling_gemoclap.corpora.manifest import ManifestError, load_corpus

HEAD = ["file_name", "emotion", "gender", "speaker_id"]


def manifest(folder, rows, head=HEAD):
    folder.mkdir(exist_ok=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return folder


def test_words_become_canonical_and_speakers_stay_text(tmp_path):
    rows = [["a.wav", "Happiness", "F", "03"], ["b.wav", "anger", "male", "NA"], ["sub/c.wav", "", "", "1e3"]]
    corpus = load_corpus(manifest(tmp_path / "own", rows))
    assert corpus.name == "own"
    assert list(corpus.clips["emotion"]) == ["happy", "angry", ""]
    assert list(corpus.clips["gender"]) == ["female", "male", ""]
    assert corpus.speakers == ["03", "1e3", "NA"] and corpus.emotions == ["angry", "happy"]


def test_additional_columns_and_emotions(tmp_path):
    folder = manifest(tmp_path / "x", [["a.wav", "sleepy", "f", "1", "hm, well"]], [*HEAD, "transcript"])
    with pytest.raises(ManifestError, match="line 2.*'sleepy'"):
        load_corpus(folder)
    corpus = load_corpus(folder, emotions=["sleepy"])
    assert corpus.clips[0]["emotion"] == "sleepy" and corpus.clips[0]["transcript"] == "hm, well"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a.wav", "sad", "f", "1"], ["b.wav", "melancholic", "f", "1"]], r"line 3.*melancholic"),
        ([["a.wav", "sad", "unicorn", "1"]], r"line 2.*unicorn"),
        ([["a.wav", "sad", "f", "1"], ["./a.wav", "sad", "f", "1"]], r"line 3.*a.wav.*line 2"),
        ([["../a.wav", "sad", "f", "1"]], r"line 2.*inside"),
        ([["x/../../a.wav", "sad", "f", "1"]], r"line 2.*inside"),
        ([["/etc/a.wav", "sad", "f", "1"]], r"line 2.*inside"),
        ([["", "sad", "f", "1"]], r"line 2.*inside"),
        ([["a.wav", "sad", "f", ""]], r"line 2.*speaker_id"),
        (
            [["a.wav", "sad", "f", "1", "more"], ["b.wav", "sad", "f", "1", "more"]],
            r"line 2: 5 fields for 4 columns",
        ),
        ([["a.wav", "sad", "f", "1"], ["b.wav", "sad"]], r"line 3: 2 fields for 4 columns"),
        ([["a.wav", "sad", "f", "1"], [], ["b.wav", "gloomy", "f", "1"]], r"line 4.*gloomy"),
        ([], "no clips"),
    ],
)
def test_errors_name_the_invalid_row(tmp_path, rows, message):
    with pytest.raises(ManifestError, match=message):
        load_corpus(manifest(tmp_path / "x", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({25_000: ["x.wav", "gloomy", "f", "1"], 30_000: ["y.wav", "sad", "x", "1"]}, "line 25002: emotion 'gloomy'"),
        ({30_000: ["a/./7.wav", "sad", "f", "1"]}, "line 30002: a/7.wav already occurs in line 9;"),
        ({30_000: ["y.wav", "sad", "f", " "]}, "line 30002: speaker_id is empty"),
    ],
)
def test_many_rows(tmp_path, change, message):
    rows = [[f"a/{i}.wav", "Sadness", "f", str(i % 9)] for i in range(30_000)] + [["last.wav", "", "", "0"]]
    corpus = load_corpus(manifest(tmp_path / "good", rows))
    assert len(corpus) == 30_001 and len(corpus.of_speakers(["8"])) == 3333 and corpus.emotions == ["sad"]
    for number, row in change.items():
        rows[number] = row
    with pytest.raises(ManifestError, match=message):
        load_corpus(manifest(tmp_path / "bad", rows))


def test_line_numbers_with_multiline_fields(tmp_path):
    rows = [["a.wav", "sad", "f", "1", "one\ntwo"], ["b.wav", "gloomy", "f", "1", ""]]
    with pytest.raises(ManifestError, match="line 4: emotion 'gloomy'"):
        load_corpus(manifest(tmp_path / "x", rows, [*HEAD, "transcript"]))


def test_errors_name_missing_files_and_columns(tmp_path):
    with pytest.raises(ManifestError, match="no metadata.csv"):
        load_corpus(tmp_path)
    with pytest.raises(ManifestError, match="no column gender, speaker_id"):
        load_corpus(manifest(tmp_path / "x", [["a.wav", "sad"]], HEAD[:2]))
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(ManifestError, match="empty"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("column", ["emotion", "gender"])
def test_errors_cut_words_that_are_too_long(tmp_path, column):
    row = {"file_name": "a.wav", "emotion": "sad", "gender": "f", "speaker_id": "1", column: "x" * 5000}
    with pytest.raises(ManifestError, match=f"{column} 'x+ is not known") as raised:
        load_corpus(manifest(tmp_path / "x", [[row[name] for name in HEAD]]))
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("repeated", [False, True])
def test_errors_name_at_most_twenty_columns(tmp_path, repeated):
    head = [f"column {number} " + "x" * 300 for number in range(100)]
    with pytest.raises(ManifestError, match=r"column 19 x+ and 8[01] more") as raised:
        load_corpus(manifest(tmp_path / "x", [["a"] * (100 + repeated)], head + head[:1] * repeated))
    assert len(str(raised.value)) < 5000 and "column 20" not in str(raised.value)


def test_the_error_for_another_encoding(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(
        "file_name,emotion,gender,speaker_id\na.wav,sad,f,José\n".encode("latin-1")
    )
    with pytest.raises(ManifestError, match="metadata.csv: not UTF-8"):
        load_corpus(tmp_path)


def test_selection(tones):
    corpus = load_corpus(tones)
    assert len(corpus) == 48 and corpus.speakers == ["01", "02", "03", "04"]
    assert corpus.of_speakers(["01", "02"], ["02"]).speakers == ["01"]
    with pytest.raises(ManifestError, match="'99'.*01, 02"):
        corpus.of_speakers(["99"])
    with pytest.raises(ManifestError, match="'1'"):
        corpus.of_speakers(None, ["1"])
    with pytest.raises(ManifestError, match="no clip"):
        corpus.of_speakers(["01"], ["01"])
    with pytest.raises(ManifestError, match="'sad': 16"):
        corpus.of_emotions(["angry", "happy"])
    assert corpus.of_emotions(["angry", "happy"], drop_others=True).emotions == ["angry", "happy"]


def test_the_hash_covers_the_complete_manifest(tmp_path, tones):
    corpus = load_corpus(tones)
    assert corpus.of_speakers(["01"]).manifest_sha256 == corpus.manifest_sha256
    other = load_corpus(write_corpus(tmp_path / "tones", [["audio/extra.wav", "sad", "", "05"]]))
    assert other.manifest_sha256 != corpus.manifest_sha256


def test_real_corpora(corpora):
    emodb = load_corpus(corpora / "emodb")
    assert len(emodb) == 535 and len(emodb.speakers) == 10 and len(emodb.emotions) == 7
    pair = emodb.of_speakers(["14", "15"])
    counts = {emotion: list(pair.clips["emotion"]).count(emotion) for emotion in emodb.emotions}
    assert len(pair) == 125 and min(counts.values()) >= 12
    ravdess = load_corpus(corpora / "ravdess")
    assert len(ravdess) == 1440 and len(ravdess.speakers) == 24 and len(ravdess.emotions) == 8
