"""The pipeline `zero-shot-emotion-recognition` of the installed package."""

import re

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, TONES, tone
from transformers import pipeline

from modeling_gemoclap import AudioError, GEmoClapConfig, GEmoClapModel, GEmoClapProcessor, ZeroShotEmotionPipeline


@pytest.fixture(scope="module")
def pipe(trained):
    model, processor = GEmoClapModel.from_pretrained(trained), GEmoClapProcessor.from_pretrained(trained)
    return pipeline("zero-shot-emotion-recognition", model=model, processor=processor)


@pytest.fixture(scope="module")
def clips(tones):
    return [str(tones / f"audio/04_{emotion}_{number}.wav") for emotion in TONES for number in range(4)]


TRUTH = [emotion for emotion in TONES for _ in range(4)]


def test_predictions_are_right_and_in_order(pipe, clips):
    assert isinstance(pipe, ZeroShotEmotionPipeline)
    answers = pipe(clips, batch_size=5)
    assert [answer[0]["label"] for answer in answers] == TRUTH
    for answer in answers:
        scores = [item["score"] for item in answer]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)
        assert {item["label"] for item in answer} == set(TONES)


def test_results_are_independent_of_batch_size_and_order(pipe, clips):
    def scores(answer):
        return {item["label"]: pytest.approx(item["score"], abs=1e-5) for item in answer}

    whole = pipe(clips, batch_size=12)
    assert [{i["label"]: i["score"] for i in pipe(clip)} for clip in clips] == [scores(answer) for answer in whole]
    backwards = pipe(clips[::-1], batch_size=3)[::-1]
    assert [{i["label"]: i["score"] for i in answer} for answer in backwards] == [scores(answer) for answer in whole]


def test_all_types_of_input(pipe, clips):
    wave, rate = soundfile.read(clips[0], dtype="float32")
    data = open(clips[0], "rb").read()
    expected = pipe(clips[0])[0]["score"]
    for audio in (
        data,
        {"array": wave, "sampling_rate": rate},
        {"array": np.stack([wave, wave]), "sampling_rate": rate},
        {"path": clips[0]},
        {"bytes": data},
    ):
        assert pipe(audio)[0]["score"] == pytest.approx(expected, abs=1e-5)
    assert pipe(wave, sampling_rate=rate)[0]["score"] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(AudioError, match="sampling rate is unknown"):
        pipe(wave)


def test_streams_are_lazy(pipe, clips):
    read = []

    def stream():
        for clip in clips:
            read.append(clip)
            yield clip

    answers = pipe(stream(), batch_size=2)
    assert next(answers)[0]["label"] == TRUTH[0] and len(read) == 2
    assert [answer[0]["label"] for answer in answers] == TRUTH[1:]
    assert pipe([]) == []


def test_texts_are_embedded_once_for_each_label_set(pipe, clips, monkeypatch):
    calls = []
    original = GEmoClapModel.get_class_embeddings
    monkeypatch.setattr(GEmoClapModel, "get_class_embeddings", lambda self, *a: calls.append(a) or original(self, *a))
    pipe._class_embeddings.clear()
    pipe(clips)
    pipe(clips[0])
    assert len(calls) == 1
    pipe(clips[0], candidate_labels=["angry", "sad"])
    pipe(clips, candidate_labels=["angry", "sad"])
    assert len(calls) == 2


def test_candidate_labels_and_templates(pipe, clips):
    answer = pipe(clips[0], candidate_labels=["sadness", "anger"], hypothesis_template="this person is feeling {}")
    assert [item["label"] for item in answer] == ["anger", "sadness"]
    assert [item["label"] for item in pipe(clips[0], ["sad", "angry"])] == ["angry", "sad"]
    assert pipe(clips[0], top_k=1) == pipe(clips[0])[:1]
    several = pipe(clips[0], hypothesis_template=["this person is feeling {}", "this male person is feeling {}"])
    assert len(several) == 3
    with pytest.raises(ValueError, match="lacks {}"):
        pipe(clips[0], hypothesis_template="no place")
    with pytest.raises(ValueError, match="twice"):
        pipe(clips[0], candidate_labels=["sad", "sad"])
    with pytest.raises(ValueError, match="names only 'sad', which every clip would then be: give two or more"):
        pipe(clips[0], candidate_labels=["sad"])


def test_templates_are_averaged(pipe, clips):
    templates = ["this person is feeling {}", "this female person is feeling {}"]
    model, tokenizer = pipe.model, pipe.processor.tokenizer
    with torch.no_grad():
        audio = model.get_audio_features(**pipe.processor(audio=clips[0]))
        parts = [model.get_class_embeddings([[t.replace("{}", e)] for e in TONES], tokenizer) for t in templates]
        classes = torch.nn.functional.normalize(sum(parts), dim=-1)
        expected = (model.audio_scale * audio @ classes.T).softmax(-1)[0]
    got = {item["label"]: item["score"] for item in pipe(clips[0], hypothesis_template=templates)}
    assert [got[emotion] for emotion in TONES] == pytest.approx(
        [expected[list(TONES).index(emotion)].item() for emotion in TONES], abs=1e-5
    )


def test_calibration_temperature_divides_the_logits(pipe, clips):
    plain = pipe(clips[0])
    pipe.model.config.calibration_temperature = 4.0
    try:
        flat = pipe(clips[0])
    finally:
        pipe.model.config.calibration_temperature = None
    ratio = np.log([item["score"] for item in plain])
    assert [i["label"] for i in flat] == [i["label"] for i in plain]
    assert np.diff(np.log([i["score"] for i in flat])) == pytest.approx(np.diff(ratio) / 4, abs=1e-4)


def test_gender_and_embeddings(pipe, clips):
    answer = pipe(clips[0], return_gender=True, return_embeddings=True)
    assert answer["emotion"] == pipe(clips[0])
    assert {item["label"] for item in answer["gender"]} == {"female", "male"}
    assert answer["embedding"].shape == (64,) and np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-5)


def test_errors_are_returned_with_on_error(pipe, clips, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "short.wav", tone("sad", 0)[:100], RATE)
    bad = [str(tmp_path / name) for name in ("silent.wav", "short.wav", "missing.wav")]
    answers = pipe([clips[0], *bad, clips[-1]], on_error="return", batch_size=2)
    assert [answers[0][0]["label"], answers[-1][0]["label"]] == [TRUTH[0], TRUTH[-1]]
    for answer, path, reason in zip(answers[1:-1], bad, ("silent", "too short", "no such file"), strict=True):
        assert path in answer["error"] and reason in answer["error"]
    with pytest.raises(AudioError, match="silent.wav"):
        pipe([clips[0], *bad])
    with pytest.raises(TypeError, match="candidate_label"):
        pipe(clips[0], candidate_label=["sad"])
    with pytest.raises(ValueError, match="on_error"):
        pipe(clips[0], on_error="ignore")


@pytest.mark.parametrize("value", ["1", "2", 1.5, -1, 0, True, [1]])
def test_invalid_counts_are_refused(pipe, clips, value):
    words = re.escape(f"={value!r} must be a whole number of at least 1")
    for name in ("top_k", "batch_size"):
        with pytest.raises(ValueError, match=f"^{name}{words}"):
            pipe(clips[:2], **{name: value})
    with pytest.raises(ValueError, match=f"^batch_size{words}"):
        ZeroShotEmotionPipeline(model=pipe.model, processor=pipe.processor, batch_size=value)
    assert len(pipe(clips[:2], top_k=np.int64(1), batch_size=np.int64(2))) == 2


@pytest.mark.parametrize("value", [3, 1.5, True])
def test_invalid_templates_are_refused(pipe, clips, value):
    with pytest.raises(ValueError, match=f"^hypothesis_template={value!r} is neither a template nor a list"):
        pipe(clips[0], hypothesis_template=value)
    with pytest.raises(ValueError, match=f"^emotion_templates={value!r} is neither a template nor a list"):
        GEmoClapConfig(emotion_templates=value)


@pytest.mark.parametrize("text", [[], (), 3, ["a", 3], [["a"]], [None]])
def test_invalid_prompts_are_refused(pipe, text):
    with pytest.raises(ValueError, match="must be a prompt or a non-empty list of prompts"):
        pipe.processor(text=text)


@pytest.mark.parametrize("labels", [{"id2label": ["a", "b"]}, {"label2id": ["a", "b"]}, {"id2label": "ab"}])
def test_labels_must_be_a_dict(labels):
    with pytest.raises(ValueError, match="must be a dict of all labels; give a list of labels as emotions"):
        GEmoClapConfig(**labels)
