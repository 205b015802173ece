"""The classifier baseline: training and evaluation by the scripts, and the stock pipeline."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import TINY, audio_config, batch_of, run_script
from families import AUDIO

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification

STOCK = """
import json, sys
sys.modules["modeling_gemoclap"] = None
import soundfile
from transformers import pipeline
pipe = pipeline("audio-classification", model=sys.argv[1], trust_remote_code=True)
print(json.dumps([type(pipe).__module__, pipe([soundfile.read(path, dtype="float32")[0] for path in sys.argv[2:]])]))
"""


@pytest.fixture(scope="module")
def classifier(tones, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "classifier"
    options = ("--head", "classifier", "--data_dir", tones, "--exclude_speakers", "04", "--output_dir", run)
    run_script(
        "train.py", *TINY, *options, "--classifier_hidden_size", 16, "--dev_speakers", "03", "--eval_strategy", "epoch"
    )
    return run


def test_training_and_evaluation(classifier, tones, tmp_path):
    assert {path.name for path in classifier.iterdir()} >= {"config.json", "model.safetensors", "README.md"}
    config = GEmoClapConfig.from_pretrained(classifier)
    assert config.architectures == ["GEmoClapForAudioClassification"] and config.classifier_hidden_size == 16
    assert config.id2label == {0: "angry", 1: "happy", 2: "sad"} and config.custom_pipelines == {}
    assert config.training_data[0]["speakers"] == ["01", "02"]
    history = json.loads((classifier / "trainer_state.json").read_text())["log_history"]
    assert [entry["eval_uar"] for entry in history if "eval_uar" in entry][-1] > 0.9
    card = (classifier / "README.md").read_text()
    assert 'pipeline("audio-classification"' in card and "cross-entropy" in card
    assert "prompts" not in card.replace("prompts_gemoclap.py", "") and "text encoder" not in card
    options = ("--model", classifier, "--data_dir", tones, "--output_dir", tmp_path)
    run_script("evaluate.py", *options, "--speakers", "04")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["uar"] > 0.9 and results["n"] == 12 and results["protocol"].startswith("by the checkpoint's")
    refused = run_script("evaluate.py", *options, check=False)
    assert refused.returncode == 1 and "01, 02" in refused.stderr


def test_the_stock_pipeline_agrees(classifier, tones, tmp_path):
    clips = [str(tones / f"audio/04_{emotion}_1.wav") for emotion in ("angry", "sad")]
    (tmp_path / "use.py").write_text(STOCK)
    command = [sys.executable, "use.py", str(classifier), *clips]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    module, answers = json.loads(done.stdout.strip().splitlines()[-1])
    assert module == "transformers.pipelines.audio_classification"
    assert [answer[0]["label"] for answer in answers] == ["angry", "sad"]
    from modeling_gemoclap import GEmoClapFeatureExtractor
    from modeling_gemoclap.inference.classifier import AudioClassifier

    model = GEmoClapForAudioClassification.from_pretrained(classifier)
    predictions = AudioClassifier(model, GEmoClapFeatureExtractor.from_pretrained(classifier))(clips)
    for prediction, answer in zip(predictions, answers, strict=True):
        assert [item["label"] for item in prediction] == [item["label"] for item in answer]
        assert [item["score"] for item in prediction] == pytest.approx([item["score"] for item in answer], abs=1e-5)


def test_a_bad_clip_returns_its_error(classifier, tones, tmp_path):
    from modeling_gemoclap import GEmoClapFeatureExtractor
    from modeling_gemoclap.inference.classifier import AudioClassifier

    model = GEmoClapForAudioClassification.from_pretrained(classifier)
    pipe = AudioClassifier(model, GEmoClapFeatureExtractor.from_pretrained(classifier))
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    clips = [str(tmp_path / "silent.wav"), str(tones / "audio/04_sad_1.wav")]
    bad, good = pipe(clips, on_error="return")
    assert "silent" in bad["error"] and good[0]["label"] == "sad"
    with pytest.raises(ValueError, match="silent.wav"):
        list(pipe(clips))


def test_the_loss_ignores_unknown_emotions(make_model):
    model = make_model(model_class=GEmoClapForAudioClassification)
    audio, _ = batch_of(model, [8000, 12000, 6400])
    output = model(**audio, labels=torch.tensor([0, -1, 2]))
    expected = torch.nn.functional.cross_entropy(output.logits[[0, 2]], torch.tensor([0, 2]))
    assert torch.allclose(output.loss, expected)
    nothing = model(**audio, labels=torch.tensor([-1, -1, -1]), return_dict=False)[0]
    assert nothing == 0 and nothing.requires_grad
    assert isinstance(model.classifier[-1], torch.nn.Linear) and len(model.classifier) == 2
    assert len(make_model(model_class=GEmoClapForAudioClassification, classifier_hidden_size=8).classifier) == 4


def test_loading_the_audio_tower_of_a_contrastive_model(make_model, tmp_path):
    model = make_model("wavlm-base", pooling="self_attention")
    model.save_pretrained(tmp_path)
    classifier = GEmoClapForAudioClassification.from_pretrained(tmp_path)
    loaded, saved = classifier.state_dict(), model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.items() if name.startswith("audio_"))


def test_an_adapter_is_not_evaluated(tmp_path, tones):
    (tmp_path / "adapter_config.json").write_text("{}")
    done = run_script("evaluate.py", "--model", tmp_path, "--data_dir", tones, check=False)
    assert done.returncode == 1 and "is a LoRA adapter" in done.stderr and "Traceback" not in done.stderr


def test_training_on_a_pretrained_encoder(tones, tmp_path):
    torch.manual_seed(0)
    source = transformers.AutoModel.from_config(audio_config("wav2vec2-base"))
    source.save_pretrained(tmp_path / "audio")
    AUDIO["wav2vec2-base"].save_extractor(tmp_path / "audio")
    options = (
        "--head",
        "classifier",
        "--audio_model",
        tmp_path / "audio",
        "--data_dir",
        tones,
        "--audio_config",
        "{}",
    )
    more = ("--freeze_feature_encoder", "true", "--num_train_epochs", 2, "--output_dir", tmp_path / "run")
    run_script("train.py", *TINY, *options, *more)
    model = GEmoClapForAudioClassification.from_pretrained(tmp_path / "run")
    before, after = source.state_dict(), model.audio_model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith("feature_extractor") for name in moved)
    assert "pretrained: audio" in (tmp_path / "run/README.md").read_text()
    run_script(
        "evaluate.py",
        "--model",
        tmp_path / "run",
        "--data_dir",
        tones,
        "--output_dir",
        tmp_path / "out",
        "--allow_seen_speakers",
    )


def test_lora_is_refused(tones, tmp_path):
    options = ("--head", "classifier", "--lora_towers", "audio", "--data_dir", tones, "--output_dir", tmp_path / "run")
    done = run_script("train.py", *TINY, *options, check=False)
    assert done.returncode == 1 and "--lora_towers is an option of --head contrastive" in done.stderr
    assert not (tmp_path / "run").exists()
