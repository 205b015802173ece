"""The example of docs/extending.md: an objective in one file with its options, which is trained and evaluated."""

import dataclasses
import importlib
import json
import re

import pytest
from conftest import ROOT, run_script

from modeling_gemoclap.command_line.parser import option
from modeling_gemoclap.command_line.ranges import POSITIVE
from modeling_gemoclap.objectives.classifier import ClassifierOptions
from modeling_gemoclap.objectives.registry import OBJECTIVES, objective_named, register
from modeling_gemoclap.runs.identity import external_code
from modeling_gemoclap.runs.recipe import parse_recipe, recipe_of

CODE = re.search(r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S)[1]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    assert len(CODE.splitlines()) <= 70 and len([line for line in CODE.splitlines() if line.strip()]) <= 60
    path = tmp_path_factory.mktemp("example") / "focal.py"
    path.write_text(CODE)
    return path


def test_the_example_trains_and_is_evaluated(example, tones, tmp_path):
    run = tmp_path / "run"
    options = ("--config", "tests/tiny.yaml", "--head", "focal", "--data_dir", tones, "--exclude_speakers", "04")
    done = run_script(example, *options, "--output_dir", run)
    assert "mean_probability" in done.stdout and "is for --head contrastive" in done.stderr
    identity = json.loads((run / "run_identity.json").read_text())
    assert identity["settings"]["focal_gamma"] == 2.0 and list(identity["objective_code"]) == ["focal.py"]
    assert "trained by the focal loss" in (run / "README.md").read_text()
    run_script(
        "evaluate.py", "--model", run, "--data_dir", tones, "--speakers", "04", "--output_dir", tmp_path / "out"
    )
    assert json.loads((tmp_path / "out/results.json").read_text())["n"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "focal", "--focal_gamma", "-1"), "--focal_gamma -1.0 must be at least 0"),
        (("--focal_gamma", "1"), r"--focal_gamma is an option of --head focal \(the focal loss\)"),
        (("--head", "focal", "--alpha", "0.5"), r"--alpha is an option of --head contrastive \(GEmo-CLAP\)"),
    ],
)
def test_options_of_the_example(example, options, message):
    done = run_script(example, *options, check=False)
    assert done.returncode == 1 and re.search(message, done.stderr), done.stderr[-500:]


def test_the_code_of_an_objective_includes_the_modules_beside_it(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("TEMPERATURE = 0.1\n")
    (tmp_path / "outside.py").write_text(
        "import beside\nfrom modeling_gemoclap.objectives.classifier import Classifier\n\n\n"
        "class Outside(Classifier):\n    name = 'outside'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    outside = importlib.import_module("outside")
    before = external_code(outside.Outside(recipe_of(use_cpu=True)))
    assert list(before) == ["beside.py", "outside.py"]
    (tmp_path / "beside.py").write_text("TEMPERATURE = 0.2\n")
    after = external_code(outside.Outside(recipe_of(use_cpu=True)))
    assert [name for name in before if before[name] != after[name]] == ["beside.py"]
    assert external_code(OBJECTIVES["supcon"](recipe_of("supcon", use_cpu=True))) is None
    nowhere = type("Nowhere", (outside.Outside,), {"__module__": "nowhere"})
    with pytest.raises(ValueError, match="Nowhere must be defined in a file"):
        external_code(nowhere(recipe_of(use_cpu=True)))


def test_inherited_options(monkeypatch, capsys):
    """They are listed in the help, and belong to the parent in refusals."""

    @dataclasses.dataclass
    class MoreOptions(ClassifierOptions):
        """More (--head more)."""

        more_weight: float = option(1.0, "A weight", within=POSITIVE)

    more = type("More", (OBJECTIVES["classifier"],), {"name": "more", "title": "more", "Options": MoreOptions})
    monkeypatch.setitem(OBJECTIVES, "more", more)
    with pytest.raises(SystemExit):
        parse_recipe(["--head", "more", "--help"])
    text = capsys.readouterr().out
    assert "--more_weight" in text and "--classifier_hidden_size" in text and "--learning_rate  " not in text
    with pytest.raises(ValueError, match="--classifier_dropout is an option of --head classifier"):
        parse_recipe(["--classifier_dropout", "0.3"])


def test_the_head_of_a_file_can_be_unset(tmp_path):
    (tmp_path / "speaker.yaml").write_text("head: speaker\nspeaker_task: adversarial\n")
    recipe = parse_recipe(["--config", str(tmp_path / "speaker.yaml"), "--no-head", "--use_cpu", "true"])
    assert recipe.model.head == "contrastive" and isinstance(recipe.options, OBJECTIVES["contrastive"].Options)
    (tmp_path / "list.yaml").write_text("head: [speaker]\n")
    with pytest.raises(ValueError, match="list.yaml: head must be the name of one objective"):
        parse_recipe(["--config", str(tmp_path / "list.yaml")])


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("contrastive", {"alpha": 5.0}, "alpha 5.0 must be at least 0 and at most 1"),
        ("contrastive", {"lora_towers": ["x"]}, "lora_towers"),
        ("contrastive", {"speaker_task": "contrastive"}, "has no option speaker_task"),
        ("contrastive", {"freeze_audio_encoder": True, "unfreeze_last_n_layers": 1}, "contradict each other"),
        ("speaker", {"mix_prob": 0.5}, "--mix_prob 0.5: not supported by speaker clusters"),
        ("speaker", {"emotions": ["sad", "happy"]}, "not supported by speaker clusters, since no label is read"),
        ("speaker", {"speaker_task": "adversarial", "speaker_weight": 0.0}, "--speaker_weight 0 disables"),
        ("supcon", {"select": "dev"}, "two-stage supervised contrast predicts no emotion"),
    ],
)
def test_options_that_do_not_go_together_are_refused_when_parsed(head, options, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(head, use_cpu=True, **options)


def test_unknown_heads_in_files(tmp_path):
    (tmp_path / "focal.yaml").write_text("head: focal\nfocal_gamma: 1\n")
    for more in ((), ("--head", "classifier")):
        with pytest.raises(ValueError, match="--head focal: no such objective.*must register"):
            parse_recipe(["--config", str(tmp_path / "focal.yaml"), *more])
    with pytest.raises(ValueError, match="did you mean classifier"):
        parse_recipe(["--head", "clasifier"])


def test_the_registry():
    assert list(OBJECTIVES) == ["contrastive", "classifier", "supcon", "speaker", "probe"]
    with pytest.raises(ValueError, match="--head emo: no such objective; known are contrastive, classifier"):
        objective_named("emo")
    with pytest.raises(ValueError, match="'classifier' exists already"):
        register(type("Another", (OBJECTIVES["supcon"],), {"name": "classifier"}))
    options = dataclasses.make_dataclass("Taken", [("pooling", str, "mean")])
    with pytest.raises(ValueError, match="Taken: pooling is an option of all objectives"):
        register(type("Another", (OBJECTIVES["supcon"],), {"name": "another", "Options": options}))
