"""Manifests from spreadsheets and scripts: every dialect gives the same table, or an error names the problem."""

import csv
import io
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import emodb_tree

from modeling_gemoclap.corpora.manifest import ManifestError, load_corpus
from modeling_gemoclap.corpora.protocols import ProtocolError, read_folds
from modeling_gemoclap.corpora.shards import write_shards

HEAD = ["file_name", "emotion", "gender", "speaker_id", "session", "transcript"]
ROWS = [
    ["a/one.wav", "sad", "f", "01", "1e5", "well, hm; yes\tno"],
    ["a/two.wav", "angry", "m", "0011", "no", 'she said "ja"'],
    ["b/three.wav", "", "", "1", "NA", "two\nlines"],
]


def written(folder: Path, text: str | bytes, encoding="utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder


def as_text(rows, delimiter=",", end="\n", head=HEAD, quoting=csv.QUOTE_MINIMAL) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([head, *rows])
    return file.getvalue()


def content(folder: Path, names=HEAD) -> list[list[str]]:
    corpus = load_corpus(folder)
    return [list(row) for row in zip(*(corpus.column(name).to_pylist() for name in names), strict=True)]


def expected(rows=ROWS):
    words = {"f": "female", "m": "male", "": ""}
    return [[row[0], row[1], words[row[2]], *row[3:]] for row in rows]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_csv_dialect_gives_the_same_table(data, tmp_path_factory):
    """Separators, line ends, byte order marks, spaces, case, quotes, and empty rows and columns do not matter."""
    draw = data.draw
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    spelling = draw(st.sampled_from([str, str.upper, str.title, lambda name: name.replace("_", " "), " {} ".format]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    empty = [""] * draw(st.integers(0, 2))
    rows = [[*row, *empty] for row in ROWS]
    rows = [row if end == "\n" else [field.replace("\n", " ") for field in row] for row in rows]
    blank = [[""] * len(rows[0])] * draw(st.integers(0, 2))
    text = as_text(rows + blank, delimiter, end, [*map(spelling, HEAD), *empty], quoting)
    text = draw(st.sampled_from(["", end, f"sep={delimiter}{end}"])) + text
    folder = written(tmp_path_factory.mktemp("text"), text, encoding)
    assert content(folder) == [row[: len(HEAD)] for row in expected(rows)]


def test_backslashes_and_spaces_around_values(tmp_path):
    text = "file_name , emotion,gender ,speaker_id\r\n a\\b\\one.wav , sad,f , 01\r\n"
    folder = written(tmp_path / "x", text)
    assert content(folder, HEAD[:4]) == [["a/b/one.wav", "sad", "female", "01"]]
    assert load_corpus(folder).clips["path"][0] == os.path.join(folder, "a/b/one.wav")


@pytest.mark.parametrize("name", ["note\xa0(1)", "note\u202f(1)", "note\u3000(1)", "یادداشت\u200cها"])
def test_column_names_have_spaces_of_other_widths_and_joiners(name, tmp_path):
    corpus = load_corpus(written(tmp_path / "csv", as_text([[*ROWS[0], "x"]], head=[*HEAD, name])))
    assert corpus.clips[name][:] == ["x"]
    clips = corpus.clips.remove_columns("path").with_format("arrow")[:]
    (tmp_path / "shards").mkdir()
    pq.write_table(clips.append_column("audio", pa.array(["a.wav"])), tmp_path / "shards/x.parquet")
    assert load_corpus(tmp_path / "shards").clips[name][:] == ["x"]


@pytest.mark.parametrize("letter", ["\n", "\x1b", "\u2028", "\u202e"])
def test_column_names_have_no_control_characters(letter, tmp_path):
    written(tmp_path, as_text([[*ROWS[0], "x"]], head=[*HEAD, f"a{letter}b"], quoting=csv.QUOTE_ALL))
    with pytest.raises(ManifestError, match="line 1: the column .* holds a line break or another control character"):
        load_corpus(tmp_path)


def test_a_space_before_a_quotation_mark(tmp_path):
    text = 'file_name, emotion, gender, speaker_id, transcript\n"a.wav", sad, f, 1, "well, hm"\n'
    assert content(written(tmp_path, text), ["file_name", "transcript"]) == [["a.wav", "well, hm"]]


def test_exact_column_names_take_precedence_over_similar_names(tmp_path):
    """`Emotion` beside `emotion` is another column. `Emotion` and `EMOTION` without `emotion` are ambiguous."""
    text = "file_name,emotion,Emotion,gender,speaker_id\na.wav,sad,x,f,1\n"
    corpus = load_corpus(written(tmp_path / "x", text))
    assert corpus.emotions == ["sad"] and corpus.column("Emotion").to_pylist() == ["x"]
    with pytest.raises(ManifestError, match="line 1: the column emotion occurs twice"):
        load_corpus(written(tmp_path / "x", text.replace("emotion", "EMOTION")))


def test_the_unnamed_row_numbers_of_pandas_are_ignored(tmp_path):
    text = ",file_name,emotion,gender,speaker_id\n0,a.wav,sad,f,01\n1,b.wav,sad,f,02\n"
    assert load_corpus(written(tmp_path, text)).speakers == ["01", "02"]


def test_extra_empty_fields_are_ignored(tmp_path):
    text = "file_name,emotion,gender,speaker_id\na.wav,sad,f,01,,\n,,,,,\n"
    assert load_corpus(written(tmp_path, text)).speakers == ["01"]


GOOD = "file_name,emotion,gender,speaker_id\na.wav,sad,f,1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "b.wav,sad,f,José\n".encode("cp1252").decode("latin-1"), None),
        (GOOD + "b.wav,sad,f,1,5\n", "line 3: 5 fields for 4 columns; quote fields that hold commas"),
        (GOOD.replace(",", ";") + "b.wav,sad,f,1\n", "line 3: 1 fields for 4 columns; quote .* hold semicolons"),
        (GOOD.replace(",", "\t") + "b.wav\tsad\tf\t1\tx\n", "line 3: 5 fields for 4 columns; quote .* hold tabs"),
        (GOOD + "b.wav,sad,f,\0\n", "line 3: the line holds NUL bytes"),
        (GOOD + 'b.wav,sad,f,"1\nc.wav,sad,f,1\n', "line 3: a quotation mark .* is not closed"),
        (GOOD + 'b.wav,sad,f,"1\nc.wav,sad,f,"2\nd.wav,sad,f,3\n', "line 3: a quotation mark"),
        (GOOD + 'b.wav,sad,f,"1\nc.wav,sad,f,2"\n', "line 4: speaker_id '1.nc.wav,sad,f,2' holds a line break"),
        (GOOD + '"b\n.wav",sad,f,1\n', "line 4: file_name 'b.n.wav' holds a line break"),
        (GOOD + "C:\\corpus\\b.wav,sad,f,1\n", "line 3: file_name 'C:/corpus/b.wav' must be a path inside"),
        (GOOD + "\\\\server\\b.wav,sad,f,1\n", "line 3: file_name '//server/b.wav' must be a path inside"),
        (GOOD + "~/b.wav,sad,f,1\n", "line 3: file_name '~/b.wav' must be a path inside"),
        (GOOD + "https://x.org/b.wav,sad,f,1\n", "line 3: file_name 'https://x.org/b.wav' must be a path inside"),
        (GOOD + "a\\..\\..\\b.wav,sad,f,1\n", "line 3: .* must be a path inside"),
        (GOOD + ".\\a.wav,sad,f,1\n", "line 3: a.wav already occurs in line 2"),
        (
            "file_name,emotion,gender,speaker_id,,\na.wav,sad,f,1,x,\n",
            "line 2: 'x' is in column 5, which has no name",
        ),
        (
            "file,label,sex,speaker\na,b,c,d\n",
            "; rename file to file_name, label to emotion, sex to gender, speaker to",
        ),
        ("\n\n", "the file is empty"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer, not the file; .* git lfs"),
    ],
)
def test_the_error_for_an_invalid_table_is_one_sentence(text, message, tmp_path):
    if message is None:
        text, message = GOOD.encode() + "b.wav,sad,f,José\n".encode("cp1252"), "not UTF-8 in line 3 .*'José'.*as UTF-8"
    with pytest.raises(ManifestError, match=message) as error:
        load_corpus(written(tmp_path, text))
    assert "metadata.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_error_for_an_invalid_byte_names_the_line_in_a_large_file(end, tmp_path):
    lines = [GOOD.splitlines()[0], *(f"{n}.wav,sad,f,{n % 9}" for n in range(30_000))]
    lines[20_000] = lines[20_000] + "\xe9"
    with pytest.raises(ManifestError, match="not UTF-8 in line 20001 .byte 0xe9"):
        load_corpus(written(tmp_path, end.join(lines), "cp1252"))
    lines[20_000] = "x.wav,gloomy,f,1"
    with pytest.raises(ManifestError, match="line 20001: emotion 'gloomy'"):
        load_corpus(written(tmp_path, end.join(lines), "utf-8"))


def test_utf16_without_a_mark_or_truncated(tmp_path):
    with pytest.raises(ManifestError, match="NUL bytes: the file is not text, or is UTF-16 without a byte order mark"):
        load_corpus(written(tmp_path, GOOD.encode("utf-16-le")))
    with pytest.raises(ManifestError, match="invalid UTF-16 .truncated data"):
        load_corpus(written(tmp_path, GOOD.encode("utf-16")[:-1]))


def test_the_hash_does_not_depend_on_the_csv_dialect(tmp_path):
    forms = [as_text(ROWS), as_text(ROWS, ";", "\r\n"), as_text(ROWS, "\t", quoting=csv.QUOTE_ALL)]
    forms += [as_text([[*row, ""] for row in ROWS], head=[*map(str.upper, HEAD), ""])]
    hashes = {load_corpus(written(tmp_path / str(n), form)).manifest_sha256 for n, form in enumerate(forms)}
    assert len(hashes) == 1


def test_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_corpus(tmp_path / "corpus", clips=1)
    corpus = load_corpus("~/corpus")
    assert corpus.name == "corpus" and all(Path(path).is_file() for path in corpus.clips["path"])
    (tmp_path / "folds.json").write_text('[["01"], ["02"]]')
    assert read_folds("~/folds.json")[0] == [["01"], ["02"]]
    write_shards(corpus, "~/shards")
    assert load_corpus("~/shards").manifest_sha256 == corpus.manifest_sha256
    with pytest.raises(ManifestError, match="~nobody-of-this-name/x: no such folder"):
        load_corpus("~nobody-of-this-name/x")


def test_errors_and_notes_name_manifests_in_other_formats(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/metadata.jsonl").write_text("{}")
    with pytest.raises(
        ManifestError, match="no recordings.*; metadata.jsonl is there, but not read: save it as metadata.csv"
    ):
        load_corpus(tmp_path / "own")
    folder = emodb_tree(tmp_path / "emodb")
    (folder / "metadata.tsv").write_text("x")
    assert "metadata.tsv is there, but not read" in load_corpus(folder).notes[0]
    (tmp_path / "own/Metadata.CSV").write_text(GOOD)
    with pytest.raises(
        ManifestError, match="no recordings.*; Metadata.CSV is there, but not read: save it as metadata.csv"
    ):
        load_corpus(tmp_path / "own")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/data-00000-of-00001.arrow").write_text("x")
    with pytest.raises(ManifestError, match="arrow is there, but not read: unpack it, or write it as Parquet"):
        load_corpus(tmp_path / "packed")
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone/a.m4a").write_text("x")
    with pytest.raises(
        ManifestError, match="no recordings .*; 1 recordings are in other formats, first a.m4a; any other corpus"
    ):
        load_corpus(tmp_path / "phone")
    with pytest.raises(ManifestError, match="metadata.tsv: this is a file; give the folder that holds it"):
        load_corpus(folder / "metadata.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[1, 4], [2]]", "speakers as text"),
        ("[[true]]", "speakers as text"),
        ("[[01]]", "cannot be read"),
        ('{"folds": [["1"]], "folds": [["2"]]}', "the key folds occurs twice"),
        ('{"test_speakers": {"seed_0": [["1"]], "seed_0": [["2"]]}}', "the key seed_0 occurs twice"),
    ],
)
def test_invalid_folds_files(text, message, tmp_path):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(ProtocolError, match=message):
        read_folds(tmp_path / "folds.json")


def test_a_folds_file_with_a_byte_order_mark_and_spaces(tmp_path):
    (tmp_path / "folds.json").write_text('[["01 "], ["no", " 1e5"]]', encoding="utf-8-sig")
    assert read_folds(tmp_path / "folds.json")[0] == [["01"], ["no", "1e5"]]


def test_random_changes_give_a_corpus_or_an_error_of_one_sentence(tmp_path):
    """Whatever bytes change in a manifest, the result is a corpus or an error of one sentence."""
    draw, text = random.Random(0), as_text(ROWS).encode()
    for _ in range(300):
        changed = bytearray(text)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(len(changed))] = draw.choice(b'\0\r\n",;\t\\/~\xe9\xff a')
        try:
            load_corpus(written(tmp_path, bytes(changed)))
        except ManifestError as error:
            assert "metadata.csv" in str(error) and "\n" not in str(error)
