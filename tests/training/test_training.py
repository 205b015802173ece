"""Training by the script, refusals before files are written, and clips, samplers and augmentation."""

import csv
import io
import json
import logging
import random
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, TINY, TONES, run_script, tone, write_corpus
from safetensors.torch import load_file
from transformers import pipeline

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor, GEmoClapModel
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.feature_extraction_gemoclap import AudioError
from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.objectives.gemo_clap.build import build_model_and_processor
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.gemo_clap.initialisation import train_on_prompts
from modeling_gemoclap.objectives.gemo_clap.options import GEmoClapOptions
from modeling_gemoclap.runs.calibration import temperature_of
from modeling_gemoclap.runs.recipe import parse_recipe
from modeling_gemoclap.training.arguments import ModelArguments
from modeling_gemoclap.training.augmentation import DECIBELS, Augmentation
from modeling_gemoclap.training.clips import ClipDataset, ClipOptions, read_clips
from modeling_gemoclap.training.samplers import ClassBalancedSampler


def weights(folder):
    return GEmoClapModel.from_pretrained(folder).state_dict()


def test_files_and_records_of_a_run(trained, tones):
    config = GEmoClapConfig.from_pretrained(trained)
    [record] = config.training_data
    assert record["corpus"] == "tones" and record["speakers"] == ["01", "02", "03"] and record["num_clips"] == 36
    assert record["manifest_sha256"] == load_corpus(tones).manifest_sha256
    assert config.emotions == list(TONES)
    history = json.loads((trained / "trainer_state.json").read_text())["log_history"]
    logs = [entry for entry in history if "cross_entropy" in entry]
    assert len(logs) == 30
    for entry in logs:
        assert entry["cross_entropy"] - entry["cross_entropy_floor"] == pytest.approx(entry["loss"], abs=1e-3)
        assert entry["cross_entropy_floor"] > 0.1 and 1 < entry["audio_scale"] < 100
    assert logs[-1]["loss"] < 0.75 * logs[0]["loss"]
    card = (trained / "README.md").read_text()
    assert (
        "| tones | see its source | 36 | 01, 02, 03 |" in card and "Not evaluated" in card and "SL-GEmo-CLAP" in card
    )


@pytest.mark.parametrize("objective", ["emo", "ml"])
def test_other_loss_variants_train(train, tones, tmp_path, objective):
    run = tmp_path / "run"
    options = ("--eval_strategy", "epoch", "--dev_speakers", "04", "--class_balanced_sampling", "true")
    train("--data_dir", tones, "--output_dir", run, "--objective", objective, *options)
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert [entry["eval_uar"] for entry in history if "eval_uar" in entry][-1] > 0.9
    assert "UAR" in (run / "README.md").read_text()
    assert GEmoClapConfig.from_pretrained(run).training_data[0]["speakers"] == ["01", "02", "03"]


def test_resumed_run_equals_uninterrupted_run(train, tones, tmp_path):
    options = (
        "--data_dir",
        tones,
        "--lr_scheduler_type",
        "constant",
        "--save_strategy",
        "epoch",
        "--time_warp",
        "0.1",
    )
    options += ("--num_train_epochs", "4", "--output_dir")
    train(*options, tmp_path / "uninterrupted")
    (tmp_path / "resumed").mkdir()  # the files of a run that is killed after two epochs
    shutil.copy(tmp_path / "uninterrupted" / IDENTITY, tmp_path / "resumed")
    shutil.copytree(tmp_path / "uninterrupted/checkpoint-8", tmp_path / "resumed/checkpoint-8")
    for no_resume in ((), ("--resume_from_checkpoint", "false")):
        with pytest.raises(ValueError, match="not empty"):
            train(*options, tmp_path / "resumed", *no_resume)
    train(*options, tmp_path / "resumed", "--resume_from_checkpoint", "true")
    first, second = weights(tmp_path / "uninterrupted"), weights(tmp_path / "resumed")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_calibration_by_out_of_fold_predictions(train, tones, tmp_path, caplog):
    run = tmp_path / "run"
    options = ("--data_dir", tones, "--output_dir", run, "--num_train_epochs", "2", "--calibration_folds", "4")
    train(*options)
    files = sorted(run.glob("calibration/fold_*.safetensors"))
    parts = [load_file(path) for path in files]
    assert len(files) == 4 and all(part["logits"].shape == (12, 3) for part in parts), "each speaker once"
    logits, labels = (torch.cat([part[name] for part in parts]) for name in ("logits", "labels"))
    config = GEmoClapConfig.from_pretrained(run)
    assert config.calibration_temperature == pytest.approx(temperature_of(logits, labels))
    assert config.calibrated_on == "out-of-fold predictions for the training speakers, 4 folds"
    assert f"{config.calibration_temperature:.3g}, fitted on out-of-fold" in (run / "README.md").read_text()
    times = [path.stat().st_mtime_ns for path in files]
    train(*options, "--resume_from_checkpoint", "true")
    assert times == [path.stat().st_mtime_ns for path in files], "finished folds are not trained again"
    train(*options, "--overwrite_output", "true")
    assert not set(times) & {path.stat().st_mtime_ns for path in files}, "with --overwrite_output they are"
    for more, message in ((("--num_dev_speakers", "1"), "leave out --dev_speakers"), ((), "5: give 2 to 4")):
        with pytest.raises(ValueError, match=message):
            train(*options, "--overwrite_output", "true", "--calibration_folds", "5", *more)


def test_synonyms_are_learned_and_unknown_words_are_reported(train, tones, tmp_path, caplog):
    synonyms = json.dumps({"angry": ["furious"], "happy": ["joyful"], "sad": ["gloomy"]})
    templates = ("--joint_templates", "this {gender} person is feeling {emotion}", "a {emotion} {gender} voice")
    options = ("--exclude_speakers", "04", "--emotion_synonyms", synonyms, *templates)
    train("--data_dir", tones, "--output_dir", tmp_path / "run", *options)
    config = GEmoClapConfig.from_pretrained(tmp_path / "run")
    assert {"furious", "voice", "female", "angry"} <= set(config.known_words) and "livid" not in config.known_words
    pipe = pipeline("zero-shot-emotion-recognition", model=str(tmp_path / "run"), trust_remote_code=True)
    clips = [tones / f"audio/04_{emotion}_0.wav" for emotion in TONES]
    words = ["furious", "joyful", "gloomy"]
    predictions = pipe([str(clip) for clip in clips], candidate_labels=words)
    assert [prediction[0]["label"] for prediction in predictions] == words
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("transformers_modules").addHandler(handler)
    logging.getLogger("transformers").addHandler(handler)
    pipe(str(clips[0]), candidate_labels=["livid", "joyful"])
    assert "was not trained on 'livid'" in stream.getvalue() and "its words are a, angry" in stream.getvalue()


def test_development_metrics_include_every_clip(train, tones, tmp_path):
    options = ("--dev_speakers", "03", "04", "--eval_strategy", "epoch", "--dataloader_drop_last", "true")
    options += ("--per_device_eval_batch_size", "7", "--num_train_epochs", "1")
    train("--data_dir", tones, "--output_dir", tmp_path / "run", *options)
    history = json.loads((tmp_path / "run/trainer_state.json").read_text())["log_history"]
    war = next(entry["eval_war"] for entry in history if "eval_war" in entry)
    assert war * 24 == pytest.approx(round(war * 24), abs=1e-6)  # a share of all 24 clips
    assert sum("loss" in entry for entry in history) == 1


def test_tensorboard(train, tones, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    train(
        "--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "1", "--report_to", "tensorboard"
    )
    assert list(tmp_path.rglob("events.out.*"))  # transformers 4 writes into the run


def test_pretrained_towers_by_path(train, tones, tmp_path, make_model, make_processor):
    """Small checkpoints in the format of the Hub, with a 16 kHz wave encoder."""
    from transformers import Wav2Vec2FeatureExtractor

    model = make_model("wavlm-large")
    model.audio_model.save_pretrained(tmp_path / "audio")
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(tmp_path / "audio")
    model.text_model.save_pretrained(tmp_path / "text")
    make_processor(model).tokenizer.save_pretrained(tmp_path / "text")
    towers = (
        "--audio_model",
        tmp_path / "audio",
        "--text_model",
        tmp_path / "text",
        "--audio_config",
        "{}",
        "--text_config",
        "{}",
    )
    run = tmp_path / "run"
    train("--data_dir", tones, "--output_dir", run, *towers, "--num_train_epochs", "1", "--max_seconds", "0.5")
    model = GEmoClapModel.from_pretrained(run)
    assert model.config.audio_config.model_type == "wavlm"
    assert "pretrained: audio" in (run / "README.md").read_text()
    with pytest.raises(ValueError, match="--text_model needs a pretrained audio encoder"):
        train("--data_dir", tones, "--output_dir", tmp_path / "x", *towers[2:4], "--text_config", "{}")


# ---- invalid input --------------------------------------------------------------------------------------------------
def damaged_corpus(tmp_path):
    """A corpus with five unusable clips, and their names."""
    corpus = write_corpus(tmp_path / "broken", [["audio/missing.wav", "sad", "female", "01"]])
    silent, short = corpus / "audio/01_sad_0.wav", corpus / "audio/02_sad_1.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    soundfile.write(short, tone("sad", 0)[:200], RATE)
    (corpus / "audio/03_sad_2.wav").write_bytes(b"")
    nan = tone("sad", 0)
    nan[5] = np.nan
    soundfile.write(corpus / "audio/04_sad_3.wav", nan, RATE, subtype="FLOAT")
    return corpus, ["missing.wav", "01_sad_0.wav", "02_sad_1.wav", "03_sad_2.wav", "04_sad_3.wav"]


def test_bad_clips_are_refused_or_skipped_and_named(train, tmp_path, capsys):
    corpus, bad = damaged_corpus(tmp_path)
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="5 of 49 clips") as error:
        train("--data_dir", corpus, "--output_dir", run)
    assert all(name in str(error.value) for name in bad) and "--on_bad_audio skip" in str(error.value)
    assert not run.exists()
    train("--data_dir", corpus, "--output_dir", run, "--on_bad_audio", "skip", "--num_train_epochs", "1")
    skipped = json.loads((run / "skipped_clips.json").read_text())
    assert len(skipped) == 5 and all(any(name in line for line in skipped) for name in bad)
    assert "44 clips, 5 skipped" in capsys.readouterr().out
    assert GEmoClapConfig.from_pretrained(run).training_data[0]["num_clips"] == 44


def test_repaired_clip_is_read_again(train, tmp_path):
    corpus, _ = damaged_corpus(tmp_path)
    with pytest.raises(ValueError, match="5 of 49"):
        train("--data_dir", corpus, "--output_dir", tmp_path / "run")
    soundfile.write(corpus / "audio/missing.wav", tone("sad", 3), RATE)
    with pytest.raises(ValueError, match="4 of 49"):
        train("--data_dir", corpus, "--output_dir", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
        (["--data_dir", "TONES", "--emotions", "angry"], "'happy': 16"),
        (
            ["--data_dir", "TONES", "--emotions", "angry", "--drop_other_emotions", "true"],
            "clips of two or more emotions",
        ),
        (["--data_dir", "TONES", "--exclude_speakers", "77"], "'77'"),
        (["--data_dir", "TONES", "--speakers", "01", "--exclude_speakers", "01"], "no clip"),
        (["--data_dir", "TONES", "--audio_config", "{not json"], "audio_config.*JSON"),
        (["--data_dir", "TONES", "--alpha", "2"], "alpha"),
        (["--data_dir", "TONES", "--mel_warp", "3"], "mel_warp"),
        (
            ["--data_dir", "TONES", "--prompt_steps", "9", "--text_model", "x"],
            "--prompt_steps trains",
        ),
        ([], "--data_dir"),
    ],
)
def test_invalid_options_leave_no_files(train, tones, tmp_path, options, message):
    options = [str(tones) if option == "TONES" else option for option in options]
    with pytest.raises(ValueError, match=message):
        train(*options, "--output_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_error_is_one_line_with_an_exit_status(tmp_path):
    done = run_script("train.py", *TINY, "--data_dir", tmp_path, "--output_dir", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("train.py: ") and "Traceback" not in done.stderr


# ---- arguments ------------------------------------------------------------------------------------------------------
def test_command_line_overrides_the_file(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("learning_rate: 2e-5\nalpha: 0.8\nemotions: [sad, happy]\naudio_config: {hidden_size: 8}\n")
    recipe = parse_recipe(["--config", str(config), "--alpha", "0.7", "--output_dir", "x", "--use_cpu"])
    assert (recipe.training.learning_rate, recipe.options.alpha) == (2e-5, 0.7)
    assert recipe.model.emotions == ["sad", "happy"] and recipe.data.on_bad_audio == "raise"
    assert json.loads(recipe.model.audio_config) == {"hidden_size": 8}


@pytest.mark.parametrize(
    ("text", "message"),
    [("learning_rat: 1", "learning_rate"), ("- a", "mapping"), ("objektive: sl", "objective"), ("a: [1", "not YAML")],
)
def test_invalid_configuration_files_are_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"c.yaml.*{message}"):
        parse_recipe(["--config", str(tmp_path / "c.yaml")])
    with pytest.raises(ValueError, match="no such file"):
        parse_recipe(["--config", str(tmp_path / "d.yaml")])


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_settings_of_the_paper(objective):
    config = ROOT / f"configs/{objective}{'_gemo' * (objective != 'emo')}_clap.yaml"
    recipe = parse_recipe(["--config", str(config)])
    options, training = recipe.options, recipe.training
    assert (recipe.model.audio_model, options.text_model) == ("microsoft/wavlm-large", "FacebookAI/roberta-base")
    assert (options.objective, options.alpha, options.targets) == (objective, 0.9, "softmax")
    assert (training.learning_rate, training.per_device_train_batch_size, training.num_train_epochs) == (2e-5, 32, 80)
    assert training.optimizer == "adam" and training.weight_decay == 0


# ---- parts ----------------------------------------------------------------------------------------------------------
def test_class_balanced_sampler():
    labels = [0] * 50 + [1] * 5 + [2] * 11 + [-1] * 3
    sampler = ClassBalancedSampler(labels, seed=1)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 66 and list(sampler) == drawn
    counts = np.bincount([labels[index % 69] for index in drawn], minlength=3)
    assert counts.tolist() == [22, 22, 22]
    assert len({index for index in drawn if labels[index % 69] == 0}) == 22  # no repetition before all were sampled
    assert len(set(drawn)) == 66 and max(drawn) // 69 == 4  # repetitions of a clip have different indices
    sampler.set_epoch(1)
    assert list(sampler) != drawn
    with pytest.raises(ValueError, match="clips of two classes"):
        ClassBalancedSampler([1, 1, -1])


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"objective": "emo"}, ["this person is feeling angry", "this person is feeling sad"]),
        ({"objective": "sl"}, ["this male person is feeling angry", "this person is feeling sad"]),
        ({"objective": "sl", "sl_texts": "emotion"}, ["this person is feeling angry", "this person is feeling sad"]),
        ({"objective": "ml"}, ["this person is feeling angry", "this person is feeling sad"]),
    ],
)
def test_collator_writes_the_texts(make_model, make_processor, fields, texts):
    model = make_model(**fields)
    processor = make_processor(model)
    clip = np.zeros((10, 16), dtype=np.float32)
    labels, left_out = (
        [(0, 1), (2, -1), (-1, 0)],
        "this person is male",
    )  # short: adds no padding
    batch = GEmoClapCollator(processor, model.config)(
        [{"clip": clip, "emotion_label": e, "gender_label": g} for e, g in labels]
    )
    assert processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == [*texts, left_out]
    assert batch["emotion_labels"].tolist() == [0, 2, -1] and batch["gender_labels"].tolist() == [1, -1, 0]
    genders = ["this person is male", left_out, "this person is female"]
    if fields["objective"] == "ml":
        prompts = processor.tokenizer.batch_decode(batch["gender_input_ids"], skip_special_tokens=True)
        assert [prompts[row] for row in batch["gender_prompt_index"]] == genders
    else:
        assert "gender_input_ids" not in batch
    hidden = GEmoClapCollator(processor, model.config, 1.0)([{"clip": clip, "emotion_label": 0, "gender_label": 1}])
    assert hidden["gender_labels"].tolist() == [-1]


def test_warping():
    features = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    assert np.allclose(Augmentation()(features), features, atol=1e-5) and not Augmentation()
    lengths = {Augmentation(time_warp=0.3)(features).shape[0] for _ in range(20)}
    assert min(lengths) >= 37 and max(lengths) <= 68 and len(lengths) > 5
    ramp = np.tile(np.arange(16, dtype=np.float32), (50, 1))
    torch.manual_seed(1)
    warped = Augmentation(mel_warp=0.2)(ramp)
    slope = warped[0, 5] / 5
    assert slope != pytest.approx(1, abs=1e-3) and np.exp(-0.2) <= slope <= np.exp(0.2)
    with pytest.raises(ValueError, match="time_warp"):
        Augmentation(time_warp=2.0)


def test_equalizer_noise_and_reverberation():
    features = np.random.default_rng(0).standard_normal((80, 16)).astype(np.float32)
    torch.manual_seed(0)
    curves = np.stack([Augmentation(equalizer_db=3.0)(features) - features for _ in range(400)])
    assert np.ptp(curves, axis=1).max() < 1e-5, "the curve does not depend on time"
    first_band = curves[:, 0, 0] * 4.0 / DECIBELS  # all four cosines are one
    assert first_band.std() == pytest.approx(3.0 * 2, rel=0.1)
    noisy = Augmentation(noise_prob=1.0, noise_snr_db=(0.0, 0.0))(features)
    power, louder = (np.exp(part * 4.0 + 1.0) for part in (features, noisy))
    assert (louder >= power * 0.999).all() and 1.3 < louder.mean() / power.mean() < 4
    click = np.full((80, 16), -4.0, np.float32)
    click[10] = 2.0
    room = Augmentation(reverb_prob=1.0)(click) * 4.0
    assert np.abs(room[:11] - click[:11] * 4.0).max() < 2, "echoes follow the sound"
    assert (np.diff(room[11:40, 0]) < 0).all() and room[11, 0] < room[10, 0]


def test_mixing_within_a_class(tones):
    corpus, _ = read_clips(load_corpus(tones), GEmoClapFeatureExtractor(feature_type="log_mel"))
    config = GEmoClapConfig(emotions=corpus.emotions)
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel")
    plain, mixed = (
        ClipDataset(corpus, extractor, config, ClipOptions(augmentation=augmentation))
        for augmentation in (None, Augmentation(mix_prob=1.0))
    )
    pairs = [(plain[index]["clip"], mixed[index]["clip"]) for index in range(12)]
    assert all(len(mixture) <= len(clip) for clip, mixture in pairs)
    assert any(not np.allclose(clip[: len(mixture)], mixture, atol=0.01) for clip, mixture in pairs)
    label, gender = plain.emotion_labels[3], plain.gender_labels[3]
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        partner = mixed._mixing_partner(3, generator)
        same_length = [index for index in range(len(plain)) if len(plain[index]["clip"]) == len(partner)]
        equal = [index for index in same_length if np.array_equal(plain[index]["clip"], partner)]
        assert equal and {(plain.emotion_labels[i], plain.gender_labels[i]) for i in equal} == {(label, gender)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_prob": 1.5}, "noise_prob 1.5 must be at least 0 and at most 1"),
        ({"noise_snr_db": (20.0, 10.0)}, "noise_snr_db"),
        ({"equalizer_db": -1.0}, "equalizer_db -1.0 must be at least 0 and at most 20"),
    ],
)
def test_augmentation_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


def test_training_with_unknown_genders_and_emotions(train, tmp_path):
    corpus = write_corpus(tmp_path / "some")
    rows = list(csv.reader(open(corpus / "metadata.csv")))
    for index, row in enumerate(rows[1:]):
        row[2] = "" if index % 3 == 0 else row[2]
        row[1] = "" if index % 7 == 0 else row[1]
    csv.writer(open(corpus / "metadata.csv", "w", newline="")).writerows(rows)
    train("--data_dir", corpus, "--output_dir", tmp_path / "run", "--num_train_epochs", "2")
    history = json.loads((tmp_path / "run/trainer_state.json").read_text())["log_history"]
    assert all(np.isfinite(entry["loss"]) for entry in history if "loss" in entry)
    shutil.rmtree(corpus)


def test_random_numbers_of_a_clip_depend_on_seed_epoch_and_index_only(tones, make_model, make_processor):
    model = make_model()
    extractor = make_processor(model).feature_extractor
    corpus, _ = read_clips(load_corpus(tones), extractor)
    dataset, same_seed = (
        ClipDataset(corpus, extractor, model.config, ClipOptions(0.2, Augmentation(0.1, 0.1), seed=3))
        for _ in range(2)
    )
    first = dataset[5]
    torch.rand(7), np.random.rand(7), same_seed[6]  # other random numbers have no influence
    assert np.array_equal(first["clip"], same_seed[5]["clip"]) and first["seed"] == same_seed[5]["seed"]
    repetition, other_seed = (
        dataset[5 + len(dataset)],
        ClipDataset(corpus, extractor, model.config, ClipOptions(0.2, seed=4))[5],
    )
    dataset.set_epoch(1)
    for other in (repetition, other_seed, dataset[5]):
        assert other["emotion_label"] == first["emotion_label"]
        assert other["seed"] != first["seed"] and not np.array_equal(other["clip"], first["clip"])


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_a_batch_draws_no_global_random_numbers(tones, make_model, make_processor, objective, monkeypatch):
    """Batches are read ahead, but a resumed run has read another number of them; also clips that only pad count."""
    model = make_model(objective=objective)
    processor = make_processor(model)
    corpus, _ = read_clips(load_corpus(tones), processor.feature_extractor)
    options = ClipOptions(0.2, Augmentation(0.1, 0.1), on_bad_audio="skip")
    dataset = ClipDataset(corpus, processor.feature_extractor, model.config, options)
    collator = GEmoClapCollator(processor, model.config, unknown_gender_prob=0.5)

    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before = states()
    examples = [dataset[5], dataset[6], dataset[-1]]
    monkeypatch.setattr(dataset, "clip_features", Mock(side_effect=AudioError("a clip of a shard is unreadable")))
    examples.append(dataset[7])
    assert [example["index"] for example in examples] == [5, 6, -1, -1]
    collator(examples)
    assert states() == before


def test_trainer_sets_the_epoch(train, tones, tmp_path, monkeypatch):
    epochs = []
    monkeypatch.setattr(ClipDataset, "set_epoch", lambda self, epoch: epochs.append(epoch))
    train("--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "4")
    assert sorted(set(epochs)) == [0, 1, 2, 3]


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_prompts_are_trained_before_audio(objective):
    """Cosines of prompts approach the entries of the matrix of eq. 7; the audio tower does not change."""
    synonyms = {"emotion_synonyms": '{"angry": ["furious", "irate"], "sad": ["gloomy"]}', "alpha": 0.8}
    templates = {"emotion_templates": ["this person is {}", "a {} voice"], "gender_templates": ["a {} speaker", "{}"]}
    joint = ["this {gender} person is {emotion}", "a {emotion} {gender} voice"]
    options = GEmoClapOptions(objective=objective, projection_dim=16, joint_templates=joint, **synonyms, **templates)
    torch.manual_seed(0)
    model, processor = build_model_and_processor(ModelArguments(), options, ["angry", "happy", "sad"])
    initial = {name: value.clone() for name, value in model.audio_model.state_dict().items()}
    collator = GEmoClapCollator(processor, model.config)
    train_on_prompts(model, collator, 250, seed=1)
    config = model.config
    assert all(torch.equal(value, initial[name]) for name, value in model.audio_model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    labels = [(emotion, gender) for emotion in range(3) for gender in (-1, 0, 1)]
    prompts = [
        config.joint_prompts(config.emotions[emotion], config.genders[gender], synonyms=True)
        if config.uses_joint_texts and gender != -1
        else config.emotion_prompts(config.emotions[emotion], synonyms=True)
        for emotion, gender in labels
    ]
    classes = model.get_class_embeddings(prompts, processor.tokenizer)
    spread = [
        model.get_text_features(**collator.tokenize(group)) @ mean
        for group, mean in zip(prompts, classes, strict=True)
    ]
    assert min(part.min().item() for part in spread) > 0.9
    for (emotion, gender), (other_emotion, other_gender), cosine in (
        (labels[i], labels[j], (classes[i] @ classes[j]).item()) for i in range(9) for j in range(9)
    ):
        both = objective == "sl" and -1 not in (gender, other_gender)
        same_emotion = emotion == other_emotion
        expected = 0.8 * same_emotion + 0.2 * (gender == other_gender) if both else float(same_emotion)
        if objective != "sl" or both:
            assert cosine == pytest.approx(expected, abs=0.12)
    if objective == "ml":
        genders = model.get_class_embeddings(config.gender_class_prompts(), processor.tokenizer)
        assert abs((genders @ classes.T).max()) < 0.2 and abs(genders[0] @ genders[1]) < 0.2
