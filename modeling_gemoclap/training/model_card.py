"""The model card that goes with every checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path

import jinja2
from huggingface_hub import ModelCard, ModelCardData
from markupsafe import Markup
from transformers import TrainerState

from .start import SUPERVISED

OBJECTIVE_NAMES = {"emo": "Emo-CLAP", "ml": "ML-GEmo-CLAP", "sl": "SL-GEmo-CLAP"}
NO_RESULTS = "Not evaluated. `python evaluate.py --model DIR --data_dir DIR` judges it on speakers it has not heard."
NO_ANSWERS = (
    "It names no emotion. `python evaluate.py --model DIR --data_dir DIR --layer_similarity` compares clips by it."
)


def write_model_card(output_dir: str, model, state: TrainerState, sampling_rate: int, trained_parameters: int) -> Path:
    """Write `README.md` from what the model and its training really were.

    Args:
        output_dir: The checkpoint's folder.
        model: The trained model.
        state: The trainer's state; metrics on development speakers come from its log.
        sampling_rate: Rate of the audio tower, in Hz.
        trained_parameters: How many parameters learnt; the rest was frozen.

    Returns:
        The path of the card.
    """
    config = model.config
    contrastive, classifier = hasattr(model, "text_model"), hasattr(model, "classifier")
    towers = ("audio", "text") if contrastive else ("audio",)
    sources = {tower: getattr(getattr(config, f"{tower}_config"), "_name_or_path", "") for tower in towers}
    records = [record for record in config.training_data or [] if "speakers" in record]
    own = [record for record in records if "stage" not in record]
    stage = next((record["stage"] for record in reversed(records) if "stage" in record), "")
    prompts = config.class_prompts() if contrastive else []
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification" if contrastive or classifier else "feature-extraction",
        tags=["speech-emotion-recognition", "gemo-clap", "speech", *(["zero-shot"] if contrastive else [])],
        base_model=[source for source in sources.values() if source and not os.path.exists(source)] or None,
    )
    content = _template().render(
        card_data=Markup(data.to_yaml()),
        name=Path(output_dir).resolve().name,
        config=config,
        contrastive=contrastive,
        classifier=classifier,
        objective_name=_objective_name(model),
        audio_source=_audio_source(sources["audio"], stage),
        stage=stage,
        unlabelled=not contrastive and not classifier and any("unlabelled" in record for record in own),
        clusters=any("unlabelled" in record for record in records),
        supervised=any(record.get("stage") == SUPERVISED for record in records),
        text_source=f"pretrained: {Path(sources['text']).name}" if sources.get("text") else "trained from scratch",
        pretrained=any(sources.values()),
        sampling_rate=sampling_rate,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=trained_parameters,
        class_prompts=max(map(len, prompts), default=0),
        prompts=" · ".join(f'"{prompt}"' for group in prompts for prompt in group[:1]),
        epochs=round(state.epoch or 0, 2),
        steps=state.global_step,
        kept="the best epoch on the development speakers" if state.best_metric is not None else "the last epoch",
        results=Markup(_results(state) if contrastive or classifier else NO_ANSWERS),
    )
    path = Path(output_dir) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    ModelCard(content).save(path)
    return path


def _template() -> jinja2.Template:
    """The card's template. Names and words that come from data stay text: they make no markup, cell or line."""
    environment = jinja2.Environment(finalize=_as_text)
    environment.filters["code"] = lambda value: Markup(re.sub(r"[`\s|]+", " ", str(value)))
    return environment.from_string(Path(__file__).with_name("card_template.md").read_text(encoding="utf-8"))


def _as_text(value):
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", re.sub(r"[\r\n\t\f\v\x85\u2028\u2029]+", " ", value))


def _audio_source(name: str, stage: str) -> str:
    source = f"pretrained: {Path(name).name}" if name else "trained from scratch"
    return f"{source}, then as {stage} (see below)" if stage else source


def _objective_name(model) -> str:
    if hasattr(model, "text_model"):
        return OBJECTIVE_NAMES[model.config.objective]
    return "a classifier" if hasattr(model, "classifier") else "an encoder that is yet to be given a head"


def _results(state: TrainerState) -> str:
    evaluations = [entry for entry in state.log_history if "eval_uar" in entry]
    if not evaluations:
        return NO_RESULTS
    chosen = state.best_metric is not None
    kept = max(evaluations, key=lambda entry: entry["eval_uar"]) if chosen else evaluations[-1]
    return (
        f"On the development speakers, which were not trained on{', but chose the epoch' * chosen}, after epoch "
        f"{kept.get('epoch', 0):g}: UAR {kept['eval_uar']:.3f}, WAR {kept['eval_war']:.3f}. On test speakers: not "
        f"evaluated."
    )
