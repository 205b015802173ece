"""Speakers and sessions of a manifest, compared with the names of published recordings."""

import csv
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import TREES, emodb_tree

from modeling_gemoclap.corpora.catalogue import CORPORA
from modeling_gemoclap.corpora.manifest import ManifestError, load_corpus, mix
from modeling_gemoclap.corpora.partition import (
    check_partition,
    notes_on_ids,
    published_speakers,
    rows_by_corpus,
    similar_ids,
)

HEAD = ["file_name", "emotion", "gender", "speaker_id"]


def manifest(folder: Path, rows, head=HEAD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return folder


@pytest.fixture(scope="module")
def rows_of(tmp_path_factory):
    """The rows of each published corpus: file, emotion, gender, speaker, session."""
    rows = {}
    for name, tree in TREES.items():
        corpus = load_corpus(tree(tmp_path_factory.mktemp("trees") / name))
        columns = (corpus.column(column).to_pylist() for column in (*HEAD, "session"))
        rows[name] = [list(row) for row in zip(*columns, strict=True)]
    return rows


@pytest.mark.parametrize("name", CORPORA)
def test_the_speaker_is_read_from_the_name(name, rows_of):
    corpus = CORPORA[name]
    for file, _, gender, speaker, session in rows_of[name]:
        assert corpus.speaker_of(file) == speaker
        said = corpus.labels_in_name(file)
        assert said.get("gender", gender) == gender and said.get("session", session) == session
        assert all(CORPORA[other].speaker_of(file) is None for other in CORPORA if other != name), file
        if name != "casia":  # there the folder is the speaker
            alone = file.rpartition("/")[2]
            stem = alone.rpartition(".")[0]
            for form in (
                alone,
                stem,
                f"x/{name}_{stem}.mp3",
                f"x/{name}-{stem}.m4a",
                f"{stem}_16k.WAV",
                f"{stem}-noise.ogg",
            ):
                assert corpus.speaker_of(form) == speaker, form
    assert corpus.speaker_of("audio/meeting.wav") is None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("emodb", "17a01Wa.wav"),
        ("emodb", "03a01Xa.wav"),
        ("ravdess", "20-11-26-01-15-53-10.wav"),
        ("ravdess", "03-01-05-01-02-01-25.wav"),
        ("cremad", "2001_DFA_ANG_XX.wav"),
        ("esd", "0021_000351.wav"),
        ("casia", "201.wav"),
        ("iemocap", "Ses09F_impro01_F000.wav"),
    ],
)
def test_names_with_unknown_codes_do_not_belong_to_the_corpus(name, file):
    assert CORPORA[name].speaker_of(file) is None


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(CORPORA)), data=st.data())
def test_a_manifest_is_valid_if_and_only_if_its_speakers_match_the_names(name, data, rows_of, tmp_path_factory):
    """Any spelling of the true partition is valid, and any other partition an error, with and without labels."""
    rows = [row[:4] for row in rows_of[name]]
    true = sorted({row[3] for row in rows})
    spelling = data.draw(st.lists(st.text("ab1", min_size=1, max_size=4), min_size=len(true), max_size=len(true)))
    change = data.draw(st.none() | st.tuples(st.integers(0, len(rows) - 1), st.sampled_from(["new", *spelling])))
    given_ids = [spelling[true.index(row[3])] for row in rows]
    if change:
        given_ids[change[0]] = change[1]
    pairs = {(row[3], speaker) for row, speaker in zip(rows, given_ids, strict=True)}
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    folder = tmp_path_factory.mktemp("made")
    manifest(folder, [[*row[:3], speaker] for row, speaker in zip(rows, given_ids, strict=True)])
    for unlabelled in (False, True):
        if one_to_one:
            corpus = load_corpus(folder, unlabelled=unlabelled)
            assert corpus.known is CORPORA[name] and corpus.speakers == sorted(set(given_ids))
        else:
            with pytest.raises(ManifestError, match=r"metadata.csv, line \d+: speaker_id .*(give each speaker)"):
                load_corpus(folder, unlabelled=unlabelled)


def test_random_speakers_for_published_recordings_are_an_error(rows_of, tmp_path):
    """All ten true speakers would be in the training part and in the test part of every fold."""
    draw = random.Random(0)
    rows = [[*row[:3], str(draw.randrange(10))] for row in rows_of["emodb"]]
    with pytest.raises(ManifestError) as error:
        load_corpus(manifest(tmp_path / "emodb", rows))
    message = str(error.value)
    assert "metadata.csv, line" in message and "of Emo-DB" in message and "\n" not in message
    assert "give each speaker" in message and "or rename recordings that are not Emo-DB's" in message


def test_errors_for_split_and_merged_speakers(tmp_path):
    split = [["03a01Fa.wav", "happy", "m", "a"], ["03a01Wa.wav", "angry", "m", "b"]]
    expected = (
        "line 3: speaker_id is 'b' for 03a01Wa.wav, but 'a' for 03a01Fa.wav; by their names, both recordings "
        "belong to speaker 03 of Emo-DB"
    )
    with pytest.raises(ManifestError, match=expected):
        load_corpus(manifest(tmp_path / "split", split))
    merged = [["03a01Fa.wav", "happy", "m", "a"], ["08a01Wa.wav", "angry", "f", "a"]]
    expected = r"line 3: speaker_id 'a' stands for two speakers .* 03 of Emo-DB \(03a01Fa.wav\) and 08 of Emo-DB"
    with pytest.raises(ManifestError, match=expected):
        load_corpus(manifest(tmp_path / "merged", merged))


def test_a_few_published_recordings_among_many_others_are_checked(tmp_path):
    """They are checked in any number, in any folder, and if they come from two corpora."""
    others = [[f"mine/{number}.wav", "sad", "f", "me"] for number in range(1500)]
    for more in (
        [["a/03a01Fa.mp3", "happy", "m", "x"], ["b/03a01Wa.flac", "angry", "m", "y"]],
        [["1001_DFA_ANG_XX.wav", "angry", "m", "x"], ["1001_DFA_SAD_XX.wav", "sad", "m", "y"]],
        [["03a01Fa.wav", "happy", "m", "03"], ["03-01-05-01-01-01-03.wav", "angry", "m", "03"]],
    ):
        folder = manifest(tmp_path / more[0][0].replace("/", "_"), others + more)
        with pytest.raises(ManifestError, match="line 1503: speaker_id .* of (Emo-DB|CREMA-D)"):
            load_corpus(folder)
    good = [["a/03a01Fa.mp3", "sad", "m", "x"], ["b/08a01Wa.flac", "angry", "f", "y"]]
    corpus = load_corpus(manifest(tmp_path / "good", others + good))
    assert corpus.known is None and len(corpus) == 1502
    assert published_speakers(corpus.clips.with_format("arrow")[:]) == {"emodb": {"03": "x", "08": "y"}}
    assert corpus.notes == [
        "the manifest contradicts the names of Emo-DB's recordings in the emotion of 1 clips, first a/03a01Fa.mp3 "
        "(sad, by its name happy)"
    ]


def test_a_published_speaker_in_two_corpora_of_a_mixture_is_refused(tmp_path):
    """The recording is converted, so its bytes differ, and it is too rare to identify the corpus."""
    first = emodb_tree(tmp_path / "emodb")
    others = [[f"mine/{number}.wav", "sad", "f", "me"] for number in range(9)]
    second = load_corpus(manifest(tmp_path / "own", [*others, ["other/03a02Fa.mp3", "happy", "m", "you"]]))
    message = "emodb and own, own/other/03a02Fa.mp3: speaker_id is 'own/you' for own/other/03a02Fa.mp3, but 'emodb/03'"
    with pytest.raises(ManifestError, match=message):
        mix([load_corpus(first), second])
    assert len(mix([load_corpus(first).of_speakers(exclude=["03"]), second]).speakers) == 11


def test_sessions_are_checked(rows_of, tmp_path):
    """Both speakers of a dialogue can be heard in both channels, so a divided session leaks."""
    rows, head = rows_of["iemocap"], [*HEAD, "session"]
    corpus = load_corpus(manifest(tmp_path / "spelt", [[*row[:4], f"s{int(row[4])}"] for row in rows], head))
    assert corpus.known.name == "iemocap" and set(corpus.column("session").to_pylist()) == {
        "s1",
        "s2",
        "s3",
        "s4",
        "s5",
    }
    rows = [[*row[:4], row[2]] for row in rows]
    with pytest.raises(
        ManifestError,
        match="session is 'male' for .*, but 'female' for .* both recordings belong to session 01 of IEMOCAP",
    ):
        load_corpus(manifest(tmp_path / "wrong", rows, head))


def test_the_gender_in_names_is_compared_without_the_tables_of_labels(rows_of, tmp_path):
    rows = [[row[0].rpartition("/")[2], row[1], "female", row[3]] for row in rows_of["iemocap"]]
    corpus = load_corpus(manifest(tmp_path / "iemocap", rows))
    assert corpus.known.name == "iemocap", "identified by the names of the recordings, without folders"
    assert any("in the gender of 25 clips" in note for note in corpus.notes)


def test_bare_names_are_used_if_the_corpus_is_named(rows_of, tmp_path):
    rows = [[row[0].rpartition("/")[2], *row[1:3], "x"] for row in rows_of["esd"]]
    folder = manifest(tmp_path / "flat", rows)
    assert load_corpus(folder).known is None
    with pytest.raises(ManifestError, match="'x' stands for two speakers .* 0001 of ESD .* and 0009 of ESD"):
        load_corpus(folder, "esd")
    rows = [[row[0].rpartition("/")[2], *row[1:4]] for row in rows_of["esd"]]
    corpus = load_corpus(manifest(tmp_path / "right", rows), "esd")
    assert corpus.known is CORPORA["esd"]
    table = corpus.clips.with_format("arrow")[:]
    assert published_speakers(table) == {}
    ids = {speaker: speaker for speaker in ("0001", "0009", "0011")}
    assert published_speakers(table, corpus.known) == {"esd": ids}


def test_notes_on_swapped_and_similar_ids(tmp_path):
    rows = [["03a01Fa.wav", "happy", "m", "10"], ["10a01Fa.wav", "happy", "m", "03"]]
    notes = load_corpus(manifest(tmp_path / "swapped", rows)).notes
    assert (
        "Emo-DB's own ids for other speakers than the names of its recordings do, first '10' for speaker 03"
        in notes[0]
    )
    rows = [
        ["a.wav", "sad", "f", "1"],
        ["b.wav", "sad", "f", "01"],
        ["c.wav", "sad", "f", "Ann"],
        ["d.wav", "", "", "ann"],
    ]
    [note] = load_corpus(manifest(tmp_path / "alike", rows)).notes
    assert note.startswith("speaker_id: '01' and '1'; 'Ann' and 'ann' are taken for different speakers")


@pytest.mark.parametrize(
    ("ids", "alike"),
    [
        (["1", "01", "2"], [["01", "1"]]),
        (["A", "a"], [["A", "a"]]),
        (["Actor_01", "actor 1", "Actor_10"], [["Actor_01", "actor 1"]]),
        (["0", "00"], [["0", "00"]]),
        (["1", "10", "100", "1-1", "11", "F1", "M1", "é", "e"], []),
    ],
)
def test_similar_ids(ids, alike):
    assert similar_ids(ids) == alike


def test_one_id_in_two_unicode_forms_is_an_error(tmp_path):
    rows = [["a.wav", "sad", "f", "Jos\u00e9"], ["b.wav", "sad", "f", "Jose\u0301"]]
    with pytest.raises(ManifestError, match="line 3: speaker_id .* Unicode|forms NFC"):
        load_corpus(manifest(tmp_path / "x", rows))
    rows = [["Jos\u00e9.wav", "sad", "f", "1"], ["Jose\u0301.wav", "sad", "f", "1"]]
    with pytest.raises(ManifestError, match="line 3: .* already occurs in line 2"):
        load_corpus(manifest(tmp_path / "x", rows))


def test_recordings_are_found_in_another_unicode_form(tmp_path):
    """macOS stores accents as separate characters, unlike a manifest from another system."""
    folder = manifest(tmp_path / "x", [["J\u00f6rg.wav", "sad", "m", "J\u00f6rg"]])
    soundfile.write(folder / "Jo\u0308rg.wav", np.zeros(1600), 16000)
    corpus = load_corpus(folder)
    assert Path(corpus.clips["path"][0]).is_file() and corpus.clips["file_name"][0] == "J\u00f6rg.wav"


def test_shards_are_checked(rows_of, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for key in ("file_name", "audio"):
        rows = []
        for file, emotion, gender, *_ in rows_of["emodb"][:20]:
            row = {"emotion": emotion, "gender": gender, "speaker_id": "x", "audio": {"bytes": b"x", "path": file}}
            rows.append(row | ({"file_name": file} if key == "file_name" else {}))
        folder = tmp_path / key
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        for unlabelled in (False, True):
            with pytest.raises(ManifestError, match=r"a.parquet, row \d+ of group 0: speaker_id 'x' stands for two"):
                load_corpus(folder, unlabelled=unlabelled)


# ---- tables in memory -----------------------------------------------------------------------------------------------
SAME, OTHER = ("03a01Fa.wav", "03a01Wa.wav"), "08a01Wa.wav"  # speakers 03 and 08 of Emo-DB


def table_of(*rows):
    """A manifest in two chunks, of file, speaker and, if given, session."""
    names = ("file_name", "speaker_id", "session")[: len(rows[0])]
    parts = [
        pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in part]) for part in (rows[:1], rows[1:])
    ]
    return pa.concat_tables(parts) if rows[1:] else parts[0]


def error_of(*rows):
    with pytest.raises(ManifestError) as error:
        check_partition(table_of(*rows), lambda row: f"place {row}")
    return str(error.value)


def test_rows_of_each_corpus():
    table = table_of(("mine.wav", "x"), (SAME[0], "a"), ("1001_DFA_ANG_XX.wav", "b"), (SAME[1], "a"))
    rows = check_partition(table, str)
    assert list(rows) == list(CORPORA.values())
    assert {corpus.name: found for corpus, found in rows.items() if found} == {"emodb": [1, 3], "cremad": [2]}
    assert rows_by_corpus(pa.array(["03a01Xa.wav", SAME[0]]))[CORPORA["emodb"]] == [1], "X is no emotion"
    names = pa.chunked_array([["mine.wav"], [SAME[0]]]).dictionary_encode()
    table = pa.table({"file_name": names, "speaker_id": ["x", "a"]})
    assert check_partition(table, str)[CORPORA["emodb"]] == [1], "columns may be encoded as a dictionary"
    assert published_speakers(table) == {"emodb": {"03": "a"}}


def test_the_message_about_a_split_speaker():
    assert error_of(("mine.wav", "a"), (SAME[0], "a"), (OTHER, "c"), (SAME[1], "b")) == (
        "place 3: speaker_id is 'b' for 03a01Wa.wav, but 'a' for 03a01Fa.wav; by their names, both recordings belong "
        "to speaker 03 of Emo-DB, which would be in the training part and in the test part: give each speaker one "
        "id, such as 03, or rename recordings that are not Emo-DB's"
    )


def test_the_message_about_merged_speakers():
    assert error_of((SAME[0], "a"), (SAME[1], "a"), (OTHER, "a")) == (
        "place 2: speaker_id 'a' stands for two speakers by the names of the recordings, 03 of Emo-DB (03a01Fa.wav) "
        "and 08 of Emo-DB (08a01Wa.wav): give each speaker a separate id, such as 08, or rename recordings that are "
        "not Emo-DB's"
    )


def test_messages_about_sessions():
    rows = [("Ses01F_impro01_F000.wav", "a", "s"), ("Ses01F_impro01_M000.wav", "b", "t")]
    assert error_of(*rows) == (
        "place 1: session is 't' for Ses01F_impro01_M000.wav, but 's' for Ses01F_impro01_F000.wav; by their names, "
        "both recordings belong to session 01 of IEMOCAP, which would be in the training part and in the test part: "
        "give each session one id, such as 01, or rename the column, or rename recordings that are not IEMOCAP's"
    )
    rows[1] = ("Ses02F_impro01_M000.wav", "b", "s")
    assert error_of(*rows) == (
        "place 1: session 's' stands for two sessions by the names of the recordings, 01 of IEMOCAP "
        "(Ses01F_impro01_F000.wav) and 02 of IEMOCAP (Ses02F_impro01_M000.wav): give each session a separate id, "
        "such as 02, or rename the column, or rename recordings that are not IEMOCAP's"
    )


def test_rows_without_a_session_and_names_without_one_are_not_compared():
    """Later rows are still checked."""
    empty = [("Ses01F_impro01_F000.wav", "a", ""), ("Ses02F_impro01_M000.wav", "b", "")]
    check_partition(table_of(*empty), str)
    assert "stands for two sessions" in error_of(
        *empty, ("Ses01F_impro02_F000.wav", "a", "s"), ("Ses02F_impro02_M000.wav", "b", "s")
    )
    check_partition(table_of((SAME[0], "a", "s"), (SAME[1], "a", "t"), (OTHER, "b", "s")), str)


def test_the_same_id_in_two_corpora_is_an_error():
    text = error_of((SAME[0], "a"), ("1001_DFA_ANG_XX.wav", "a"))
    assert "1001 of CREMA-D (1001_DFA_ANG_XX.wav) and 03 of Emo-DB (03a01Fa.wav)" in text


def notes_of(*rows):
    table = table_of(*rows)
    return notes_on_ids(table, rows_by_corpus(table["file_name"].combine_chunks()))


def test_notes_by_hand():
    assert notes_of(("a.wav", "1"), ("b.wav", "01"), ("c.wav", "Ann"), ("d.wav", "ann")) == [
        "speaker_id: '01' and '1'; 'Ann' and 'ann' are taken for different speakers; correct the manifest if they are "
        "not"
    ]
    assert notes_of(("a.wav", "x", "1"), ("b.wav", "x", "01")) == [
        "session: '01' and '1' are taken for different sessions; correct the manifest if they are not"
    ]
    many = [(f"{number}{form}.wav", f"s{form}{number}") for number in range(1, 8) for form in ("", "0")]
    assert notes_of(*many)[0].count(" and ") == 5, "the first five"
    assert notes_of(("a.wav", "1"), ("b.wav", "2")) == []


def test_notes_on_swapped_ids_by_hand():
    names = ("03a01Fa.wav", "08a01Fa.wav", "09a01Fa.wav", "10a01Fa.wav")
    swapped = "speaker_id has Emo-DB's own ids for other speakers than the names of its recordings do, first {} for {}"
    ids = ("03", "09", "10", "08")
    assert notes_of(*zip(names, ids, strict=True)) == [swapped.format("'09'", "speaker 08")]
    assert notes_of(*zip(names, ("03", "08", "x", "y"), strict=True)) == []
    assert notes_of(*zip(names, ("08", "w", "x", "y"), strict=True)) == [swapped.format("'08'", "speaker 03")]
    assert notes_of(*zip(names, ("11", "w", "x", "y"), strict=True)) == [], "11 has no recordings here"


def test_published_speakers_by_hand():
    table = table_of((SAME[0], "a"), (OTHER, "b"), ("mine.wav", "me"), ("1001_DFA_ANG_XX.wav", "c"))
    assert published_speakers(table) == {"emodb": {"03": "a", "08": "b"}, "cremad": {"1001": "c"}}
    assert published_speakers(table_of(("mine.wav", "me"))) == {}
    bare = table_of(("0001_000351.wav", "a"), ("mine.wav", "b"))
    assert published_speakers(bare) == {} and published_speakers(bare, CORPORA["esd"]) == {"esd": {"0001": "a"}}


def test_ids_that_look_alike_by_hand():
    assert similar_ids(["B01", "b1", "c"]) == [["B01", "b1"]]
    assert similar_ids(["\uff22_1", "b 1", "b__-1"]) == [["b 1", "b__-1", "\uff22_1"]], "NFKC, and any separators"
    assert similar_ids(["stra\u00dfe", "STRASSE"]) == [["STRASSE", "stra\u00dfe"]], "casefold"
    assert similar_ids(["_", "-", "", " "]) == [], "nothing but separators"
    assert similar_ids(["_a", "a-"]) == [["_a", "a-"]]
    assert similar_ids(["10", "1", "1001", "101"]) == [] and similar_ids(["a0", "a00"]) == [["a0", "a00"]]
    assert similar_ids(["b", "a", "B", "A"]) == [["A", "a"], ["B", "b"]], "sorted"
