"""Xiang's two stages by the scripts: training, evaluation, layer similarity, initialisation, resuming, errors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import ROOT, TINY, TONES, TORCHRUN, run_script, worker_results, write_corpus
from test_distributed import AUDIO

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification, GEmoClapForXVector, GEmoClapModel
from modeling_gemoclap.corpora.manifest import load_corpora, load_corpus
from modeling_gemoclap.corpora.protocols import protocol_of
from modeling_gemoclap.evaluation.clips import EvaluationOptions
from modeling_gemoclap.evaluation.layer_similarity import compare_layers, pair_sums
from modeling_gemoclap.evaluation.layers import starting_point
from modeling_gemoclap.objectives.audio_encoder import freeze_parts
from modeling_gemoclap.runs.provenance import model_arguments_of_fold
from modeling_gemoclap.runs.recipe import parse_recipe
from modeling_gemoclap.training.arguments import ModelArguments

STAGE1 = ("--head", "supcon", "--pooling", "self_attention", "--per_device_train_batch_size", "8")
STAGE1 += ("--num_train_epochs", "4", "--lr_milestones", "2", "3", "--lr_gamma", "0.5", "--encoder_lr_factor", "0.4")
STAGE2 = ("--head", "classifier", "--pooling", "self_attention", "--classifier_hidden_size", "16")
STAGE2 += ("--freeze_audio_encoder", "true", "--cache_frozen_frames", "true", "--learning_rate", "1e-2")
USE = """
import json, sys
sys.modules["modeling_gemoclap"] = None
from transformers import AutoFeatureExtractor, AutoModelForAudioXVector, pipeline
model = AutoModelForAudioXVector.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1], trust_remote_code=True)
import soundfile
wave = soundfile.read(sys.argv[3], dtype="float32")[0]
size = list(model(**extractor(wave, sampling_rate=16000)).embeddings.shape)
answer = pipeline("audio-classification", model=sys.argv[2], trust_remote_code=True)(wave)
print(json.dumps([size, answer[0]["label"]]))
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two corpora of tones."""
    folder = tmp_path_factory.mktemp("both")
    return [write_corpus(folder / "first"), write_corpus(folder / "second", salt="s")]


@pytest.fixture(scope="module")
def stages(both, tmp_path_factory):
    """The first stage without a speaker of either corpus, and the second on the first corpus."""
    one, two = (tmp_path_factory.mktemp("runs") / name for name in ("stage1", "stage2"))
    excluded = ("--exclude_speakers", "first/04", "second/s04")
    run_script("train.py", *TINY, *STAGE1, "--data_dir", *both, *excluded, "--output_dir", one)
    options = ("--init_from", one, "--data_dir", both[0], "--exclude_speakers", "04", "--output_dir", two)
    run_script("train.py", *TINY, *STAGE2, *options)
    return one, two


def test_two_processes_have_the_loss_and_gradient_of_one():
    results = worker_results("tests/objectives/supcon_worker.py")
    assert [dtype for dtype, _ in results] == ["torch.float32", "torch.float64"]
    for dtype, errors in results:
        bound = 1e-5 if dtype == "torch.float32" else 1e-10
        assert errors.pop("loss") < bound and errors.pop("gradient") < bound, errors
        assert len(errors) == 2 and min(errors.values()) > 1e-3, "shortcuts must fail the same check"


@pytest.mark.slow
def test_two_processes_train_like_one(both, tmp_path):
    options = (*STAGE1, "--data_dir", *both, "--optimizer", "optim", "--optim", "sgd", "--learning_rate", "0.1")
    options += ("--audio_config", json.dumps(AUDIO))
    one, two = tmp_path / "one", tmp_path / "two"
    run_script("train.py", *TINY, *options, "--output_dir", one)
    more = ("--per_device_train_batch_size", 4, "--output_dir", two)
    run_script("train.py", *TINY, *options, *more, launcher=TORCHRUN)
    first, second = (GEmoClapForXVector.from_pretrained(folder).state_dict() for folder in (one, two))
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-5
    logs = [json.loads((run / "trainer_state.json").read_text())["log_history"] for run in (one, two)]
    for a, b in zip(*logs, strict=True):
        for name in {"loss", "info_nce", "cosine_margin"} & set(a):
            assert a[name] == pytest.approx(b[name], abs=2e-4)


def test_files_and_logs_of_the_first_stage(stages):
    config = GEmoClapConfig.from_pretrained(stages[0])
    assert config.architectures == ["GEmoClapForXVector"] and config.custom_pipelines == {}
    assert [record["corpus"] for record in config.training_data] == ["first", "second"]
    history = json.loads((stages[0] / "trainer_state.json").read_text())["log_history"]
    logs = [entry for entry in history if "info_nce" in entry]
    for entry in logs:
        assert entry["info_nce"] + entry["cosine_margin"] == pytest.approx(entry["loss"], rel=1e-2)
    rates = [entry["learning_rate"] for entry in logs]
    assert rates == pytest.approx([3e-3 * 0.4 * factor for factor in (1, 1, 0.5, 0.25)]), (
        "of the first group: the tower"
    )
    card = (stages[0] / "README.md").read_text()
    assert "AutoModelForAudioXVector" in card and "pipeline(" not in card and "cross-entropy" not in card


def test_the_second_stage_trains_only_pooling_and_head(stages, both):
    first, second = (GEmoClapForXVector.from_pretrained(folder).state_dict() for folder in stages)
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved == {"audio_pooling.attention.weight"}
    config = GEmoClapConfig.from_pretrained(stages[1])
    assert [(record["corpus"], record.get("stage")) for record in config.training_data] == [
        ("first", "an encoder by supervised contrast"),
        ("second", "an encoder by supervised contrast"),
        ("first", None),
    ]
    head = [type(layer).__name__ for layer in GEmoClapForAudioClassification.from_pretrained(stages[1]).classifier]
    assert head == ["Dropout", "Linear", "ReLU", "Linear"]
    card = (stages[1] / "README.md").read_text()
    assert "trained before, as an encoder by supervised contrast" in card and "baseline" not in card


@pytest.mark.slow
def test_the_second_stage_is_evaluated_and_loaded_without_the_package(stages, both, tmp_path):
    options = ("--model", stages[1], "--output_dir", tmp_path / "results")
    run_script("evaluate.py", *options, "--data_dir", both[0], "--speakers", "04")
    assert json.loads((tmp_path / "results/results.json").read_text())["uar"] > 0.6
    refused = run_script("evaluate.py", *options, "--data_dir", both[1], "--speakers", "s01", check=False)
    assert refused.returncode == 1 and "s01" in refused.stderr, "the first stage was trained on s01"
    (tmp_path / "use.py").write_text(USE)
    command = [sys.executable, "use.py", *map(str, stages), str(both[0] / "audio/04_sad_1.wav")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    size, label = json.loads(done.stdout.strip().splitlines()[-1])
    assert size == [1, 32] and label in TONES


@pytest.mark.slow
def test_layer_similarity(stages, both, tmp_path):
    options = ("--model", stages[0], "--data_dir", *both, "--layer_similarity", "--output_dir", tmp_path)
    done = run_script("evaluate.py", *options, "--speakers", "first/04", "second/s04")
    record = json.loads((tmp_path / "layer_similarity.json").read_text())
    assert record["before_is"] == "fresh weights" and record["clips"] == 24 and "| layer |" in done.stdout
    assert record["pairs"] == {"positive": 3 * 28, "positive_across": 3 * 16, "negative": 3 * 64}
    gap = {when: record[when]["positive"][-1] - record[when]["negative"][-1] for when in ("before", "after")}
    assert gap["after"] > gap["before"] and len(record["after"]["positive"]) == 2
    assert (tmp_path / "layer_similarity.png").stat().st_size > 1000
    again = ("--before", stages[0], "--speakers", "first/04")
    wrongs = {
        ("--output_dir", tmp_path / "other"): "first/01",
        ("--speakers", "first/04", "--protocol", "5-folds-by-speaker"): "leave out --protocol",
        again: "holds the results of another run, with another before, speakers",
    }
    for wrong, message in wrongs.items():
        refused = run_script("evaluate.py", *options, *wrong, check=False)
        assert refused.returncode == 1 and message in refused.stderr
    run_script("evaluate.py", *options, *again, "--overwrite_output")
    record = json.loads((tmp_path / "layer_similarity.json").read_text())
    assert record["before"] == record["after"] and record["pairs"]["positive"] == 18
    later = GEmoClapConfig.from_pretrained(stages[1])
    with pytest.raises(ValueError, match="from another checkpoint: give that with --before"):
        starting_point(later, None)
    done = run_script("evaluate.py", *options, "--allow_seen_speakers", "--overwrite_output")
    assert (
        "NOT speaker-independent: trained on speakers first/01, first/02, first/03, second/s01, second/s02, second/s03"
        in done.stdout
    )
    refused = run_script("evaluate.py", "--model", stages[0], "--data_dir", *both, check=False)
    assert refused.returncode == 1 and "predicts no emotions" in refused.stderr


def test_sums_over_pairs_against_a_loop():
    generator = np.random.default_rng(0)
    means = generator.standard_normal((9, 3, 4))
    emotions, corpora = list("aabbcacba"), [0, 1, 0, 1, 0, 1, 0, 1, 0]
    expected = {kind: [np.zeros(3), 0] for kind in ("positive", "positive_across", "negative")}
    for i in range(9):
        for j in range(i):
            cosine = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in zip(means[i], means[j], strict=True)]
            kinds = ["negative"] if emotions[i] != emotions[j] else ["positive"]
            kinds += ["positive_across"] if kinds == ["positive"] and corpora[i] != corpora[j] else []
            for kind in kinds:
                expected[kind][0] += cosine
                expected[kind][1] += 1
    for kind, (total, count) in pair_sums(means, emotions, corpora).items():
        assert count == expected[kind][1] and total == pytest.approx(expected[kind][0], abs=1e-12)


def test_cached_frames_give_the_same_weights(stages, both, train, tmp_path):
    """Pooling and head are the same without the cache, up to half precision: the frozen tower has no dropout."""
    start = tmp_path / "start"
    shutil.copytree(stages[0], start)
    config = json.loads((start / "config.json").read_text())
    config["audio_config"] |= {"hidden_dropout": 0.3}
    (start / "config.json").write_text(json.dumps(config))
    options = (*STAGE2, "--init_from", start, "--data_dir", both[0], "--num_train_epochs", 3)
    options += ("--feature_cache_dir", tmp_path / "cache")
    train(*options, "--output_dir", tmp_path / "kept")
    train(*options, "--output_dir", tmp_path / "anew", "--cache_frozen_frames", "false")
    kept, anew = (
        GEmoClapForAudioClassification.from_pretrained(tmp_path / name).state_dict() for name in ("kept", "anew")
    )
    for name, value in kept.items():
        torch.testing.assert_close(value, anew[name], atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("family", ["compact", "wavlm-base", "hubert-large", "data2vec-base"])
def test_frames_and_layer_means_do_not_depend_on_the_batch(family, make_model):
    from conftest import batch_of

    model = make_model(family, model_class=GEmoClapForXVector, pooling="self_attention")
    lengths = (16000, 8000, 12000)
    batch, clips = batch_of(model, lengths)
    with torch.no_grad():
        frames, means, pooled = model.frozen_states(**batch), model.layer_means(**batch), model.pool_audio(**batch)
        for row, clip in enumerate(clips):
            [(alone, count)] = model.frozen_states(**{model.main_input_name: clip[None]})
            torch.testing.assert_close(frames[row][0], alone, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(means[row, -1], alone[0].mean(0), atol=1e-5, rtol=1e-4)
            assert frames[row][1] == count == alone.shape[1]
            from_frames = model.pool_audio(audio_frames=alone[None])
            torch.testing.assert_close(pooled[row], from_frames[0], atol=1e-5, rtol=1e-4)


def test_gemo_clap_starts_from_the_first_stage(stages, both, train, tmp_path):
    options = ("--init_from", stages[0], "--data_dir", both[0], "--exclude_speakers", "04", "--max_steps", "1")
    train(*options, "--pooling", "self_attention", "--learning_rate", "1e-12", "--output_dir", tmp_path / "run")
    first, second = GEmoClapForXVector.from_pretrained(stages[0]), GEmoClapModel.from_pretrained(tmp_path / "run")
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)
    assert len(second.config.training_data) == 3


def test_a_resumed_first_stage_gives_the_same_weights(both, tmp_path, train):
    options = (*STAGE1, "--data_dir", *both, "--save_strategy", "epoch")
    train(*options, "--output_dir", tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "killed")
    steps = sorted(int(path.name[11:]) for path in (tmp_path / "killed").glob("checkpoint-*"))
    for step in steps[2:]:
        shutil.rmtree(tmp_path / f"killed/checkpoint-{step}")
    train(*options, "--output_dir", tmp_path / "killed", "--resume_from_checkpoint", "true")
    straight, resumed = (
        GEmoClapForXVector.from_pretrained(tmp_path / name).state_dict() for name in ("straight", "killed")
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_folds_of_a_mixture_are_the_folds_of_its_corpora(both, tmp_path):
    mixed, alone = load_corpora(list(map(str, both))), load_corpus(both[1])
    for seed in (0, 1):
        mixed_folds, folds = (protocol_of("2-folds-by-speaker", corpus, seed).folds for corpus in (mixed, alone))
        assert [[s[7:] for s in fold if s.startswith("second/")] for fold in mixed_folds] == folds


@pytest.mark.slow
def test_protocols_of_both_stages(both, train, tmp_path):
    """Each fold of the second stage starts from the fold of the first stage that left out its test speakers."""
    protocol = ("--protocol", "2-folds-by-speaker", "--num_train_epochs", 2)
    train(*STAGE1, "--data_dir", *both, *protocol, "--output_dir", tmp_path / "one")
    assert not (tmp_path / "one/shuffled_labels").exists(), "the first stage is not evaluated, so it needs no control"
    options = (*STAGE2, *protocol, "--init_from", tmp_path / "one")
    train(*options, "--data_dir", both[1], "--output_dir", tmp_path / "two")
    for fold in (0, 1):
        place = f"fold_{fold}/seed_42"
        first, second = (
            GEmoClapForXVector.from_pretrained(tmp_path / run / place).state_dict() for run in ("one", "two")
        )
        assert torch.equal(
            first["audio_model.conv_blocks.0.conv.weight"], second["audio_model.conv_blocks.0.conv.weight"]
        )
    run_script(
        *("evaluate.py", "--model", tmp_path / "two", "--data_dir", both[1], "--protocol", "2-folds-by-speaker"),
    )
    record = compare_layers(
        tmp_path / "one", load_corpora(list(map(str, both))), options=EvaluationOptions(device="cpu")
    )
    assert record["clips"] == 96, "every clip is evaluated by a fold that was not trained on its speaker"
    with pytest.raises(ValueError, match="was trained on.*which fold 0 tests"):
        train(*options, "--seeds", 1, "--init_from", tmp_path / "one/fold_0/seed_42", "--data_dir", both[1],
              "--output_dir", tmp_path / "leak")  # fmt: skip
    assert not (tmp_path / "two/shuffled_labels").exists(), "its encoder was trained on the true labels"
    with pytest.raises(ValueError, match="with seed 7 no fold left out"):
        train(*options, "--seeds", 7, "--data_dir", both[1], "--output_dir", tmp_path / "three")
    shutil.rmtree(tmp_path / "one/fold_1")
    with pytest.raises(ValueError, match="fold_1.*not trained to its end"):
        compare_layers(tmp_path / "one", load_corpora(list(map(str, both))), options=EvaluationOptions(device="cpu"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*STAGE1, "--per_device_train_batch_size", "10"), "multiple of 4; give 8"),
        ((*STAGE1, "--per_device_train_batch_size", "72"), "a step of 72 needs 18"),
        ((*STAGE1, "--dev_speakers", "first/01"), "no development clips"),
        ((*STAGE1, "--contrastive_chunk_size", "2"), "contrastive_chunk_size"),
        ((*STAGE1, "--class_balanced_sampling", "true"), "class_balanced_sampling"),
        ((*STAGE2, "--init_from", "no-such"), "no-such: no such folder"),
        ((*STAGE2, "--init_from", "{mean}"), "has pooling mean, and --pooling is self_attention"),
        ((*STAGE2, "--init_from", "{bert}"), "a 'bert' model, which has no pooling"),
        ((*STAGE2, "--init_from", "{stage1}", "--audio_config", '{"hidden_size": 64}'), "has hidden_size 32"),
        ((*STAGE2, "--init_from", "{stage1}", "--audio_model", "x"), "has an audio tower already"),
        ((*STAGE2, "--init_from", "{stage1}", "--max_seconds", "1"), "leave out --max_seconds"),
        (
            (*STAGE2, "--init_from", "{stage1}", "--audio_config", '{"hiden_size": 32}'),
            "no field 'hiden_size'; did you mean hidden_size",
        ),
        (STAGE2, "give --audio_model or --init_from"),
        ((*STAGE2, "--freeze_audio_encoder", "false"), "cache_frozen_frames needs --freeze_audio_encoder true"),
        (("--encoder_lr_factor", "0"), "encoder_lr_factor 0.0 must be above 0"),
        ((*STAGE1, "--supcon_temperature", "0"), "supcon_temperature 0.0 must be above 0"),
        ((*STAGE1, "--auto_find_batch_size", "true"), "auto_find_batch_size"),
        ((*STAGE1, "--max_steps", "3"), "cannot be combined with max_steps"),
        ((*STAGE1, "--lr_gamma", "-1"), "lr_gamma -1.0 must be above 0"),
        ((*STAGE1, "--warmup_steps", "3"), "leave out lr_scheduler_type and warmup_steps"),
    ],
)
def test_bad_input(options, message, stages, trained, both, train, tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert"}')
    places = {"mean": trained, "bert": tmp_path / "bert", "stage1": stages[0]}
    options = [
        option.format(**places) if option.startswith("{") and ":" not in option else option for option in options
    ]
    with pytest.raises(ValueError, match=message):
        train("--data_dir", *both, *options, "--output_dir", tmp_path / "run")


def test_corpora_with_different_words_for_an_emotion(both, train, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(both[1], other)
    text = (other / "metadata.csv").read_text()
    for word, foreign in (("angry,", "wut,"), ("happy,", "freude,"), ("sad,", "trauer,")):
        text = text.replace(word, foreign)
    (other / "metadata.csv").write_text(text)
    options = (*STAGE1, "--data_dir", both[0], other, "--num_train_epochs", 1)
    with pytest.raises(ValueError, match="emotion 'wut' is not known.*--emotion_map"):
        train(*options, "--output_dir", tmp_path / "run")
    named = ("--emotions", *TONES, "wut", "freude", "trauer")
    with pytest.raises(
        ValueError, match="share no emotion: first has angry, happy, sad; other has wut.*--emotion_map"
    ):
        train(*options, *named, "--output_dir", tmp_path / "run")
    wrongs = {
        "[1]": "JSON object",
        '{"wut": ["angry"]}': "JSON object",
        '{"wut": "zorn"}': "'zorn', which is not known",
    }
    for wrong, message in wrongs.items():
        with pytest.raises(ValueError, match=message):
            train(*options, "--emotion_map", wrong, "--output_dir", tmp_path / "run")
    words = '{"wut": "anger", "freude": "happy", "trauer": "sad"}'
    train(*options, "--emotion_map", words, "--output_dir", tmp_path / "run")
    assert GEmoClapConfig.from_pretrained(tmp_path / "run").emotions == sorted(TONES)


@pytest.mark.parametrize("name", ["leave-one-speaker-out", "2-folds-by-speaker", "3-folds-speaker-dependent"])
def test_the_fold_that_a_fold_starts_from(name, both, tmp_path):
    """The fold left out all test speakers or clips; its number may differ."""
    mixed, alone = load_corpora(list(map(str, both))), load_corpus(both[1])
    first_stage, second_stage = protocol_of(name, mixed, 1), protocol_of(name, alone, 1)
    run = {"corpus": mixed.name, "protocols": {"1": first_stage.to_dict()}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    for fold in range(len(first_stage.folds)):
        (tmp_path / f"fold_{fold}/seed_1").mkdir(parents=True)
        (tmp_path / f"fold_{fold}/seed_1/fold.json").write_text("{}")
    arguments = ModelArguments(init_from=str(tmp_path))
    for fold, tested in enumerate(second_stage.folds):
        start = Path(model_arguments_of_fold(arguments, second_stage, alone, fold, 1).init_from)
        number = int(start.parent.name.removeprefix("fold_"))
        assert {f"second/{value}" for value in tested} <= set(first_stage.folds[number])
    (tmp_path / "fold_0/seed_1/fold.json").unlink()
    with pytest.raises(ValueError, match="fold_0.*: its training is not finished"):
        model_arguments_of_fold(arguments, first_stage, mixed, 0, 1)
    with pytest.raises(ValueError, match="no fold left out"):
        model_arguments_of_fold(arguments, protocol_of("leave-one-speaker-out", alone, 2), alone, 0, 2)


@pytest.mark.parametrize("pretrained", [True, False])
def test_frozen_parts(pretrained, make_model, monkeypatch, caplog):
    """Convolutions and feature projection of a pretrained encoder; nothing of a new encoder, with a warning."""
    monkeypatch.setattr(transformers.utils.logging.get_logger(), "propagate", True)
    model = make_model("wavlm-base", model_class=GEmoClapForXVector, pooling="self_attention")
    arguments = ModelArguments(freeze_feature_encoder=True, freeze_feature_projection=True)
    arguments.audio_model = "wavlm" if pretrained else None
    freeze_parts(model, arguments)
    frozen = {name.split(".")[1] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen - {"masked_spec_embed"} == ({"feature_extractor", "feature_projection"} if pretrained else set())
    assert model.audio_pooling.attention.weight.requires_grad
    assert ("--freeze_feature_* has no effect" in caplog.text) != pretrained
    with pytest.raises(ValueError, match="no feature projection"):
        make_model("whisper", model_class=GEmoClapForXVector).freeze_feature_projection()


@pytest.mark.parametrize("name", ["stage1", "stage2", "direct"])
def test_configurations_agree_with_the_paper(name):
    recipe = parse_recipe(["--config", str(ROOT / f"configs/supcon_{name}.yaml"), "--use_cpu", "true"])
    arguments = recipe.training
    assert recipe.model.pooling == "self_attention" and arguments.per_device_train_batch_size == 32
    published = {
        "stage1": (1e-4, 50, [25, 30, 35, 40, 45], 0.5),
        "stage2": (5e-4, 10, [5], 0.1),
        "direct": (1e-3, 50, [20, 40], 0.2),
    }
    found = (arguments.learning_rate, arguments.num_train_epochs, arguments.lr_milestones, arguments.lr_gamma)
    assert found == published[name] and arguments.optimizer == "adam"
    assert (arguments.encoder_lr_factor == 0.4) == (name != "stage2")
    if name == "stage1":
        options = recipe.options
        assert (options.supcon_temperature, options.supcon_alpha, options.supcon_margin) == (0.07, 0.5, 0.4)
