"""Protocols: folds without leaks."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import TREES, iemocap_tree

from modeling_gemoclap.corpora.manifest import Corpus, load_corpus
from modeling_gemoclap.corpora.protocols import (
    KINDS,
    Protocol,
    ProtocolError,
    absent_classes,
    check_protocol,
    deal_speakers,
    development_speakers,
    genders_of,
    not_judged,
    protocol_of,
    read_folds,
    sample_clips,
    shuffled_labels,
)
from modeling_gemoclap.corpora.provenance import training_records

# The deal of seed 0 for Emo-DB, as it is published with this project's figures.
EMODB_SEED_0 = [["13", "15"], ["16", "10"], ["14", "11"], ["08", "03"], ["09", "12"]]
EMODB = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}


def corpus_of(genders, clips=4, sessions=None):
    """A corpus in memory, in which every speaker has clips of every emotion."""
    emotions = ("angry", "sad", "happy", "neutral")
    rows = [(speaker, number) for speaker in genders for number in range(clips)]
    columns = {
        "file_name": [f"{speaker}-{number}.wav" for speaker, number in rows],
        "emotion": [emotions[number % 4] for _, number in rows],
        "gender": [genders[speaker] for speaker, _ in rows],
        "speaker_id": [speaker for speaker, _ in rows],
        "session": [sessions[speaker] if sessions else "" for speaker, _ in rows],
    }
    return Corpus("made", "0" * 64, Dataset(pa.table(columns)))


def files(corpus):
    return set(corpus.column("file_name").to_pylist())


corpora = st.dictionaries(
    st.text("0123456789abc", min_size=1, max_size=4), st.sampled_from(["female", "male", ""]), min_size=4, max_size=14
)


@settings(max_examples=60, deadline=None)
@given(genders=corpora, seed=st.integers(0, 9), data=st.data())
def test_no_leaks(genders, seed, data):
    """Test speakers are not used for training or development, and every clip is tested exactly once."""
    sessions = {speaker: str(number % 3) for number, speaker in enumerate(genders)}
    corpus = corpus_of(genders, sessions=sessions)
    k = data.draw(st.integers(2, len(genders)))
    names = ["leave-one-speaker-out", "leave-one-session-out", f"{k}-folds-by-speaker", f"{k}-folds-speaker-dependent"]
    for name in names:
        protocol, judged = protocol_of(name, corpus, seed), []
        for fold in range(len(protocol.folds)):
            test, train = protocol.test(corpus, fold), protocol.training(corpus, fold)
            judged += sorted(files(test))
            assert files(test) | files(train) == files(corpus) and not files(test) & files(train)
            if protocol.speaker_independent:
                assert not set(test.speakers) & set(train.speakers)
                if len(train.speakers) > 3:
                    dev = development_speakers(train, 2, seed)
                    assert len(dev) == 2 and set(dev) < set(train.speakers)
        assert sorted(judged) == sorted(files(corpus)), "each clip is tested once"
        assert protocol.sha256 == protocol_of(name, corpus, seed).sha256
    assert not protocol.speaker_independent, "the last protocol is speaker-dependent"


@pytest.mark.parametrize("name", TREES)
def test_every_published_corpus_has_protocols(name, tmp_path):
    corpus = load_corpus(TREES[name](tmp_path / name))
    for kind in ("leave-one-speaker-out", "2-folds-by-speaker", "2-folds-speaker-dependent"):
        protocol = protocol_of(kind, corpus)
        assert all(len(protocol.test(corpus, fold)) for fold in range(len(protocol.folds)))


def test_sessions_of_iemocap(tmp_path):
    protocol = protocol_of("leave-one-session-out", load_corpus(iemocap_tree(tmp_path / "iemocap")))
    assert protocol.folds == [[f"Ses0{n}F", f"Ses0{n}M"] for n in range(1, 6)]
    with pytest.raises(ProtocolError, match="no session.*leave-one-speaker-out"):
        protocol_of("leave-one-session-out", corpus_of(EMODB))


def test_deal_speakers():
    assert deal_speakers(EMODB, 5, 0) == EMODB_SEED_0
    assert deal_speakers(EMODB, 5, 0) == deal_speakers(dict(reversed(EMODB.items())), 5, 0), "order does not matter"
    assert (
        protocol_of("5-folds-by-speaker", corpus_of(EMODB), 1).sha256
        != protocol_of("5-folds-by-speaker", corpus_of(EMODB), 2).sha256
    )


@pytest.mark.skipif("GEMOCLAP_CORPORA" not in os.environ, reason="GEMOCLAP_CORPORA names no folder with the corpora")
@pytest.mark.parametrize("name", ["emodb", "ravdess"])
def test_folds_equal_the_published_lists(name, tmp_path):
    corpus = load_corpus(Path(os.environ["GEMOCLAP_CORPORA"], name))
    published = json.loads(Path(__file__).with_name("published_folds.json").read_text())[name]
    (tmp_path / "folds.json").write_text(json.dumps({"test_speakers": published}))
    for seed in range(3):
        dealt, read = (
            protocol_of("5-folds-by-speaker", corpus, seed, file) for file in (None, tmp_path / "folds.json")
        )
        assert dealt == read and dealt.folds == published[f"seed_{seed}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1, 2]]", "speakers as text"),
        ("{}", "must be"),
        ("[[]]", "must be"),
        ("nonsense", "cannot be read"),
        ('{"test_speakers": {"seed_1": [["03"]]}}', "the file has no seed_0; it has seed_1"),
    ],
)
def test_errors_for_invalid_folds_files(content, message, tmp_path):
    (tmp_path / "folds.json").write_text(content)
    with pytest.raises(ProtocolError, match=message):
        read_folds(tmp_path / "folds.json")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([["03", "99"], ["10"]], "made has no speaker 99; it has 03, 08"),
        ([["03", "10"], ["10"]], "speaker 10 occurs twice"),
        ([sorted(EMODB)], "fold 0 leaves nothing to train on"),
    ],
)
def test_folds_that_do_not_fit_the_corpus(folds, message, tmp_path):
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    with pytest.raises(ProtocolError, match=message):
        protocol_of(None, corpus_of(EMODB), folds_file=tmp_path / "folds.json")


def test_speakers_in_no_fold(tmp_path):
    (tmp_path / "folds.json").write_text('[["03", "08"], ["09"]]')
    protocol = protocol_of("2-folds-by-speaker", corpus_of(EMODB), folds_file=tmp_path / "folds.json")
    assert not_judged(protocol, corpus_of(EMODB)) == sorted(set(EMODB) - {"03", "08", "09"})
    with pytest.raises(ProtocolError, match="the file has 2 folds, but 5-folds-by-speaker needs 5"):
        protocol_of("5-folds-by-speaker", corpus_of(EMODB), folds_file=tmp_path / "folds.json")


def test_notes_on_emotions_that_a_fold_lacks():
    corpus = corpus_of(EMODB)
    only = corpus.emotions[0]
    emotions = [
        only if speaker == "03" else word if word != only else corpus.emotions[1]
        for speaker, word in zip(
            corpus.column("speaker_id").to_pylist(), corpus.column("emotion").to_pylist(), strict=True
        )
    ]
    notes = absent_classes(
        protocol_of("leave-one-speaker-out", corpus), corpus.with_column("emotion", pa.array(emotions))
    )
    assert f"fold 0 has no {only} to train on, and cannot answer so" in notes
    assert any(note.startswith("fold 0 judges no") for note in notes)


def test_empty_sessions_are_refused():
    corpus = corpus_of(EMODB, sessions={speaker: "" if speaker == "03" else "1" for speaker in EMODB})
    with pytest.raises(ProtocolError, match="4 clips have no session, first 03-0.wav"):
        protocol_of("leave-one-session-out", corpus)


@pytest.mark.parametrize("name", ["5fold", "K-folds-by-speaker", "", "leave-one-out"])
def test_unknown_protocols(name):
    with pytest.raises(ProtocolError, match="no protocol .*5-folds-by-speaker"):
        protocol_of(name, corpus_of(EMODB))
    with pytest.raises(ProtocolError, match="11 folds of 10 speakers; give 2 to 10"):
        protocol_of("11-folds-by-speaker", corpus_of(EMODB))


def test_shuffled_labels_change_only_the_emotions():
    corpus = corpus_of(EMODB, clips=8)
    control = shuffled_labels(corpus, 0)
    before, after = (list(part.column("emotion").to_pylist()) for part in (corpus, control))
    assert sorted(before) == sorted(after) and before != after
    assert files(corpus) == files(control) and training_records(control)[0]["labels_shuffled"]


def test_a_speaker_of_two_genders_is_refused():
    corpus = corpus_of(EMODB)
    corpus = corpus.with_column("gender", pa.array(["male", "female"] * 20))
    with pytest.raises(ProtocolError, match="speaker 03 is female in some clips and male in others"):
        protocol_of("5-folds-by-speaker", corpus)


def test_check_protocol_returns_the_protocol():
    protocol = protocol_of("5-folds-by-speaker", corpus_of(EMODB))
    assert check_protocol(protocol, corpus_of(EMODB)) is protocol


# ---- exact divisions, which published figures depend on ------------------------------------------------------------
SIX = {"a": "female", "b": "", "c": "male", "d": "", "e": "", "f": "male"}


def mixture(*names):
    """A mixture in which each corpus has the speakers of `SIX`."""
    genders = {f"{name}/{speaker}": gender for name in names for speaker, gender in SIX.items()}
    corpus = corpus_of(genders)
    corpus.parts = [Corpus(name, "0" * 64, corpus.clips) for name in names]
    return corpus


def error_of(function, *args, **kwargs):
    with pytest.raises(ProtocolError) as error:
        function(*args, **kwargs)
    return str(error.value)


def test_the_hash_is_that_of_the_stored_form():
    protocol = protocol_of("2-folds-by-speaker", corpus_of(SIX), 3)
    stored = {"by": "speaker_id", "corpus": "made", "folds": protocol.folds, "name": "2-folds-by-speaker", "seed": 3}
    assert protocol.to_dict() == stored
    assert protocol.sha256 == hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()
    assert list(protocol.to_dict()) == ["name", "corpus", "seed", "by", "folds"]
    assert Protocol("x", "y", []).to_dict() == {
        "name": "x",
        "corpus": "y",
        "seed": None,
        "by": "speaker_id",
        "folds": [],
    }
    assert hash(protocol) == hash(Protocol("2-folds-by-speaker", "made", [], 3)), "folds are lists"


def test_speakers_are_dealt_by_gender_from_one_generator():
    generator, order = np.random.default_rng(3), []
    for speakers in (["a"], ["c", "f"], ["b", "d", "e"]):
        generator.shuffle(speakers)
        order += speakers
    assert deal_speakers(SIX, 2, 3) == [order[0::2], order[1::2]]
    assert deal_speakers(SIX, 4, 3) == [order[number::4] for number in range(4)]
    protocol = protocol_of("2-folds-by-speaker", corpus_of(SIX))
    assert protocol.folds == deal_speakers(SIX, 2, 0) and protocol.seed == 0, "seed 0 is the default"
    assert protocol.by == "speaker_id" and protocol.speaker_independent


def test_each_corpus_of_a_mixture_is_dealt_separately():
    corpus = mixture("x", "y")
    expected = [[f"{name}/{speaker}" for name in "xy" for speaker in fold] for fold in deal_speakers(SIX, 3, 5)]
    assert protocol_of("3-folds-by-speaker", corpus, 5).folds == expected
    alone = protocol_of("3-folds-speaker-dependent", corpus_of(SIX), 5).folds
    expected = [sorted(f"{name}/{file}" for name in "xy" for file in fold) for fold in alone]
    assert protocol_of("3-folds-speaker-dependent", corpus, 5).folds == expected


def test_clips_are_dealt_by_speaker_and_emotion():
    """The clips of a speaker and emotion are shuffled; then all clips are dealt in turn."""
    corpus = corpus_of(SIX, clips=11)
    groups = {}
    columns = (corpus.column(name).to_pylist() for name in ("speaker_id", "emotion", "file_name"))
    for speaker, emotion, file in sorted(zip(*columns, strict=True)):
        groups.setdefault((speaker, emotion), []).append(file)
    generator, dealt = np.random.default_rng(4), []
    for clips in groups.values():
        generator.shuffle(clips)
        dealt += clips
    protocol = protocol_of("2-folds-speaker-dependent", corpus, 4)
    assert protocol.folds == [sorted(dealt[0::2]), sorted(dealt[1::2])]
    assert (protocol.by, protocol.seed, protocol.speaker_independent) == ("file_name", 4, False)
    assert (protocol.name, protocol.corpus) == ("2-folds-speaker-dependent", "made")
    assert protocol_of("2-folds-speaker-dependent", corpus).seed == 0
    counts = Counter(file.partition("-")[0] for file in protocol.folds[0])
    assert set(counts.values()) <= {5, 6}, "half of the clips of each speaker"


def test_other_protocols_have_no_seed():
    sessions = dict(zip(SIX, ["2", "1", "2", "3", "1", "3"], strict=True))
    protocol = protocol_of("leave-one-session-out", corpus_of(SIX, sessions=sessions), 7)
    assert (protocol.folds, protocol.seed) == ([["b", "e"], ["a", "c"], ["d", "f"]], None)
    assert (protocol.name, protocol.corpus) == ("leave-one-session-out", "made")
    protocol = protocol_of("leave-one-speaker-out", corpus_of(SIX), 7)
    assert (protocol.folds, protocol.seed) == ([[speaker] for speaker in "abcdef"], None)
    assert (protocol.name, protocol.corpus, protocol.by) == ("leave-one-speaker-out", "made", "speaker_id")


def test_genders_of_speakers():
    corpus = corpus_of(SIX, clips=2)
    labels = ["", "female", "", "", "male", "male", "", "", "", "", "male", ""]
    corpus = corpus.with_column("gender", pa.array(labels))
    assert genders_of(corpus) == SIX, "one clip with a gender suffices"
    labels = ["male", "female"] + labels[2:4] + ["female", "male"] + labels[6:]
    assert error_of(genders_of, corpus.with_column("gender", pa.array(labels))) == (
        "made: speaker a is female in some clips and male in others; correct the manifest"
    )


def test_folds_of_a_file(tmp_path):
    path = tmp_path / "folds.json"

    def read(content, *seed):
        path.write_text(json.dumps(content), encoding="utf-8-sig")
        return read_folds(path, *seed)

    folds = [[" a", "b "], ["c"]]
    expected = [["a", "b"], ["c"]]
    assert read(folds) == read({"folds": folds}) == read({"test_speakers": folds}, 4) == (expected, None)
    assert read({"folds": folds, "test_speakers": [["d"]]}) == (expected, None), "folds comes first"
    by_seed = {"test_speakers": {"seed_0": folds, "seed_4": [["d"]]}}
    assert (
        read(by_seed) == (expected, 0) and read(by_seed, 4) == ([["d"]], 4) and read_folds(str(path)) == (expected, 0)
    )
    assert error_of(read, by_seed, 1) == f"--folds_file {path}: the file has no seed_1; it has seed_0, seed_4"
    form = 'a list of lists of speakers, or an object with one in "folds" or "test_speakers"'
    for wrong in ([], {}, "ab", ["ab"], [["a"], []], [["a"], "b"], [["a", 1]], [[1]], {"folds": []}):
        assert error_of(read, wrong) == f'--folds_file {path}: must be {form}, with speakers as text ("03")'
    path.write_text('{"folds": [["a"]], "folds": [["b"]]}')
    assert error_of(read_folds, path) == (
        f"--folds_file {path}: cannot be read (the key folds occurs twice); it must be JSON: {form}"
    )
    path.write_text("[" * 100_000)
    assert error_of(read_folds, path) == f"--folds_file {path}: nested too deep; it must be JSON: {form}"
    missing = error_of(read_folds, tmp_path / "none.json")
    assert missing.startswith(f"--folds_file {tmp_path / 'none.json'}: cannot be read ([Errno 2]")
    assert missing.endswith(f"; it must be JSON: {form}")


def test_folds_in_the_home_folder_and_in_another_encoding(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "folds.json").write_text('[["\u00e9"], ["b"]]', encoding="utf-8-sig")
    assert read_folds("~/folds.json") == ([["\u00e9"], ["b"]], None)
    (tmp_path / "latin.json").write_bytes('[["\u00e9"]]'.encode("latin-1"))
    assert "cannot be read ('utf-8' codec" in error_of(read_folds, tmp_path / "latin.json")


def test_protocols_of_a_file(tmp_path):
    path, corpus = tmp_path / "folds.json", corpus_of(SIX)
    path.write_text('{"test_speakers": {"seed_3": [["a", "b"], ["c"], ["d", "e"]]}}')
    expected = Protocol("3-folds-by-speaker", "made", [["a", "b"], ["c"], ["d", "e"]], 3)
    for name in (None, "", "K-folds-by-speaker", "3-folds-by-speaker"):
        assert protocol_of(name, corpus, 3, path) == expected
    assert not_judged(expected, corpus) == ["f"]
    assert not_judged(protocol_of("2-folds-speaker-dependent", corpus), corpus) == []
    assert error_of(protocol_of, "2-folds-by-speaker", corpus, 3, path) == (
        f"--folds_file {path}: the file has 3 folds, but 2-folds-by-speaker needs 2; give --protocol "
        f"3-folds-by-speaker"
    )
    for name in ("leave-one-speaker-out", "3-folds-speaker-dependent"):
        assert error_of(protocol_of, name, corpus, 3, path) == (
            f"--folds_file holds folds of speakers; give --protocol K-folds-by-speaker, not {name}"
        )
    path.write_text('[["a", "b"], ["c"]]')
    assert protocol_of(None, corpus, 3, path).seed is None


def test_errors_of_protocols():
    corpus = corpus_of(SIX)
    assert KINDS == (
        "leave-one-session-out",
        "leave-one-speaker-out",
        "K-folds-by-speaker",
        "K-folds-speaker-dependent",
    )
    for name in ("folds-by-speaker", "K-folds-speaker-dependent", "2-folds-by-speakers", None, "\u0662-folds"):
        assert error_of(protocol_of, name, corpus) == (
            f"no protocol {name or ''!r}; the protocols are {', '.join(KINDS)} (K is a number, as in "
            f"5-folds-by-speaker)"
        )
    text = "1-folds-speaker-dependent: at least two folds are needed"
    assert error_of(protocol_of, "1-folds-speaker-dependent", corpus) == text
    assert error_of(protocol_of, "0-folds-speaker-dependent", corpus) == text.replace("1", "0")
    for number in (0, 1, 7):
        assert error_of(protocol_of, f"{number}-folds-by-speaker", corpus) == (
            f"made: {number} folds of 6 speakers; give 2 to 6"
        )
    assert len(protocol_of("6-folds-by-speaker", corpus).folds) == 6
    assert error_of(protocol_of, "leave-one-session-out", corpus) == (
        "made: its clips have no session; give --protocol leave-one-speaker-out, or add a column session to "
        "metadata.csv"
    )
    without = Corpus("made", "0" * 64, corpus.clips.remove_columns("session"))
    assert error_of(protocol_of, "leave-one-session-out", without).startswith("made: its clips have no session; give")
    sessions = {speaker: "" if speaker in "bd" else "1" for speaker in SIX}
    assert error_of(protocol_of, "leave-one-session-out", corpus_of(SIX, sessions=sessions)) == (
        "made: 8 clips have no session, first b-0.wav; fill in the column session"
    )


def test_errors_of_the_check():
    corpus = corpus_of(SIX)

    def check(folds, by="speaker_id"):
        return error_of(check_protocol, Protocol("p", "made", folds, by=by), corpus)

    assert check([list("zyxwvu"), ["a"]]) == "p: made has no speaker u, v, w, x, y; it has a, b, c, d, e, f"
    assert check([["z.wav"], ["a-0.wav"]], "file_name") == "p: made has no file z.wav"
    assert check([["b", "a"], ["b", "a"]]) == "p: speaker a occurs twice in the folds; remove one of them"
    assert (
        check([["a-0.wav", "a-0.wav"]], "file_name") == "p: file a-0.wav occurs twice in the folds; remove one of them"
    )
    assert check([["a"], []]) == "p: fold 1 leaves nothing to judge"
    assert check([list(SIX)]) == "p: fold 0 leaves nothing to train on"


def test_notes_on_absent_emotions_by_hand():
    corpus = corpus_of({"a": "", "b": "", "c": ""}, clips=4)
    # a has angry and sad, b has angry and happy, c has angry, neutral and sad
    emotions = ["angry", "angry", "sad", "sad", "angry", "happy", "happy", "happy", "angry", "neutral", "sad", "sad"]
    corpus = corpus.with_column("emotion", pa.array(emotions))
    assert absent_classes(Protocol("p", "made", [["a"], ["b"], ["a", "c"]]), corpus) == [
        "fold 0 judges no happy, neutral: its own UAR is over the other emotions",
        "fold 1 judges no neutral, sad: its own UAR is over the other emotions",
        "fold 1 has no happy to train on, and cannot answer so",
        "fold 2 judges no happy: its own UAR is over the other emotions",
        "fold 2 has no neutral, sad to train on, and cannot answer so",
    ]
    assert absent_classes(Protocol("p", "made", [["a"]]), corpus_of(SIX)) == []


def test_development_speakers_are_women_and_men_in_turn():
    def slow(genders, number, seed):
        generator, groups = np.random.default_rng([seed, 1]), []
        for gender in ("female", "male", ""):
            groups.append(sorted(speaker for speaker in genders if genders[speaker] == gender))
            generator.shuffle(groups[-1])
        order = []
        for turn in range(len(genders)):
            order += [group[-1 - turn] for group in groups if turn < len(group)]
        return sorted(order[:number])

    for genders in (EMODB, SIX):
        for number in range(1, len(genders) - 1):
            for seed in (0, 5):
                assert development_speakers(corpus_of(genders), number, seed) == slow(genders, number, seed)
    assert error_of(development_speakers, corpus_of(SIX), 5, 0) == (
        "made: 5 development speakers of 6 leave fewer than two to train on; give a smaller --num_dev_speakers"
    )


def test_a_share_of_the_clips():
    """The n-th clip of a speaker and emotion has the rank `(n + u) / clips`; the lowest ranks are selected."""
    corpus = corpus_of(SIX, clips=10)
    groups, ranks, generator = {}, {}, np.random.default_rng([2, 5])
    columns = (corpus.column(name).to_pylist() for name in ("speaker_id", "emotion", "file_name"))
    for speaker, emotion, file in sorted(zip(*columns, strict=True)):
        groups.setdefault((speaker, emotion), []).append(file)
    for clips in groups.values():
        generator.shuffle(clips)
        for place, file in enumerate(clips):
            ranks[file] = (place + generator.random()) / len(clips)
    order = sorted(ranks, key=ranks.get)
    for share, number in ((0.25, 15), (0.001, 1), (0.99, 59), (0.02, 1), (0.03, 2)):
        assert files(sample_clips(corpus, share, 2)) == set(order[:number]), share
    assert sample_clips(corpus, 1, 2) is corpus
    for share in (0, -0.1, 1.01):
        assert error_of(sample_clips, corpus, share, 2) == (
            f"--label_fraction {share}: must lie above 0 and be at most 1"
        )


def test_shuffled_labels_are_a_permutation_of_the_seed():
    corpus = corpus_of(SIX)
    for seed in (0, 3):
        emotions = corpus.column("emotion").to_pylist()
        np.random.default_rng([seed, 2]).shuffle(emotions)
        control = shuffled_labels(corpus, seed)
        assert control.column("emotion").to_pylist() == emotions and control.labels_shuffled is True
    assert not corpus.labels_shuffled and control.column("emotion").type == pa.string()
