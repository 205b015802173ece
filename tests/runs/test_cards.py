"""Claims of the model card, which follow from the arguments, state and records of the training."""

import json
import re

import pytest
from transformers import TrainerState

from modeling_gemoclap import GEmoClapConfig, GEmoClapTrainer
from modeling_gemoclap.corpora.provenance import Heard
from modeling_gemoclap.markdown import as_block, as_code, as_text
from modeling_gemoclap.objectives.classifier import ClassifierTrainer
from modeling_gemoclap.objectives.two_stage.trainer import SupConTrainer
from modeling_gemoclap.training.card import Development, TrainingFacts, write_model_card

markdown_it = pytest.importorskip("markdown_it")


def card(model, folder, state=None, **options):
    state = state or TrainerState(epoch=1, global_step=1)
    trainers = {"text_model": GEmoClapTrainer, "classifier": ClassifierTrainer, "config": SupConTrainer}
    trainer = next(trainer for part, trainer in trainers.items() if hasattr(model, part))
    facts = TrainingFacts(state, 16000, 1, **options)
    return write_model_card(str(folder), model, trainer.card_text, facts).read_text(encoding="utf-8")


def test_the_last_epoch_is_not_called_the_best(train, tones, tmp_path):
    """Evaluation after each epoch selects no epoch, unless the best one is loaded at the end."""
    options = ("--data_dir", tones, "--dev_speakers", "03", "--exclude_speakers", "04", "--num_train_epochs", "3")
    options += ("--eval_strategy", "epoch", "--metric_for_best_model", "uar", "--output_dir")
    train(*options, tmp_path / "last")
    text = (tmp_path / "last/README.md").read_text()
    assert "the last epoch is kept" in text and "epoch was chosen" not in text and "after epoch 3:" in text
    assert "which were not trained on" in text and "| 01, 02; developed on 03 |" in text
    train(*options, tmp_path / "further", "--init_from", tmp_path / "last", "--dev_speakers", "02")
    text = (tmp_path / "further/README.md").read_text()
    assert "On the development speakers, of which the model was TRAINED ON 02, after" in text
    assert "not trained on" not in text


@pytest.mark.parametrize("best", [{"best_global_step": 4}, {"best_model_checkpoint": "run/checkpoint-4"}])
def test_the_metrics_are_those_of_the_selected_epoch(make_model, tmp_path, best):
    log = [
        {"step": step, "epoch": step / 4, "eval_uar": uar, "eval_war": war}
        for step, uar, war in ((4, 0.5, 0.9), (8, 0.8, 0.6), (12, 0.6, 0.5))
    ]
    state = TrainerState(epoch=3, global_step=12, log_history=log, best_metric=0.9, **best)
    text = card(make_model(), tmp_path, state, development=Development(True, Heard(), "war"))
    assert "on which the epoch was chosen by war, after epoch 1: UAR 0.500, WAR 0.900" in text
    text = card(make_model(), tmp_path, state)
    assert "after epoch 3: UAR 0.600" in text and "UNKNOWN whether they were trained on" in text


def test_weights_with_unknown_training_data_are_not_called_trained_from_scratch(make_model, tmp_path):
    for records in (None, [{"unknown": "it was trained further from other weights"}]):
        text = card(make_model(training_data=records), tmp_path)
        assert "from scratch" not in text and text.count("its initial weights are not recorded") == 2
    assert "trained from scratch" in card(make_model(training_data=[]), tmp_path)


def test_labels_in_code_are_literals(make_model, tmp_path):
    labels = ["angry", "a|b", "tick ` tock"]
    text = card(make_model(emotions=labels), tmp_path)
    [line] = [line for line in text.splitlines() if "candidate_labels=" in line]
    tokens = markdown_it.MarkdownIt().parseInline(line)[0].children
    [code] = [token.content for token in tokens if token.type == "code_inline" and "candidate" in token.content]
    assert (
        json.loads(re.search(r"candidate_labels=(\[.*?\]),", code)[1]) == GEmoClapConfig(emotions=labels).prompt_words
    )


@pytest.mark.parametrize(
    "options, cell",
    [
        (
            {
                "emotions": ["happy", "fear"],
                "joint_templates": ["a {emotion} {gender} voice", "{emotion} {gender} speech"],
            },
            '2 templates for 2 genders, with the words happy, fearful; for example "a happy female voice" · '
            '"a happy male voice"',
        ),
        (
            {"emotions": ["fear", "happy"], "objective": "emo", "emotion_templates": ["a {} voice"]},
            '1 template, with the words fearful, happy; for example "a fearful voice"',
        ),
    ],
)
def test_the_card_states_which_prompts_the_pipeline_uses(make_model, tmp_path, options, cell):
    text = card(make_model(**options), tmp_path)
    assert f"| prompts | {cell} |" in text


def test_calibration_is_limited_to_the_prompts_it_was_fitted_for(make_model, tmp_path):
    text = card(make_model(calibration_temperature=0.5), tmp_path)
    assert "| scores | calibrated, temperature 0.5; it holds for these emotions and prompts" in text
    assert "it holds for" not in card(make_model(), tmp_path)


SPECIAL = "# h <script> | `a` ``b`` ![i](x) [l](y)\n\n```\n- *x* ~~~"


def test_special_characters_are_escaped():
    parser = markdown_it.MarkdownIt().enable("table")
    html = parser.render(
        f"{as_text(SPECIAL)}\n\n| a | b |\n|---|---|\n| {as_text(SPECIAL)} | {as_code('x|`y', True)} |\n"
    )
    assert html.count("<td>") == 2 and "<code>x|`y</code>" in html
    for tag in ("<h1", "<script", "<img", "<a ", "<li", "<em", "<pre"):
        assert tag not in html, tag
    [block] = parser.parse(as_block(SPECIAL))
    assert block.type == "fence" and block.content == SPECIAL + "\n"
