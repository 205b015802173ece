"""Distillation: the loss against a teacher, what it teaches about prompts, and the record of what it has heard."""

import json
import shutil

import pytest
import torch
from conftest import run_script
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from modeling_gemoclap import GEmoClapConfig, GEmoClapModel, GEmoClapProcessor
from modeling_gemoclap.corpora.provenance import TEACHER
from modeling_gemoclap.objectives.gemo_clap.distillation import Distillation
from modeling_gemoclap.runs.recipe import recipe_of

PROMPTS = ("--prompt_steps", 5)
WITHOUT_DROPOUT = json.dumps(  # its random numbers would differ between chunks and the complete batch
    {"num_mel_bins": 16, "conv_channels": [8, 8], "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    | {"intermediate_size": 32, "apply_spec_augment": False, "conv_dropout": 0.0, "hidden_dropout": 0.0}
)
TWO = ("--protocol", "2-folds-by-speaker", "--num_train_epochs", 1, "--control", "false")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def student(trained, tones, tmp_path_factory):
    """A student of `trained`, which has heard speakers 01, 02 and 03, that itself has heard 01 only."""
    folder = tmp_path_factory.mktemp("students") / "student"
    options = ("--data_dir", tones, "--speakers", "01", "--num_train_epochs", 6, "--prompt_steps", 300)
    run_script("train.py", "--config", "tests/tiny.yaml", "--distil_from", trained, *options, "--output_dir", folder)
    return folder


def test_the_loss_equals_that_computed_by_hand():
    generator = torch.Generator().manual_seed(0)
    student, teacher, texts = (F.normalize(torch.randn(n, 5, generator=generator), dim=1) for n in (4, 4, 3))
    teacher[3] = 0  # a clip that only fills the batch
    distances, divergences = Distillation(texts, scale=7.0, temperature=2.0).losses(student, teacher)
    for clip in range(3):
        p, q = (torch.softmax(7.0 * texts @ embeds[clip] / 2.0, 0) for embeds in (teacher, student))
        assert distances[clip].item() == pytest.approx(1 - float(student[clip] @ teacher[clip]), abs=1e-6)
        assert divergences[clip].item() == pytest.approx(4 * float((p * (p / q).log()).sum()), abs=1e-5)
    assert distances[3] == divergences[3] == 0
    same = Distillation(texts, 7.0).losses(teacher, teacher)
    assert all(value.abs().max() < 1e-5 for value in same), "zero for the teacher's own embeddings"


def test_the_student_learns_embeddings_and_prompts_of_the_teacher(student, trained, tones):
    models = [GEmoClapModel.from_pretrained(folder).eval() for folder in (student, trained)]
    processors = [GEmoClapProcessor.from_pretrained(folder) for folder in (student, trained)]
    prompts = [
        "this person is feeling angry",
        "this person is feeling livid",
        "this female person is feeling tranquil",
    ]
    pairs = list(zip(models, processors, strict=True))
    with torch.no_grad():
        texts = [model.get_text_features(**processor(text=prompts)) for model, processor in pairs]
        clips = sorted(map(str, (tones / "audio").glob("01_*.wav")))
        audio = [model.get_audio_features(**processor(audio=clips)) for model, processor in pairs]
    assert (texts[0] * texts[1]).sum(1).min() > 0.8, "also for words that no class and no synonym has"
    assert (audio[0] * audio[1]).sum(1).mean() > 0.7
    assert {"livid", "tranquil"} <= set(models[0].config.known_words)
    state = json.loads((student / "trainer_state.json").read_text())["log_history"]
    logs = [entry for entry in state if "teacher_distance" in entry]
    assert logs[-1]["teacher_distance"] < logs[0]["teacher_distance"]
    weighted = logs[-1]["teacher_distance"] + logs[-1]["teacher_divergence"]
    contrastive = logs[-1]["cross_entropy"] - logs[-1]["cross_entropy_floor"]
    assert logs[-1]["loss"] == pytest.approx(weighted + contrastive, abs=1e-3)


def test_what_the_teacher_has_heard_counts_as_heard(student, trained, tones, tmp_path):
    config = config_of(student)
    own, teachers = ([r for r in config["training_data"] if (r.get("stage") == TEACHER) is x] for x in (False, True))
    assert [record["speakers"] for record in own] == [["01"]]
    assert [record["speakers"] for record in teachers] == [["01", "02", "03"]]
    assert config["distilled_from"]["name"] == trained.name
    assert config["distilled_from"]["weights_sha256"] == config_of(trained)["weights_sha256"]
    assert str(trained.parent) not in (student / "config.json").read_text(), "no path of the teacher"
    evaluate = ("evaluate.py", "--model", student, "--data_dir", tones, "--output_dir", tmp_path, "--speakers")
    done = run_script(*evaluate, "02", check=False)
    assert done.returncode == 1 and "02" in done.stderr, "a speaker that only the teacher has heard"
    run_script(*evaluate, "04")


def test_the_card_says_who_taught(student, trained):
    card = (student / "README.md").read_text()
    assert f"| teacher | `{trained.name}`" in card and "(heard by the teacher of this model)" in card
    assert "and on those of the teacher" in card and "trained from scratch" in card
    assert "| teacher |" not in (trained / "README.md").read_text()


def test_a_run_goes_on_with_its_own_teacher_only(train, trained, tones, tmp_path):
    shutil.copytree(trained, tmp_path / "other")
    weights = load_file(trained / "model.safetensors")
    weights["audio_logit_scale"] += 0.1
    save_file(weights, tmp_path / "other/model.safetensors", metadata={"format": "pt"})
    options = ("--data_dir", tones, *PROMPTS, "--save_strategy", "epoch", "--output_dir", tmp_path / "run")
    train(*options, "--distil_from", trained, "--num_train_epochs", 1)
    resume = ("--resume_from_checkpoint", "true", "--num_train_epochs", 1)
    shutil.copytree(trained, tmp_path / "moved")
    train(*options, "--distil_from", tmp_path / "moved", *resume)
    with pytest.raises(ValueError, match="of another run.*distil_from"):
        train(*options, "--distil_from", tmp_path / "other", *resume)


def test_chunks_give_the_same_weights(train, trained, tones, tmp_path):
    options = ("--data_dir", tones, "--prompt_steps", 5, "--distil_from", trained, "--num_train_epochs", 1)
    options += ("--optimizer", "optim", "--optim", "sgd", "--learning_rate", 0.05, "--audio_config", WITHOUT_DROPOUT)
    for name, more in (("all", ()), ("chunks", ("--contrastive_chunk_size", 5)), ("none", ("--distil_weight", 0))):
        train(*options, *more, "--output_dir", tmp_path / name)
    first, chunks, none = (load_file(tmp_path / name / "model.safetensors") for name in ("all", "chunks", "none"))
    name = "audio_projection.linear2.weight"
    assert torch.allclose(first[name], chunks[name], atol=1e-5)
    assert (first[name] - none[name]).abs().max() > 1e-3, "the teacher changes the weights"


@pytest.mark.slow
def test_each_fold_has_the_teacher_that_left_out_its_speakers(train, tones, tmp_path):
    train("--data_dir", tones, *TWO, "--seeds", 3, "--output_dir", tmp_path / "teacher")
    options = ("--data_dir", tones, *TWO, *PROMPTS, "--seeds", 3, 4, "--output_dir", tmp_path / "student")
    with pytest.raises(ValueError, match="was trained on .*which fold . tests"):
        train(*options, "--distil_from", tmp_path / "teacher/fold_0/seed_3")
    assert not (tmp_path / "student").exists(), "refused before anything is written"
    train(*options[:-4], 3, "--distil_from", tmp_path / "teacher", *options[-2:])
    for fold in (0, 1):
        config = config_of(tmp_path / f"student/fold_{fold}/seed_3")
        assert config["distilled_from"]["name"] == f"teacher/fold_{fold}/seed_3"
    run_script("evaluate.py", "--model", tmp_path / "student", "--data_dir", tones, "--protocol", TWO[1])
    assert not (tmp_path / "student/shuffled_labels").exists()
    with pytest.raises(ValueError, match="is the run of a protocol.*give --protocol"):
        train("--data_dir", tones, *PROMPTS, "--distil_from", tmp_path / "teacher", "--output_dir", tmp_path / "x")
    shutil.rmtree(tmp_path / "teacher/fold_1")
    with pytest.raises(ValueError, match="--distil_from .*fold_1.*not finished"):
        train(*options[:-4], 3, "--distil_from", tmp_path / "teacher", "--output_dir", tmp_path / "y")


@pytest.mark.parametrize(
    "options, message",
    [
        (("--projection_dim", 32), "projection_dim 64, and --projection_dim is 32"),
        (("--prompt_steps", 0), "give the number of steps by --prompt_steps"),
        (("--text_model", "x"), "leave out --text_model"),
        (("--distil_weight", -1), "--distil_weight -1.0 must be at least 0"),
        (("--distil_temperature", 0), "--distil_temperature 0.0 must be above 0"),
        (("--distil_from", "no-such"), "--distil_from no-such: no such folder"),
        (("--head", "classifier"), "is an option of --head contrastive"),
    ],
)
def test_options_that_are_refused(options, message, train, trained, tones, tmp_path):
    with pytest.raises(ValueError, match=message):
        train("--data_dir", tones, *PROMPTS, "--distil_from", trained, "--output_dir", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_teacher_without_texts_is_refused(make_model, tmp_path):
    from modeling_gemoclap import GEmoClapForAudioClassification
    from modeling_gemoclap.objectives.gemo_clap.teacher import Teacher

    make_model(model_class=GEmoClapForAudioClassification).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a checkpoint without a text encoder"):
        Teacher(str(tmp_path), 12)


def test_without_a_teacher_nothing_changes():
    """Neither the tokenizer nor the configuration of a model that no teacher taught."""
    from modeling_gemoclap.objectives.gemo_clap.build import build_model_and_processor

    recipe = recipe_of(prompt_steps=5)
    model, processor = build_model_and_processor(recipe.model, recipe.options, GEmoClapConfig().emotions)
    assert not hasattr(model.config, "distilled_from") and len(processor.tokenizer) <= 600
    assert "livid" not in model.config.known_words
