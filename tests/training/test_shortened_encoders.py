"""Encoders that `audio_window_seconds`, `audio_layers` and `text_layers` shorten: built, trained, and started from."""

import json

import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import RATE, TONES, audio_config, text_config, tone
from families import AUDIO
from safetensors.torch import load_file

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel, GEmoClapTrainer
from modeling_gemoclap.evaluation.layers import starting_point
from modeling_gemoclap.objectives.gemo_clap.build import build_tokenizer
from modeling_gemoclap.runs.recipe import recipe_of
from modeling_gemoclap.runs.run import objective_of
from modeling_gemoclap.training.arguments import GEmoClapTrainingArguments
from modeling_gemoclap.training.lora import add_lora, load_adapter, save_adapter

EMOTIONS = list(TONES)


def build(head="contrastive", **options):
    return objective_of(recipe_of(head, use_cpu=True, **options)).build(EMOTIONS)


def check(head="contrastive", **options):
    objective_of(recipe_of(head, use_cpu=True, **options)).check()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    transformers.WhisperModel(audio_config("whisper")).save_pretrained(folder / "audio")
    AUDIO["whisper"].save_extractor(folder / "audio")
    transformers.RobertaModel(text_config(num_hidden_layers=2)).save_pretrained(folder / "text")
    build_tokenizer(GEmoClapConfig(emotions=EMOTIONS)).save_pretrained(folder / "text")
    return {"audio_model": str(folder / "audio"), "text_model": str(folder / "text")}


SHORT = {"audio_layers": 1, "audio_window_seconds": 0.5}


def clips(lengths):
    rng = np.random.default_rng(0)
    return [{"array": rng.standard_normal(round(n * RATE)).astype(np.float32), "sampling_rate": RATE} for n in lengths]


def shape_of(config):
    return config.num_hidden_layers, config.max_source_positions


@pytest.mark.parametrize("head", ["contrastive", "classifier", "supcon"])
def test_options_shorten_the_model_and_its_extractor(head, pretrained):
    towers = pretrained if head == "contrastive" else {"audio_model": pretrained["audio_model"]}
    more = {"text_layers": 1} if head == "contrastive" else {}
    model, processor = build(head, **towers, **SHORT, **more)
    extractor = getattr(processor, "feature_extractor", processor)
    assert shape_of(model.config.audio_config) == (1, 25) and extractor.own["chunk_length"] == 0.5
    extractor.check_window(model.config.audio_config)
    assert model.pool_audio(**extractor(clips([0.3, 1.7]))).shape == (2, 16)
    if more:
        assert model.config.text_config.num_hidden_layers == 1


def test_a_pretrained_audio_encoder_has_a_text_encoder_from_scratch(pretrained):
    options = {"audio_model": pretrained["audio_model"], "feature_config": '{"level_db": -20}', "prompt_steps": 1}
    model, processor = build(**options, **SHORT)
    assert shape_of(model.config.audio_config) == (1, 25) and processor.feature_extractor.level_db == -20
    pretrained_model, _ = build(**pretrained, **SHORT)
    for name, value in model.audio_model.state_dict().items():
        assert torch.equal(value, pretrained_model.audio_model.state_dict()[name])
    assert (
        model.training and model.config.known_words and model.config.text_config.vocab_size == len(processor.tokenizer)
    )
    assert model.config.training_data == pretrained_model.config.training_data
    with pytest.raises(ValueError, match="--text_model needs a pretrained audio encoder: give --audio_model too"):
        build(text_model=pretrained["text_model"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_layers": 1}, "--audio_layers: the audio encoder is trained from scratch: give num_hidden_layers in"),
        ({"audio_window_seconds": 1.0}, "--audio_window_seconds: the audio encoder is trained from scratch"),
        ({"text_layers": 1}, "--text_layers 1: the text encoder is trained from scratch"),
        ({"audio_layers": 1, "init_from": "x", "use_weighted_layer_sum": True}, "has a weight for each layer"),
    ],
)
def test_contradictions_are_refused_when_options_are_parsed(options, message):
    with pytest.raises(ValueError, match=message):
        check(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_layers": 3}, "audio_layers=3: the 'whisper' encoder has 2 Transformer layers"),
        ({"text_layers": 3}, "text_layers=3: the 'roberta' encoder has 2 Transformer layers"),
        ({"audio_window_seconds": 0.03}, "audio_window_seconds=0.03 must be a multiple of 0.02 s"),
        ({"audio_window_seconds": 8.0}, "longer than the window of the encoder, 2 s"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message, pretrained):
    with pytest.raises(ValueError, match=message):
        build(**pretrained, **options)


@pytest.fixture
def shortened(tmp_path, pretrained):
    """A saved checkpoint with two layers and a window of one second."""
    model, processor = build(**pretrained, audio_window_seconds=1.0)
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint", model


@pytest.mark.parametrize("head", ["contrastive", "classifier"])
def test_a_checkpoint_is_shortened_again(head, shortened, pretrained, tmp_path):
    folder, source = shortened
    same, _ = build(head, init_from=str(folder))
    assert shape_of(same.config.audio_config) == (2, 50)
    more = {"text_model": pretrained["text_model"], "text_layers": 1} if head == "contrastive" else {}
    model, processor = build(head, init_from=str(folder), **SHORT, **more)
    extractor = getattr(processor, "feature_extractor", processor)
    assert shape_of(model.config.audio_config) == (1, 25) == shape_of(model.audio_model.config)
    extractor.check_window(model.config.audio_config)
    model.save_pretrained(tmp_path / "again")
    names = {name for name in load_file(tmp_path / "again/model.safetensors") if "audio_model.layers." in name}
    assert names and all(".layers.0." in name for name in names)
    again = type(model).from_pretrained(tmp_path / "again")
    inputs = extractor(clips([0.3, 1.7]))
    assert torch.equal(again.pool_audio(**inputs), model.eval().pool_audio(**inputs))
    with pytest.raises(ValueError, match="longer than the window of the encoder, 1 s"):
        build(head, init_from=str(folder), audio_window_seconds=2.0)
    before = starting_point(model.config, str(folder)).model
    assert shape_of(before.config.audio_config) == (1, 25)
    assert torch.equal(before.audio_model.layers[0].fc1.weight, source.audio_model.layers[0].fc1.weight)


def test_a_checkpoint_whose_parts_disagree_is_refused(shortened):
    folder, _ = shortened
    file = next(
        folder / name for name in ("processor_config.json", "preprocessor_config.json") if (folder / name).is_file()
    )
    values = json.loads(file.read_text())
    values.get("feature_extractor", values)["own"]["chunk_length"] = 2
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="window of the audio encoder is 1 s .*feature extractor 2 s"):
        build("classifier", init_from=str(folder))


def test_chunks_give_the_gradient_of_the_complete_batch(pretrained, tmp_path):
    model, processor = build(**pretrained, audio_window_seconds=0.5)
    batch = dict(processor(audio=clips([0.3, 1.7, 0.6, 0.2, 1.2]), text=["a b"] * 5))
    batch |= {"emotion_labels": torch.tensor([0, 1, 2, 0, 1]), "gender_labels": torch.tensor([0, 1, 0, 1, 0])}
    results = []
    for chunk in (None, 2):
        arguments = GEmoClapTrainingArguments(tmp_path, per_device_train_batch_size=5, use_cpu=True)
        trainer = GEmoClapTrainer(model, arguments, contrastive_chunk_size=chunk)
        trainer.current_gradient_accumulation_steps = 1  # what `train` sets
        model.zero_grad()
        loss = trainer.training_step(model, dict(batch))
        results.append((loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (expected_loss, expected), (loss, gradients) = results
    assert abs(loss - expected_loss) < 1e-5 and gradients.keys() == expected.keys()
    worst = max((gradients[name] - value).abs().max() for name, value in expected.items())
    assert worst < 1e-5 < max(value.abs().max() for value in expected.values())


def test_an_adapter_is_loaded_with_the_shortened_towers(pretrained, tmp_path):
    pytest.importorskip("peft")
    names = pretrained.values()
    fields = {"emotions": EMOTIONS, "projection_dim": 12, "objective": "emo", "text_layers": 1}
    model = add_lora(
        GEmoClapModel.from_audio_text_pretrained(*names, **{**fields, **SHORT}), ["audio", "text"], rank=2
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "scale" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    inputs = {"input_features": torch.randn(2, 16, 150)}
    expected = model.eval().get_audio_features(**inputs)
    save_adapter(model, tmp_path / "adapter")
    loaded = load_adapter(tmp_path / "adapter", *names)
    assert shape_of(loaded.config.audio_config) == (1, 25) and loaded.config.text_config.num_hidden_layers == 1
    assert torch.allclose(loaded.get_audio_features(**inputs), expected, atol=1e-5)


def test_a_corpus_with_clips_longer_than_the_window_is_trained_on(train, pretrained, tmp_path):
    """All clips are 0.4 s or longer: every clip has two windows or more."""
    data = tmp_path / "corpus"
    (data / "audio").mkdir(parents=True)
    rows = ["file_name,emotion,gender,speaker_id"]
    for number, (speaker, gender) in enumerate((("1", "female"), ("2", "male"))):
        for emotion in EMOTIONS:
            name = f"audio/{speaker}_{emotion}.wav"
            soundfile.write(data / name, tone(emotion, number, 0.7 + 0.4 * number), RATE)
            rows.append(f"{name},{emotion},{gender},{speaker}")
    (data / "metadata.csv").write_text("\n".join(rows) + "\n")
    run = tmp_path / "run"
    towers = [word for name, value in pretrained.items() for word in (f"--{name}", value)]
    options = ["--no-audio_config", "--no-text_config", "--feature_config", '{"trim_silence": true, "level_db": -26}']
    options += ["--audio_window_seconds", "0.3", "--audio_layers", "1", "--text_layers", "1"]
    train("--data_dir", data, "--output_dir", run, *towers, *options, "--num_train_epochs", "1")
    config, processor = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "processor_config"))
    assert config["audio_config"]["max_source_positions"] == 15 and config["audio_config"]["encoder_layers"] == 1
    extractor = processor["feature_extractor"]
    assert extractor["own"]["chunk_length"] == 0.3 and extractor["own"]["n_samples"] == 4800
    assert (extractor["trim_silence"], extractor["level_db"]) == (True, -26)
