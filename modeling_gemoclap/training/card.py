"""What training knows about a model for its card."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup
from transformers import TrainerState

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.provenance import HEARD, NOT_HEARD, TEACHER, UNKNOWN, Heard, heard_speakers, merged
from ..markdown import as_text
from ..publishing.card import CLASSIFIER, CONTRASTIVE, ENCODER, Checkpoint, environment, save_card
from ..publishing.facts import CardFacts, save_facts
from .history import corpora_of

SENTENCES = ("summary", "objective", "references")


@dataclass(frozen=True)
class CardText:
    """Description of an objective on the card: Jinja templates that see the model's `config` and `stage`.

    Args:
        title: Name of the method.
        summary: Description of the checkpoint, one or two sentences.
        objective: The loss, for a table cell.
        references: Papers in addition to that of GEmo-CLAP.
    """

    title: str = "a model of speech"
    summary: str = "A model of speech. Its training objective has no description."
    objective: str = "not described"
    references: str = ""


@dataclass(frozen=True)
class Development:
    """Use of the development clips.

    Args:
        chosen: Whether the saved epoch was chosen by its development result.
        heard: Whether the weights were trained on the development speakers.
        metric: Metric that the epoch was chosen by.
    """

    chosen: bool = False
    heard: Heard = Heard(unknown=["they are not recorded"])
    metric: str = ""


def development_of(arguments, eval_dataset, training_data: list[dict] | None) -> Development:
    """Describe how a training used its development clips.

    Args:
        arguments: The training arguments.
        eval_dataset: The development clips.
        training_data: The records in the configuration. Their development speakers do not count as trained on.
    """
    records = training_data
    if records is not None:
        records = [{key: value for key, value in record.items() if not key.startswith("dev_")} for record in records]
    corpora = list(corpora_of(eval_dataset))
    heard = [heard_speakers(corpus, records) if corpus is not None else Development.heard for corpus in corpora]
    chosen = bool(arguments.load_best_model_at_end)
    return Development(chosen, merged(heard) if heard else Development.heard, arguments.metric_for_best_model or "")


@dataclass(frozen=True)
class TrainingFacts:
    """Facts about a training for the card.

    Args:
        state: The trainer's state; its log has the results on development speakers.
        sampling_rate: Sampling rate of the audio encoder in Hz.
        trained_parameters: Number of parameters that were trained; the others were frozen.
        development: Use of the development clips.
        commands: Commands that started the training.
    """

    state: TrainerState
    sampling_rate: int
    trained_parameters: int
    development: Development = Development()
    commands: list[str] = field(default_factory=list)


def write_model_card(output_dir: str, model: GEmoClapPreTrainedModel, text: CardText, training: TrainingFacts) -> Path:
    """Write the model card, `README.md`, and the facts that it is made of, `card.json`.

    `publishing.card.write_card` writes the card again from the folder, with the results of an evaluation.

    Args:
        output_dir: Folder of the checkpoint.
        model: The trained model.
        text: Description of the objective.
        training: Facts about the training.

    Returns:
        The path of the card.
    """
    folder, state = Path(output_dir), training.state
    chosen = training.development.chosen and state.best_metric is not None
    facts = CardFacts(
        **_rendered(text, model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=training.trained_parameters,
        epochs=round(state.epoch or 0, 2),
        steps=state.global_step,
        kept="the best epoch on the development speakers" if training.development.chosen else "the last epoch",
        development=_development(state, replace(training.development, chosen=chosen)),
        commands=training.commands,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_facts(folder, facts)
    parts = {"text_model": CONTRASTIVE, "classifier": CLASSIFIER}
    architecture = next((name for part, name in parts.items() if hasattr(model, part)), ENCODER)
    return save_card(Checkpoint(folder, architecture, model.config, training.sampling_rate, facts), [])


def _rendered(text: CardText, config) -> dict[str, str]:
    """The texts of an objective, with the values of a configuration."""
    own = [record for record in config.training_data or [] if record.get("stage") != TEACHER]
    stage = next((record["stage"] for record in reversed(own) if "speakers" in record and "stage" in record), "")
    templates, words = environment(), {"config": config, "stage": stage}
    words["title"] = Markup(templates.from_string(text.title).render(**words))
    rendered = {name: templates.from_string(getattr(text, name)).render(**words) for name in SENTENCES}
    return {"title": str(words["title"]), **rendered}


def _development(state: TrainerState, development: Development) -> str | None:
    """The result on the development speakers; None if there is none for the epoch that was kept."""
    evaluations = [entry for entry in state.log_history if "eval_uar" in entry]
    if not evaluations:
        return None
    evaluation = evaluations[-1]
    if development.chosen:
        evaluation = next((entry for entry in evaluations if entry.get("step") == _chosen_step(state)), None)
        if evaluation is None:
            return None
    by_metric = f" by {as_text(development.metric)}" if development.metric else ""
    return (
        f"On the development speakers, {_whether_trained_on(development.heard)}"
        f"{f', and on which the epoch was chosen{by_metric}' * development.chosen}, after epoch "
        f"{evaluation.get('epoch', 0):g}: UAR {evaluation['eval_uar']:.3f}, WAR {evaluation['eval_war']:.3f}."
    )


def _whether_trained_on(heard: Heard) -> str:
    return {
        NOT_HEARD: "which were not trained on",
        HEARD: f"of which the model was TRAINED ON {as_text(', '.join(heard.speakers))}",
        UNKNOWN: f"for which it is UNKNOWN whether they were trained on ({as_text('; '.join(heard.unknown))})",
    }[heard.answer]


def _chosen_step(state: TrainerState) -> int | None:
    """Step of the best checkpoint."""
    step = getattr(state, "best_global_step", None)
    if step is None and state.best_model_checkpoint:
        step = int(state.best_model_checkpoint.rpartition("-")[2])
    return step
