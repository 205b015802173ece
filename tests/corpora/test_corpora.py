"""Published corpora in the layout of their download, and copies with errors."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
from conftest import write_corpus
from test_manifest import manifest
from test_protocols import corpus_of
from trees import TREES, cremad_tree, emodb_tree, esd_tree, iemocap_tree, nemo_tree, ravdess_tree, touch

from modeling_gemoclap.corpora.catalogue import CORPORA
from modeling_gemoclap.corpora.manifest import ManifestError, load_corpus, mix
from modeling_gemoclap.corpora.provenance import heard_speakers, training_records


def rows_of(corpus):
    return {row["file_name"].rpartition("/")[2]: row for row in corpus.clips}


@pytest.mark.parametrize("name", CORPORA)
def test_every_published_corpus_is_read_as_downloaded(name, tmp_path):
    corpus = load_corpus(TREES[name](tmp_path / "downloaded"))
    known = CORPORA[name]
    assert corpus.name == name and corpus.known is known and known.licence and known.citation and known.url
    assert corpus.emotions == sorted(known.counts), "all emotions, as canonical words"
    assert set(corpus.column("gender").to_pylist()) == {"female", "male"}
    assert all(Path(path).is_file() for path in corpus.clips["path"])
    assert any(
        f"has {sum(known.counts.values())} clips of {known.num_speakers} speakers; here" in n for n in corpus.notes
    )


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_below_the_given_folder_is_found(name, tmp_path):
    TREES[name](tmp_path / "downloads" / "unpacked")
    corpus = load_corpus(tmp_path / "downloads", name)
    assert corpus.name == name and len(corpus) > 5


def test_iemocap_has_consensus_labels_and_the_speaker_of_the_turn(tmp_path):
    corpus = load_corpus(iemocap_tree(tmp_path / "IEMOCAP_full_release"))
    assert Counter(corpus.column("emotion").to_pylist()) == {"neutral": 10, "angry": 10, "sad": 10, "happy": 20}
    row = rows_of(corpus)["Ses03F_impro01_M004.wav"]  # excited
    expected = {
        "emotion": "happy",
        "gender": "male",
        "speaker_id": "Ses03M",
        "session": "03",
        "transcript": "Excuse me.",
    }
    assert {name: row[name] for name in expected} == expected
    assert sum(CORPORA["iemocap"].counts.values()) == 5531 and len(corpus.speakers) == 10
    notes = " ".join(corpus.notes)
    assert (
        "10 recordings left out, labelled frustrated" in notes and "10 recordings left out, labelled no maj" in notes
    )


def test_iemocap_without_labels(tmp_path):
    """Without labels every turn is read, and no file of labels is needed."""
    folder = iemocap_tree(tmp_path / "IEMOCAP_full_release")
    shutil.rmtree(folder / "Session2/dialog/EmoEvaluation")
    corpus = load_corpus(folder, unlabelled=True)
    assert len(corpus) == 5 * 2 * 7 and corpus.emotions == [] and not corpus.notes
    row = rows_of(corpus)["Ses03F_impro01_M005.wav"]  # frustrated
    assert (row["speaker_id"], row["gender"], row["transcript"]) == ("Ses03M", "male", "Excuse me.")


def test_transcripts_genders_and_splits(tmp_path):
    corpus = load_corpus(esd_tree(tmp_path / "esd", split="train"))
    rows = rows_of(corpus)
    assert rows["0001_000001.wav"]["transcript"] == rows["0009_000001.wav"]["transcript"] == "打远一看"
    assert (
        rows["0011_000351.wav"]["transcript"] == "The nine the eggs" and rows["0011_000351.wav"]["emotion"] == "happy"
    )
    corpus = load_corpus(cremad_tree(tmp_path / "cremad") / "AudioWAV")  # demographics lie above
    row = rows_of(corpus)["1002_IEO_SAD_XX.wav"]
    assert (row["gender"], row["transcript"]) == ("female", "It's eleven o'clock")
    corpus = load_corpus(ravdess_tree(tmp_path / "ravdess"))
    assert rows_of(corpus)["03-01-06-01-02-01-02.wav"]["gender"] == "female"
    assert any("sung, not spoken" in note for note in corpus.notes)
    folder = nemo_tree(tmp_path / "nemo")
    for place in (folder, folder / "samples"):  # the sentences lie above
        row = rows_of(load_corpus(place))["WR0_surprised_38.wav"]
        assert (row["emotion"], row["gender"], row["speaker_id"]) == ("surprise", "male", "WR0")
        assert row["transcript"] == '„Ród smoka" to serial telewizyjny.'
    (folder / "data.tsv").unlink()
    assert rows_of(load_corpus(folder))["EB0_fear_38.wav"]["transcript"] == "", "no label is in the table alone"


@pytest.mark.skipif("GEMOCLAP_CORPORA" not in os.environ, reason="GEMOCLAP_CORPORA names no folder with the corpora")
@pytest.mark.parametrize("name", ["emodb", "ravdess"])
def test_download_and_metadata_of_the_real_corpora_agree(name):
    folder = Path(os.environ["GEMOCLAP_CORPORA"], name)
    first, second = rows_of(load_corpus(folder)), rows_of(load_corpus(folder / "audio"))
    assert first.keys() == second.keys()
    for file, row in first.items():
        assert all(row[key] == second[file][key] for key in ("emotion", "gender", "speaker_id", "transcript")), file
    assert load_corpus(folder).notes == [] == load_corpus(folder / "audio").notes


def test_a_wrong_corpus_name_is_refused(tmp_path):
    folder = ravdess_tree(tmp_path / "emodb")
    with pytest.raises(ManifestError, match="this looks like RAVDESS, not like Emo-DB.*--corpus_name ravdess"):
        load_corpus(folder, "emodb")
    rows = [["03-01-06-01-02-01-02.wav", "fear", "f", "02"], ["03-01-06-01-02-01-03.wav", "fear", "m", "03"]]
    with pytest.raises(ManifestError, match="this looks like RAVDESS"):
        load_corpus(manifest(tmp_path / "x", rows), "emodb")


def test_notes_on_an_incomplete_copy(tmp_path, caplog):
    folder = emodb_tree(tmp_path / "emodb")
    touch(folder / "wav/notes.wav")
    touch(folder / "wav/._03a01Wa.wav")
    corpus = load_corpus(folder)
    assert len(corpus) == 70
    assert corpus.notes[0] == "1 recordings left out, not named as recordings of Emo-DB are, first wav/notes.wav"
    assert "Emo-DB has 535 clips of 10 speakers; here are 70 of 10 (angry 10 of 127, " in corpus.notes[1]
    assert corpus.of_speakers(["03"]).notes == corpus.notes, "a selection keeps the notes"


def test_an_incomplete_iemocap_download(tmp_path):
    folder = iemocap_tree(tmp_path / "iemocap")
    shutil.rmtree(folder / "Session5")
    assert len(load_corpus(folder).speakers) == 8, "missing sessions give a note, not an error"
    (folder / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F001.wav").unlink()
    with pytest.raises(ManifestError, match="1 recordings of EmoEvaluation are missing, first Ses02F_impro01_F"):
        load_corpus(folder)
    shutil.rmtree(folder / "Session2/dialog")
    with pytest.raises(ManifestError, match="Session2: no dialog/EmoEvaluation"):
        load_corpus(folder)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("emodb", "wav/03a01Xa.wav", "03a01Xa.wav: 'X' is no emotion letter of this corpus; it has W, L"),
        ("emodb", "wav/17a01Wa.wav", "17a01Wa.wav: '17' is no speaker"),
        ("ravdess", "Actor_01/03-01-09-01-01-01-01.wav", "'09' is no emotion code"),
        ("cremad", "AudioWAV/1099_DFA_ANG_XX.wav", "'1099' is no actor in VideoDemographics.csv"),
        ("nemo", "samples/XY0_anger_38.wav", "'XY0' is no speaker of this corpus; it has EB0, IC0"),
        ("casia", "wangzhe/bored/201.wav", "'bored' is no emotion"),
        ("esd", "Emotion Speech Dataset/0011/Bored/0011_000351.wav", "'Bored' is no emotion"),
    ],
)
def test_errors_for_unknown_label_codes_name_the_file(name, file, message, tmp_path):
    folder = TREES[name](tmp_path / name)
    touch(folder / file)
    with pytest.raises(ManifestError, match=message):
        load_corpus(folder)


def test_the_error_for_an_unknown_iemocap_label_names_file_and_line(tmp_path):
    folder = iemocap_tree(tmp_path / "iemocap")
    path = folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("\tneu\t", "\tmad\t", 1))
    with pytest.raises(ManifestError, match="Ses01F_impro01.txt, line 3: unknown label 'mad'"):
        load_corpus(folder)


def test_folders_that_hold_no_usable_corpus(tmp_path):
    folder = ravdess_tree(tmp_path / "ravdess")
    shutil.copytree(folder, folder / "audio_speech_actors_01-24")  # as in one distribution of RAVDESS
    with pytest.raises(ManifestError, match="are the same recording of RAVDESS; remove one of them"):
        load_corpus(folder)
    touch(tmp_path / "mine/meeting.wav")
    with pytest.raises(
        ManifestError, match="like meeting.wav, are not named as those of CASIA, .* are; any other corpus"
    ):
        load_corpus(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no recordings"):
        load_corpus(tmp_path / "empty")
    with pytest.raises(ManifestError, match="no such folder"):
        load_corpus(tmp_path / "absent")
    shutil.rmtree(cremad_tree(tmp_path / "c") / "none", ignore_errors=True)
    (tmp_path / "c/VideoDemographics.csv").unlink()
    with pytest.raises(ManifestError, match="no VideoDemographics.csv"):
        load_corpus(tmp_path / "c")


def test_speakers_of_a_mixture_are_distinct(tmp_path):
    first, second = load_corpus(emodb_tree(tmp_path / "a")), load_corpus(ravdess_tree(tmp_path / "b"))
    mixture = mix([first, second])
    assert mixture.name == "emodb+ravdess" and len(mixture) == len(first) + len(second)
    assert len(mixture.speakers) == 34 and {"emodb/03", "ravdess/03"} <= set(mixture.speakers)
    records = training_records(mixture.of_speakers(["emodb/03", "ravdess/03", "ravdess/04"]))
    assert [(r["corpus"], r["speakers"], r["licence"]) for r in records] == [
        ("emodb", ["03"], "CC0-1.0"),
        ("ravdess", ["03", "04"], "CC-BY-NC-SA-4.0"),
    ]
    assert heard_speakers(first, records).speakers == ["03"] and heard_speakers(second, records).speakers == [
        "03",
        "04",
    ]
    assert heard_speakers(mixture, records).speakers == ["emodb/03", "ravdess/03", "ravdess/04"]
    assert pc.count_distinct(mixture.column("file_name")).as_py() == len(mixture)
    with pytest.raises(ManifestError, match="two corpora are called emodb"):
        mix([first, first])
    copy = load_corpus(emodb_tree(tmp_path / "c/wav_files"), "berlin")
    for other in (replace(first, name="copy"), copy.where("speaker_id", lambda speaker: speaker != "03")):
        with pytest.raises(ManifestError, match="are the same recordings, so a speaker would be in the training part"):
            mix([second, first, other])
    assert heard_speakers(copy, records).speakers == ["03"], "identified by its recordings, whatever its name"


def test_a_folder_above_two_corpora_is_refused(tmp_path):
    emodb_tree(tmp_path / "emodb")
    ravdess_tree(tmp_path / "ravdess")
    with pytest.raises(
        ManifestError, match="holds 70 recordings of Emo-DB and 193 recordings of RAVDESS; give the folder of one"
    ):
        load_corpus(tmp_path)


def test_copies_of_recordings_are_not_mixed(tmp_path):
    """The copy has another name, another folder and one row less, but the same bytes."""
    first = write_corpus(tmp_path / "first")
    shutil.copytree(first / "audio", tmp_path / "second/wav")
    lines = (first / "metadata.csv").read_text().replace("audio/", "wav/").splitlines(keepends=True)
    (tmp_path / "second/metadata.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ManifestError, match="_0.wav are the same recordings"):
        mix([load_corpus(first), load_corpus(tmp_path / "second")])


def test_development_speakers_are_recorded():
    corpus = corpus_of({"01": "female", "02": "male", "03": "female"})
    records = training_records(corpus.of_speakers(["01"]), corpus.of_speakers(["02"]))
    assert records[0]["speakers"] == ["01"] and records[0]["dev_speakers"] == ["02"]
    assert heard_speakers(corpus, records).speakers == ["01", "02"]


def test_a_note_reports_contradictions_to_the_names(tmp_path):
    folder = emodb_tree(tmp_path / "emodb")
    names = sorted(path.name for path in folder.rglob("*.wav"))
    wrong = [
        f"wav/{name},{'happy' if name[5] == 'W' else 'sad'},female,{name[:2]}" for name in names if name[5] in "WT"
    ]
    (folder / "metadata.csv").write_text("\n".join(["file_name,emotion,gender,speaker_id", *wrong]) + "\n")
    notes = load_corpus(folder).notes
    assert "in the gender of 10 clips, first wav/03" in notes[0]
    assert "in the emotion of 10 clips, first wav/03a01Wa.wav (happy, by its name angry)" in notes[1]
    assert len(notes) == 3


@pytest.mark.parametrize(
    ("tree", "first", "second"),
    [
        (emodb_tree, "wav/03a01Wa.wav", "wav/03a01Wa.flac"),
        (esd_tree, "0011/Angry/0011_000351.wav", "0011/Angry/train/0011_000351.wav"),
    ],
)
def test_a_recording_in_two_files_is_refused(tree, first, second, tmp_path):
    folder = tree(tmp_path / "corpus")
    places = [path.parents[first.count("/")] for path in folder.rglob(first.rpartition("/")[2])] or [folder]
    touch(places[0] / first)
    touch(places[0] / second)
    with pytest.raises(ManifestError, match="are the same recording of"):
        load_corpus(folder)


def test_upper_case_suffixes_and_misleading_folder_names(tmp_path):
    touch(tmp_path / "emodb/wav/03a01Wa.WAV")
    touch(tmp_path / "emodb/wav/08a01Ta.WAV")
    assert len(load_corpus(tmp_path / "emodb")) == 2
    corpus = load_corpus(write_corpus(tmp_path / "ravdess"))
    assert corpus.name == "ravdess" and "licence" not in training_records(corpus)[0], "a folder name is no evidence"
