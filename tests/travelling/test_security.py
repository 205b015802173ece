"""Files of a checkpoint do not select code: another process loads hostile checkpoints and reports all events."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from conftest import ROOT, run_script
from huggingface_hub import ModelCard
from transformers import TrainerState, TrainingArguments

from modeling_gemoclap import (
    GEmoClapConfig,
    GEmoClapFeatureExtractor,
    GEmoClapForAudioClassification,
    GEmoClapModel,
    GEmoClapTrainer,
)
from modeling_gemoclap.command_line.failures import failure_message
from modeling_gemoclap.evaluation.page import write_page
from modeling_gemoclap.objectives.base import AudioCollator
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.safety_gemoclap import EXTRACTORS, constructor_settings, encoder_extractor_class
from modeling_gemoclap.towers_gemoclap import load_audio_tower, load_text_tower
from modeling_gemoclap.training.card import TrainingFacts, write_model_card
from modeling_gemoclap.training.checkpoints import record_files

PAYLOAD = """
import pathlib, transformers
pathlib.Path({mark!r}).write_text("executed")
class Evil(transformers.{base}):
    model_type = "evil"
"""
BASES = {"AutoConfig": "PretrainedConfig", "AutoModel": "PreTrainedModel", "AutoTokenizer": "PreTrainedTokenizerFast"}


class Opens:
    """A pickle that runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def edit(path: Path, **values):
    """Change fields of a JSON file; `a__b` is the field `b` of `a`."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in values.items():
        *parents, name = name.split("__")
        section = content
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    path.write_text(json.dumps(content))


def edit_extractor(folder: Path, **values):
    """Change the settings of the feature extractor, which transformers 5 saves in those of the processor."""
    if (folder / "preprocessor_config.json").is_file():
        edit(folder / "preprocessor_config.json", **values)
    else:
        edit(
            folder / "processor_config.json", **{f"feature_extractor__{name}": value for name, value in values.items()}
        )


def code(folder: Path, mark: str) -> dict:
    """Write a module for each auto class, and the auto_map that names them."""
    for auto, base in BASES.items():
        (folder / f"payload_{auto.lower()}.py").write_text(PAYLOAD.format(mark=mark, base=base))
    return {auto: f"payload_{auto.lower()}.Evil" for auto in BASES}


def pickled(folder: Path, mark: str):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Opens(mark)))
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (folder / name).write_bytes(pickle.dumps(Opens(mark)))


def without_weights(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    return folder


def runs_a_pipeline(payload: str) -> dict:
    return {"feature_extractor_type": "pipeline", "model": payload, "trust_remote_code": True, "task": "fill-mask"}


# Name -> change of a checkpoint, given its folder, the folder of the payload and the file that the payload writes.
HOSTILE = {
    "own_extractor": lambda folder, payload, mark: edit_extractor(
        folder, feature_type="own", own=runs_a_pipeline(payload)
    ),
    "own_model": lambda folder, payload, mark: edit_extractor(
        folder, feature_type="own", own={"feature_extractor_type": "BertModel", "config": payload}
    ),
    "feature_extractor_type": lambda folder, payload, mark: edit_extractor(
        folder, feature_extractor_type="AutoModelForCausalLM"
    ),
    "audio_tokenizer": lambda folder, payload, mark: edit(
        folder / "processor_config.json",
        audio_tokenizer={"audio_tokenizer_class": "AutoConfig", "audio_tokenizer_name_or_path": payload},
    ),
    "tokenizer_class": lambda folder, payload, mark: edit(
        folder / "tokenizer_config.json", tokenizer_class="AutoModelForCausalLM"
    ),
    "tokenizer_code": lambda folder, payload, mark: edit(
        folder / "tokenizer_config.json",
        tokenizer_class="Evil",
        auto_map={"AutoTokenizer": [None, code(folder, mark)["AutoTokenizer"]]},
    ),
    "config_code": lambda folder, payload, mark: edit(
        folder / "config.json", auto_map=code(folder, mark), custom_pipelines={"evil": {"impl": "payload_x.Evil"}}
    ),
    "other_repository": lambda folder, payload, mark: edit(
        folder / "config.json", auto_map={auto: f"stranger/repository--x.{auto}" for auto in BASES}
    ),
    "part_of_other_place": lambda folder, payload, mark: edit(
        folder / "processor_config.json",
        feature_extractor__auto_map={"AutoFeatureExtractor": f"{payload}--missing.Evil"},
    ),
    "shard_elsewhere": lambda folder, payload, mark: edit(
        without_weights(folder) / "model.safetensors.index.json",
        metadata={"total_size": 1},
        weight_map={"audio_logit_scale": f"{payload}/config.json"},
    ),
    "tower_code": lambda folder, payload, mark: edit(
        folder / "config.json", audio_config__auto_map=code(folder, mark), text_config__auto_map=code(folder, mark)
    ),
    "tower_type": lambda folder, payload, mark: edit(
        folder / "config.json", text_config__model_type="evil", text_config__auto_map=code(folder, mark)
    ),
    "names": lambda folder, payload, mark: edit(
        folder / "config.json",
        audio_config___name_or_path=payload,
        text_config___name_or_path="stranger/repository",
        _name_or_path="stranger/repository",
    ),
    "attention": lambda folder, payload, mark: edit(folder / "config.json", attn_implementation="stranger/kernel"),
    "tower_attention": lambda folder, payload, mark: edit(
        folder / "config.json", text_config___attn_implementation="kernels-community/flash-attn2"
    ),
    "compiler": lambda folder, payload, mark: edit(
        folder / "config.json", text_config__attn_implementation="flex_attention"
    ),
    "compiling_family": lambda folder, payload, mark: edit(folder / "config.json", text_config={"model_type": "yoso"}),
    "quantizer": lambda folder, payload, mark: edit(
        folder / "config.json", quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": [payload]}
    ),
    "adapter": lambda folder, payload, mark: edit(
        folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path=payload
    ),
    "pickles": lambda folder, payload, mark: pickled(folder, mark),
    "chat_template": lambda folder, payload, mark: (folder / "chat_template.jinja").write_text(
        "{{ cycler.__init__.__globals__.os.system('touch " + mark + "') }}"
    ),
}
# Code of the checkpoint itself, which runs with trust_remote_code.
OWN_CODE = ("tokenizer_code", "config_code", "other_repository")
# Events of transformers before it calls a class of this package: it loads the weights of an audio tokenizer, and,
# with trust_remote_code, looks for code of another repository.
BEFORE_US = {
    ("audio_tokenizer", "AutoProcessor"),
    ("audio_tokenizer", "pipeline"),
    ("part_of_other_place", "AutoFeatureExtractor"),
}
if transformers.__version__.startswith("4."):  # it reads the base model of an adapter; docs/encoders.md says so
    BEFORE_US |= {("adapter", "AutoModel"), ("adapter", "pipeline")}
    OWN_CODE += ("adapter",)  # it runs the code of the base model
ASKS = "tokenizer.json) need code of their own, which is not run; use files without it"
# (checkpoint, way of loading) -> a part of the error message.
REFUSED = {
    ("own_extractor", "GEmoClapProcessor"): "feature_extractor_type 'pipeline' is unknown",
    ("own_extractor", "GEmoClapFeatureExtractor"): "feature_extractor_type 'pipeline' is unknown",
    ("own_extractor", "load_pipeline"): "feature_extractor_type 'pipeline' is unknown",
    ("own_extractor", "AutoProcessor"): "feature_extractor_type 'pipeline' is unknown",
    ("own_extractor", "AutoFeatureExtractor"): "feature_extractor_type 'pipeline' is unknown",
    ("own_model", "load_pipeline"): "feature_extractor_type 'BertModel' is unknown",
    ("feature_extractor_type", "load_pipeline"): "feature_extractor_type 'AutoModelForCausalLM' in p",
    ("feature_extractor_type", "from_audio_pretrained"): "feature_extractor_type 'AutoModelForCausalLM' in p",
    ("audio_tokenizer", "load_pipeline"): "processor_config.json names an audio tokenizer",
    ("tokenizer_class", "load_pipeline"): "tokenizer_class 'AutoModelForCausalLM' in tokenizer_config.json is not",
    ("tokenizer_class", "load_tokenizer"): "tokenizer_class 'AutoModelForCausalLM' in tokenizer_config.json is not",
    ("tokenizer_code", "load_pipeline"): ASKS,
    ("tower_type", "load_pipeline"): "model_type 'evil' of a tower is unknown",
    ("names", "starting_point"): "give that with --before",
    ("attention", "load_pipeline"): "attn_implementation names 'stranger/kernel'",
    ("attention", "AutoModel"): "attn_implementation names 'stranger/kernel'",
    ("tower_attention", "GEmoClapModel"): "_attn_implementation names 'kernels-community/flash-attn2'",
    ("compiler", "GEmoClapModel"): "attn_implementation names 'flex_attention'",
    ("compiler", "AutoModel"): "attn_implementation names 'flex_attention'",
    ("compiler", "load_pipeline"): "attn_implementation names 'flex_attention'",
    ("compiling_family", "GEmoClapModel"): "text_config: a 'yoso' model fetches files or compiles code when it is",
    ("compiling_family", "AutoModel"): "text_config: a 'yoso' model fetches files or compiles code when it is built",
    ("quantizer", "GEmoClapModel"): "quantization by 'mxfp4' is not supported",
    ("adapter", "GEmoClapModel"): "is a LoRA adapter",
    ("adapter", "load_pipeline"): "is a LoRA adapter",
    ("shard_elsewhere", "GEmoClapModel"): "config.json', which is not a file in its folder",
    ("shard_elsewhere", "AutoModel"): "config.json', which is not a file in its folder",
    ("shard_elsewhere", "load_pipeline"): "config.json', which is not a file in its folder",
    ("pickles", "GEmoClapModel"): "its weight file is a pickle of objects other than tensors, which may run code",
    ("pickles", "AutoModel"): "its weight file is a pickle of objects other than tensors, which may run code",
    ("pickles", "load_pipeline"): "its weight file is a pickle of objects other than tensors, which may run code",
}


@pytest.fixture
def hostile(make_model, make_processor, tmp_path):
    """The checkpoints, the folder of the payload, and the file that exists if the payload has run."""
    model = make_model()
    harmless, payload, mark = tmp_path / "harmless", tmp_path / "payload", tmp_path / "mark"
    model.save_pretrained(harmless)
    make_processor(model).save_pretrained(harmless)
    payload.mkdir()
    edit(payload / "config.json", model_type="evil", auto_map=code(payload, str(mark)))
    folders = [harmless]
    for name, change in HOSTILE.items():
        folders.append(tmp_path / name)
        shutil.copytree(harmless, folders[-1])
        change(folders[-1], str(payload), str(mark))
    return folders, payload, mark


def loaded(hostile, tmp_path, trusted: str) -> dict:
    """The result of loading each checkpoint in each way."""
    folders, payload, _ = hostile
    shutil.copy(ROOT / "tests" / "travelling" / "hostile_worker.py", tmp_path / "worker.py")
    path = os.pathsep.join([str(ROOT)] * (trusted == "untrusted") + [os.environ.get("PYTHONPATH", "")])
    # Online, with a closed port, so that attempts to connect are reported.
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, tmp_path / "worker.py", trusted, payload, *folders],
        cwd=tmp_path,
        env={**os.environ, **online, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_loading_a_hostile_checkpoint_runs_no_code(hostile, tmp_path):
    report = loaded(hostile, tmp_path, "untrusted")
    assert report.keys() == {"harmless", *HOSTILE}
    for (name, way), message in REFUSED.items():
        assert message in report[name][way][0], (name, way)
    works = {way for way, (outcome, _) in report["harmless"].items() if outcome == "loaded"}
    assert works == report["harmless"].keys() - {"pipeline"}, "it asks for consent to the checkpoint's code"
    happened = {(name, way): seen for name, ways in report.items() for way, (_, seen) in ways.items() if seen}
    assert happened.keys() <= BEFORE_US and not hostile[2].exists()


def test_trusting_code_does_not_imply_trusting_data(hostile, tmp_path):
    folders = [folder for folder in hostile[0] if folder.name not in OWN_CODE]
    report = loaded((folders, *hostile[1:]), tmp_path, "trusted")
    assert {outcome for outcome, _ in report["harmless"].values()} == {"loaded"}
    for name in ("own_extractor", "own_model", "feature_extractor_type", "tokenizer_class", "attention"):
        assert report[name]["pipeline"][0] != "loaded"
    for way in ("AutoProcessor", "pipeline"):
        assert (
            "auto_map in processor_config.json names code of another repository"
            in report["part_of_other_place"][way][0]
        )
    happened = {(name, way): seen for name, ways in report.items() for way, (_, seen) in ways.items() if seen}
    assert happened.keys() <= BEFORE_US and not hostile[2].exists()


def test_evaluate_runs_no_code_of_a_hostile_checkpoint(hostile, tones):
    [folder] = [folder for folder in hostile[0] if folder.name == "own_extractor"]
    refused = run_script("evaluate.py", "--model", folder, "--data_dir", tones, check=False)
    assert refused.returncode == 1 and "feature_extractor_type 'pipeline' is unknown" in refused.stderr
    assert not hostile[2].exists()


@pytest.mark.parametrize("name", ["pipeline", "BertModel", "AutoModel", "__loader__", "Trainer", None, ["x"], 7])
def test_unknown_extractors_are_refused(name):
    with pytest.raises(ValueError, match="is unknown as the extractor of an audio encoder; choose one of AST"):
        GEmoClapFeatureExtractor(feature_type="own", own={"feature_extractor_type": name, "model": "x"})


@pytest.mark.parametrize("name", EXTRACTORS)
def test_settings_of_known_extractors_name_no_files(name):
    """Settings are numbers, booleans and names of windows; a setting of another type requires a review."""
    extractor_class = encoder_extractor_class(name)
    settings = {"feature_extractor_type": name, "vocab_file": "x", "_get_features": "x", "n_samples": -1}
    assert constructor_settings(extractor_class, settings) == {}
    extractor = extractor_class()
    for setting in constructor_settings(extractor_class, extractor.to_dict()):
        assert isinstance(getattr(extractor, setting), (int, float, bool, str, type(None))), setting
        assert not {"file", "path", "name", "dir"} & set(setting.split("_")), setting


def test_kernels_require_an_argument(make_model, tmp_path):
    """A file selects one of two implementations that do not compile code; users select others by an argument."""
    for values in (
        {"text_config": {"attn_implementation": "flex_attention"}},
        {"audio_config": {"_attn_implementation_internal": "flex_attention"}},
        {"experts_implementation": "stranger/kernel"},
        {"text_config": {"attn_implementation": {"": "a/b"}}},
    ):
        with pytest.raises(ValueError, match="which may load or compile code"):
            GEmoClapConfig.from_dict(values)
    file = GEmoClapConfig.from_dict({"attn_implementation": "eager"})  # transformers 4 does not read it from a file
    assert file._attn_implementation in ("eager", None)
    assert GEmoClapConfig.from_dict({}, attn_implementation="a/b")._attn_implementation == "a/b"
    make_model().save_pretrained(tmp_path)
    eager = {"audio_config": "eager", "text_config": "eager"}
    model = GEmoClapModel.from_pretrained(tmp_path, attn_implementation=eager)
    assert model.config.text_config._attn_implementation == "eager"
    if model.text_model._supports_flex_attn:  # true for RoBERTa in transformers 5
        flex = {"audio_config": "eager", "text_config": "flex_attention"}
        model = GEmoClapModel.from_pretrained(tmp_path, attn_implementation=flex)
        assert model.text_model.config._attn_implementation == "flex_attention"


def test_adapters_import_no_modules(tmp_path):
    from modeling_gemoclap.training.lora import load_adapter

    pytest.importorskip("peft")
    edit(tmp_path / "adapter_config.json", peft_type="LORA", megatron_config={"x": 1}, megatron_core="antigravity")
    with pytest.raises(ValueError, match="adapter_config.json: not an adapter of train.py"):
        load_adapter(tmp_path, "audio", "text")
    assert "antigravity" not in sys.modules


NASTY = "x | y\n\n---\nlicense: mit\n---\n# h <script>alert(1)</script> ![i](http://h/p.png) `{{ 7 * 7 }}` {% raw %}"


def test_card_escapes_names_from_data(make_model, tmp_path):
    """Names of corpora, speakers and labels are not interpreted as markup, table cells, front matter or templates."""
    record = {"corpus": NASTY, "licence": NASTY, "num_clips": 1, "speakers": [NASTY], "manifest_sha256": NASTY}
    words = NASTY.replace("{", "(").replace("}", ")")
    config = {"training_data": [record], "calibration_temperature": 2.0, "calibrated_on": NASTY}
    model = make_model(emotions=["angry", words], **config)
    model.config.audio_config._name_or_path = NASTY + "x" * 300  # longer than any file name
    path = write_model_card(
        str(tmp_path / "run"),
        model,
        GEmoClapTrainer.card_text,
        TrainingFacts(TrainerState(epoch=1, global_step=1), 16000, 1),
    )
    plain, text = ModelCard.load(path).data.to_dict(), path.read_text(encoding="utf-8")
    assert not {"license", "base_model"} & plain.keys(), "it is not the name of a repository"
    _, front, body = re.split(r"^---$", text, maxsplit=2, flags=re.M)
    body = re.sub(r"(?<!`)(`+)(?!`)[^\n]+?(?<!`)\1(?!`)", "", body)  # code is not markup
    assert "<script" not in body.replace("\\<script", "") and "![i](" not in body and "49" not in body
    assert not re.search(r"^(---|# h|license)", body, re.M)
    assert "| angry, " in body
    [row] = [line for line in body.splitlines() if line.startswith("| x")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6, "five cells"


def test_report_escapes_names_from_data(tmp_path):
    calibration, interval = {"ece": 0.1}, {"uar": [0.1, 0.9], "war": None}
    figures = {"uar": 0.5, "war": 0.5, "macro_f1": 0.5, "recall": {NASTY: 0.5}, "intervals": interval}
    record = dict.fromkeys(("corpus", "protocol", "licence", "citation", "command", "training_command"), NASTY)
    record |= figures | {"n": 1, "speakers": [NASTY], "fairness": None, "calibration": calibration, "per_seed": None}
    record |= {
        "controls": {"constant": figures, "shuffled_labels": None},
        "protocols": None,
        "versions": {NASTY: NASTY},
    }
    record |= {"manifest_sha256": NASTY, "training_data": [{"corpus": NASTY, "num_clips": 1, "speakers": [NASTY]}]}
    write_page(record, [NASTY], NASTY, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "49" not in page.replace(".49", "")


def test_initial_weights_are_not_fetched_by_configuration(make_model):
    """The name of the initial weights in a configuration is ignored."""
    from modeling_gemoclap.evaluation.layers import starting_point

    config = make_model().config
    assert starting_point(config, None).name == "fresh weights"
    config.audio_config._name_or_path = "stranger/repository"
    with pytest.raises(
        ValueError, match="'stranger/repository' according to its configuration: give that with --before"
    ):
        starting_point(config, None)


def test_pretrained_towers_select_no_kernel(make_model, tmp_path):
    model = make_model("wavlm-base")
    for load, tower in ((load_audio_tower, model.audio_model), (load_text_tower, model.text_model)):
        tower.save_pretrained(tmp_path / "tower")
        load(str(tmp_path / "tower"))
        edit(tmp_path / "tower" / "config.json", attn_implementation="stranger/kernel")
        with pytest.raises(ValueError, match="tower: config.json: attn_implementation names 'stranger/kernel'"):
            load(str(tmp_path / "tower"))
        shutil.rmtree(tmp_path / "tower")


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_resuming_from_an_untrusted_folder_unpickles_nothing(make_model, make_processor, tmp_path, file):
    model = make_model(model_class=GEmoClapForAudioClassification)
    extractor = make_processor(make_model()).feature_extractor
    clips = [{"clip": np.ones((20, 16), np.float32), "emotion_label": label} for label in (0, 1)]
    arguments = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to=[], max_steps=1, save_steps=1)
    data = {"train_dataset": clips, "data_collator": AudioCollator(extractor)}
    ClassifierTrainer(model, arguments, processing_class=extractor, **data).train()
    mark = tmp_path / "mark"
    (tmp_path / "run/checkpoint-1" / file).write_bytes(pickle.dumps(Opens(str(mark))))
    record_files(tmp_path / "run/checkpoint-1")
    arguments.max_steps = 2
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed") as refused:
        trainer = ClassifierTrainer(model, arguments, processing_class=extractor, **data)
        trainer.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-1"))
    assert not mark.exists()
    sentence = failure_message(refused.value)
    assert re.fullmatch(rf"\S*{re.escape(file)} is a pickle of objects other than .*; resume from .*", sentence)
