"""The model card that goes with every checkpoint."""

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
from .history import SUPERVISED, corpora_of

TEMPLATE = Path(__file__).with_name("card_template.md")
SENTENCES = ("title", "summary", "objective", "references")
NO_RESULTS = "Not evaluated. `python evaluate.py --model DIR --data_dir DIR` judges it on speakers it has not heard."
NO_ANSWERS = (
    "It names no emotion. `python evaluate.py --model DIR --data_dir DIR --layer_similarity` compares clips by it."
)


@dataclass(frozen=True)
class CardText:
    """What an objective says of itself on the card; Jinja, with the model's `config` and `stage`.

    Args:
        title: Name of what was trained.
        summary: What the checkpoint is, a sentence or two.
        objective: The loss, in a cell of a table.
        references: Papers beside that of GEmo-CLAP.
    """

    title: str = "a model of speech"
    summary: str = "A model of speech that was trained with an objective that describes itself no further."
    objective: str = "not described"
    references: str = ""


@dataclass(frozen=True)
class Development:
    """What a training was developed on.

    Args:
        chosen: Whether the epoch that is kept was chosen by it.
        heard: Whether the weights were trained on its speakers.
        metric: What the epoch was chosen by.
    """

    chosen: bool = False
    heard: Heard = Heard(unknown=["it is not recorded which they are"])
    metric: str = ""


def development_of(arguments, eval_dataset, training_data: list[dict] | None) -> Development:
    """What a training was developed on, by its arguments, its dataset and the records of what the weights have heard.

    Args:
        arguments: Of the training.
        eval_dataset: The development clips.
        training_data: The records; speakers that they say were developed on were not trained on for that.
    """
    records = training_data
    if records is not None:
        records = [{name: value for name, value in one.items() if not name.startswith("dev_")} for one in records]
    corpora = list(corpora_of(eval_dataset))
    found = [heard_speakers(corpus, records) if corpus is not None else Development.heard for corpus in corpora]
    chosen = bool(arguments.load_best_model_at_end)
    return Development(chosen, merged(found) if found else Development.heard, arguments.metric_for_best_model or "")


@dataclass(frozen=True)
class TrainingFacts:
    """What a card says of the training.

    Args:
        state: The trainer's state; metrics on development speakers come from its log.
        sampling_rate: Rate of the audio encoder, in Hz.
        trained_parameters: Number of parameters that were trained; the others were frozen.
        development: What the training was developed on.
    """

    state: TrainerState
    sampling_rate: int
    trained_parameters: int
    development: Development = Development()


def write_model_card(output_dir: str, model: GEmoClapPreTrainedModel, text: CardText, training: TrainingFacts) -> Path:
    """Write `README.md` from what the model and its training really were.

    Args:
        output_dir: The checkpoint's folder.
        model: The trained model.
        text: What its objective says of itself.
        training: What is known of the training.

    Returns:
        The path of the card.
    """
    config, state = model.config, training.state
    contrastive, classifier = hasattr(model, "text_model"), hasattr(model, "classifier")
    towers = ("audio", "text") if contrastive else ("audio",)
    sources = {tower: getattr(getattr(config, f"{tower}_config"), "_name_or_path", "") for tower in towers}
    records = [record for record in config.training_data or [] if "speakers" in record]
    chosen = training.development.chosen and state.best_metric is not None
    development = replace(training.development, chosen=chosen)
    stage = next((record["stage"] for record in reversed(records) if "stage" in record), "")
    known = config.training_data is not None and not any("unknown" in record for record in config.training_data)
    prompts = config.class_prompts() if contrastive else []
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification" if contrastive or classifier else "feature-extraction",
        tags=["speech-emotion-recognition", "gemo-clap", "speech", *(["zero-shot"] if contrastive else [])],
        base_model=[source for source in sources.values() if source and not os.path.exists(source)] or None,
    )
    environment = _environment()
    words = {"config": config, "stage": stage}
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
        prompts=" · ".join(f'"{prompt}"' for group in prompts for prompt in group[:1]),
        epochs=round(state.epoch or 0, 2),
        steps=state.global_step,
        kept="the best epoch on the development speakers" if development.chosen else "the last epoch",
        results=Markup(_results(state, development) if contrastive or classifier else NO_ANSWERS),
    )
    path = Path(output_dir) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    ModelCard(content).save(path)
    return path


def _environment() -> jinja2.Environment:
    """Renders cards. Names and words that come from data stay text: they make no markup, cell or line."""
    environment = jinja2.Environment(finalize=_text_alone)
    environment.filters["code"] = lambda value: Markup(as_code(str(value)))
    environment.filters["cell_code"] = lambda value: Markup(as_code(str(value), in_table=True))
    return environment


def _text_alone(value):
    return as_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str, known: bool) -> str:
    if name:
        return f"pretrained: {Path(name).name}"
    return "trained from scratch" if known else "what it started from is not recorded"


def _results(state: TrainerState, development: Development) -> str:
    evaluations = [entry for entry in state.log_history if "eval_uar" in entry]
    if not evaluations:
        return NO_RESULTS
    kept = evaluations[-1]
    if development.chosen:
        kept = next((entry for entry in evaluations if entry.get("step") == _chosen_step(state)), None)
        if kept is None:
            return NO_RESULTS
    by = f" by {as_text(development.metric)}" if development.metric else ""
    return (
        f"On the development speakers, {_whether_trained_on(development.heard)}"
        f"{f', and which chose the epoch{by}' * development.chosen}, after epoch {kept.get('epoch', 0):g}: UAR "
        f"{kept['eval_uar']:.3f}, WAR {kept['eval_war']:.3f}. On test speakers: not evaluated."
    )


def _whether_trained_on(heard: Heard) -> str:
    return {
        NOT_HEARD: "which were not trained on",
        HEARD: f"of which it was TRAINED ON {as_text(', '.join(heard.speakers))}",
        UNKNOWN: f"of which it is UNKNOWN whether they were trained on ({as_text('; '.join(heard.unknown))})",
    }[heard.answer]


def _chosen_step(state: TrainerState) -> int | None:
    """The step of the checkpoint that was chosen."""
    step = getattr(state, "best_global_step", None)
    if step is None and state.best_model_checkpoint:
        step = int(state.best_model_checkpoint.rpartition("-")[2])
    return step
