"""The model card of a checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
from huggingface_hub import ModelCard, ModelCardData
from markupsafe import Markup
from transformers import TrainerState

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..corpora.provenance import HEARD, NOT_HEARD, UNKNOWN, Heard, heard_speakers, merged
from ..markdown import as_code, as_text
from .history import SUPERVISED, TEACHER, corpora_of

TEMPLATE = Path(__file__).with_name("card_template.md")
SENTENCES = ("title", "summary", "objective", "references")
NO_RESULTS = "Not evaluated. `python evaluate.py --model DIR --data_dir DIR` evaluates it on unseen speakers."
NO_PREDICTIONS = (
    "The model predicts no emotions. `python evaluate.py --model DIR --data_dir DIR --layer_similarity` compares its "
    "embeddings of clips."
)


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
    """

    state: TrainerState
    sampling_rate: int
    trained_parameters: int
    development: Development = Development()


def write_model_card(output_dir: str, model: GEmoClapPreTrainedModel, text: CardText, training: TrainingFacts) -> Path:
    """Write the model card, `README.md`, from the model's configuration and the state of its training.

    Args:
        output_dir: Folder of the checkpoint.
        model: The trained model.
        text: Description of the objective.
        training: Facts about the training.

    Returns:
        The path of the card.
    """
    config, state = model.config, training.state
    contrastive, classifier = hasattr(model, "text_model"), hasattr(model, "classifier")
    towers = ("audio", "text") if contrastive else ("audio",)
    sources = {tower: getattr(getattr(config, f"{tower}_config"), "_name_or_path", "") for tower in towers}
    own = [record for record in config.training_data or [] if record.get("stage") != TEACHER]
    records = [record for record in own if "speakers" in record]
    chosen = training.development.chosen and state.best_metric is not None
    development = replace(training.development, chosen=chosen)
    stage = next((record["stage"] for record in reversed(records) if "stage" in record), "")
    known = config.training_data is not None and not any("unknown" in record for record in own)
    prompts = config.class_prompts() if contrastive else []
    data = _metadata(contrastive, classifier, sources)
    environment = _environment()
    words = {"config": config, "stage": stage, "teacher_stage": TEACHER}
    words["title"] = environment.from_string(text.title).render(**words)
    rendered = {name: Markup(environment.from_string(getattr(text, name)).render(**words)) for name in SENTENCES}
    content = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **words,
        text=rendered,
        card_data=Markup(data.to_yaml()),
        name=Path(output_dir).resolve().name,
        contrastive=contrastive,
        classifier=classifier,
        audio_source=_source(sources["audio"], known) + (f", then as {stage} (see below)" if stage else ""),
        clusters=any("unlabelled" in record for record in records),
        supervised=any(record.get("stage") == SUPERVISED for record in records),
        text_source=_source(sources.get("text", ""), known),
        pretrained=any(sources.values()),
        sampling_rate=training.sampling_rate,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=training.trained_parameters,
        class_prompts=max(map(len, prompts), default=0),
        prompts=_prompts(config) if contrastive else "",
        epochs=round(state.epoch or 0, 2),
        steps=state.global_step,
        kept="the best epoch on the development speakers" if development.chosen else "the last epoch",
        results=Markup(_results(state, development) if contrastive or classifier else NO_PREDICTIONS),
    )
    path = Path(output_dir) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    ModelCard(content).save(path)
    return path


def _metadata(contrastive: bool, classifier: bool, sources: dict[str, str]) -> ModelCardData:
    """Metadata of the card for the Hub.

    Args:
        contrastive: Whether the model has a text tower.
        classifier: Whether the model has a classification head.
        sources: Name or path of the pretrained encoder of each tower; empty if there is none.
    """
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification" if contrastive or classifier else "feature-extraction",
        tags=["speech-emotion-recognition", "gemo-clap", "speech", *(["zero-shot"] if contrastive else [])],
        base_model=[source for source in sources.values() if source and not os.path.exists(source)] or None,
    )


def _environment() -> jinja2.Environment:
    """A Jinja environment that escapes values, so that names from data create no markup, table cells or lines."""
    environment = jinja2.Environment(finalize=_escape)
    environment.filters["code"] = lambda value: Markup(as_code(str(value)))
    environment.filters["cell_code"] = lambda value: Markup(as_code(str(value), in_table=True))
    return environment


def _escape(value):
    return as_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str, known: bool) -> str:
    if name:
        return f"pretrained: {Path(name).name}"
    return "trained from scratch" if known else "its initial weights are not recorded"


def _prompts(config) -> str:
    """The number of prompt templates at inference, the words, and the prompts of the first template and emotion."""
    joint, emotion = config.uses_joint_texts, config.emotions[0]
    count = len(config.joint_templates if joint else config.emotion_templates)
    genders = f" for {len(config.genders)} genders" if joint else ""
    examples = [config.joint_prompts(emotion, gender)[0] for gender in config.genders] if joint else []
    examples = examples or config.emotion_prompts(emotion)[:1]
    return (
        f"{count} template{'s' * (count > 1)}{genders}, with the words {', '.join(config.prompt_words)}; for example "
        + " · ".join(f'"{prompt}"' for prompt in examples)
    )


def _results(state: TrainerState, development: Development) -> str:
    evaluations = [entry for entry in state.log_history if "eval_uar" in entry]
    if not evaluations:
        return NO_RESULTS
    evaluation = evaluations[-1]
    if development.chosen:
        evaluation = next((entry for entry in evaluations if entry.get("step") == _chosen_step(state)), None)
        if evaluation is None:
            return NO_RESULTS
    by_metric = f" by {as_text(development.metric)}" if development.metric else ""
    return (
        f"On the development speakers, {_whether_trained_on(development.heard)}"
        f"{f', and on which the epoch was chosen{by_metric}' * development.chosen}, after epoch "
        f"{evaluation.get('epoch', 0):g}: UAR {evaluation['eval_uar']:.3f}, WAR {evaluation['eval_war']:.3f}. "
        f"On test speakers: not evaluated."
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
