"""Options: ranges, YAML files, unsetting, paths, and the choice of the optimizer."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ROOT, load_script
from transformers import TrainingArguments

from modeling_gemoclap import GEmoClapAudioConfig, GEmoClapConfig, GEmoClapTrainer
from modeling_gemoclap.command_line.files import json_object, read_yaml, typed
from modeling_gemoclap.command_line.ranges import Range, out_of_range
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.registry import OBJECTIVES
from modeling_gemoclap.runs.recipe import check_recipe, option_names, parse_recipe
from modeling_gemoclap.training.arguments import (
    TRAINER_RANGES,
    DataArguments,
    GEmoClapTrainingArguments,
    ModelArguments,
)
from modeling_gemoclap.training.augmentation import Augmentation

OPTION_GROUPS = (ModelArguments, DataArguments, GEmoClapTrainingArguments)
OPTION_GROUPS += tuple(objective.Options for objective in OBJECTIVES.values())
HEADS = {name: head for head, objective in OBJECTIVES.items() for name in vars(objective.Options())}


def parsed(*words):
    """All options of a recipe, in one namespace."""
    recipe = parse_recipe([*map(str, words), "--use_cpu", "true"])
    groups = (recipe.model, recipe.options, recipe.data, recipe.training)
    return SimpleNamespace(**{name: getattr(group, name) for group in groups for name in option_names(type(group))})


def head_of(option):
    """Words that select the objective which has an option; none for shared options."""
    return ("--head", HEADS[option]) if option in HEADS else ()


def write_options(tmp_path, text):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    return path


# ---- ranges ---------------------------------------------------------------------------------------------------------
def project_fields():
    inherited = {field.name for field in dataclasses.fields(TrainingArguments)}
    return [field for group in OPTION_GROUPS for field in dataclasses.fields(group) if field.name not in inherited]


def test_every_numeric_option_has_a_range():
    numbers = [field.name for field in project_fields() if "float" in str(field.type) or "int" in str(field.type)]
    without = [field.name for field in project_fields() if field.name in numbers and "within" not in field.metadata]
    assert len(numbers) > 30 and not without


def test_defaults_and_configurations_are_in_range():
    check_recipe([], "nothing")
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        if "\ncells:" not in path.read_text():
            check_recipe(["--config", str(path)], path.name)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("projection_dim", ("0", "-1")),
        ("logit_scale_init_value", ("nan", "inf", "-inf", "5")),
        ("unknown_gender_prob", ("1.5", "-0.1", "nan")),
        ("alpha", ("2", "nan")),
        ("num_dev_speakers", ("-1",)),
        ("max_seconds", ("0", "-1", "nan", "inf")),
        ("calibration_folds", ("1", "-2")),
        ("label_fraction", ("0", "1.1")),
        ("noise_prob", ("1.5",)),
        ("supcon_temperature", ("0", "nan")),
        ("speaker_clusters", ("1", "0")),
        ("projection_dropout", ("1", "-0.1")),
        ("pooled_dropout", ("1", "-0.1", "nan")),
        ("classifier_hidden_size", ("0",)),
        ("lora_rank", ("0",)),
        ("encoder_lr_factor", ("0", "1.5", "nan")),
        ("contrastive_chunk_size", ("0",)),
        ("preprocessing_num_workers", ("0",)),
        ("prompt_steps", ("-1",)),
        ("folds", ("-1",)),
        ("seeds", ("-1", str(2**32))),
        ("num_train_epochs", ("0", "-1", "nan", "inf")),
        ("per_device_train_batch_size", ("0", "-4")),
        ("per_device_eval_batch_size", ("0",)),
        ("learning_rate", ("-0.1", "nan", "inf")),
        ("max_steps", ("0", "-2")),
        ("warmup_steps", ("-1",)),
        ("adam_beta1", ("1", "-0.1")),
        ("adam_epsilon", ("0", "nan")),
        ("weight_decay", ("-1", "nan")),
        ("seed", ("-1", str(2**32))),
        ("gradient_accumulation_steps", ("0",)),
    ],
)
def test_out_of_range(option, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"--{option} {value[:4]}.* must be"):
            parsed(f"--{option}={value}", *head_of(option))


def test_all_values_out_of_range_are_reported_together():
    with pytest.raises(ValueError) as error:
        parsed("--alpha", "2", "--projection_dim", "0", "--num_train_epochs", "0", "--seeds", "1", "-3")
    message = str(error.value)
    assert "--alpha 2.0 must be at least 0 and at most 1" in message
    assert "--projection_dim 0 must be at least 1" in message
    assert "--num_train_epochs 0.0 must be above 0" in message and "--seeds 1 -3 must be" in message


def test_ranges_of_transformers_options_name_existing_fields():
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    version_dependent = {"warmup_ratio", "ddp_bucket_cap_mb", "dataloader_prefetch_factor"}
    assert set(TRAINER_RANGES) - version_dependent <= names


def test_range():
    allowed = Range(above=0, at_most=1, also_allowed=(-1,))
    assert [value in allowed for value in (0, 0.1, 1, 1.1, -1, math.nan, math.inf)] == [0, 1, 1, 0, 1, 0, 0]
    assert str(allowed) == "above 0 and at most 1 or -1" and str(Range()) == "finite"
    assert out_of_range({"a": [0.5, math.nan], "b": "text", "c": None}, dict.fromkeys("abc", allowed)) == [
        "a 0.5 nan must be finite and above 0 and at most 1 or -1"
    ]


def test_python_objects_check_the_same_ranges(make_model):
    from modeling_gemoclap.objectives.speaker_clusters.trainer import SpeakerTrainer
    from modeling_gemoclap.objectives.two_stage.sampler import CorpusSampling
    from modeling_gemoclap.objectives.two_stage.trainer import SupConTrainer
    from modeling_gemoclap.training.lora import add_lora

    with pytest.raises(ValueError, match="mel_warp nan must be finite"):
        Augmentation(mel_warp=math.nan)
    with pytest.raises(ValueError, match="unknown_gender_prob 1.5"):
        GEmoClapCollator(None, None, 1.5)
    with pytest.raises(ValueError, match="supcon_temperature nan"):
        SupConTrainer(sampling=CorpusSampling([]), temperature=math.nan)
    with pytest.raises(ValueError, match="speaker_temperature nan"):
        SpeakerTrainer(temperature=math.nan)
    with pytest.raises(ValueError, match="speaker_weight 0"):
        SpeakerTrainer(weight=0, task="adversarial")
    with pytest.raises(ValueError, match="lora_rank 0"):
        add_lora(make_model(), ["audio"], rank=0)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("projection_dim", (0, -1, 1.5, "8", math.nan)),
        ("projection_hidden_size", (0,)),
        ("classifier_hidden_size", (0,)),
        ("logit_scale_init_value", (math.nan, math.inf, -math.inf, 4.7)),
        ("alpha", (math.nan, 1.1, -0.1)),
        ("projection_dropout", (1, math.nan)),
        ("pooled_dropout", (1, -0.1, math.nan, "0.1")),
        ("calibration_temperature", (0, -1, math.nan, math.inf)),
        ("initializer_range", (-1, math.nan)),
    ],
)
def test_configuration_checks_ranges(field, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{field}=.* must be"):
            GEmoClapConfig(**{field: value})


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "num_mel_bins", "num_hidden_layers"])
def test_audio_configuration_checks_ranges(field):
    for value in (0, math.nan, "8"):
        with pytest.raises(ValueError, match=f"{field}=.* must be"):
            GEmoClapAudioConfig(**{field: value})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch_size", "0"), "--batch_size: 0 must be at least 1"),
        (("--batch_size", "x"), "--batch_size: invalid int"),
        (("--seeds", "-1"), "--seeds: -1 must be at least 0"),
        (("--speaker_clusters", "1"), "--speaker_clusters: 1 must be at least 2"),
        (("--batch", "4"), "unrecognized arguments: --batch"),
    ],
)
def test_options_of_evaluate(words, message):
    with pytest.raises(ValueError, match=message):
        load_script("evaluate").parse(["--data_dir", "x", *words])


@pytest.mark.parametrize("device", ["nonsense", "cuda:7", "meta"])
def test_missing_device_is_refused(tones, tmp_path, device):
    with pytest.raises(ValueError, match=f"--device {device}: .*(cpu|leave it out)"):
        load_script("evaluate").main(["--model", str(tmp_path), "--data_dir", str(tones), "--device", device])


# ---- YAML and JSON --------------------------------------------------------------------------------------------------
def test_yaml_keeps_identifiers_as_text(tmp_path):
    ids = ["01", "04", "0011", "no", "1e5", "1_000", "0x1F", "12:30:45", "2026-01-01", "true", "1.10", "010"]
    path = write_options(
        tmp_path, f"exclude_speakers: [{', '.join(ids)}]\ndev_speakers: 07\nspeakers:\n  - 'null'\n  - \"~\"\n"
    )
    data = parsed("--config", path)
    assert data.exclude_speakers == ids and data.dev_speakers == ["07"] and data.speakers == ["null", "~"]


def test_yaml_values_are_converted_by_the_type_of_the_option(tmp_path):
    text = "learning_rate: 2e-5\nalpha: .5\nnum_train_epochs: 3\nsave_strategy: no\ndataloader_drop_last: yes\n"
    text += "audio_model: ~\nmax_seconds: null\nrun_name:\nlr_milestones: [1, 2.5]\ncorpus_name: 2019\n"
    text += "emotion_map: {W: angry, 01: happy, no: neutral}\n"
    text += "audio_config: {hidden_size: 8, apply_spec_augment: false, hidden_dropout: 1e-1, y: no, x: 0x1F}\n"
    options = parsed("--config", write_options(tmp_path, text))
    assert (options.learning_rate, options.alpha, options.num_train_epochs) == (2e-5, 0.5, 3)
    assert options.save_strategy == "no" and options.dataloader_drop_last is True
    assert (options.audio_model, options.max_seconds, options.lr_milestones) == (None, None, [1, 2.5])
    assert options.corpus_name == ["2019"]
    assert json.loads(options.emotion_map) == {"W": "angry", "01": "happy", "no": "neutral"}
    assert json.loads(options.audio_config) == {
        **{"hidden_size": 8, "apply_spec_augment": False, "hidden_dropout": 0.1, "y": "no", "x": "0x1F"}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: 0.8\nobjective: sl\nalpha: 0.9", "duplicate key 'alpha', first in line 1"),
        ("audio_config: {hidden_size: 8, hidden_size: 16}", "duplicate key 'hidden_size'"),
        ("audio_config: {hidden_dropout: .nan}", "not a finite number"),
        ("num_train_epochs: 1e5x", "options.yaml: --num_train_epochs.*invalid float value: '1e5x'"),
        ("per_device_train_batch_size: 1e3", "options.yaml: .*invalid int value: '1e3'"),
        ("exclude_speakers: [~, 02]", "options.yaml: exclude_speakers must be a list of plain values"),
        ("exclude_speakers: []", "options.yaml: --exclude_speakers"),
        ("alpha: [1, 2]", "options.yaml"),
        ("<<: {alpha: 1}", "options.yaml: no field"),
        ("just text", "options.yaml: .* mapping"),
        ("? [a, b]\n: 1", "options.yaml: not YAML"),
    ],
)
def test_invalid_files_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parsed("--config", write_options(tmp_path, text))


def test_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("# Gefühl\nalpha: 0.8\n".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.yaml: not UTF-8"):
        parsed("--config", path)


def test_yaml_files_of_the_project_read_as_with_a_standard_reader():
    """`read_yaml` with `typed` gives the values of `yaml.safe_load` for all YAML files of the project."""
    for path in [*ROOT.glob("configs/*.yaml"), ROOT / "benchmarks/evidence.yaml", ROOT / "tests/tiny.yaml"]:
        expected = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert repr(typed(read_yaml(path), keys=True)) == repr(expected), path.name


def test_grid_cells_keep_identifiers_as_text(tmp_path):
    grid = load_script("grid")
    text = "base: b\nprotocol: p\nvary: {exclude_speakers: [01, 010]}\n"
    text += "cells: [{name: first, speakers: [01, no], max_seconds: ~, audio_config: {hidden_size: 8}, seed: 0o7}]\n"
    path = write_options(tmp_path, text)
    file_options, cells = grid.cells_of(str(path))
    options = grid.parse(["--config", str(path), "--data_dir", "~/x", "--output_dir", str(tmp_path)])
    _, train, _ = grid.commands_of(cells[0], file_options, options)
    assert train[2:8] == [
        "--speakers",
        "01",
        "no",
        "--no-max_seconds",
        '--audio_config={"hidden_size": 8}',
        "--seed=0o7",
    ]
    assert [cell["exclude_speakers"] for cell in cells[1:]] == ["01", "010"]
    path.write_text("cells: [{name: a, alpha: 1, alpha: 2}]")
    with pytest.raises(ValueError, match="duplicate key 'alpha'"):
        grid.cells_of(str(path))


def test_invalid_cell_is_refused_before_training(tmp_path, monkeypatch):
    grid = load_script("grid")
    monkeypatch.setattr(grid, "run", lambda command: pytest.fail("a command was run"))
    base = write_options(tmp_path, "alpha: 0.8\n")
    for cell, message in (("alpah: 0.9", "no option --alpah; did you mean --alpha"), ("alpha: 9", "--alpha 9")):
        path = tmp_path / "grid.yaml"
        path.write_text(f"base: {base}\nprotocol: p\ncells: [{{name: good}}, {{name: bad, {cell}}}]")
        with pytest.raises(ValueError, match=f"grid.yaml: the cell 'bad': {message}"):
            grid.main(["--config", str(path), "--data_dir", "x", "--output_dir", str(tmp_path / "runs")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": {"b": -Infinity}}', "not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "duplicate key 'c'"),
        ("[1]", "JSON object"),
        ("{", "not JSON"),
    ],
)
def test_json_options(tones, text, message):
    with pytest.raises(ValueError, match=message):
        json_object(text, "--audio_config")
    for option in (
        "audio_config",
        "text_config",
        "feature_config",
        "emotion_synonyms",
        "emotion_map",
    ):
        with pytest.raises(ValueError, match=f"--{option}: .*{message}"):
            parsed(f"--{option}", text)
    words = ["--model", "x", "--data_dir", str(tones), "--emotion_map", text]
    with pytest.raises(ValueError, match=f"--emotion_map: .*{message}"):
        load_script("evaluate").main(words)


def test_json_in_options_of_transformers():
    with pytest.raises(ValueError, match="--lr_scheduler_kwargs: .*duplicate key 'a'"):
        parsed("--lr_scheduler_kwargs", '{"a": 1, "a": 2}')


# ---- unsetting ------------------------------------------------------------------------------------------------------
def optional_fields():
    return [field for field in project_fields() if "None" in str(field.type)]


def test_every_optional_field_can_be_unset(tmp_path):
    values = {"float": "1.5", "int": "3", "str": "x"}
    for field in optional_fields():
        kind = next(kind for kind in values if kind in str(field.type).replace("list[", ""))
        value = "{}" if field.metadata.get("as_json") else values[kind]
        text = f"{field.name}: [{value}]" if "nargs" in field.metadata else f"{field.name}: '{value}'"
        head = HEADS.get(field.name, "contrastive")
        encoder = "audio_model: x\n" if head == "probe" else ""  # it needs one
        config = ("--config", write_options(tmp_path, f"head: {head}\n{encoder}{text}"))
        assert getattr(parsed(*config), field.name) is not None
        for unset in ((f"--no-{field.name}",), (f"--{field.name}", "none"), (f"--{field.name}=~",)):
            assert getattr(parsed(*config, *unset), field.name) is None, (field.name, unset)
            options = parsed(*config, *unset, f"--{field.name}", value)
            assert getattr(options, field.name) is not None, "the last value counts"


def test_switches_and_fields_with_defaults_can_be_unset():
    compact = ("--config", ROOT / "configs/compact.yaml")
    for switch in [field.name for field in project_fields() if str(field.type) == "bool"]:
        assert getattr(parsed(f"--{switch}", f"--no-{switch}", *head_of(switch)), switch) is False
    options = parsed(*compact, "--no-max_seconds", "--no-alpha", "--no-dataloader-drop-last", "--no_optim")
    assert options.max_seconds is None and options.dataloader_drop_last is False
    assert options.optim == next(f.default for f in dataclasses.fields(TrainingArguments) if f.name == "optim")
    assert parsed(*compact, "--report_to", "none").report_to == []
    assert parsed("--speakers", "01", "none").speakers == ["01", "none"], "in a list, none is a name"
    with pytest.raises(ValueError, match="--seeds: none cannot be combined"):
        parsed("--seeds", "1", "none")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--alph", "1"), "no option --alph; did you mean --alpha"),
        (("--no-alph",), "no option --no-alph"),
        (("stray",), "unexpected 'stray'"),
        (("--alpha", "x"), "--alpha: invalid float value: 'x'"),
        (("--objective", "x"), "--objective: invalid choice: 'x'"),
        (("--alpha",), "--alpha: expected one argument"),
    ],
)
def test_wrong_option_is_reported_in_one_sentence(words, message):
    with pytest.raises(ValueError, match=message) as error:
        parsed(*words)
    assert "usage" not in str(error.value)


# ---- paths ----------------------------------------------------------------------------------------------------------
def test_home_folder_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "options.yaml").write_text(
        "data_dir: [~/one, /two/~]\nfolds_file: ~/folds.json\naudio_model: ~/tower\n"
    )
    options = parsed("--config", "~/options.yaml", "--output_dir=~/run", "--text_model", "~/text")
    assert options.data_dir == [f"{tmp_path}/one", "/two/~"] and options.folds_file == f"{tmp_path}/folds.json"
    assert (options.audio_model, options.text_model) == (f"{tmp_path}/tower", f"{tmp_path}/text")
    assert options.output_dir == f"{tmp_path}/run"
    words = ["--model=~/run", "--data_dir", "~/a", "b", "--output_dir=~/out", "--folds_file=~/f", "--before=~/x"]
    options = load_script("evaluate").parse(words)
    assert options.model == f"{tmp_path}/run" and options.data_dir == [f"{tmp_path}/a", "b"]
    assert options.output_dir == f"{tmp_path}/out"
    assert options.folds_file == f"{tmp_path}/f" and options.before == f"{tmp_path}/x"


# ---- the optimizer --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, torch.optim.Adam),
        ({"optim": "sgd"}, torch.optim.SGD),
        ({"optim": "adafactor"}, "Adafactor"),
        ({"optim": "adamw_torch"}, torch.optim.AdamW),
    ],
)
def test_optim_of_transformers_arguments_is_applied(make_model, tmp_path, options, expected):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **options)
    default = next(f.default for f in dataclasses.fields(TrainingArguments) if f.name == "optim")
    optimizer = GEmoClapTrainer(make_model(), arguments).create_optimizer()
    if options.get("optim") == default:
        expected = torch.optim.Adam
    assert type(optimizer) is expected or type(optimizer).__name__ == expected


def test_optim_is_refused_with_plain_adam(tmp_path):
    for words in (("--optim", "adafactor"), ("--optim_args", "a=1")):
        with pytest.raises(ValueError, match="no effect with --optimizer adam: give --optimizer optim"):
            parsed(*words)
        assert parsed(*words, "--optimizer", "optim").optimizer == "optim"
    with pytest.raises(ValueError, match="--optim adafactor"):
        GEmoClapTrainingArguments(str(tmp_path), optim="adafactor", use_cpu=True)
    assert parsed("--config", ROOT / "configs/compact.yaml", "--optimizer", "adam", "--no-optim").optimizer == "adam"


def test_a_value_of_several_lines_is_refused_in_one_sentence(tmp_path):
    """The message names the file once."""
    path = tmp_path / "recipe.yaml"
    path.write_text("bf16: |\n  x\n")
    with pytest.raises(ValueError) as error:
        check_recipe(["--config", str(path)], str(path))
    assert "\n" not in str(error.value) and str(error.value).count(str(path)) == 1
    assert str(error.value).startswith(f"{path}: --bf16: ")
