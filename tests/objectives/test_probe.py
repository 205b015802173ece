"""A frozen encoder under logistic regression: the checkpoint is scikit-learn's model, chosen by training speakers."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from conftest import audio_config, load_script
from families import AUDIO
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from modeling_gemoclap import GEmoClapFeatureExtractor, GEmoClapForAudioClassification
from modeling_gemoclap.audio_encoder_gemoclap import GEmoClapAudioModel
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.objectives.probe import features as features_module
from modeling_gemoclap.objectives.probe import regression as regression_module
from modeling_gemoclap.objectives.probe.features import check_cut, fewest_layers, keep_first_layers, layer_features
from modeling_gemoclap.objectives.probe.regression import NEVER, ProbeData, choose, linear_layer, regression
from modeling_gemoclap.training.clips import ClipDataset, read_clips

EMOTIONS = ["angry", "happy", "sad"]
LOSO = ("--protocol", "leave-one-speaker-out")


def save_encoder(family, folder):
    """A small encoder with random weights that are far from their initialisation, so that its layers differ."""
    torch.manual_seed(0)
    config = audio_config(family)
    tower = GEmoClapAudioModel(config) if family == "compact" else transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(parameter.sign() * 0.1 + 0.1 * torch.randn(parameter.shape))
    tower.save_pretrained(folder)
    extractor = AUDIO[family].small_extractor(folder)
    if family == "compact":
        extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_encoder("whisper", tmp_path_factory.mktemp("encoders") / "small-whisper")


@pytest.fixture(scope="module")
def probe(whisper, tones, tmp_path_factory):
    """Train a probe into a folder, in this process."""
    cache = tmp_path_factory.mktemp("cache")

    def train(folder, *options, data=tones, encoder=whisper):
        fixed = ("--feature_cache_dir", cache, "--use_cpu", "true", "--disable_tqdm", "true", "--output_dir", folder)
        encoder = ("--audio_model", encoder) if encoder else ()
        command = ("--head", "probe", *encoder, "--data_dir", data, *fixed, *options)
        load_script("train").main([str(word) for word in command])
        return folder

    return train


@pytest.fixture(scope="module")
def folds(probe, tmp_path_factory):
    return probe(tmp_path_factory.mktemp("runs") / "folds", *LOSO, "--control", "false")


def relabelled(corpus, folder, is_wrong):
    """A copy of a corpus with another emotion for some clips."""
    shutil.copytree(corpus, folder)
    with open(folder / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in filter(is_wrong, rows):
        row["emotion"] = EMOTIONS[EMOTIONS.index(row["emotion"]) - 1]
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def fold_of(run, speaker):
    """The folder of the fold that tests a speaker."""
    [protocol] = json.loads((run / "run.json").read_text())["protocols"].values()
    return run / f"fold_{protocol['folds'].index([speaker])}/seed_42"


def clips_of(corpus, folder, cache):
    """The clips in the form that the trainer has them, and a model to encode them."""
    model = GEmoClapForAudioClassification.from_audio_pretrained(str(folder), emotions=EMOTIONS)
    extractor = GEmoClapFeatureExtractor.from_audio_pretrained(str(folder))
    return model, ClipDataset(read_clips(corpus, extractor, cache_dir=str(cache))[0], extractor, model.config)


def logits_of(checkpoint, clips):
    model = GEmoClapForAudioClassification.from_pretrained(checkpoint).eval()
    extractor = GEmoClapFeatureExtractor.from_pretrained(checkpoint)
    with torch.no_grad():
        inputs = [extractor.collate([clips[index]["clip"]]) for index in range(len(clips))]
        return torch.cat([model(**batch).logits for batch in inputs]).numpy()


@pytest.mark.parametrize("options", [(), ("--probe_layer", 1, "--probe_c", 1), ("--probe_layer", 0, "--probe_c", 0.3)])
def test_the_checkpoint_has_the_logits_of_scikit_learn(options, probe, whisper, tones, tmp_path):
    run = probe(tmp_path / "run", "--exclude_speakers", "04", *options)
    choice = json.loads((run / "probe.json").read_text())
    for name, value in zip(("layer", "c"), options[1::2], strict=False):
        assert choice[name] == value
    corpus = load_corpus(tones)
    model, train = clips_of(corpus.of_speakers(exclude=["04"]), whisper, tmp_path)
    features = {}
    keep_first_layers(model, choice["layer"])
    for part, clips in (("train", train), ("test", clips_of(corpus.of_speakers(["04"]), whisper, tmp_path)[1])):
        with torch.no_grad():
            pooled = [model.pool_audio(**clips.extractor.collate([clips[i]["clip"]])) for i in range(len(clips))]
        features[part] = torch.cat(pooled).numpy().astype(np.float64)
    scaler = StandardScaler().fit(features["train"])
    expected = LogisticRegression(C=choice["c"], class_weight="balanced", max_iter=5000)
    expected.fit(scaler.transform(features["train"]), train.emotion_labels)
    scores = expected.decision_function(scaler.transform(features["test"]))
    assert np.ptp(scores) > 1e-2, "the regression learnt something"
    np.testing.assert_allclose(logits_of(run, clips), scores, atol=1e-3 * np.ptp(scores))


def test_the_record_of_the_choice(probe, tmp_path, capsys):
    run = probe(tmp_path / "run", "--exclude_speakers", "04", "--pooling", "mean_std")
    printed, choice = capsys.readouterr().out, json.loads((run / "probe.json").read_text())
    assert choice["layers"] == [0, 1, 2] and len(choice["strengths"]) >= 5 and np.shape(choice["uar"]) == (3, 5)
    assert choice["best_uar"] == np.max(choice["uar"]) and sorted(map(tuple, choice["folds"])) == [
        ("01",),
        ("02",),
        ("03",),
    ]
    config = json.loads((run / "config.json").read_text())
    assert config["audio_config"]["encoder_layers"] == choice["layer"] and config["pooling"] == "mean_std"
    assert config["training_data"][-1]["speakers"] == ["01", "02", "03"]
    card, words = (run / "README.md").read_text(), f"layer {choice['layer']} of 2. C = {choice['c']:g}"
    assert words in printed and f"{choice['layer']} of its 2 layers are kept. C = {choice['c']:g}" in card
    assert "epoch" not in card and "steps" not in card and "3 folds of training speakers" in card
    weights = load_file(run / "model.safetensors")
    assert weights["classifier.1.weight"].shape == (3, 32) and f"of which {3 * 32 + 3} were learnt" in card
    settings = json.loads((run / "run_identity.json").read_text())["settings"]
    assert settings["probe_layer"] is None and settings["probe_folds"] == 5


def test_a_test_speaker_changes_neither_the_choice_nor_the_weights(folds, probe, tones, tmp_path):
    poisoned = relabelled(tones, tmp_path / "tones", lambda row: row["speaker_id"] == "04")
    other = probe(tmp_path / "run", *LOSO, "--control", "false", data=poisoned)

    def state(run, speaker):
        folder = fold_of(run, speaker)
        return (folder / "probe.json").read_text(), load_file(folder / "model.safetensors")["classifier.1.weight"]

    for speaker in ("01", "04"):
        (choice, weights), (other_choice, other_weights) = state(folds, speaker), state(other, speaker)
        same = choice == other_choice and torch.equal(weights, other_weights)
        assert same == (speaker == "04"), "it matters where the speaker is trained on, and only there"


def test_a_protocol_is_evaluated_and_resumed(folds, probe, tones, tmp_path, capsys):
    run = tmp_path / "folds"
    shutil.copytree(folds, run)
    lost, kept = fold_of(run, "02"), fold_of(run, "03")
    before, time = load_file(lost / "model.safetensors"), (kept / "model.safetensors").stat().st_mtime_ns
    (lost / "fold.json").unlink()
    (lost / "model.safetensors").unlink()
    probe(run, *LOSO, "--control", "false")
    after = load_file(lost / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert (kept / "model.safetensors").stat().st_mtime_ns == time, "a finished fold is not trained again"
    assert "Evaluate them: python evaluate.py" in capsys.readouterr().out
    load_script("evaluate").main([str(word) for word in ("--model", run, "--data_dir", tones, *LOSO)])
    results = json.loads((run / "results/results.json").read_text())
    assert results["n"] == 48 and results["uar"] > 0.6 and len(results["intervals"]["uar"] or [0, 1]) == 2
    log = json.loads((kept / "trainer_state.json").read_text())["log_history"]
    assert log[0]["loss"] > 0 and log[1]["train_runtime"] > 0 and log[0]["probe_c"] > 0
    with pytest.raises(ValueError, match="is of another run, which differs in: probe_folds"):
        probe(run, *LOSO, "--control", "false", "--probe_folds", 2)


def test_calibration(probe, tones, tmp_path):
    noisy = relabelled(tones, tmp_path / "tones", lambda row: row["file_name"].endswith("_0.wav"))
    options = ("--calibration_folds", 3, "--probe_layer", 1, "--probe_c", 1)
    run = probe(tmp_path / "run", "--exclude_speakers", "04", *options, data=noisy)
    config = json.loads((run / "config.json").read_text())
    assert config["calibration_temperature"] and config["calibrated_on"].startswith("out-of-fold predictions")
    run = probe(tmp_path / "dev", "--exclude_speakers", "04", "--num_dev_speakers", 1, "--probe_c", 0.01)
    record = json.loads((run / "config.json").read_text())["training_data"][-1]
    assert len(record["speakers"]) == 2 and len(record["dev_speakers"]) == 1
    chosen_on = sum(json.loads((run / "probe.json").read_text())["folds"], [])
    assert sorted(chosen_on) == record["speakers"], "layer is not chosen on development speakers"


def test_a_checkpoint_of_this_package_is_probed(probe, folds, tmp_path):
    """`--init_from`: the encoder of another run, here of a protocol, by fold."""
    run = probe(tmp_path / "again", *LOSO, "--control", "false", "--folds", 0, "--init_from", folds, encoder=None)
    records = json.loads((run / "fold_0/seed_42/config.json").read_text())["training_data"]
    assert any(record.get("stage") == "a classifier" for record in records)


@pytest.mark.parametrize("family", ["whisper", "wavlm-large", "wav2vec2-base", "wav2vec2-bert", "ast", "compact"])
def test_an_encoder_that_ends_after_a_layer_has_these_features(family, tones, tmp_path):
    """With the layer norm after its last layer, where the family has one; also after saving and loading."""
    folder = save_encoder(family, tmp_path / family)
    corpus = load_corpus(tones).where("file_name", lambda name: name.endswith("_1.wav"))
    model, clips = clips_of(corpus, folder, tmp_path)
    features = layer_features(model, clips, str(tmp_path))
    assert features.shape == (12, 3, 16) and not model.config.use_weighted_layer_sum
    for count in range(fewest_layers(model), 3):
        cut, _ = clips_of(corpus, folder, tmp_path)
        keep_first_layers(cut, count)
        cut.save_pretrained(tmp_path / "cut")
        for each in (cut, GEmoClapForAudioClassification.from_pretrained(tmp_path / "cut")):
            check_cut(each, clips, features[:, count])
            with pytest.raises(ValueError, match="cannot be cut"):
                check_cut(each, clips, features[:, count - 1])
    with pytest.raises(ValueError, match="encoder has 2 Transformer layers; give a whole number from [01] to 2"):
        keep_first_layers(model, 3)


def test_an_encoder_whose_layers_cannot_be_tried_is_refused(tones, tmp_path):
    model, clips = clips_of(load_corpus(tones), save_encoder("sew", tmp_path / "sew"), tmp_path)
    with pytest.raises(ValueError, match="a 'sew' encoder applies more than a layer norm after its layers"):
        layer_features(model, clips, str(tmp_path))


def test_a_recording_is_encoded_once(whisper, tones, tmp_path, monkeypatch):
    corpus = load_corpus(tones)
    model, clips = clips_of(corpus.of_speakers(["01", "02"]), whisper, tmp_path)
    first = layer_features(model, clips, str(tmp_path))
    counted, pool = [], model.pool_audio
    monkeypatch.setattr(model, "pool_audio", lambda **batch: counted.append(1) or pool(**batch))
    assert np.array_equal(layer_features(model, clips, str(tmp_path)), first) and not counted
    _, more = clips_of(corpus.of_speakers(["02", "03"]), whisper, tmp_path)
    second = layer_features(model, more, str(tmp_path))
    assert len(counted) == 12 + 1, "the clips of one new speaker, and one to see what follows the last layer"
    assert np.array_equal(second[:12], first[12:])
    with torch.no_grad():
        next(iter(model.audio_model.parameters())).add_(1)
    assert not np.array_equal(layer_features(model, clips, str(tmp_path)), first), "other weights"


def test_what_is_computed_before_an_interruption_is_kept(whisper, tones, tmp_path, monkeypatch):
    model, clips = clips_of(load_corpus(tones), whisper, tmp_path)
    pool, calls = model.pool_audio, []

    def interrupted(**batch):
        calls.append(1)
        if len(calls) > 6:
            raise KeyboardInterrupt
        return pool(**batch)

    monkeypatch.setattr(model, "pool_audio", interrupted)
    with pytest.raises(KeyboardInterrupt):
        layer_features(model, clips, str(tmp_path))
    monkeypatch.setattr(model, "pool_audio", pool)
    [path] = tmp_path.glob("layers-*.safetensors")
    assert len(features_module._read(path)) == 5 and not model.config.use_weighted_layer_sum
    assert type(model.audio_pooling).__name__ == "GEmoClapAudioPooling"


def data_of(labels, speakers, emotions=EMOTIONS, layers=3, informative=1):
    """Features of which one layer has the labels, and the others noise."""
    labels, generator = np.array(labels), np.random.default_rng(0)
    features = generator.standard_normal((len(labels), layers, 6))
    features[:, informative, :3] += 4 * np.eye(3)[labels]
    return ProbeData(features.astype(np.float32), labels, np.array(speakers), emotions)


def test_the_informative_layer_is_chosen():
    data = data_of([0, 1, 2] * 12, [f"{index // 9:02}" for index in range(36)], informative=2)
    choice = choose(data, range(3), [1e-3, 1e-1], [["00"], ["01", "02"], ["03"]])
    assert choice.layer == 2 and choice.best_uar > 0.9 and max(choice.uar[0]) < 0.7
    equal = ProbeData(np.repeat(data.features[:, 2:], 2, 1), data.labels, data.speakers, data.emotions)
    choice = choose(equal, [0, 1], [1e-1, 1e-2], [["00"], ["01", "02"], ["03"]])
    assert choice.layer == 0 and choice.strengths == [1e-2, 1e-1], "of equal layers the lowest"


def test_an_emotion_of_one_speaker_is_left_out_of_the_choice(monkeypatch):
    said = []
    monkeypatch.setattr(regression_module.logger, "warning", said.append)
    labels, speakers = [0, 1] * 12 + [2] * 6, [f"{index // 6:02}" for index in range(24)] + ["00"] * 6
    choice = choose(data_of(labels, speakers), range(3), [1e-2], [[f"{speaker:02}"] for speaker in range(4)])
    assert choice.not_judged == ["sad"] and "sad: only one training speaker has this emotion" in said[0]
    assert choice.layer == 1 and choice.best_uar > 0.9, "its recall, which is 0, does not count"
    with pytest.raises(ValueError, match="at least two emotions need two speakers each"):
        choose(data_of([0] * 6 + [1] * 6, ["00"] * 6 + ["01"] * 6), range(3), [1e-2], [["00"], ["01"]])
    labels, speakers = [0, 1, 0, 1, 0, 0], ["00", "00", "01", "01", "02", "02"]
    with pytest.raises(ValueError, match="without the speakers 00, 01 of an inner fold.*fewer than two emotions"):
        choose(data_of(labels, speakers), range(3), [1e-2], [["00", "01"], ["02"]])


def test_two_classes_and_a_class_without_clips():
    data = data_of([0, 1] * 10, ["00"] * 20)
    features = data.features[:, 1].astype(np.float64)
    fitted = regression(0.1).fit(features, data.labels)
    weights, bias = linear_layer(fitted, 3)
    logits = features @ weights.T + bias
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], fitted.decision_function(features))
    probabilities = torch.from_numpy(logits).softmax(-1).numpy()
    np.testing.assert_allclose(probabilities[:, :2], fitted.predict_proba(features))
    assert (logits[:, 2] == NEVER).all() and np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--audio_model", "compact"), "an encoder with random weights: give --audio_model or --init_from"),
        (("--pooling", "self_attention"), "self_attention has weights.*give --pooling mean or mean_std"),
        (("--speakers", "01"), "folds of training speakers, and there is only 01: give more speakers, or give --pr"),
        (("--probe_layer", "3"), "--probe_layer 3: the audio encoder has 2 layers; give 0 to 2"),
        (("--probe_c", "0"), "probe_c"),
        (("--num_dev_speakers", "1", "--select", "dev"), "--select dev: not supported by the probe.*no epochs"),
        (("--max_seconds", "1"), "--max_seconds 1.0: not supported by the probe of a frozen encoder"),
        (("--cache_frozen_frames", "true"), "--cache_frozen_frames.*not supported.*stores the pooled output"),
        (("--label_smoothing_factor", "0.1"), "Probe is not trained by cross-entropy over classes"),
        (("--classifier_hidden_size", "8"), "is an option of --head classifier"),
    ],
)
def test_refusals(options, message, probe, tmp_path):
    with pytest.raises(ValueError, match=message):
        probe(tmp_path / "run", *options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_one_speaker_suffices_if_nothing_is_chosen(probe, tmp_path):
    run = probe(tmp_path / "run", "--speakers", "01", "--probe_layer", 2, "--probe_c", 0.1)
    choice = json.loads((run / "probe.json").read_text())
    assert (choice["layer"], choice["c"], choice["uar"], choice["best_uar"]) == (2, 0.1, [], None)
    assert "Chosen by UAR" not in (run / "README.md").read_text()
