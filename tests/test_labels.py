"""Labels in whatever form they come, prompts that differ, and options that messages name."""

import ast
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, load_script

from modeling_gemoclap import GEmoClapConfig, ZeroShotEmotionPipeline
from modeling_gemoclap.prompts_gemoclap import check_templates, check_words, refuse_shared_prompts
from modeling_gemoclap.training.arguments import parse_arguments


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
OF_TRAINING = {"label_fraction", "num_dev_speakers"}  # of protocols, which train.py alone deals


def options_of(program) -> set[str]:
    """The options of a program, without dashes."""
    seen = []
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("argparse.ArgumentParser.print_help", lambda self, file=None: seen.append(self))
        parse_arguments(["--help"]) if program == "train" else load_script(program).parse(["--help"])
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
    options = {name: options_of(name) for name in ("train", "evaluate")}
    of_part, named = {"training": ["train"], "evaluation": ["evaluate"]}, set()
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0]
        for line, text in messages(path):
            programs = of_part.get(part, ["train"] if part.endswith("_gemoclap.py") else ["train", "evaluate"])
            if re.fullmatch(r"--[a-z_]+", text):
                continue  # a piece of a command line that is put together
            for found in re.findall(r"train\.py|evaluate\.py|--[a-z][a-z_]+\b(?!\*)", text):
                option = found.removeprefix("--")
                if option == found:
                    programs = [found.removesuffix(".py")]
                    continue
                for program in ["train"] if option in OF_TRAINING else programs:
                    where = f"{path.name}, line {line}: {program}.py has no {found}: {text!r}"
                    assert option in options[program], where
                named.add(option)
    assert {"labels", "drop_other_emotions", "emotions", "on_bad_audio", "init_from", "control"} <= named


@pytest.mark.parametrize("option", ["drop_other_emotions", "allow_seen_speakers", "overwrite_output"])
def test_switches_are_as_in_training(option):
    parse = load_script("evaluate").parse
    for given, value in (([], False), ([f"--{option}"], True), ([f"--{option}", "true"], True)):
        assert getattr(parse(["--data_dir", "x", *given]), option) is value
    assert getattr(parse([f"--{option}", "false", "--data_dir", "x"]), option) is False
    with pytest.raises(SystemExit):
        parse(["--data_dir", "x", f"--{option}", "maybe"])
