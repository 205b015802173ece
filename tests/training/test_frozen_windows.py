"""Stored frames of a Whisper encoder with fewer layers and a shorter window, from clips of several windows."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import RATE, TONES, audio_config, load_script, text_config, tone
from families import AUDIO
from safetensors.torch import load_file
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from modeling_gemoclap import GEmoClapConfig
from modeling_gemoclap.evaluation.prediction_files import load_fold
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer
from modeling_gemoclap.training import frozen

WINDOW = 0.6  # s
SPEECH = {"trim_silence": True, "level_db": -20}
SHORT = ("--audio_window_seconds", WINDOW, "--audio_layers", 2, "--feature_config", json.dumps(SPEECH))
SGD = ("--optimizer", "optim", "--optim", "sgd", "--learning_rate", 0.1)  # Adam amplifies rounding errors
PARTS = {
    "frozen": ("--freeze_audio_encoder", "true"),
    "last layer": ("--unfreeze_last_n_layers", 1),
    "all states": ("--freeze_audio_encoder", "true", "--use_weighted_layer_sum", "true"),
    "last layer, all states": ("--unfreeze_last_n_layers", 1, "--use_weighted_layer_sum", "true"),
}
PROTOCOL = ("--protocol", "2-folds-by-speaker", "--seeds", 0, 1)


def save_with_larger_weights(tower, folder):
    """Save a tower whose weights are larger than initial values, so that its layers and frames differ."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
    tower.save_pretrained(folder)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """The options that name a Whisper encoder of three layers and a window of 2 s, and a text encoder."""
    folder = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    layers = dict.fromkeys(("encoder_layers", "num_hidden_layers"), 3)
    save_with_larger_weights(transformers.WhisperModel(audio_config("whisper", **layers)), folder / "audio")
    AUDIO["whisper"].save_extractor(folder / "audio")
    save_with_larger_weights(transformers.RobertaModel(text_config()), folder / "text")
    build_tokenizer(GEmoClapConfig(emotions=list(TONES))).save_pretrained(folder / "text")
    return {
        "contrastive": ("--audio_model", folder / "audio", "--text_model", folder / "text"),
        "classifier": ("--audio_model", folder / "audio", "--head", "classifier"),
    }


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Tones of one to four windows between silence, by four speakers."""
    folder = tmp_path_factory.mktemp("corpora") / "speech"
    (folder / "audio").mkdir(parents=True)
    rows, silence = ["file_name,emotion,gender,speaker_id"], np.zeros(RATE // 2, np.float32)
    for number in range(4 * len(TONES) * 2):
        speaker, emotion = number // 6, list(TONES)[number // 2 % 3]
        name = f"audio/{speaker}_{emotion}_{number % 2}.wav"
        wave = tone(emotion, number, 0.5 + 0.35 * (number % 5), level=0.02 * (1 + speaker))
        soundfile.write(folder / name, np.concatenate([silence, wave, silence]), RATE)
        rows.append(f"{name},{emotion},{('female', 'male')[speaker % 2]},{speaker}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def lengths(monkeypatch):
    """The numbers of mel frames that a Whisper encoder gets, in the order of its calls."""
    found, forward = [], WhisperEncoder.forward

    def record(self, input_features, *args, **kwargs):
        found.append(input_features.shape[-1])
        return forward(self, input_features, *args, **kwargs)

    monkeypatch.setattr(WhisperEncoder, "forward", record)
    return found


@pytest.fixture
def train_short(train, towers, speech):
    """`train.py` on clips of several windows; the towers are not those of the tiny configuration."""

    def run(head, *options):
        text = ("--no-text_config", "--freeze_text_encoder", "true") if head == "contrastive" else ()
        options += ("--store_training_clips", "false")  # they are encoded after the training
        train("--no-audio_config", *text, *towers[head], *SHORT, "--data_dir", speech, *options)

    return run


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("head", ["contrastive", "classifier"])
def test_training_on_stored_windows_gives_the_same_weights(head, part, train_short, lengths, tmp_path):
    options = (*PARTS[part], *SGD, "--num_train_epochs", 4, "--feature_cache_dir", tmp_path / "cache")
    train_short(head, *options, "--output_dir", tmp_path / "plain")
    assert set(lengths) == {round(100 * WINDOW)}
    lengths.clear()
    train_short(head, *options, "--cache_frozen_frames", "true", "--output_dir", tmp_path / "stored")
    assert set(lengths) == {round(100 * WINDOW)} and len(lengths) <= 24 + 1, "each clip once, and a batch to centre"
    [index] = (tmp_path / "cache").glob(f"frozen-*/part-*/{frozen.INDEX}")
    longest = np.load(index)["num_valid"].max()
    if "last layer" in part:
        assert longest > 3 * 50 * WINDOW, "clips of four windows"
        assert longest < 50 * 2.3, "without the silence around them"
    else:
        assert longest == 1, "a clip is stored as the mean of its frames"
    plain, stored = weights_of(tmp_path / "plain"), weights_of(tmp_path / "stored")
    assert any("audio_model.layers.1." in name for name in plain) and "audio_model.layers.2.fc1.weight" not in plain
    assert (plain["audio_pooling.layer_weights"].std() > 1e-4) if "states" in part else True
    for name, value in plain.items():
        torch.testing.assert_close(value, stored[name], atol=2e-3, rtol=2e-2, msg=lambda text, n=name: f"{n} {text}")


@pytest.mark.slow
def test_a_protocol_on_stored_windows_is_resumed_evaluated_and_loaded(
    train_short, speech, lengths, tmp_path, monkeypatch
):
    """Two seeds, augmented versions, and calibration folds share the frames, and predict in short windows."""
    encoded, encode = [], frozen._encode
    monkeypatch.setattr(frozen, "_encode", lambda *words: encoded.append(words[2:]) or encode(*words))
    run, window = tmp_path / "run", round(100 * WINDOW)
    options = (*PARTS["last layer, all states"], "--cache_frozen_frames", "true")
    options += ("--feature_cache_dir", tmp_path / "cache")
    options += ("--frozen_copies", 3, "--time_warp", 0.2, "--equalizer_db", 3, "--calibration_folds", 2)
    options += (*PROTOCOL, "--num_train_epochs", 2, "--output_dir", run)
    train_short("contrastive", *options)
    assert len(encoded) == 24 * (1 + 2 * 2), "each clip, and two other versions for each seed"
    assert set(lengths) == {window}
    folds = sorted(run.glob("fold_*/seed_*/fold.json"))
    assert len(folds) == 4
    before = {path.parent: weights_of(path.parent) for path in folds}
    lost, kept = folds[1].parent, folds[2].parent / "model.safetensors"
    time = kept.stat().st_mtime_ns
    shutil.rmtree(lost)
    shutil.rmtree(tmp_path / "cache")
    train_short("contrastive", *options)
    assert kept.stat().st_mtime_ns == time, "a finished fold is not trained again"
    again = weights_of(lost)
    assert all(torch.equal(value, again[name]) for name, value in before[lost].items())

    lengths.clear()
    monkeypatch.setattr(frozen, "attach_frames", None)  # what is evaluated is recordings
    words = ("--model", run, "--data_dir", speech, *PROTOCOL)
    load_script("evaluate").main([str(word) for word in words])
    results = json.loads((run / "results/results.json").read_text())
    assert results["n"] == 24 and set(lengths) == {window}
    configs = [json.loads((folder / "config.json").read_text()) for folder in before]
    assert any(config["calibration_temperature"] for config in configs)
    assert {config["audio_config"]["max_source_positions"] for config in configs} == {window // 2}

    lengths.clear()
    pipe = transformers.pipeline("zero-shot-emotion-recognition", model=str(lost), trust_remote_code=True)
    rows = load_fold(lost / "answers").rows
    for row in rows:
        wave, rate = soundfile.read(speech / row["file_name"], dtype="float32")
        answer = {each["label"]: each["score"] for each in pipe({"raw": wave, "sampling_rate": rate})}
        assert answer == pytest.approx({label: float(row[f"score_{label}"]) for label in TONES}, abs=1e-4)
    assert set(lengths) == {window} and len(rows) == 12


@pytest.mark.slow
def test_the_true_weights_train_the_same_on_stored_windows(pretrained_folder, corpora, train, lengths, tmp_path):
    """Whisper-base with three layers and a window of 2 s, of which the last layer is trained, on real speech."""
    with open(corpora / "emodb/metadata.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["speaker_id"] in ("03", "08")][::8]
    data, columns = tmp_path / "clips", ("file_name", "emotion", "gender", "speaker_id")
    for row in rows:
        (data / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (data / row["file_name"]).symlink_to(corpora / "emodb" / row["file_name"])
    lines = [",".join(columns), *(",".join(row[name] for name in columns) for row in rows)]
    (data / "metadata.csv").write_text("\n".join(lines) + "\n")
    options = ("--no-audio_config", "--no-text_config", "--text_pooling", "mean", "--freeze_text_encoder", "true")
    options += ("--audio_model", pretrained_folder / "whisper-base", "--audio_window_seconds", 2, "--audio_layers", 3)
    options += ("--text_model", pretrained_folder / "all-MiniLM-L6-v2", "--feature_config", json.dumps(SPEECH))
    options += ("--data_dir", data, "--feature_cache_dir", tmp_path / "cache", "--unfreeze_last_n_layers", 1)
    options += ("--use_weighted_layer_sum", "true", *SGD, "--num_train_epochs", 2)
    train(*options, "--output_dir", tmp_path / "plain")
    train(*options, "--cache_frozen_frames", "true", "--output_dir", tmp_path / "stored")
    assert set(lengths) == {200}
    plain, stored = weights_of(tmp_path / "plain"), weights_of(tmp_path / "stored")
    start = load_file(pretrained_folder / "whisper-base/model.safetensors")
    name = "layers.2.fc2.weight"
    assert not torch.equal(plain[f"audio_model.{name}"], start[f"model.encoder.{name}"].float())
    for name, value in plain.items():
        torch.testing.assert_close(value, stored[name], atol=2e-3, rtol=2e-2, msg=lambda text, n=name: f"{n} {text}")
