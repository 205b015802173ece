"""Labels of all types, distinct prompts, and the options that messages name."""

import ast
import copy
import json
import re

import numpy as np
import pytest
import torch
import typer
from conftest import ROOT, batch_of, load_script
from transformers import AutoConfig, AutoModelForAudioClassification, TrainerState, TrainingArguments

from modeling_gemoclap import (
    GEmoClapConfig,
    GEmoClapForAudioClassification,
    GEmoClapModel,
    GEmoClapTrainer,
    ZeroShotEmotionPipeline,
)
from modeling_gemoclap.cli import app
from modeling_gemoclap.compression.command import build_parser
from modeling_gemoclap.objectives.base import AudioCollator
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.registry import OBJECTIVES
from modeling_gemoclap.prompts_gemoclap import check_templates, check_words, refuse_shared_prompts
from modeling_gemoclap.runs.calibration import fit_temperature
from modeling_gemoclap.runs.recipe import parse_recipe
from modeling_gemoclap.training.card import TrainingFacts, write_model_card


@pytest.fixture
def pipe(make_model, make_processor):
    model = make_model()
    return ZeroShotEmotionPipeline(model=model, processor=make_processor(model), device="cpu")


def clip():
    return {"array": np.random.default_rng(0).standard_normal(16000).astype(np.float32), "sampling_rate": 16000}


class Series:
    """A stand-in for pandas' Series."""

    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return iter(self.values)

    def __bool__(self):
        raise ValueError("the truth value of a Series is ambiguous")


@pytest.mark.parametrize(
    "labels",
    [
        ["sad", "angry"],
        ("sad", "angry"),
        "sad, angry",
        "sad,angry,",
        np.array(["sad", "angry"]),
        np.array(["sad", "angry"], dtype=object),
        {"sad", "angry"},
        {"sad": 1, "angry": 2}.keys(),
        (word for word in ["sad", "angry"]),
        Series(["sad", "angry"]),
        [" sad ", "angry\n"],
    ],
    ids=lambda labels: type(labels).__name__,
)
def test_types_of_collections_of_labels(pipe, labels):
    scores = {item["label"]: item["score"] for item in pipe(clip(), candidate_labels=labels)}
    assert scores == {item["label"]: item["score"] for item in pipe(clip(), candidate_labels=["angry", "sad"])}


def test_labels_of_the_constructor_apply_to_calls(make_model, make_processor):
    model = make_model()
    labels = (word for word in ["sad", "angry"])
    pipe = ZeroShotEmotionPipeline(model=model, processor=make_processor(model), candidate_labels=labels)
    assert len(pipe(clip())) == len(pipe(clip())) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("sad", "names only 'sad', which every clip would then be"),
        ("", "must be a non-empty list of words"),
        ([], "must be a non-empty list of words"),
        (7, "must be a list of words or one comma-separated string, got 7"),
        (np.array(3), "must be a list of words"),
        (b"sad", "must be a list of words"),
        ({"sad": 0, "angry": 1}, "must be a list of words"),
        (["sad", ""], "'' is not a word"),
        (["sad", None], "None is not a word"),
        (np.array([["sad", "angry"]]), r"\['sad', 'angry'\] is not a word"),
        (["sad", "{}"], "'{}' contains braces"),
        (["sad", "{gender}"], "'{gender}' contains braces"),
        (["sad", "Sad"], "names a word twice: 'sad' and 'Sad'"),
        (["very  sad", "very sad"], "names a word twice"),
        (["fear", "fearful", "anxiety", "sad"], "'fear', 'fearful', 'anxiety' are all 'fearful' in a prompt"),
        (["joy", "sad", "happiness"], "'joy', 'happiness' are all 'happy' in a prompt"),
    ],
)
def test_invalid_labels_are_refused(pipe, labels, message):
    with pytest.raises(ValueError, match=f"^candidate_labels.*{message}"):
        pipe(clip(), candidate_labels=labels)


def test_repeated_templates_are_refused():
    assert check_templates("x", "a {}", ("{}",)) == ["a {}"]
    for twice in (["a {} voice", "a {} voice"], ["A {} voice", "a {}  voice"]):
        with pytest.raises(ValueError, match="twice, up to case and whitespace"):
            check_templates("x", twice, ("{}",))
    with pytest.raises(ValueError, match="3 is not a template"):
        check_templates("x", ["a {}", 3], ("{}",))
    with pytest.raises(ValueError, match="'joy' are all 'happy'"):
        GEmoClapConfig(emotions=["happy", "joy", "sad"])
    assert GEmoClapConfig(emotions="angry, sad").emotions == ["angry", "sad"]
    assert refuse_shared_prompts("x", check_words("x", "calm,sad")) == ["calm", "sad"]


def in_place(model):
    with torch.no_grad():
        model.text_projection.linear2.weight.mul_(-1)


def by_data(model):
    model.text_model.embeddings.word_embeddings.weight.data.add_(0.1)
    model.text_projection.linear1.weight.data.mul_(-1)


def by_state(model):
    state = {name: value * -0.5 for name, value in model.state_dict().items() if "text_projection" in name}
    model.load_state_dict(state, strict=False)


def by_optimizer(model):
    optimizer = torch.optim.SGD(model.text_model.parameters(), lr=100.0)
    model.get_text_features(torch.tensor([[5, 6, 7]])).sum().backward()
    optimizer.step()


class Backwards:
    """Another tokenizer with the same number of tokens."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __len__(self):
        return len(self.tokenizer)

    def __call__(self, texts, **options):
        return self.tokenizer([text[::-1] for text in texts], **options)


@pytest.mark.parametrize("change", [in_place, by_data, by_state, by_optimizer])
def test_class_embeddings_are_updated_with_the_text_tower(pipe, make_processor, change):
    before = pipe(clip())
    change(pipe.model)
    fresh = ZeroShotEmotionPipeline(model=pipe.model, processor=pipe.processor, device="cpu")
    assert pipe(clip()) == fresh(clip()) != before


def test_class_embeddings_are_updated_with_tokenizer_and_pooling(pipe):
    before = pipe(clip())
    pipe.model.config.text_pooling = "mean"
    pooled = pipe(clip())
    assert pooled != before
    pipe.processor.tokenizer = Backwards(pipe.processor.tokenizer)
    assert pipe(clip()) != pooled


def test_class_embeddings_are_cached(pipe, monkeypatch):
    calls, embed = [], type(pipe.model).get_class_embeddings
    monkeypatch.setattr(type(pipe.model), "get_class_embeddings", lambda self, *a: calls.append(a) or embed(self, *a))
    for _ in range(3):
        pipe(clip())
        pipe(clip(), candidate_labels="calm, sad")
    assert len(calls) == 2


# ---- options that messages name -------------------------------------------------------------------------------------
PACKAGE = ROOT / "modeling_gemoclap"
OF_PIP = r"--(?:no-deps|no-input|only-binary|disable-pip-version-check)\b"
OF_VERSION_4 = {"warmup_ratio"}  # an option of transformers that version 5 removed
OF_TRAINING = {"label_fraction", "num_dev_speakers"}  # options of protocols, which only train.py has


TERMS = r"train\.py|evaluate\.py|grid\.py|--(?:no-)?[a-z][a-z_]+(?:-[a-z]+)*\b(?!\*)"


def options_of(program) -> set[str]:
    """The options of a program without dashes."""
    seen = []
    heads = [("--head", head) for head in OBJECTIVES] if program == "train" else [()]
    for head in heads:
        with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
            patch.setattr("argparse.ArgumentParser.print_help", lambda self, file=None: seen.append(self))
            (parse_recipe if program == "train" else load_script(program).parse)([*head, "--help"])
    return {word.removeprefix("--") for parser in seen for action in parser._actions for word in action.option_strings}


def messages(path):
    """The string literals and f-strings of a module without docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)
    }
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(map(id, node.values))
            yield node.lineno, "".join(v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | parts:
            yield node.lineno, node.value


def test_options_in_messages_exist():
    """An option belongs to the last program that the message names before it, else to that of the module or both."""
    options = {name: options_of(name) for name in ("train", "evaluate", "grid")}
    words = [word for action in build_parser()._actions for word in action.option_strings]
    options["compress"] = {word.removeprefix("--") for word in words}
    commands = typer.main.get_command(app).commands.values()
    options["gemoclap"] = {word.removeprefix("--") for each in commands for item in each.params for word in item.opts}
    of_part = dict.fromkeys(("objectives", "runs", "training"), ["train"])
    of_part |= {"evaluation": ["evaluate"], "compression": ["compress"]}
    of_part |= dict.fromkeys(("cli", "inference", "page", "publishing", "service"), ["gemoclap"])
    named = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0]
        if part == "command_line":  # its messages name options of all programs
            continue
        for line, text in messages(path):
            programs = of_part.get(part, ["train"] if part.endswith("_gemoclap.py") else ["train", "evaluate"])
            if command := re.match("gemoclap (train|evaluate|grid|compress)?", text):
                programs = [command[1] or "gemoclap"]
            if path.name == "hub_trainer.py":
                programs = ["train"]
            if path.name == "grid.py":
                programs = ["grid"]
            text = re.sub(rf"--no-[A-Z]+|{OF_PIP}", "", text)  # the first is of any option
            if re.fullmatch(r"--[a-z_-]+", text):
                continue  # a part of a command line
            for term in re.findall(TERMS, text):
                option = term.removeprefix("--").removeprefix("no-")
                if option == term:
                    programs = [term.removesuffix(".py")]
                    continue
                for program in ["train"] if option in OF_TRAINING else programs:
                    where = f"{path.name}, line {line}: {program}.py has no {term}: {text!r}"
                    assert option in options[program] | OF_VERSION_4, where
                named.add(option)
    assert {"labels", "drop_other_emotions", "emotions", "on_bad_audio", "init_from", "control"} <= named


@pytest.mark.parametrize("option", ["drop_other_emotions", "allow_seen_speakers", "overwrite_output"])
def test_boolean_options_are_parsed_as_in_training(option):
    parse = load_script("evaluate").parse
    for given, value in (([], False), ([f"--{option}"], True), ([f"--{option}", "true"], True)):
        assert getattr(parse(["--data_dir", "x", *given]), option) is value
    assert getattr(parse([f"--{option}", "false", "--data_dir", "x"]), option) is False
    with pytest.raises(ValueError, match=f"--{option}: invalid switch value: 'maybe'"):
        parse(["--data_dir", "x", f"--{option}", "maybe"])


# ---- classes of a head, and calibration -----------------------------------------------------------------------------
THREE = {"id2label": {0: "angry", 1: "Freude", 2: "sad"}, "label2id": {"angry": 0, "Freude": 1, "sad": 2}}
WORDS = ["angry", "Freude", "sad"]


def one_thing(config, emotions):
    """Whether the four fields agree."""
    assert config.emotions == emotions and config.id2label == dict(enumerate(emotions))
    assert config.label2id == {word: place for place, word in enumerate(emotions)}
    assert config.num_labels == len(emotions)
    return True


@pytest.fixture
def classifier(make_model, tmp_path):
    """A saved, calibrated classifier of four emotions."""
    fields = {"emotions": ["angry", "fear", "happy", "sad"], "calibration_temperature": 2.0, "calibrated_on": "clips"}
    make_model(model_class=GEmoClapForAudioClassification, **fields).save_pretrained(tmp_path / "four")
    return tmp_path / "four"


@pytest.mark.parametrize("auto", [AutoModelForAudioClassification, GEmoClapForAudioClassification])
def test_head_for_other_classes(classifier, auto, caplog):
    with pytest.raises((ValueError, RuntimeError), match="mismatch"):
        auto.from_pretrained(classifier, num_labels=3, **THREE)
    model = auto.from_pretrained(classifier, num_labels=3, **THREE, ignore_mismatched_sizes=True)
    assert one_thing(model.config, WORDS) and model.classifier[-1].out_features == 3
    assert "classifier.1.weight" in caplog.text or "newly initialized" in caplog.text
    assert model.config.calibration_temperature is model.config.calibrated_on is None
    again = auto.from_pretrained(_saved(model, classifier.parent / "three"))
    assert one_thing(again.config, WORDS) and torch.equal(again.classifier[-1].weight, model.classifier[-1].weight)


def _saved(model, folder):
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "rename",
    [
        lambda config: setattr(config, "emotions", ["Wut", "Angst", "Freude", "Trauer"]),
        lambda config: setattr(config, "id2label", {0: "Wut", 1: "Angst", 2: "Freude", 3: "Trauer"}),
        lambda config: setattr(config, "id2label", {"3": "Trauer", "2": "Freude", "1": "Angst", "0": "Wut"}),
        lambda config: setattr(config, "label2id", {"Trauer": 3, "Wut": 0, "Angst": 1, "Freude": 2}),
    ],
)
def test_renamed_labels_are_saved(classifier, rename):
    model = GEmoClapForAudioClassification.from_pretrained(classifier)
    assert model.config.calibration_temperature == 2.0 and one_thing(model.config, ["angry", "fear", "happy", "sad"])
    rename(model.config)
    words = ["Wut", "Angst", "Freude", "Trauer"]
    assert one_thing(model.config, words) and model.config.calibration_temperature is None
    again = GEmoClapForAudioClassification.from_pretrained(_saved(model, classifier.parent / "renamed"))
    assert one_thing(again.config, words) and one_thing(copy.deepcopy(again.config), words)
    assert torch.equal(again.classifier[-1].weight, model.classifier[-1].weight)
    stored = json.loads((classifier.parent / "renamed" / "config.json").read_text())
    assert stored["emotions"] == list(stored["id2label"].values()) == words


def test_labels_as_arguments_of_from_pretrained(classifier):
    words = ["Wut", "Angst", "Freude", "Trauer"]
    for options in ({"emotions": words}, {"id2label": dict(enumerate(words))}, {"emotions": words, "num_labels": 4}):
        model = GEmoClapForAudioClassification.from_pretrained(classifier, **options)
        assert one_thing(model.config, words) and model.config.calibration_temperature is None
    same = GEmoClapForAudioClassification.from_pretrained(classifier, num_labels=4)
    assert same.config.calibration_temperature == 2.0
    assert one_thing(GEmoClapConfig(id2label={0: "angry", 1: "sad"}), ["angry", "sad"])
    assert one_thing(GEmoClapConfig(emotions=["angry", "sad"], num_labels=2), ["angry", "sad"])
    assert one_thing(GEmoClapConfig(), ["angry", "happy", "neutral", "sad"])
    assert one_thing(AutoConfig.from_pretrained(classifier, num_labels=3, **THREE), WORDS)
    synonyms = GEmoClapConfig(emotions=["angry", "sad"], emotion_synonyms={"angry": ["furious"], "sad": ["low"]})
    synonyms.emotions = ["sad", "calm"]
    assert synonyms.emotion_synonyms == {"sad": ["low"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 3}, "num_labels=3, but the emotions of the checkpoint are angry, fear, happy, sad"),
        ({"num_labels": 4, **THREE}, "num_labels=4, but id2label names 3: angry, Freude, sad"),
        ({"emotions": ["sad", "angry"], **THREE}, "emotions and id2label disagree"),
        ({"id2label": {0: "a", 2: "b"}}, "must have one word for each index 0, 1, 2, ..."),
        ({"id2label": {0: "a", "x": "b"}}, "must have one word for each index"),
        ({"id2label": {0: "a", 1: "a"}}, "must have one word for each index"),
        ({"label2id": {"a": 0, "b": 0}}, "must have one word for each index"),
        ({"id2label": {0: "a"}}, "emotions names only 'a'"),
    ],
)
def test_labels_that_disagree(classifier, options, message):
    for load in (GEmoClapConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ValueError, match=re.escape(message)):
            load(classifier, **options)


def test_assignments_and_files_that_disagree(classifier):
    config = GEmoClapConfig.from_pretrained(classifier)
    for name, value in (
        ("num_labels", 3),
        ("emotions", None),
        ("id2label", {1: "sad"}),
        ("emotions", ["joy", "happy"]),
    ):
        with pytest.raises(ValueError, match=name if value != ["joy", "happy"] else "'joy', 'happy' are all 'happy'"):
            setattr(config, name, value)
        assert one_thing(config, ["angry", "fear", "happy", "sad"]) and config.calibration_temperature == 2.0
    config.num_labels = 4
    stored = json.loads((classifier / "config.json").read_text())
    stored["id2label"]["0"] = "Wut"
    (classifier / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="emotions and id2label disagree"):
        GEmoClapForAudioClassification.from_pretrained(classifier)


def test_emotions_of_a_zero_shot_model_can_be_replaced(make_model, make_processor, tmp_path):
    model = make_model(calibration_temperature=2.0)
    folder = _saved(model, tmp_path / "m")
    same = GEmoClapModel.from_pretrained(folder)
    assert same.config.calibration_temperature == 2.0
    other = GEmoClapModel.from_pretrained(folder, emotions=["calm", "sad"])
    assert one_thing(other.config, ["calm", "sad"]) and other.config.calibration_temperature is None
    pipe = ZeroShotEmotionPipeline(model=other, processor=make_processor(model), device="cpu")
    assert {item["label"] for item in pipe(clip())} == {"calm", "sad"}
    head = GEmoClapForAudioClassification.from_pretrained(folder)
    assert head.config.calibration_temperature is None, "the head is new"


def test_logits_of_both_models_are_calibrated_outside_of_training(make_model):
    """A softmax over the logits, as in the pipelines of transformers, returns calibrated scores."""
    ids = torch.tensor([[5, 6, 7], [5, 8, 9]])
    for model, text, name in (
        (make_model(), {"input_ids": ids}, "logits_per_audio"),
        (make_model(model_class=GEmoClapForAudioClassification), {}, "logits"),
    ):
        batch, _ = batch_of(model, [8000, 8000])
        plain = model(**batch, **text)
        model.config.calibration_temperature = 4.0
        assert torch.allclose(model(**batch, **text)[name] * 4, plain[name], atol=1e-5)
        if name == "logits_per_audio":
            assert torch.equal(model(**batch, **text).logits_per_text, plain.logits_per_text)
            cosine = plain.audio_embeds @ plain.text_embeds.T
            assert torch.allclose(plain.logits_per_audio, plain.audio_scale * cosine)
            assert torch.equal(model(**batch, **text, emotion_labels=torch.tensor([0, 1])).loss,
                               make_model()(**batch, **text, emotion_labels=torch.tensor([0, 1])).loss)  # fmt: skip
        scaled = model.train()(**batch, **text)[name]
        model.config.calibration_temperature = None
        torch.manual_seed(0)
        assert scaled.abs().max() > 2 * (plain[name] / 4).abs().max()


@pytest.fixture
def trainers(make_model, make_processor, tmp_path):
    """Trainers of both models, whose accuracy on the clips is neither 0 nor 1."""
    trainers = []
    rng = np.random.default_rng(0)
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, -1]
    clips = [{"clip": rng.standard_normal((20, 16)).astype(np.float32), "emotion_label": label} for label in labels]
    for model_class, trainer_class in (
        (GEmoClapForAudioClassification, ClassifierTrainer),
        (GEmoClapModel, GEmoClapTrainer),
    ):
        model = make_model(model_class=model_class)
        processor = make_processor(make_model())
        collator = AudioCollator(processor.feature_extractor)
        arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], per_device_train_batch_size=9)
        if model_class is GEmoClapModel:
            clips = [{**clip, "gender_label": -1} for clip in clips]
            collator = GEmoClapCollator(processor, model.config)
        data = {"train_dataset": clips[:9], "eval_dataset": clips, "data_collator": collator}
        trainers.append(trainer_class(model, arguments, processing_class=processor, **data))
    return trainers


def test_fitting_the_temperature_twice_does_not_change_it(trainers, monkeypatch):
    from modeling_gemoclap.runs import calibration

    monkeypatch.setattr(calibration, "temperature_of", lambda logits, labels: logits.abs().mean().item() + 1)
    for trainer in trainers:
        config = trainer.model.config
        fit_temperature(trainer)
        first = config.calibration_temperature
        assert first > 1 and config.calibrated_on == "10 clips of development speakers"
        fit_temperature(trainer)
        assert config.calibration_temperature == first


def test_further_training_removes_the_calibration(trainers):
    for trainer in trainers:
        trainer.args.max_steps = 1
        trainer.model.config.calibration_temperature, trainer.model.config.calibrated_on = 2.0, "clips"
        trainer.evaluate()
        assert trainer.model.config.calibration_temperature == 2.0
        trainer.train()
        assert trainer.model.config.calibration_temperature is trainer.model.config.calibrated_on is None


def test_card_documents_the_pipeline_of_transformers(make_model, tmp_path):
    model = make_model(emotions=["fear", "sad"], calibration_temperature=2.0)
    assert model.config.prompt_words == ["fearful", "sad"]
    card = write_model_card(
        str(tmp_path), model, GEmoClapTrainer.card_text, TrainingFacts(TrainerState(epoch=1, global_step=1), 16000, 1)
    ).read_text()
    assert '`candidate_labels=["fearful", "sad"], hypothesis_template="this person is feeling {}"`' in card
    assert "the mean of 2" in card and "calibration temperature too" in card
