"""The model card that goes with every checkpoint."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from transformers import TrainerState

OBJECTIVE_NAMES = {"emo": "Emo-CLAP", "ml": "ML-GEmo-CLAP", "sl": "SL-GEmo-CLAP"}
NO_RESULTS = "Not evaluated. `python evaluate.py --model DIR --data_dir DIR` judges it on speakers it has not heard."


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
    classifier = not hasattr(model, "text_model")
    towers = ("audio",) if classifier else ("audio", "text")
    sources = {tower: getattr(getattr(config, f"{tower}_config"), "_name_or_path", "") for tower in towers}
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "gemo-clap", "speech", *([] if classifier else ["zero-shot"])],
        base_model=[source for source in sources.values() if source and not Path(source).exists()] or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("card_template.md")),
        name=Path(output_dir).resolve().name,
        config=config,
        classifier=classifier,
        objective_name="a classifier" if classifier else OBJECTIVE_NAMES[config.objective],
        audio_source=f"pretrained: {Path(sources['audio']).name}" if sources["audio"] else "trained from scratch",
        text_source=f"pretrained: {Path(sources['text']).name}" if sources.get("text") else "trained from scratch",
        pretrained=any(sources.values()),
        sampling_rate=sampling_rate,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained_parameters=trained_parameters,
        prompts=" · ".join(f'"{prompt}"' for group in config.class_prompts() for prompt in group[:1]),
        epochs=round(state.epoch or 0, 2),
        steps=state.global_step,
        kept="the best epoch on the development speakers" if state.best_metric is not None else "the last epoch",
        results=_results(state),
    )
    path = Path(output_dir) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    card.save(path)
    return path


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
