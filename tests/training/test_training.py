"""Training as a user does it, and what is refused before anything is written."""

import csv
import io
import json
import logging
import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, TINY, TONES, run_script, tone, write_corpus
from safetensors.torch import load_file
from transformers import pipeline

from modeling_gemoclap import GEmoClapConfig, GEmoClapFeatureExtractor, GEmoClapModel
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.fingerprint import IDENTITY
from modeling_gemoclap.objectives.gemo_clap.build import build_model_and_processor
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.gemo_clap.initialisation import learn_prompts
from modeling_gemoclap.objectives.gemo_clap.options import GEmoClapOptions
from modeling_gemoclap.runs.calibration import temperature_of
from modeling_gemoclap.runs.recipe import parse_recipe
from modeling_gemoclap.training.arguments import ModelArguments
from modeling_gemoclap.training.augmentation import DECIBELS, Augmentation
from modeling_gemoclap.training.clips import ClipDataset, ClipOptions, read_clips
from modeling_gemoclap.training.samplers import ClassBalancedSampler


def weights(folder):
    return GEmoClapModel.from_pretrained(folder).state_dict()


def test_what_a_run_leaves_behind(trained, tones):
    config = GEmoClapConfig.from_pretrained(trained)
    [record] = config.training_data
    assert record["corpus"] == "tones" and record["speakers"] == ["01", "02", "03"] and record["num_clips"] == 36
    assert record["manifest_sha256"] == load_corpus(tones).manifest_sha256
    assert config.emotions == list(TONES)
    logs = [e for e in json.loads((trained / "trainer_state.json").read_text())["log_history"] if "cross_entropy" in e]
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
def test_the_other_objectives_learn(train, tones, tmp_path, objective):
    run = tmp_path / "run"
    options = ("--eval_strategy", "epoch", "--dev_speakers", "04", "--class_balanced_sampling", "true")
    train("--data_dir", tones, "--output_dir", run, "--objective", objective, *options)
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert [e["eval_uar"] for e in history if "eval_uar" in e][-1] > 0.9
    assert "UAR" in (run / "README.md").read_text()
    assert GEmoClapConfig.from_pretrained(run).training_data[0]["speakers"] == ["01", "02", "03"]


def test_resumed_equals_uninterrupted(train, tones, tmp_path):
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
    train(*options, tmp_path / "whole")
    (tmp_path / "parts").mkdir()  # as a kill after two epochs leaves it
    shutil.copy(tmp_path / "whole" / IDENTITY, tmp_path / "parts")
    shutil.copytree(tmp_path / "whole/checkpoint-8", tmp_path / "parts/checkpoint-8")
    for no in ((), ("--resume_from_checkpoint", "false")):
        with pytest.raises(ValueError, match="not empty"):
            train(*options, tmp_path / "parts", *no)
    train(*options, tmp_path / "parts", "--resume_from_checkpoint", "true")
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_calibrated_by_answers_to_speakers_who_were_left_out(train, tones, tmp_path, caplog):
    run = tmp_path / "run"
    options = ("--data_dir", tones, "--output_dir", run, "--num_train_epochs", "2", "--calibration_folds", "4")
    train(*options)
    files = sorted(run.glob("calibration/fold_*.safetensors"))
    parts = [load_file(path) for path in files]
    assert len(files) == 4 and all(part["logits"].shape == (12, 3) for part in parts), "each speaker once"
    logits, labels = (torch.cat([part[name] for part in parts]) for name in ("logits", "labels"))
    config = GEmoClapConfig.from_pretrained(run)
    assert config.calibration_temperature == pytest.approx(temperature_of(logits, labels))
    assert config.calibrated_on == "out-of-fold answers to the training speakers, 4 folds"
    assert f"{config.calibration_temperature:.3g}, fitted on out-of-fold" in (run / "README.md").read_text()
    times = [path.stat().st_mtime_ns for path in files]
    train(*options, "--resume_from_checkpoint", "true")
    assert times == [path.stat().st_mtime_ns for path in files], "what is finished is not done again"
    train(*options, "--overwrite_output", "true")
    assert not set(times) & {path.stat().st_mtime_ns for path in files}, "begun anew, it is"
    for more, message in ((("--num_dev_speakers", "1"), "leave out development"), ((), "5: 2 to 4 speakers")):
        with pytest.raises(ValueError, match=message):
            train(*options, "--overwrite_output", "true", "--calibration_folds", "5", *more)


def test_synonyms_are_learnt_and_other_words_told(train, tones, tmp_path, caplog):
    synonyms = json.dumps({"angry": ["furious"], "happy": ["joyful"], "sad": ["gloomy"]})
    templates = ("--joint_templates", "this {gender} person is feeling {emotion}", "a {emotion} {gender} voice")
    options = ("--exclude_speakers", "04", "--emotion_synonyms", synonyms, *templates)
    train("--data_dir", tones, "--output_dir", tmp_path / "run", *options)
    config = GEmoClapConfig.from_pretrained(tmp_path / "run")
    assert {"furious", "voice", "female", "angry"} <= set(config.known_words) and "livid" not in config.known_words
    pipe = pipeline("zero-shot-emotion-recognition", model=str(tmp_path / "run"), trust_remote_code=True)
    clips = [tones / f"audio/04_{emotion}_0.wav" for emotion in TONES]
    words = ["furious", "joyful", "gloomy"]
    found = [answer[0]["label"] for answer in pipe([str(clip) for clip in clips], candidate_labels=words)]
    assert found == words, "a synonym is as good as the word"
    stream, handler = io.StringIO(), None
    handler = logging.StreamHandler(stream)
    logging.getLogger("transformers_modules").addHandler(handler)
    logging.getLogger("transformers").addHandler(handler)
    pipe(str(clips[0]), candidate_labels=["livid", "joyful"])
    assert "was not trained on 'livid'" in stream.getvalue() and "its words are a, angry" in stream.getvalue()


def test_development_figures_are_of_every_clip(train, tones, tmp_path):
    options = ("--dev_speakers", "03", "04", "--eval_strategy", "epoch", "--dataloader_drop_last", "true")
    more = ("--per_device_eval_batch_size", "7", "--num_train_epochs", "1")
    train("--data_dir", tones, "--output_dir", tmp_path / "run", *options, *more)
    history = json.loads((tmp_path / "run/trainer_state.json").read_text())["log_history"]
    war = next(entry["eval_war"] for entry in history if "eval_war" in entry)
    assert war * 24 == pytest.approx(round(war * 24), abs=1e-6)  # a share of all 24 clips
    assert sum("loss" in entry for entry in history) == 1


def test_tensorboard_is_an_option(train, tones, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    train(
        "--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "1", "--report_to", "tensorboard"
    )
    assert list(tmp_path.rglob("events.out.*"))  # transformers 4 writes into the run


def test_pretrained_towers_by_path(train, tones, tmp_path, make_model, make_processor):
    """The real loading code on small checkpoints in the Hub's form, with a 16 kHz wave encoder."""
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
    again = GEmoClapModel.from_pretrained(run)
    assert again.config.audio_config.model_type == "wavlm"
    assert "pretrained: audio" in (run / "README.md").read_text()
    with pytest.raises(ValueError, match="both"):
        train("--data_dir", tones, "--output_dir", tmp_path / "x", "--audio_model", tmp_path / "audio")


# ---- bad input ------------------------------------------------------------------------------------------------------
def broken_corpus(tmp_path):
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
    corpus, bad = broken_corpus(tmp_path)
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


def test_a_mended_clip_is_read_again(train, tmp_path):
    corpus, _ = broken_corpus(tmp_path)
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
        (["--data_dir", "TONES", "--emotions", "angry", "--drop_other_emotions", "true"], "clips of two emotions"),
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
def test_bad_options_leave_nothing_behind(train, tones, tmp_path, options, message):
    options = [str(tones) if option == "TONES" else option for option in options]
    with pytest.raises(ValueError, match=message):
        train(*options, "--output_dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_is_one_line_and_a_status(tmp_path):
    done = run_script("train.py", *TINY, "--data_dir", tmp_path, "--output_dir", tmp_path / "run", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("train.py: ") and "Traceback" not in done.stderr


# ---- arguments ------------------------------------------------------------------------------------------------------
def test_every_field_can_be_overridden(tmp_path):
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
def test_bad_configuration_files_are_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"c.yaml.*{message}"):
        parse_recipe(["--config", str(tmp_path / "c.yaml")])
    with pytest.raises(ValueError, match="no such file"):
        parse_recipe(["--config", str(tmp_path / "d.yaml")])


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_the_papers_settings(objective):
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
    assert len({index for index in drawn if labels[index % 69] == 0}) == 22  # none again before its deck is used up
    assert len(set(drawn)) == 66 and max(drawn) // 69 == 4  # the fifth draw of a clip is another than its first
    sampler.set_epoch(1)
    assert list(sampler) != drawn
    with pytest.raises(ValueError, match="clips of two emotions"):
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
    labels, left_out = [(0, 1), (2, -1), (-1, 0)], "this person is male"  # the shortest: real, and never the longest
    batch = GEmoClapCollator(processor, model.config)(
        [{"clip": clip, "emotion_label": e, "gender_label": g} for e, g in labels]
    )
    assert processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == [*texts, left_out]
    assert batch["emotion_labels"].tolist() == [0, 2, -1] and batch["gender_labels"].tolist() == [1, -1, 0]
    genders = ["this person is male", left_out, "this person is female"]
    if fields["objective"] == "ml":
        assert processor.tokenizer.batch_decode(batch["gender_input_ids"], skip_special_tokens=True) == genders
    else:
        assert "gender_input_ids" not in batch
    hidden = GEmoClapCollator(processor, model.config, 1.0)([{"clip": clip, "emotion_label": 0, "gender_label": 1}])
    assert hidden["gender_labels"].tolist() == [-1]


def test_warping_is_identity_at_zero_and_moves_otherwise():
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


def test_what_a_microphone_a_room_and_noise_do():
    features = np.random.default_rng(0).standard_normal((80, 16)).astype(np.float32)
    torch.manual_seed(0)
    curves = np.stack([Augmentation(equalizer_db=3.0)(features) - features for _ in range(400)])
    assert np.ptp(curves, axis=1).max() < 1e-5, "the same at all times"
    at_first_band = curves[:, 0, 0] * 4.0 / DECIBELS  # where all four cosines are one
    assert at_first_band.std() == pytest.approx(3.0 * 2, rel=0.1)
    noisy = Augmentation(noise_prob=1.0, noise_snr_db=(0.0, 0.0))(features)
    power, louder = (np.exp(part * 4.0 + 1.0) for part in (features, noisy))
    assert (louder >= power * 0.999).all() and 1.3 < louder.mean() / power.mean() < 4
    click = np.full((80, 16), -4.0, np.float32)
    click[10] = 2.0
    room = Augmentation(reverb_prob=1.0)(click) * 4.0
    assert np.abs(room[:11] - click[:11] * 4.0).max() < 2, "echoes come after the sound"
    assert (np.diff(room[11:40, 0]) < 0).all() and room[11, 0] < room[10, 0]


def test_mixing_within_a_class(tones):
    corpus, _ = read_clips(load_corpus(tones), GEmoClapFeatureExtractor(feature_type="log_mel"))
    config = GEmoClapConfig(emotions=corpus.emotions)
    extractor = GEmoClapFeatureExtractor(feature_type="log_mel")
    whole, mixed = (
        ClipDataset(corpus, extractor, config, ClipOptions(augmentation=augmentation))
        for augmentation in (None, Augmentation(mix_prob=1.0))
    )
    pairs = [(whole[index]["clip"], mixed[index]["clip"]) for index in range(12)]
    assert all(len(one) <= len(other) for other, one in pairs) and any(
        not np.allclose(other[: len(one)], one, atol=0.01) for other, one in pairs
    )
    label, gender = whole.emotion_labels[3], whole.gender_labels[3]
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        found = mixed._another(3, generator)
        places = [n for n in range(len(whole)) if len(whole[n]["clip"]) == len(found)]
        same = [n for n in places if np.array_equal(whole[n]["clip"], found)]
        assert same and {(whole.emotion_labels[n], whole.gender_labels[n]) for n in same} == {(label, gender)}


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


def test_empty_gender_and_emotion_are_unknown_and_train(train, tmp_path):
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


def test_draws_change_with_epoch_and_draw_and_with_nothing_else(tones, make_model, make_processor):
    model = make_model()
    extractor = make_processor(model).feature_extractor
    corpus, _ = read_clips(load_corpus(tones), extractor)
    dataset, again = (
        ClipDataset(corpus, extractor, model.config, ClipOptions(0.2, Augmentation(0.1, 0.1), seed=3))
        for _ in range(2)
    )
    first = dataset[5]
    torch.rand(7), np.random.rand(7), again[6]  # what else was drawn is of no matter
    assert np.array_equal(first["clip"], again[5]["clip"]) and first["seed"] == again[5]["seed"]
    other_draw, other_seed = (
        dataset[5 + len(dataset)],
        ClipDataset(corpus, extractor, model.config, ClipOptions(0.2, seed=4))[5],
    )
    dataset.set_epoch(1)
    for other in (other_draw, other_seed, dataset[5]):
        assert other["emotion_label"] == first["emotion_label"]
        assert other["seed"] != first["seed"] and not np.array_equal(other["clip"], first["clip"])


def test_the_trainer_tells_the_epoch(train, tones, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(ClipDataset, "set_epoch", lambda self, epoch: told.append(epoch))
    train("--data_dir", tones, "--output_dir", tmp_path / "run", "--num_train_epochs", "4")
    assert sorted(set(told)) == [0, 1, 2, 3]


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_prompts_that_mean_the_same_are_learnt_before_any_audio(objective):
    """Cosines of prompts come to the entries of eq. 7's matrix, over templates and synonyms; the audio tower rests."""
    words = {"emotion_synonyms": '{"angry": ["furious", "irate"], "sad": ["gloomy"]}', "alpha": 0.8}
    several = {"emotion_templates": ["this person is {}", "a {} voice"], "gender_templates": ["a {} speaker", "{}"]}
    joint = ["this {gender} person is {emotion}", "a {emotion} {gender} voice"]
    options = GEmoClapOptions(objective=objective, projection_dim=16, joint_templates=joint, **words, **several)
    torch.manual_seed(0)
    model, processor = build_model_and_processor(ModelArguments(), options, ["angry", "happy", "sad"])
    heard = {name: value.clone() for name, value in model.audio_model.state_dict().items()}
    collator = GEmoClapCollator(processor, model.config)
    learn_prompts(model, collator, 250, seed=1)
    config = model.config
    assert all(torch.equal(value, heard[name]) for name, value in model.audio_model.state_dict().items())
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
        model.get_text_features(**collator.tokenize(group)) @ one for group, one in zip(prompts, classes, strict=True)
    ]
    assert min(part.min().item() for part in spread) > 0.9
    for (one, women), (other, men), cosine in (
        (labels[i], labels[j], (classes[i] @ classes[j]).item()) for i in range(9) for j in range(9)
    ):
        both = objective == "sl" and -1 not in (women, men)
        expected = 0.8 * (one == other) + 0.2 * (women == men) if both else float(one == other)
        if objective != "sl" or both:
            assert cosine == pytest.approx(expected, abs=0.12)
    if objective == "ml":
        genders = model.get_class_embeddings(config.gender_class_prompts(), processor.tokenizer)
        assert abs((genders @ classes.T).max()) < 0.2 and abs(genders[0] @ genders[1]) < 0.2
