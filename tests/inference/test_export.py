"""Exported models: one ONNX file from waveforms to scores, which agree with those of the package."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxscript  # noqa: F401
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, TONES, tone
from families import AUDIO

from modeling_gemoclap import GEmoClap, GEmoClapForAudioClassification, ZeroShotEmotionPipeline
from modeling_gemoclap.cli import main
from modeling_gemoclap.inference import export
from modeling_gemoclap.inference.classifier import AudioClassifier
from modeling_gemoclap.inference.export import EXPORTABLE, ExportOptions, export_onnx
from modeling_gemoclap.inference.predictions import PredictionOptions, predict_with_embeddings

SECONDS = (0.1, 0.15, 0.77, 1.9999, 2.0, 2.0001, 4.5, 31.0)
FAMILIES = ("compact", "data2vec-large", "hubert-base", "unispeech", "unispeech-sat-base", "wav2vec2-base")
FAMILIES += ("wav2vec2-large", "wavlm-base", "wavlm-large", "whisper")
TOLERANCE = 1e-4
SPREAD = {"text_pooling": "mean", "calibration_temperature": 0.2}  # scores that differ from clip to clip


@pytest.fixture
def make_pipe(make_model, make_processor):
    """The pipeline of a small model of any family, with settings of its feature extractor."""

    def make(family="compact", extractor=(), **fields):
        model = make_model(family, **SPREAD, **fields)
        processor = make_processor(model, family)
        for name, value in dict(extractor).items():
            setattr(processor.feature_extractor, name, value)
        return ZeroShotEmotionPipeline(model=model, processor=processor, device="cpu")

    return make


def run(path: Path, clips: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and embeddings of an exported model for one padded batch."""
    waveform = np.zeros((len(clips), max(map(len, clips))), np.float32)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = clip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return session.run(
        ["scores", "embedding"], {"waveform": waveform, "lengths": np.array([len(c) for c in clips], np.int64)}
    )


def package(pipe, clips: list[np.ndarray], order: list[str], **options) -> tuple[np.ndarray, np.ndarray]:
    """Scores and embeddings of the package, of each clip alone."""
    recordings = [{"array": clip, "sampling_rate": RATE} for clip in clips]
    answers = list(predict_with_embeddings(pipe, recordings, PredictionOptions(batch_size=1, **options)))
    return np.array([[answer.scores[label] for label in order] for answer, _ in answers]), np.stack(
        [embedding for _, embedding in answers]
    )


def agree(pipe, path: Path, content: dict, clips: list[np.ndarray], **options) -> None:
    """An export agrees with the package on clips alone and in padded batches."""
    scores, embeddings = package(pipe, clips, content["labels"], **options)
    assert np.ptp(embeddings, axis=0).max() > 0.01, "the clips differ, so that a wrong order would be noticed"
    for batch in (slice(None), slice(0, 1), slice(2, 3), slice(len(clips) - 1, None)):
        ours, vectors = run(path, clips[batch])
        assert np.abs(ours - scores[batch]).max() < TOLERANCE
        assert np.abs(vectors - embeddings[batch]).max() < TOLERANCE * max(1, np.abs(embeddings).max())


def speech(seconds=SECONDS) -> list[np.ndarray]:
    """Tones of all pitches with pauses before and after them."""
    clips = []
    for seed, length in enumerate(seconds):
        wave = 0.0003 * np.random.default_rng(seed).standard_normal(int(length * RATE)).astype(np.float32)
        sound = tone(list(TONES)[seed % 3], seed, seconds=0.7 * length, level=0.05 + 0.05 * seed)
        wave[len(wave) // 6 :][: len(sound)] += sound
        clips.append(wave)
    return clips


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_package(make_pipe, family, tmp_path):
    extractor = {"level_db": -20.0, "trim_silence": True} if family == "whisper" else {}
    pipe = make_pipe(family, extractor, pooling="mean_std" if family == "compact" else "mean")
    path = tmp_path / "emotions.onnx"
    agree(pipe, path, export_onnx(pipe, path), speech())


def test_every_family_that_can_be_exported_is_tested():
    assert {AUDIO[name].config_class.model_type for name in FAMILIES} == set(EXPORTABLE)


@pytest.mark.parametrize(
    ("family", "reason"),
    [("sew", "clips of equal length"), ("wav2vec2-bert", "spectrogram"), ("ast", "spectrogram")],
)
def test_other_encoders_are_refused(make_pipe, family, reason, tmp_path):
    with pytest.raises(ValueError, match=f"{AUDIO[family].config_class.model_type}.*{reason}.*hubert.*whisper"):
        export_onnx(make_pipe(family), tmp_path / "emotions.onnx")
    assert not any(tmp_path.glob("emotions*"))


def test_labels_and_templates_without_the_exporters_of_transformers(make_pipe, tmp_path, monkeypatch):
    """Whisper's windows depend on the data, which is the hardest case for the exporter of torch."""
    monkeypatch.setattr(export, "_has_exporters", lambda: False)
    pipe, path = make_pipe("whisper", {"trim_silence": True, "level_db": -20.0}), tmp_path / "emotions.onnx"
    options = {"labels": ["sad", "angry"], "templates": ["a {} voice", "{} speech"]}
    content = export_onnx(pipe, path, ExportOptions(**options))
    assert content["labels"] == ["sad", "angry"] and content["templates"] == options["templates"]
    assert not content["calibrated"]
    agree(pipe, path, content, speech(), **options)


def traced_once(monkeypatch):
    """Trace a model in the first export only."""
    trace, traced = export._trace, []

    def traced_graph(graph):
        traced.append(traced[0] if traced else trace(graph))
        return traced[0]

    monkeypatch.setattr(export, "_trace", traced_graph)


def test_files_hold_what_is_documented_and_replace_only_exports(make_pipe, tmp_path, monkeypatch):
    traced_once(monkeypatch)
    pipe, path = make_pipe(), tmp_path / "folder" / "emotions.onnx"
    content = export_onnx(pipe, path, ExportOptions(name="tones", licence="mit"))
    assert json.loads(path.with_suffix(".json").read_text()) == content
    assert [*content] == [
        "format", "file", "sha256", "model", "labels", "sampling_rate", "min_seconds", "silence_peak", "calibrated",
        "templates", "quantized", "licence", "gemoclap_version",
    ]  # fmt: skip
    assert content["file"] == "emotions.onnx"
    assert (content["model"], content["licence"], content["quantized"]) == ("tones", "mit", None)
    assert content["calibrated"] and content["labels"] == list(TONES) and content["min_seconds"] == 0.1
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""} and model.opset_import[0].version <= 21
    assert str(ROOT).encode() not in path.read_bytes(), "no paths of this installation"
    assert {file.name for file in path.parent.iterdir()} == {"emotions.onnx", "emotions.json"}

    labelled = ExportOptions(labels="sad, angry")
    assert export_onnx(pipe, path, labelled)["labels"] == ["sad", "angry"]  # an export is replaced
    path.with_suffix(".json").write_text('{"labels": []}')
    with pytest.raises(ValueError, match="emotions.onnx exists and is not an export of gemoclap: .*--restart"):
        export_onnx(pipe, path)
    path.unlink()
    with pytest.raises(ValueError, match="emotions.json exists and is not an export of gemoclap"):
        export_onnx(pipe, path)
    assert path.with_suffix(".json").read_text() == '{"labels": []}'
    export_onnx(pipe, path, ExportOptions(restart=True))
    assert path.exists()


def test_a_classifier_and_its_quantised_copy(make_model, make_processor, tmp_path, monkeypatch):
    traced_once(monkeypatch)
    fields = SPREAD | {"pooling": "self_attention", "use_weighted_layer_sum": True, "classifier_hidden_size": 8}
    model = make_model("compact", model_class=GEmoClapForAudioClassification, **fields)
    pipe = AudioClassifier(model, make_processor(make_model("compact")).feature_extractor, "cpu")
    path, small = tmp_path / "emotions.onnx", tmp_path / "small.onnx"
    agree(pipe, path, export_onnx(pipe, path), speech())
    content = export_onnx(pipe, small, ExportOptions(quantize="int8"))
    assert content["quantized"] == "int8" and content["templates"] is None
    operators = {node.op_type for node in onnx.load(small).graph.node}
    assert "MatMulInteger" in operators and "ConvInteger" not in operators
    assert {node.domain for node in onnx.load(small).graph.node} == {""}
    constants = {constant.name.rpartition(".")[2] for constant in onnx.load(small).graph.initializer}
    assert {"fourier_basis", "mel_filters"} <= constants, "these are not quantised"
    scores, _ = package(pipe, speech(), content["labels"])
    assert 0 < np.abs(run(small, speech())[0] - scores).max() < 0.05
    with pytest.raises(ValueError, match="predicts only the emotions of its head"):
        export_onnx(pipe, path, ExportOptions(labels=["calm", "bored"]))


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("emotions.pt", {}, "--output .*emotions.pt: give a name that ends in .onnx"),
        ("emotions.onnx", {"labels": ["angry", "angry"]}, "candidate_labels"),
        ("emotions.onnx", {"templates": ["a voice"]}, "hypothesis_template"),
    ],
)
def test_invalid_options(make_pipe, tmp_path, path, options, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(make_pipe(), tmp_path / path, ExportOptions(**options))


def test_other_precisions_are_refused(make_pipe, tmp_path):
    with pytest.raises(ValueError, match="quantize='int4' is unknown"):
        ExportOptions(quantize="int4")
    pipe = make_pipe()
    pipe.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match="bfloat16: load it in float32"):
        export_onnx(pipe, tmp_path / "emotions.onnx")


def test_the_command_names_a_missing_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit):
        main(["export", "compact", "--output", str(tmp_path / "emotions.onnx"), "--quiet"])
    assert "onnx is not installed" in (error := capsys.readouterr().err) and "'gemoclap[onnx]'" in error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compact", "base"])
def test_the_included_checkpoints_on_real_clips(name, corpora, tmp_path):
    model, path = GEmoClap.from_pretrained(name, device="cpu"), tmp_path / "emotions.onnx"
    content = model.export(path)
    files = sorted((corpora / "emodb/audio").glob("*.flac"))[::45]
    waves = [soundfile.read(file, dtype="float32")[0] for file in files]
    joined = np.concatenate(waves)
    clips = [*waves, joined[: 35 * RATE], waves[0][RATE // 2 :][: RATE // 5], waves[1][8000:9600]]
    agree(model.pipe, path, content, clips)
