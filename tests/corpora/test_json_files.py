"""Damaged JSON files of checkpoints and runs: the error is one sentence that names the file."""

import json
import shutil

import pytest
from conftest import ROOT, TINY, load_script, write_corpus

from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.command_line.files import json_object, read_yaml
from modeling_gemoclap.corpora.checkpoint_files import check_checkpoint_files
from modeling_gemoclap.corpora.files import MAX_DEPTH, read_json, read_object, write_json
from modeling_gemoclap.corpora.manifest import load_corpus
from modeling_gemoclap.corpora.protocols import protocol_of
from modeling_gemoclap.evaluation.prediction_files import load_fold_if_valid, load_predictions, protocols_of
from modeling_gemoclap.evaluation.protocol_runs import read_run
from modeling_gemoclap.evaluation.report import refuse_other_results
from modeling_gemoclap.inference.loading import load_pipeline
from modeling_gemoclap.objectives.initial_checkpoint import read_checkpoint_config
from modeling_gemoclap.runs.identity import read_identity
from modeling_gemoclap.runs.provenance import initial_training_data
from modeling_gemoclap.training.arguments import ModelArguments
from modeling_gemoclap.training.checkpoints import FILES, latest_complete_checkpoint
from modeling_gemoclap.training.history import history_of_checkpoint

DEEP = "[" * 200_000 + "]" * 200_000
DEEP_OBJECT = '{"a":' * 200_000 + "1" + "}" * 200_000
NOT_OBJECTS = {"junk": "{not json", "empty": "", "list": "[1, 2]", "number": "7", "deep": DEEP, "text": '"x"'}
NOT_OBJECTS |= {"deep object": DEEP_OBJECT, "latin-1": b'{"a": "\xe4"}', "150 deep": '{"a":' * 150 + "1" + "}" * 150}


def damage(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(action, path):
    """Check that an action fails with one sentence that names the file."""
    with pytest.raises(ValueError) as error:
        action()
    sentence = failure_message(error.value)
    assert sentence and path.name in sentence and len(sentence) < 1000 and "\n" not in sentence, sentence
    return sentence


@pytest.mark.parametrize("content", NOT_OBJECTS.values(), ids=NOT_OBJECTS)
def test_errors_for_files_that_hold_no_object(content, tmp_path):
    path = damage(tmp_path / "some.json", content)
    refused(lambda: read_object(path), path)
    for name, action in {
        "run.json": lambda: read_run(tmp_path),
        "results.json": lambda: load_predictions(tmp_path),
        "answers.json": lambda: load_fold_if_valid(tmp_path, {}),
        "run_identity.json": lambda: read_identity(tmp_path),
        "layers.json": lambda: refuse_other_results({"model": "x"}, tmp_path, name="layers.json"),
        "config.json": lambda: initial_training_data(ModelArguments(audio_model=str(tmp_path))),
    }.items():
        path = damage(tmp_path / name, content)
        refused(action, path)


def test_valid_objects_are_read(tmp_path):
    value = {"a": [1, {"b": None}], "c": "ä", "wide": list(range(1000))}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value == read_object(tmp_path / "x.json", a=list, c=(str, int))
    depth = MAX_DEPTH - 1
    damage(tmp_path / "x.json", '{"a":' * depth + "1" + "}" * depth)
    read_object(tmp_path / "x.json")


def test_missing_fields_and_fields_of_the_wrong_type(tmp_path):
    path = damage(tmp_path / "run.json", "{}")
    assert "corpus is missing" in refused(lambda: read_run(tmp_path), path)
    run = {"corpus": "c", "manifest_sha256": "0", "settings": {}, "protocols": {}, "commands": []}
    write_json(path, run | {"protocols": []})
    assert "protocols must not be a list" in refused(lambda: read_run(tmp_path), path)
    write_json(path, run)
    assert "settings: exclude_speakers is missing" in refused(lambda: read_run(tmp_path), path)
    settings = {"exclude_speakers": None, "emotions": None, "drop_other_emotions": False}
    for wrong in ({"x": {}}, {"0": 1}, {"0": {}}, {"0": {"name": "n", "corpus": "c", "folds": 7}}):
        write_json(path, run | {"settings": settings, "protocols": wrong})
        refused(lambda: read_run(tmp_path), path)
    write_json(path, run | {"settings": settings})
    assert read_run(tmp_path)["settings"] == settings
    path = damage(tmp_path / "results.json", "{}")
    assert "protocols is missing" in refused(lambda: protocols_of(tmp_path), path)


def test_incomplete_training_checkpoints_are_ignored(tmp_path):
    for number, content in enumerate(("{}", "[]", DEEP, '{"files": {"a": 3}}', '{"files": {"a": ["b", "c"]}}')):
        damage(tmp_path / f"checkpoint-{number + 1}" / FILES, content)
    assert latest_complete_checkpoint(tmp_path) is None
    damage(tmp_path / "checkpoint-1" / FILES, '{"files": {}}')
    assert latest_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1")


def test_a_damaged_training_record(tmp_path):
    path = damage(tmp_path / "training_data.json", DEEP)
    refused(lambda: history_of_checkpoint(tmp_path), path)


@pytest.fixture
def checkpoint(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.mark.parametrize(
    "change",
    [
        *({tower: value} for tower in ("text_config", "audio_config") for value in ("x", [1], None)),
        *({"training_data": value} for value in ("x", [1], {})),
        *({"known_words": value} for value in (7, [7], {"a": 1})),
        *({"emotions": value} for value in (7, [7], {"a": 1})),
        {"architectures": 3},
    ],
    ids=str,
)
def test_fields_of_the_wrong_type_in_a_configuration(change, checkpoint):
    path = checkpoint / "config.json"
    write_json(path, json.loads(path.read_text()) | change)
    for action in (lambda: load_pipeline(str(checkpoint)), lambda: read_checkpoint_config(str(checkpoint))):
        assert next(iter(change)) in refused(action, path)


@pytest.mark.parametrize(
    "name", ["config.json", "processor_config.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_checkpoint_files_that_hold_no_object(name, checkpoint):
    for content in NOT_OBJECTS.values():
        path = damage(checkpoint / name, content)
        refused(lambda: load_pipeline(str(checkpoint)), path)
        refused(lambda: read_checkpoint_config(str(checkpoint)), path)


def test_a_valid_checkpoint_passes(checkpoint):
    check_checkpoint_files(checkpoint)
    check_checkpoint_files("a-name/on-the-hub")


def test_damaged_checkpoints_given_as_towers(checkpoint, tones, tmp_path, monkeypatch):
    path = damage(checkpoint / "config.json", DEEP)
    options = ("--data_dir", str(tones), "--output_dir", str(tmp_path / "run"), "--audio_config", "{}")
    options += ("--feature_config", "{}", "--text_config", "{}")
    for names in (("--init_from",), ("--audio_model", "--text_model")):
        words = [word for name in names for word in (name, str(checkpoint))]
        monkeypatch.chdir(ROOT)
        refused(lambda words=words: load_script("train").main([*TINY, *options, *words]), path)


def test_deeply_nested_options_and_files_of_users(tmp_path):
    path = damage(tmp_path / "folds.json", DEEP)
    corpus = load_corpus(write_corpus(tmp_path / "corpus"))
    refused(lambda: protocol_of("2-folds-by-speaker", corpus, 0, str(path)), path)
    path = damage(tmp_path / "options.yaml", "a: " + "[" * 20_000 + "]" * 20_000)
    refused(lambda: read_yaml(path), path)
    with pytest.raises(ValueError, match="--audio_config: nested too deep"):
        json_object(DEEP_OBJECT, "--audio_config")
