"""The Python interface: GEmoClap, its inputs, and the estimator of scikit-learn."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import ROOT, TONES, tone, write_corpus
from datasets import Audio, ClassLabel, Dataset
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_score
from transformers import pipeline

from modeling_gemoclap import AudioError, GEmoClap, GEmoClapClassifier, Prediction
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.corpora.provenance import SPEAKERS_UNKNOWN, heard_speakers
from modeling_gemoclap.estimators.inputs import labelled, recordings_of
from modeling_gemoclap.evaluation.seen_speakers import SeenSpeakersError
from modeling_gemoclap.fingerprint import TRAINING_CLIPS

RECIPE = str(ROOT / "tests/tiny.yaml")
QUICK = {"num_train_epochs": 1, "prompt_steps": 0}


@pytest.fixture(scope="module")
def clips(tones):
    """A table of the tones: path, emotion, gender and speaker."""
    table = pd.read_csv(tones / "metadata.csv", dtype=str)
    return table.assign(path=[str(tones / name) for name in table.pop("file_name")])


@pytest.fixture(scope="module")
def fitted(clips):
    train = clips[clips.speaker_id != "04"]
    return GEmoClap(RECIPE).fit(train.path, train.emotion, train.speaker_id, train.gender)


def test_fit_learns_the_tones_and_evaluate_reports_it(fitted, clips, tmp_path):
    test = clips[clips.speaker_id == "04"]
    assert list(fitted.classes_) == sorted(TONES)
    report = fitted.evaluate(test.path, test.emotion, speakers=test.speaker_id, genders=test.gender)
    right = [answer.label == emotion for answer, emotion in zip(fitted.predict(test.path), test.emotion, strict=True)]
    assert report.uar > 0.9 and report.war == pytest.approx(np.mean(right))
    # Two lists are two corpora: without a common manifest, nobody knows whether an id is the same speaker in both.
    assert report.record["heard"]["answer"] == "unknown" and len(report.rows) == len(test)
    page = report.to_html(tmp_path / "report.html")
    assert "UNKNOWN whether speaker-independent" in page and (tmp_path / "report.html").read_text() == page
    assert json.loads((report.save(tmp_path / "report") / "results.json").read_text())["uar"] == report.uar
    assert "speaker-independent" in str(report)


def test_evaluate_refuses_speakers_of_the_training(fitted, clips):
    seen = clips[clips.speaker_id == "01"]
    with pytest.raises(SeenSpeakersError, match="its speakers 01"):
        fitted.evaluate(seen, speakers="speaker_id")
    report = fitted.evaluate(seen, allow_seen_speakers=True)
    assert report.record["heard"]["answer"] == "heard"


CODES = {"happy": "03", "sad": "04", "angry": "05"}  # of RAVDESS


def named_as_ravdess(clips, folder):
    """Copies of the clips of two speakers, named as recordings of actors 01 and 02 of RAVDESS."""
    folder.mkdir()
    clips = clips[clips.speaker_id.isin(("01", "02"))].reset_index(drop=True)
    names = [
        f"03-01-{CODES[emotion]}-0{1 + number % 2}-0{1 + number // 2 % 2}-01-{speaker}.wav"
        for number, (emotion, speaker) in enumerate(zip(clips.emotion, clips.speaker_id, strict=True))
    ]
    assert len(set(names)) == len(names)
    return clips.assign(path=[shutil.copy(path, folder / name) for path, name in zip(clips.path, names, strict=True)])


def test_speakers_of_published_recordings_are_read_from_their_names(clips, tmp_path):
    published = named_as_ravdess(clips, tmp_path / "ravdess")
    model = GEmoClap(RECIPE).fit(published.path, published.emotion, **QUICK)
    [record] = model.pipe.model.config.training_data
    assert record["speakers"] == ["ravdess/01", "ravdess/02"] and record["published"] == {"ravdess": ["01", "02"]}
    with pytest.raises(SeenSpeakersError, match="its speakers 01"):
        model.evaluate(published.path, published.emotion, published.speaker_id)


def test_unknown_speakers_beside_published_ones(clips, tmp_path):
    """A recording without a speaker may be of any speaker, also of those that the model has not heard by name."""
    published = named_as_ravdess(clips, tmp_path / "ravdess")
    train = pd.concat([published[published.speaker_id == "01"], clips[clips.speaker_id == "03"]])
    folder = tmp_path / "run"
    model = GEmoClap(RECIPE).fit(train.path, train.emotion, genders=train.gender, output_dir=folder, **QUICK)
    test = published[published.speaker_id == "02"]
    test = test.assign(file_name=[path.name for path in test.path])
    test[["file_name", "emotion", "gender", "speaker_id"]].to_csv(tmp_path / "ravdess/metadata.csv", index=False)
    corpus = load_corpus(tmp_path / "ravdess")
    for records in (model.pipe.model.config.training_data, saved_records(folder)):
        assert records[0]["speakers"] == ["ravdess/01", "unknown"]
        heard = heard_speakers(corpus, records)
        assert heard.answer == "unknown" and SPEAKERS_UNKNOWN in heard.unknown


def saved_records(folder):
    return json.loads((folder / "config.json").read_text())["training_data"]


def test_unknown_speakers_stay_unknown(clips, tmp_path):
    model = GEmoClap(RECIPE).fit(clips.path, clips.emotion, output_dir=tmp_path / "run", **QUICK)
    model.save_pretrained(tmp_path / "saved")
    for records in (
        model.pipe.model.config.training_data,
        *map(saved_records, (tmp_path / "run", tmp_path / "saved")),
    ):
        assert records[-1] == {"unknown": SPEAKERS_UNKNOWN} and len(records) == 2
    assert f"Not all of it is known: {SPEAKERS_UNKNOWN}" in (tmp_path / "run/README.md").read_text()
    assert json.loads((tmp_path / "run/card.json").read_text())["commands"] == [], "no command started it"
    others = write_corpus(tmp_path / "others", salt="x")
    report = GEmoClap.from_pretrained(tmp_path / "saved").evaluate(others)
    assert report.record["heard"]["answer"] == "unknown"
    with pytest.raises(ValueError, match="give speakers"):
        model.evaluate(clips.path, clips.emotion)


def test_answers_are_those_of_the_pipeline_in_every_form(clips):
    model = GEmoClap.from_pretrained("compact")
    files = list(clips.path[:3])
    answers = model.predict(files, gender=True)
    pipe = pipeline(model=str(ROOT / "checkpoints/gemoclap-compact"), trust_remote_code=True)
    for answer, expected in zip(answers, pipe(files, return_gender=True), strict=True):
        assert isinstance(answer, Prediction) and answer.gender == expected["gender"][0]["label"]
        assert list(answer.scores) == [item["label"] for item in expected["emotion"]]
        assert answer.scores[answer.label] == answer.score == max(answer.scores.values())
        assert answer.score == pytest.approx(expected["emotion"][0]["score"], abs=1e-6)
    scores = model.predict_proba(files)
    assert scores.shape == (3, 7) and np.allclose(scores.sum(1), 1, atol=1e-5)
    assert [model.classes_[index] for index in scores.argmax(1)] == [answer.label for answer in answers]
    assert model.predict(files[0])[0].label == answers[0].label
    assert model.predict_proba([]).shape == (0, 7) and model.encode_audio([]).shape == (0, 128)


def test_other_labels_and_templates():
    model = GEmoClap.from_pretrained("compact")
    [answer] = model.predict((16000, tone(next(iter(TONES)), 0)), labels=["furious", "gloomy"], templates="a {} voice")
    assert set(answer.scores) == {"furious", "gloomy"} and answer.gender is None
    with pytest.raises(ValueError, match="names a word twice"):
        model.predict("x.wav", labels=["sad", "sad"])


def test_similarity_of_audio_and_text(clips):
    model = GEmoClap.from_pretrained("compact")
    audio, text = model.encode_audio(clips.path[:2]), model.encode_text(["an angry voice", "a sad voice"])
    assert np.allclose(model.similarity(audio, text), audio @ text.T, atol=1e-6)
    assert model.similarity(audio[0], 5 * audio[0]) == pytest.approx(1)
    assert model.encode_text("an angry voice").shape == (1, 128)


def test_saved_model_answers_alone(fitted, clips, tmp_path):
    fitted.save_pretrained(tmp_path / "saved")
    code = (
        "import sys; from transformers import pipeline; "
        "print(pipeline(model=sys.argv[1], trust_remote_code=True)(sys.argv[2])[0]['label'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "saved"), clips.path[0]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == fitted.predict(clips.path[0])[0].label, done.stderr


def test_saving_keeps_the_facts_and_licences_of_a_model_and_no_others(fitted, clips, tmp_path):
    source = shutil.copytree(ROOT / "checkpoints/gemoclap-compact", tmp_path / "source")
    (source / "LICENSE-tower").write_text("a licence")
    target = tmp_path / "target"
    target.mkdir()
    (target / "card.json").write_text(json.dumps({"title": "a stranger"}))
    GEmoClap.from_pretrained(source).save_pretrained(target)
    for name in ("card.json", "LICENSE-tower", TRAINING_CLIPS):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    fitted.save_pretrained(target)
    facts = json.loads((target / "card.json").read_text())
    assert facts["steps"] and facts["steps"] != json.loads((source / "card.json").read_text())["steps"]
    (source / "card.json").unlink()
    GEmoClap.from_pretrained(source).save_pretrained(target)
    assert (
        not (target / "card.json").exists() and "Length of the training: unknown" in (target / "README.md").read_text()
    )


def test_a_model_whose_weights_were_changed_is_saved_without_its_sample_of_training_clips(tmp_path):
    model = GEmoClap.from_pretrained("compact")
    with torch.no_grad():
        model.pipe.model.audio_logit_scale.add_(0.1)
    assert not (model.save_pretrained(tmp_path / "saved") / TRAINING_CLIPS).exists()


def test_a_folder_is_a_corpus(tones):
    model = GEmoClap(RECIPE).fit(tones, exclude_speakers=["04"], **QUICK)
    assert model.pipe.model.config.training_data[-1]["speakers"] == ["01", "02", "03"]
    with pytest.raises(ValueError, match="a corpus with labels of its own: leave out emotions"):
        model.fit(tones, ["angry"])


def test_words_that_are_no_known_emotions_are_classes(clips):
    words = clips.emotion.map(lambda word: {"angry": "stressed", "sad": "tired"}.get(word, word))
    model = GEmoClap(RECIPE).fit(clips.path, words, clips.speaker_id, **QUICK)
    assert list(model.classes_) == sorted(set(words))


def test_validation_by_speaker(clips, tmp_path):
    options = {"num_dev_speakers": 1, "select": "dev", "output_dir": tmp_path / "run"}
    model = GEmoClap(RECIPE).fit(clips, **QUICK, **options)
    [record] = model.pipe.model.config.training_data
    assert len(record["dev_speakers"]) == 1 and len(record["speakers"]) == 3
    assert (tmp_path / "run/README.md").is_file()


def test_cross_validation_of_scikit_learn(clips):
    words = clips.emotion.replace({"happy": "joy"})  # the estimator answers in the words of y
    estimator = GEmoClapClassifier(RECIPE, options={"num_train_epochs": 15})
    assert clone(estimator).get_params() == estimator.get_params()
    files = clips.path.to_numpy()
    scores = cross_val_score(
        estimator, files, words, groups=clips.speaker_id, cv=GroupKFold(2), scoring="recall_macro"
    )
    assert len(scores) == 2 and scores.mean() > 0.7
    with pytest.raises(ValueError, match="'happy' and 'joy' are the same emotion"):
        estimator.fit(files[:2], ["happy", "joy"])


def test_estimator_of_tables_and_of_emotions_that_the_data_lack(clips, tmp_path):
    recipe = tmp_path / "fixed.yaml"
    recipe.write_text((ROOT / "tests/tiny.yaml").read_text() + "\nemotions: [angry, happy, sad]\n")
    estimator = GEmoClapClassifier(str(recipe), options=QUICK)
    train = clips[clips.emotion != "sad"]
    estimator.fit(train, train.emotion.replace({"happy": "joy"}))
    assert list(estimator.classes_) == ["angry", "joy", "sad"] and len(estimator.predict(train)) == len(train)
    assert estimator.model_.pipe.model.config.training_data[0]["speakers"] == ["01", "02", "03", "04"]


def as_dataset(clips):
    words = sorted(set(clips.emotion))
    audio = [{"path": path, "bytes": None} for path in clips.path]
    columns = {"audio": audio, "label": list(clips.emotion), "speaker": list(clips.speaker_id)}
    dataset = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=words))
    return dataset.cast_column("audio", Audio())  # to encode a path, Audio requires torchcodec


def test_tables(clips):
    expected = [list(clips.path), list(clips.emotion), list(clips.speaker_id)]
    frame = labelled(clips)
    assert [frame.recordings, frame.emotions, frame.speakers] == expected and frame.genders == list(clips.gender)
    dataset = labelled(as_dataset(clips))
    assert [[item["path"] for item in dataset.recordings], dataset.emotions, dataset.speakers] == expected
    columns = labelled(clips.path.to_numpy(), clips.emotion, speakers=clips.speaker_id.tolist())
    assert [columns.recordings, columns.emotions, columns.speakers] == expected and columns.genders is None
    for nothing in (None, float("nan"), pd.NA, pd.NaT):
        assert set(labelled(clips.assign(gender=nothing)).genders) == {""}
    named_as_attributes = clips.assign(features=1, column_names=2)
    assert labelled(named_as_attributes) == frame and recordings_of(named_as_attributes) == frame.recordings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a.wav"],), "no emotions are given"),
        ((["a.wav", "b.wav"], ["sad"]), "1 emotions for 2 recordings"),
        ((["a.wav"], ["sad"], ["1", "2"]), "2 speakers for 1 recordings"),
        ((["a.wav"], "emotion"), "emotions='emotion': give one for each recording"),
        ((pd.DataFrame({"name": ["a.wav"]}),), "no column audio or path or file or file_name for the recordings"),
        ((pd.DataFrame({"path": ["a.wav"]}), "mood"), "no column mood for the emotions: the columns are path"),
    ],
)
def test_wrong_inputs(arguments, message):
    with pytest.raises(ValueError, match=message):
        labelled(*arguments)


def test_recordings_of_every_form_give_the_same_answer(clips):
    model = GEmoClap.from_pretrained("compact")
    wave, rate = soundfile.read(clips.path[0], dtype="float32")
    data = open(clips.path[0], "rb").read()
    embedded = Dataset.from_dict({"audio": [{"bytes": data, "path": None}]}).cast_column("audio", Audio())

    class Decoder:  # the part of torchcodec's AudioDecoder that is used
        def get_all_samples(self):
            return type("Samples", (), {"data": wave[None], "sample_rate": rate})()

    forms = [clips.path[0], data, io.BytesIO(data), (rate, wave), {"array": wave, "sampling_rate": rate}, Decoder()]
    forms += [recordings_of(embedded)[0], recordings_of(as_dataset(clips[:1]))[0]]
    embeddings = model.encode_audio(forms)
    assert np.allclose(embeddings, embeddings[:1], atol=1e-6)


def test_fit_on_arrays_and_bytes(clips):
    waves = [{"array": soundfile.read(path)[0], "sampling_rate": 16000} for path in clips.path[::2]]
    waves[0] = open(clips.path[0], "rb").read()
    model = GEmoClap(RECIPE).fit(waves, clips.emotion[::2], clips.speaker_id[::2], **QUICK)
    assert list(model.classes_) == sorted(TONES)


def test_errors_name_the_recording(clips, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    model = GEmoClap.from_pretrained("compact")
    with pytest.raises(AudioError, match="broken.wav: not audio"):
        model.predict([clips.path[0], tmp_path / "broken.wav"])
    with pytest.raises(AudioError, match="broken.wav: not audio"):
        GEmoClap(RECIPE).fit([*clips.path, tmp_path / "broken.wav"], [*clips.emotion, "angry"], **QUICK)
    with pytest.raises(ValueError, match="the model is not fitted"):
        GEmoClap().predict(clips.path[0])
