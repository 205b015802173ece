"""GEmo-CLAP in the `mteb` package: its mock tasks, and RavdessZeroshot against this package's protocol."""

import importlib.util
import io
import itertools
import json
import typing

import datasets
import mteb
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, TONES, tone
from mteb.results.task_result import TaskError

from modeling_gemoclap import GEmoClapModel, GEmoClapProcessor
from modeling_gemoclap.corpora import ravdess
from modeling_gemoclap.corpora.catalogue import CORPORA
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.evaluation import mteb as protocol
from modeling_gemoclap.evaluation import mteb_meta
from modeling_gemoclap.evaluation.clips import evaluate_clips
from modeling_gemoclap.evaluation.mteb_meta import load_encoder, model_file, model_meta
from modeling_gemoclap.evaluation.mteb_model import GEmoClapEncoder
from modeling_gemoclap.inference.loading import load_pipeline

BASE, COMPACT = (ROOT / "checkpoints" / name for name in ("gemoclap-base", "gemoclap-compact"))


@pytest.fixture
def encoded_by_soundfile(monkeypatch):
    """The mock tasks make recordings of arrays, for which datasets needs torchcodec."""

    def encode(self, value):
        file = io.BytesIO()
        soundfile.write(file, value["array"], value["sampling_rate"], format="WAV")
        return {"bytes": file.getvalue(), "path": None}

    monkeypatch.setattr(datasets.Audio, "encode_example", encode)


def test_the_mock_tasks_of_mteb(encoded_by_soundfile):
    model = load_encoder(COMPACT, "cpu")
    results = mteb.mock_run(model)
    failed = {name: result for name, result in results.items() if isinstance(result, TaskError)}
    assert not failed
    passed = [name for name, result in results.items() if result is not None]
    assert {"MockAudioZeroshotClassification", "MockAny2AnyRetrievalT2A", "MockAudioReranking"} <= set(passed)
    assert {"MockAudioClassification", "MockRetrievalTask", "MockInstructionRetrieval"} <= set(passed)


# ---- embeddings -----------------------------------------------------------------------------------------------------
class Loader:
    """What `encode` uses of MTEB's DataLoader."""

    def __init__(self, columns):
        self.dataset = datasets.Dataset.from_dict(columns)


def test_encode_and_similarity(tmp_path):
    encoder = GEmoClapEncoder("me/compact", device="cpu", checkpoint=str(COMPACT))
    model, processor = GEmoClapModel.from_pretrained(COMPACT), GEmoClapProcessor.from_pretrained(COMPACT)
    texts = ["a furious woman", "song.mp3", "this person is feeling sad"]
    rows = []
    for number, emotion in enumerate(TONES):
        file = io.BytesIO()
        soundfile.write(file, tone(emotion, number, 0.5 + number), RATE, format="FLAC")
        rows.append({"bytes": file.getvalue(), "path": None})
    loader = Loader({"audio": rows, "labels": [0, 1, 2]})
    loader.dataset = loader.dataset.cast_column("audio", datasets.Audio())  # as MTEB's: decoded when it is read
    audio = encoder.encode(loader, batch_size=2, show_progress_bar=False, task_metadata=None)
    text = encoder.encode(Loader({"text": texts}), show_progress_bar=False)
    with torch.no_grad():
        expected = model.get_audio_features(**processor(audio=rows))
        tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
        expected_text = model.get_text_features(**tokens)
    assert torch.allclose(audio, expected, atol=1e-6) and torch.allclose(text, expected_text, atol=1e-6)
    assert torch.allclose(encoder.similarity(3 * audio.numpy(), text), expected @ expected_text.T, atol=1e-5)
    assert torch.allclose(encoder.similarity_pairwise(audio, text), (expected * expected_text).sum(1), atol=1e-5)
    both = encoder.encode(Loader({"audio": rows, "text": texts}), show_progress_bar=False)
    assert torch.allclose(both, expected + expected_text, atol=1e-5)
    with pytest.raises(ValueError, match="the columns image, label contain neither text nor audio"):
        encoder.encode(Loader({"image": [0], "label": [0]}))
    with pytest.raises(ValueError, match="recording 0: not audio that can be read"):
        encoder.encode(Loader({"audio": [{"bytes": b"no recording", "path": None}]}), show_progress_bar=False)


# ---- metadata -------------------------------------------------------------------------------------------------------
def test_metadata_of_the_included_checkpoints():
    compact, base = model_meta(COMPACT), model_meta(BASE, "me/gemoclap-base", release_date="2026-11-30")
    model = GEmoClapModel.from_pretrained(BASE)
    assert base.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert base.embed_dim == model.config.projection_dim and base.license == "apache-2.0"
    assert (compact.name, compact.open_weights, compact.reference) == ("local/gemoclap-compact", None, None)
    assert base.reference == "https://huggingface.co/me/gemoclap-base" and base.release_date == "2026-11-30"
    for meta in (compact, base):
        assert meta.languages == ["deu-Latn", "eng-Latn"] and meta.modalities == ["text", "audio"]
        assert meta.revision is meta.public_training_code is meta.public_training_data is meta.citation is None
    assert compact.training_datasets == set()  # Emo-DB, which no task of MTEB uses
    assert base.training_datasets is None  # what Whisper and MiniLM were trained on is not recorded
    code = base.to_python()
    assert code.startswith("ModelMeta(\n    loader=GEmoClapEncoder,\n") and "name='me/gemoclap-base'" in code


def test_the_file_for_the_repository_of_mteb(tmp_path):
    (tmp_path / "gemoclap_models.py").write_text(model_file(COMPACT, "me/gemoclap-compact", "0" * 40, languages=None))
    spec = importlib.util.spec_from_file_location("gemoclap_models", tmp_path / "gemoclap_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    meta = module.gemoclap_compact
    assert isinstance(meta, mteb.models.ModelMeta) and meta.loader is module.GEmoClapEncoder
    assert (meta.name, meta.revision, meta.languages) == ("me/gemoclap-compact", "0" * 40, None)
    text = Loader({"text": ["a sad voice"]})
    encoder = meta.loader(meta.name, meta.revision, device="cpu", checkpoint=str(COMPACT))
    ours = load_encoder(COMPACT, "cpu").encode(text, show_progress_bar=False)
    assert torch.equal(encoder.encode(text, show_progress_bar=False), ours)
    code = (tmp_path / "gemoclap_models.py").read_text()
    assert code.startswith('"""GEmo-CLAP."""\n\nfrom __future__') and "from ." not in code


@pytest.mark.parametrize(
    ("records", "languages", "tasks"),
    [
        (None, None, None),
        ([], None, None),
        ([{"unknown": "changed"}], None, None),
        ([{"corpus": "mine"}, {"corpus": "emodb", "known": "emodb"}], None, None),
        ([{"encoder": "x"}, {"corpus": "n", "known": "nemo"}], ["eng-Latn", "pol-Latn"], None),
        (
            [{"corpus": "n", "known": "nemo"}, {"corpus": "i", "known": "iemocap"}],
            ["eng-Latn", "pol-Latn"],
            {"CAMEOEmotionClassification", "IEMOCAPEmotion", "IEMOCAPGender"},
        ),
    ],
)
def test_what_is_unknown_is_none(records, languages, tasks):
    assert mteb_meta._languages(records) == languages and mteb_meta._tasks(records) == tasks


def test_code_of_the_hub_needs_a_revision():
    for revision in (None, ""):
        with pytest.raises(ValueError, match="me/compact: its code is run, so give as revision the hash of a commit"):
            GEmoClapEncoder("me/compact", revision)
    assert GEmoClapEncoder(str(COMPACT), device="cpu").model.config.emotions


def test_every_corpus_has_its_tasks_of_mteb():
    assert mteb_meta.TASKS.keys() == CORPORA.keys()
    names = sorted({name for tasks in mteb_meta.TASKS.values() for name in tasks})
    assert sorted(task.metadata.name for task in mteb.get_tasks(tasks=names)) == names
    codes = {code for corpus in CORPORA.values() for code in corpus.language.split(", ")}
    assert codes <= mteb_meta.LANGUAGES.keys()
    licences = typing.get_args(mteb.types.Licenses)
    assert "apache-2.0" in licences and mteb_meta._licence(ROOT / "no-card.md") is None


# ---- RavdessZeroshot ------------------------------------------------------------------------------------------------
def predictions_of_mteb(corpus, checkpoint, folder):
    """Accuracy of MTEB's evaluator, and the predicted label of each clip."""
    task = protocol.local_task(corpus)
    model = load_encoder(checkpoint, "cpu")
    [result] = mteb.evaluate(
        model, task, cache=None, prediction_folder=folder, encode_kwargs={"batch_size": 16}
    ).task_results
    [scores] = json.loads((folder / "RavdessZeroshot_predictions.json").read_text())["default"].values()
    return result.get_score(), np.array(list(protocol.WORDS))[np.argmax(scores, 1)].tolist()


def compare_with_our_protocol(corpus, checkpoint, folder):
    accuracy, predicted = predictions_of_mteb(corpus, checkpoint, folder)
    candidates = protocol.ravdess_zeroshot(corpus)
    ours = evaluate_clips(load_pipeline(str(checkpoint), "cpu"), corpus, candidates=candidates)
    assert not ours.skipped and [row["predicted"] for row in ours.rows] == predicted
    assert accuracy == pytest.approx(np.mean([row["predicted"] == row["emotion"] for row in ours.rows]))
    return accuracy


def test_the_task_has_our_prompts():
    task = mteb.get_task(protocol.TASK)
    assert task.get_candidate_labels() == [protocol.PROMPT.format(word) for word in protocol.WORDS.values()]
    assert task.metadata.main_score == "accuracy"


def test_the_task_on_local_files_equals_our_protocol(tmp_path, monkeypatch):
    for number, (actor, emotion) in enumerate(itertools.product((1, 2, 3), ravdess.EMOTIONS)):
        path = tmp_path / f"ravdess/Actor_{actor:02}/03-01-{emotion}-01-02-01-{actor:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(list(TONES)[number % 3], number, 0.5 + 0.1 * (number % 4)), 3 * RATE)
    corpus = load_corpus(tmp_path / "ravdess")
    monkeypatch.setattr(protocol, "CLIPS", len(corpus))
    compare_with_our_protocol(corpus, COMPACT, tmp_path)
    task = protocol.local_task(corpus)
    assert task.dataset["train"].features["audio"] == datasets.Audio(decode=False)
    assert task.dataset["train"][0]["audio"]["bytes"][:4] == b"RIFF"
    with pytest.raises(ValueError, match="has no emotion calm; give RAVDESS"):
        monkeypatch.setattr(protocol, "WORDS", {word: word for word in protocol.WORDS if word != "calm"})
        protocol.local_task(corpus)


def test_real_clips_equal_our_protocol(corpora, tmp_path, monkeypatch):
    corpus = load_corpus(corpora / "ravdess").of_speakers(["01", "14"])
    kept = set(corpus.clips["file_name"][::5])
    corpus = corpus.where("file_name", lambda name: name in kept)
    monkeypatch.setattr(protocol, "CLIPS", len(corpus))
    assert compare_with_our_protocol(corpus, BASE, tmp_path) > 0.125


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_clips_equal_our_protocol(corpora, tmp_path):
    accuracy = compare_with_our_protocol(load_corpus(corpora / "ravdess"), COMPACT, tmp_path)
    print("RavdessZeroshot", accuracy)
    assert accuracy > 0.125  # chance
