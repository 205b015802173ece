"""Labels in whatever form they come, prompts that differ, and options that messages name."""

import ast
import copy
import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, batch_of, load_script
from transformers import AutoConfig, AutoModelForAudioClassification, TrainerState, TrainingArguments

from modeling_gemoclap import (
    GEmoClapConfig,
    GEmoClapForAudioClassification,
    GEmoClapModel,
    GEmoClapTrainer,
    ZeroShotEmotionPipeline,
)
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.registry import OBJECTIVES
from modeling_gemoclap.prompts_gemoclap import check_templates, check_words, refuse_shared_prompts
from modeling_gemoclap.runs.calibration import fit_temperature
from modeling_gemoclap.runs.recipe import option_names
from modeling_gemoclap.training.arguments import DataArguments, GEmoClapTrainingArguments, ModelArguments
from modeling_gemoclap.training.card import TrainingFacts, write_model_card
from modeling_gemoclap.training.clips import AudioCollator


@pytest.fixture
def pipe(make_model, make_processor):
    model = make_model()
    return ZeroShotEmotionPipeline(model=model, processor=make_processor(model), device="cpu")


def clip():
    return {"array": np.random.default_rng(0).standard_normal(16000).astype(np.float32), "sampling_rate": 16000}


class Series:
    """What pandas' Series is to us."""

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
def test_every_collection_of_labels(pipe, labels):
    found = {item["label"]: item["score"] for item in pipe(clip(), candidate_labels=labels)}
    assert found == {item["label"]: item["score"] for item in pipe(clip(), candidate_labels=["angry", "sad"])}


def test_labels_are_kept_for_later_calls(make_model, make_processor):
    model = make_model()
    labels = (word for word in ["sad", "angry"])
    pipe = ZeroShotEmotionPipeline(model=model, processor=make_processor(model), candidate_labels=labels)
    assert len(pipe(clip())) == len(pipe(clip())) == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("sad", "names 'sad' alone, which every clip would then be"),
        ("", "must be a non-empty list of words"),
        ([], "must be a non-empty list of words"),
        (7, "must be a list of words, or one string with commas between them, got 7"),
        (np.array(3), "must be a list of words"),
        (b"sad", "must be a list of words"),
        ({"sad": 0, "angry": 1}, "must be a list of words"),
        (["sad", ""], "'' is not a word"),
        (["sad", None], "None is not a word"),
        (np.array([["sad", "angry"]]), r"\['sad', 'angry'\] is not a word"),
        (["sad", "{}"], "'{}' has braces"),
        (["sad", "{gender}"], "'{gender}' has braces"),
        (["sad", "Sad"], "names a word twice: 'sad' and 'Sad'"),
        (["very  sad", "very sad"], "names a word twice"),
        (["fear", "fearful", "anxiety", "sad"], "'fear', 'fearful', 'anxiety' are all 'fearful' in a prompt"),
        (["joy", "sad", "happiness"], "'joy', 'happiness' are all 'happy' in a prompt"),
    ],
)
def test_labels_that_cannot_be_told_apart(pipe, labels, message):
    with pytest.raises(ValueError, match=f"^candidate_labels.*{message}"):
        pipe(clip(), candidate_labels=labels)


def test_templates_that_differ():
    assert check_templates("x", "a {}", ("{}",)) == ["a {}"]
    for twice in (["a {} voice", "a {} voice"], ["A {} voice", "a {}  voice"]):
        with pytest.raises(ValueError, match="twice, but for capitals and blanks"):
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
    """Another tokenizer with as many tokens."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __len__(self):
        return len(self.tokenizer)

    def __call__(self, texts, **options):
        return self.tokenizer([text[::-1] for text in texts], **options)


@pytest.mark.parametrize("change", [in_place, by_data, by_state, by_optimizer])
def test_class_embeddings_follow_the_text_tower(pipe, make_processor, change):
    before = pipe(clip())
    change(pipe.model)
    fresh = ZeroShotEmotionPipeline(model=pipe.model, processor=pipe.processor, device="cpu")
    assert pipe(clip()) == fresh(clip()) != before


def test_class_embeddings_follow_the_tokenizer_and_the_pooling(pipe):
    before = pipe(clip())
    pipe.model.config.text_pooling = "mean"
    pooled = pipe(clip())
    assert pooled != before
    pipe.processor.tokenizer = Backwards(pipe.processor.tokenizer)
    assert pipe(clip()) != pooled


def test_nothing_is_embedded_twice(pipe, monkeypatch):
    calls, embed = [], type(pipe.model).get_class_embeddings
    monkeypatch.setattr(type(pipe.model), "get_class_embeddings", lambda self, *a: calls.append(a) or embed(self, *a))
    for _ in range(3):
        pipe(clip())
        pipe(clip(), candidate_labels="calm, sad")
    assert len(calls) == 2


# ---- options that messages name -------------------------------------------------------------------------------------
PACKAGE = ROOT / "modeling_gemoclap"
OF_VERSION_4 = {"warmup_ratio"}  # of transformers, which version 5 has no more
OF_TRAINING = {"label_fraction", "num_dev_speakers"}  # of protocols, which train.py alone deals


def options_of(program) -> set[str]:
    """The options of a program, without dashes; those of train.py for all objectives."""
    if program == "train":
        groups = [objective.Options for objective in OBJECTIVES.values()]
        groups += [ModelArguments, DataArguments, GEmoClapTrainingArguments]
        return {"help", "config"}.union(*map(option_names, groups))
    seen = []
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("argparse.ArgumentParser.print_help", lambda self, file=None: seen.append(self))
        load_script(program).parse(["--help"])
    return {option.removeprefix("--") for action in seen[0]._actions for option in action.option_strings}


def messages(path):
    """The texts of a module that are no docstrings, f-strings among them, and the lines they stand in."""
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


def test_messages_name_options_that_their_program_has():
    """The program that a message names last before the option, else the one whose part it comes from, else both."""
    options = {name: options_of(name) for name in ("train", "evaluate", "grid")}
    of_part = dict.fromkeys(("training", "objectives", "runs"), ["train"]) | {"evaluation": ["evaluate"]}
    named = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0]
        if part == "command_line":  # its messages name the options of each program
            continue
        for line, text in messages(path):
            programs = of_part.get(part, ["train"] if part.endswith("_gemoclap.py") else ["train", "evaluate"])
            if path.name == "grid.py":
                programs = ["grid"]
            text = re.sub(r"--no-[A-Z]+", "", text)  # of any field
            if re.fullmatch(r"--[a-z_]+", text):
                continue  # a piece of a command line that is put together
            for found in re.findall(r"train\.py|evaluate\.py|grid\.py|--(?:no-)?[a-z][a-z_]+\b(?!\*)", text):
                option = found.removeprefix("--").removeprefix("no-")
                if option == found:
                    programs = [found.removesuffix(".py")]
                    continue
                for program in ["train"] if option in OF_TRAINING else programs:
                    where = f"{path.name}, line {line}: {program}.py has no {found}: {text!r}"
                    assert option in options[program] | OF_VERSION_4, where
                named.add(option)
    assert {"labels", "drop_other_emotions", "emotions", "on_bad_audio", "init_from", "control"} <= named


@pytest.mark.parametrize("option", ["drop_other_emotions", "allow_seen_speakers", "overwrite_output"])
def test_switches_are_as_in_training(option):
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
    """Whether all four names say the same."""
    assert config.emotions == emotions and config.id2label == dict(enumerate(emotions))
    assert config.label2id == {word: place for place, word in enumerate(emotions)}
    assert config.num_labels == len(emotions)
    return True


@pytest.fixture
def classifier(make_model, tmp_path):
    """A calibrated classifier of four emotions, saved."""
    fields = {"emotions": ["angry", "fear", "happy", "sad"], "calibration_temperature": 2.0, "calibrated_on": "clips"}
    make_model(model_class=GEmoClapForAudioClassification, **fields).save_pretrained(tmp_path / "four")
    return tmp_path / "four"


@pytest.mark.parametrize("auto", [AutoModelForAudioClassification, GEmoClapForAudioClassification])
def test_a_head_for_other_classes(classifier, auto, caplog):
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
def test_renamed_labels_survive(classifier, rename):
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


def test_labels_by_argument(classifier):
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
        ({"num_labels": 3}, "num_labels=3, but the checkpoint's emotions are angry, fear, happy, sad"),
        ({"num_labels": 4, **THREE}, "num_labels=4, and id2label names 3: angry, Freude, sad"),
        ({"emotions": ["sad", "angry"], **THREE}, "emotions and id2label disagree"),
        ({"id2label": {0: "a", 2: "b"}}, "must have one word for each place 0, 1, 2, ..."),
        ({"id2label": {0: "a", "x": "b"}}, "must have one word for each place"),
        ({"id2label": {0: "a", 1: "a"}}, "must have one word for each place"),
        ({"label2id": {"a": 0, "b": 0}}, "must have one word for each place"),
        ({"id2label": {0: "a"}}, "emotions names 'a' alone"),
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


def test_a_zero_shot_model_takes_other_words(make_model, make_processor, tmp_path):
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
    """Whoever takes a softmax of them, transformers' own pipelines among them, has the calibrated scores."""
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
    """Of both kinds, with clips that they answer neither all right nor all wrong."""
    found = []
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
            clips = [{**each, "gender_label": -1} for each in clips]
            collator = GEmoClapCollator(processor, model.config)
        data = {"train_dataset": clips[:9], "eval_dataset": clips, "data_collator": collator}
        found.append(trainer_class(model, arguments, processing_class=processor, **data))
    return found


def test_fitting_twice_is_fitting_once(trainers, monkeypatch):
    from modeling_gemoclap.runs import calibration

    monkeypatch.setattr(calibration, "temperature_of", lambda logits, labels: logits.abs().mean().item() + 1)
    for trainer in trainers:
        config = trainer.model.config
        fit_temperature(trainer)
        first = config.calibration_temperature
        assert first > 1 and config.calibrated_on == "10 clips of development speakers"
        fit_temperature(trainer)
        assert config.calibration_temperature == first


def test_a_checkpoint_that_is_trained_on_is_not_calibrated(trainers):
    for trainer in trainers:
        trainer.args.max_steps = 1
        trainer.model.config.calibration_temperature, trainer.model.config.calibrated_on = 2.0, "clips"
        trainer.evaluate()
        assert trainer.model.config.calibration_temperature == 2.0
        trainer.train()
        assert trainer.model.config.calibration_temperature is trainer.model.config.calibrated_on is None


def test_a_card_tells_what_the_stock_pipeline_wants(make_model, tmp_path):
    model = make_model(emotions=["fear", "sad"], calibration_temperature=2.0)
    assert model.config.prompt_words == ["fearful", "sad"]
    card = write_model_card(
        str(tmp_path), model, GEmoClapTrainer.card_text, TrainingFacts(TrainerState(epoch=1, global_step=1), 16000, 1)
    ).read_text()
    assert '`candidate_labels=["fearful", "sad"], hypothesis_template="this person is feeling {}"`' in card
    assert "the mean of 2" in card and "calibration temperature too" in card
