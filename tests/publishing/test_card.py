"""`write_card`: the card of any checkpoint folder, with the results of an evaluation or without."""

import copy
import hashlib
import json
import re

import pytest
import yaml
from conftest import ROOT
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from modeling_gemoclap import GEmoClapForAudioClassification
from modeling_gemoclap.publishing.card import write_card
from modeling_gemoclap.publishing.facts import CardFacts, load_facts, save_facts
from modeling_gemoclap.publishing.results import EVAL_RESULTS
from modeling_gemoclap.safety_gemoclap import tensors_sha256

DATA = [
    {"encoder": "whisper-base"},
    {
        **{"corpus": "emodb", "known": "emodb", "licence": "CC0-1.0", "speakers": ["03"], "num_clips": 9},
        "manifest_sha256": "a" * 64,
    },
]
SCORES = {"uar": 0.625, "war": 0.75, "macro_f1": 0.5, "recall": {"angry": 1.0, "sad": 0.25}}
RESULTS = SCORES | {
    **{"n": 40, "corpus": "ravdess", "speakers": ["01", "02", "08"], "model": "checkpoint", "protocols": None},
    **{"protocol": "zero-shot; speaker-independent", "command": "python evaluate.py --model checkpoint"},
    **{"versions": {"torch": "2"}, "notes": ["a note"], "skipped": [], "training_data": DATA, "asked": {}},
    "intervals": {"uar": [0.5, 0.7], "war": None, "method": "t"},
    "recall_intervals": {
        "angry": {"interval": None, "speakers": 3},
        "sad": {"interval": [0.125, 0.5], "speakers": 6},
    },
    "controls": {"constant": SCORES | {"uar": 0.5}, "shuffled_labels": None},
    "calibration": {"ece": 0.125, "confidence": 0.875, "accuracy": 0.75},
    "fairness": {
        **{"uar_female": 0.75, "interval_female": [0.6, 0.85], "num_female": 5},
        **{"uar_male": 0.5, "interval_male": None, "num_male": 1, "gap": 0.25, "gap_interval": None},
    },
}


@pytest.fixture
def folder(make_model, tmp_path):
    make_model(training_data=DATA, calibration_temperature=2.0).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_what_is_not_recorded_is_unknown(folder):
    card = write_card(folder).read_text()
    for words in (
        "| parameters | unknown, of which an unknown number was learnt in training |",
        "Length of the training: unknown.",
        "Not evaluated on test speakers.",
        "The commands that made the checkpoint: unknown.",
        "- Weights: unknown. Whether the model may be redistributed depends on the licences of the corpora",
    ):
        assert words in card, words
    plain = ModelCard.load(folder / "README.md").data.to_dict()
    assert "model-index" not in plain and "license" not in plain
    assert plain["language"] == ["de"] and plain["datasets"] == ["emodb"]
    for file in folder.glob("*.py"):
        assert f"| `{file.name}` | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |" in card


def test_the_card_of_training_is_written_again_from_its_folder(trained, tmp_path):
    """Training writes the facts to `card.json`; only the results are added."""
    import shutil

    folder = shutil.copytree(trained, tmp_path / trained.name)
    before = (folder / "README.md").read_text()
    assert write_card(folder).read_text() == before
    facts = load_facts(folder)
    assert facts.epochs and facts.steps and facts.trained_parameters == facts.parameters
    [command] = facts.commands
    assert command in before and "train.py" in command and "--exclude_speakers 04" in command
    assert not re.search(r"(^|\s)/\w", command), "a card has no path of the machine"


def test_results_are_given_by_class_and_gender_with_intervals(folder):
    (folder / "results.json").write_text(json.dumps(RESULTS))
    card = write_card(folder, folder / "results.json").read_text()
    assert card == write_card(folder, RESULTS).read_text()
    for row in (
        "| UAR (unweighted average recall) | 62.5 | 50.0 to 70.0 |",
        "| angry | 100.0 | no interval below 5 speakers |",
        "| sad | 25.0 | 12.5 to 50.0 |",
        "| women (5 speakers) | 75.0 | 60.0 to 85.0 |",
        "| men (1 speaker) | 50.0 | no interval below 5 speakers |",
        "| women minus men | +25.0 | no interval below 5 speakers of each gender |",
        "| UAR of a constant answer | 50.0 |  |",
        "- a note",
    ):
        assert row in card.splitlines(), row
    assert "Protocol: zero-shot; speaker-independent. 40 clips of 3 speakers." in card
    assert "the expected calibration error is 12.5" in card and RESULTS["command"] in card
    assert "### RAVDESS, speakers 01, 02, 08" in card and "Not evaluated" not in card
    without = {name: value for name, value in RESULTS.items() if name != "recall_intervals"} | {"fairness": None}
    card = write_card(folder, without).read_text()
    assert "| sad | 25.0 | unknown |" in card and "Results by gender: unknown" in card


REJECTION = {
    "thresholds": [
        {"threshold": 0.5, "coverage": 0.875, "n": 35, "accuracy": 0.8125, "uar": 0.6875},
        {"threshold": 0.9, "coverage": 0.0, "n": 0, "accuracy": None, "uar": None},
    ],
    **{"coverages": [], "aurc": 0.125, "aurc_of_random_order": 0.25},
}


def test_what_remains_if_low_scores_are_rejected_is_stated_with_its_protocol_or_unknown(folder):
    unknown = "What remains if predictions below a score are rejected is unknown: these results do not record it."
    assert unknown in write_card(folder, RESULTS).read_text(), "results of an earlier version"
    card = write_card(folder, RESULTS | {"rejection": REJECTION}).read_text()
    assert (
        unknown not in card and "this remains of the same 40 clips, by the same protocol. For other speakers" in card
    )
    for row in ("| nothing | 100.0 | 75.0 | 62.5 |", "| 0.50 | 87.5 | 81.2 | 68.8 |", "| 0.90 | 0.0 | – | – |"):
        assert row in card, row
    assert "risk-coverage curve is 12.5; it would be 25.0 if scores had no relation" in card
    other = write_card(folder, RESULTS | {"rejection": REJECTION, "temperature_of_other_labels": True}).read_text()
    assert "by the same protocol; the scores are not calibrated for these labels." in other


def test_the_model_index_names_the_protocol(folder):
    write_card(folder, RESULTS)
    data = ModelCard.load(folder / "README.md").data
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert values == {"UAR (unweighted average recall)": 0.625, "WAR (accuracy)": 0.75, "macro F1": 0.5}
    for result in data.eval_results:
        assert result.task_type == "audio-classification" and result.dataset_type == "ravdess"
        assert result.dataset_args == {"protocol": RESULTS["protocol"], "clips": 40, "speakers": "01, 02, 08"}
    assert data.model_name == "checkpoint"


def test_RavdessZeroshot_is_written_in_the_format_of_the_Hub(folder):
    """The format of https://huggingface.co/docs/hub/eval-results, read by the Hub's own client where it has it."""
    write_card(folder, RESULTS | {"asked": {"protocol": "ravdess-zeroshot"}})
    content = yaml.safe_load((folder / EVAL_RESULTS).read_text())
    assert EVAL_RESULTS.as_posix() == ".eval_results/RavdessZeroshot.yaml"
    [entry] = content
    assert entry["dataset"] == {"id": "narad/ravdess", "task_id": "RavdessZeroshot"} and entry["value"] == 0.75
    assert "not by mteb" in entry["notes"] and set(entry) == {"dataset", "value", "notes"}
    hub = pytest.importorskip("huggingface_hub._eval_results", reason="huggingface_hub 0.36 has no such reader")
    [parsed] = hub.parse_eval_result_entries(content)
    assert hub.eval_result_entries_to_yaml([parsed]) == content
    write_card(folder, RESULTS)
    assert not (folder / EVAL_RESULTS).exists(), "the card has no such result now"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"training_data": None}, "measured with another checkpoint"),
        ({"protocols": {"0": {}}}, "of a protocol with a model for each fold"),
        ({"uar": "0.5"}, "the results of evaluate.py: uar must not be text"),
        ({"recall": None}, "recall must not be null"),
    ],
)
def test_results_of_something_else_are_refused(folder, change, message):
    write_card(folder)
    before = (folder / "README.md").read_text()
    with pytest.raises(ValueError, match=message):
        write_card(folder, RESULTS | change)
    assert (folder / "README.md").read_text() == before


def record_hash(folder, found=None):
    """Record the hash of the weights, or another one, in a configuration."""
    found = found or tensors_sha256(load_file(folder / "model.safetensors").values())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"weights_sha256": found}))
    return found


def index_of(folder):
    """The results in `model-index`, as the metadata of the card has them."""
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])["model-index"][0]["results"]


def test_results_of_other_weights_are_refused(folder):
    found = record_hash(folder)
    zeroshot = RESULTS | {"weights_sha256": found, "asked": {"protocol": "ravdess-zeroshot"}}
    assert "not verified" not in write_card(folder, [RESULTS | {"weights_sha256": found}, zeroshot]).read_text()
    assert not any("verified" in metric for each in index_of(folder) for metric in each["metrics"])
    assert "not verified" not in (folder / ".eval_results/RavdessZeroshot.yaml").read_text()
    with pytest.raises(ValueError, match="measured with another checkpoint"):
        write_card(folder, RESULTS | {"weights_sha256": "c" * 64})


@pytest.mark.parametrize("lacking", ["results", "configuration"])
def test_results_without_a_hash_are_not_verified(folder, lacking):
    """Only the records of training data agree, which other weights may share."""
    record = {"weights_sha256": "c" * 64} if lacking == "configuration" else {}
    if lacking == "results":
        record_hash(folder)
    zeroshot = RESULTS | record | {"asked": {"protocol": "ravdess-zeroshot"}}
    card = write_card(folder, [RESULTS | record, zeroshot]).read_text()
    metrics = [metric for each in index_of(folder) for metric in each["metrics"]]
    assert len(metrics) == 6 and all(metric["verified"] is False for metric in metrics)
    [entry] = yaml.safe_load((folder / ".eval_results/RavdessZeroshot.yaml").read_text())
    assert entry["notes"].endswith("; not verified to be of these weights")
    assert f"**not verified to be of these weights**: the {lacking} recorded no hash of the weights." in card


def test_other_weights_than_the_recorded_ones_get_no_card(folder):
    record_hash(folder, "b" * 64)
    with pytest.raises(ValueError, match="the weights are not those that its record of training describes"):
        write_card(folder)
    assert not (folder / "README.md").exists()
    record_hash(folder)
    assert write_card(folder).is_file()
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="model.safetensors: the weights cannot be read"):
        write_card(folder)


def with_uar(uar, interval, constant=0.5, shuffled=None):
    """Results with these figures."""
    controls = {"constant": SCORES | {"uar": constant}, "shuffled_labels": shuffled and SCORES | {"uar": shuffled}}
    return RESULTS | {"uar": uar, "intervals": {"uar": interval}, "controls": controls}


@pytest.mark.parametrize(
    "results, chance",
    [
        ([with_uar(0.55, [0.45, 0.65])], True),
        ([with_uar(0.6, [0.55, 0.65])], False),
        ([with_uar(0.5, None)], True),
        ([with_uar(0.6, None)], False),
        ([with_uar(0.6, None, shuffled=0.7)], True),
        ([with_uar(0.5, None), with_uar(0.6, None)], False),
        ([], False),
    ],
)
def test_the_command_proposes_no_push_of_a_model_at_the_level_of_chance(folder, capsys, results, chance):
    from modeling_gemoclap import cli

    words = ["card", str(folder)]
    for number, record in enumerate(results):
        (folder / f"{number}.json").write_text(json.dumps(record))
        words += ["--results", str(folder / f"{number}.json")]
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    output = capsys.readouterr().err
    assert error.value.code == 0 and ("gemoclap push" in output) != chance
    assert ("the results are at the level of chance (RAVDESS: UAR " in output) == chance


def test_a_fault_of_the_template_is_no_damage_of_the_results(folder, monkeypatch):
    monkeypatch.setattr("modeling_gemoclap.publishing.card.environment", lambda: {}["template"])
    with pytest.raises(KeyError, match="template"):
        write_card(folder, RESULTS)


@pytest.mark.parametrize("field", ["calibration", "controls", "recall", "intervals"])
def test_damaged_figures_are_found_before_the_card(folder, field):
    damaged = {"recall": {"sad": "high"}, "controls": {"constant": {"war": 0.5}}, "intervals": {"uar": 0.5}}
    with pytest.raises(ValueError, match="the results: its figures cannot be used"):
        write_card(folder, RESULTS | {field: damaged.get(field, {})})


def test_names_in_results_create_no_markup(folder):
    nasty = "x | y\n\n# h <script>"
    results = copy.deepcopy(RESULTS) | {"corpus": nasty, "protocol": nasty, "notes": [nasty], "command": "```\n# h"}
    results["recall"], results["speakers"] = {nasty: 0.5}, [nasty]
    _, _, body = write_card(folder, results).read_text().split("---\n", 2)
    body = body.replace("\\<script", "").replace("````\n```\n# h\n````", "")
    assert "<script" not in body and not re.search(r"^# h", body, re.M)


def test_facts_of_another_type_are_refused(folder):
    save_facts(folder, CardFacts(title="SL", steps=3))
    assert load_facts(folder) == CardFacts(title="SL", steps=3)
    (folder / "card.json").write_text('{"steps": "three"}')
    with pytest.raises(ValueError, match=r"card.json: steps must not be text"):
        write_card(folder)


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no config.json there"):
        write_card(tmp_path)
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(ValueError, match="not a checkpoint of train.py, but a 'bert' model"):
        write_card(folder)


def test_use_and_licences_are_stated_and_loading_pins_a_revision(folder, make_model, tmp_path):
    make_model(model_class=GEmoClapForAudioClassification).save_pretrained(tmp_path / "classifier")
    for card in (write_card(folder).read_text(), write_card(tmp_path / "classifier").read_text()):
        assert "Article 5(1)(f)" in card and "Regulation (EU) 2024/1689" in card and "at work or in education" in card
        headings = re.findall(r"^## (.+)$", card, re.M)
        needed = ["Training data", "Results", "Limitations", "Intended use", "Excluded use", "Licences", "Code"]
        assert [heading for heading in headings if heading in needed] == needed
        lines = [line for line in card.splitlines() if 'model="NAMESPACE/' in line]
        assert lines and all('revision="..."' in line for line in lines)
    assert "- Recordings of emodb: CC0-1.0." in write_card(folder).read_text()


NAMED = re.compile(r"""(?:from_pretrained\(|model=)\s*["']?(?!runs/|checkpoints/)([A-Za-z][\w-]*/[\w-]+)["']?""")


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_pages_that_load_from_the_hub_pin_a_revision(page):
    for line in page.read_text(encoding="utf-8").splitlines():
        if NAMED.search(line) and "trust_remote_code" in line:
            assert 'revision="' in line, line
