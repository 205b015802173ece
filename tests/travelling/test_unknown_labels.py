"""Labels as indices: negative labels are unknown, labels out of range raise errors; names of labels that disagree."""

import pytest
import torch
from conftest import batch_of
from torch.nn import functional as F

from modeling_gemoclap import GEmoClapConfig, GEmoClapForAudioClassification
from modeling_gemoclap.losses_gemoclap import (
    ContrastiveBatch,
    LossSettings,
    contrastive_loss,
    known_labels,
    objective_terms,
)
from modeling_gemoclap.objectives.gemo_clap.collator import GEmoClapCollator
from modeling_gemoclap.objectives.two_stage.sampler import CorpusSampling, SupConSampler
from modeling_gemoclap.training.samplers import ClassBalancedSampler

IDS = torch.tensor([[5, 6, 7], [5, 8, 9], [5, 6, 9], [5, 9, 9]])


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_every_negative_label_is_unknown_to_the_loss(make_model, objective):
    model = make_model(objective=objective)
    audio, _ = batch_of(model, [8000] * 4)
    text = {"input_ids": IDS, "gender_input_ids": IDS.flip(0)}

    def loss(emotions, genders):
        labels = {"emotion_labels": torch.tensor(emotions), "gender_labels": torch.tensor(genders)}
        return model(**audio, **text, **labels).loss

    with torch.no_grad():
        unknown = loss([0, 1, -1, -1], [-1, -1, 0, 1])
        assert torch.equal(loss([0, 1, -100, -100], [-100, -7, 0, 1]), unknown)
        assert not torch.equal(loss([0, 1, 2, 2], [-1, -1, 0, 1]), unknown)


@pytest.mark.parametrize("objective", ["emo", "ml", "sl"])
def test_every_negative_label_is_unknown_to_objective_terms(objective):
    torch.manual_seed(0)
    audio, text, gender = F.normalize(torch.randn(3, 4, 6), dim=-1)
    scale = torch.tensor(5.0)

    def loss(emotions, genders):
        labels = (torch.tensor(emotions), torch.tensor(genders))
        batch = ContrastiveBatch(audio, text, scale, scale, *labels, gender)
        return contrastive_loss(objective_terms(objective, batch, LossSettings()))

    assert torch.equal(loss([0, 0, -100, -100], [1, -9, -9, 0]), loss([0, 0, -1, -1], [1, -1, -1, 0]))


def test_classifier_ignores_every_negative_label(make_model):
    model = make_model(model_class=GEmoClapForAudioClassification)
    audio, _ = batch_of(model, [8000] * 3)
    with torch.no_grad():
        losses = [model(**audio, labels=torch.tensor([1, unknown, 0])).loss for unknown in (-1, -100)]
        logits = model(**audio).logits
        assert model(**audio, labels=torch.tensor([-100] * 3)).loss == 0
    assert torch.equal(*losses) and torch.isclose(losses[0], F.cross_entropy(logits[[0, 2]], torch.tensor([1, 0])))


def test_labels_out_of_range_are_named(make_model, make_processor):
    model, classifier = make_model(objective="ml"), make_model(model_class=GEmoClapForAudioClassification)
    audio, _ = batch_of(model, [8000] * 4)
    beyond, known = torch.tensor([0, 1, 99, -1]), torch.zeros(4, dtype=torch.long)
    classes = len(model.config.emotions)
    with pytest.raises(
        ValueError, match=f"emotion_labels has 99, but there are {classes} classes, 0 to {classes - 1}"
    ):
        model(**audio, input_ids=IDS, gender_input_ids=IDS, emotion_labels=beyond)
    with pytest.raises(ValueError, match="gender_labels has 99, but there are 2 classes, 0 to 1: female, male"):
        model(**audio, input_ids=IDS, gender_input_ids=IDS, emotion_labels=known, gender_labels=beyond)
    with pytest.raises(ValueError, match="^labels has 99, but there are"):
        classifier(**audio, labels=beyond)
    examples = [{"clip": torch.zeros(20, 16).numpy(), "emotion_label": 0, "gender_label": 2}]
    with pytest.raises(ValueError, match="gender_label has 2, but there are 2 classes"):
        GEmoClapCollator(make_processor(model), model.config)(examples)


def test_every_negative_label_is_unknown_to_the_collator(make_model, make_processor):
    model = make_model()
    examples = [{"clip": torch.zeros(20, 16).numpy(), "emotion_label": -100, "gender_label": -100}] * 2
    batch = GEmoClapCollator(make_processor(model), model.config)(examples)
    assert batch["emotion_labels"].tolist() == batch["gender_labels"].tolist() == [-1, -1]
    labels = [0, 1, -100, 0, 1, -1]
    assert {place % 6 for place in ClassBalancedSampler(labels)} == {0, 1, 3, 4}
    assert set(SupConSampler(labels, CorpusSampling([0] * 6), 4).corpora_of_emotion) == {0, 1}
    assert known_labels("labels", None, ["a", "b"]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.id2label.update({0: "furious"}),
        lambda config: config.emotions.__setitem__(0, "furious"),
        lambda config: config.label2id.update(furious=0),
        lambda config: config.emotions.append("calm"),
        lambda config: config.id2label.pop(0),
    ],
)
@pytest.mark.parametrize("saved", ["model", "configuration"])
def test_labels_changed_in_place_are_not_saved(make_model, tmp_path, change, saved):
    model = make_model(model_class=GEmoClapForAudioClassification)
    change(model.config)
    with pytest.raises(ValueError, match="labels were changed in place, so the saved .* could not be loaded"):
        (model if saved == "model" else model.config).save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.glob("saved/*.json")) and not list(tmp_path.glob("saved/*.safetensors"))
    model.config.id2label = {0: "furious", 1: "sad"}
    model.config.save_pretrained(tmp_path / "saved")
    assert GEmoClapConfig.from_pretrained(tmp_path / "saved").emotions == ["furious", "sad"]


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_other_problem_types_are_refused(problem, tmp_path):
    config = GEmoClapConfig(problem_type="single_label_classification")
    config.save_pretrained(tmp_path)
    for ask in (
        lambda: GEmoClapConfig(problem_type=problem),
        lambda: GEmoClapConfig.from_pretrained(tmp_path, problem_type=problem),
        lambda: setattr(config, "problem_type", problem),
    ):
        with pytest.raises(ValueError, match=f"problem_type='{problem}' is not supported: a clip has one emotion"):
            ask()
