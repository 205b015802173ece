"""The model card of a checkpoint, `README.md`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from huggingface_hub import ModelCard, ModelCardData
from markupsafe import Markup

from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.catalogue import CORPORA
from ..corpora.checkpoint_files import check_checkpoint_files
from ..corpora.files import damage_is_named, read_object, write_atomically
from ..corpora.provenance import SUPERVISED, TEACHER
from ..fingerprint import TRAINING_CLIPS, code_sha256
from ..markdown import as_block, as_code, as_text
from ..pretrained.sources import ENCODERS, Encoder
from ..training_clips import load_training_clips
from .facts import CardFacts, load_facts
from .notebook import NOTEBOOK, notebook_content
from .results import (
    EVAL_RESULTS,
    TASK,
    check_figures,
    class_rows,
    community_eval,
    eval_results,
    evaluated_on,
    gender_rows,
    is_verified,
    is_zeroshot,
    read_results,
    refuse_results_of_another,
    rejection_rows,
    score_rows,
)
from .weights import refuse_other_training_clips, refuse_other_weights

TEMPLATES = Path(__file__).with_name("templates")
CARD = "README.md"
FETCHED = "pretrained"  # default folder of `python -m modeling_gemoclap pretrained`
CONTRASTIVE, CLASSIFIER, ENCODER = "GEmoClapModel", "GEmoClapForAudioClassification", "GEmoClapForXVector"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # name of a repository of the Hub
ARCHITECTURES = (CONTRASTIVE, CLASSIFIER, ENCODER)


@dataclass(frozen=True)
class Checkpoint:
    """What a card describes.

    Args:
        folder: Folder of the checkpoint.
        architecture: Name of the class of the model.
        config: Its configuration.
        sampling_rate: Sampling rate of the audio encoder in Hz; None if it is unknown.
        facts: What the configuration does not contain.
        name: Name on the card.
    """

    folder: Path
    architecture: str
    config: GEmoClapConfig
    sampling_rate: int | None
    facts: CardFacts
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.folder.resolve().name)

    @property
    def encoders(self) -> dict[str, str]:
        """Name or path of the pretrained encoder of each tower; empty if there is none."""
        towers = ("audio", "text") if self.architecture == CONTRASTIVE else ("audio",)
        return {tower: getattr(getattr(self.config, f"{tower}_config"), "_name_or_path", "") for tower in towers}

    @property
    def records(self) -> list[dict]:
        """Records of the clips that it was trained on, without those of its teacher."""
        return [record for record in self._own_records if "speakers" in record]

    @property
    def start_is_known(self) -> bool:
        """Whether the records say what the weights were before training."""
        known = self.config.training_data is not None
        return known and not any("unknown" in record for record in self._own_records)

    @property
    def _own_records(self) -> list[dict]:
        return [record for record in self.config.training_data or [] if record.get("stage") != TEACHER]


def write_card(folder: Path | str, results: Path | str | dict | list | None = None) -> Path:
    """Write the model card of a checkpoint from its files, and the figures of its evaluations.

    The card states what the configuration, `card.json` and the results record; anything else is "unknown". Results of
    RavdessZeroshot are also written to `.eval_results/`; without them, that file is removed. A model with a text
    encoder also gets a notebook, `notebook.ipynb`, that uses it with transformers alone.

    Args:
        folder: Folder of the checkpoint.
        results: `results.json` of `evaluate.py`, as a path or its content, or a list of several. None: the card says
            that the checkpoint was not evaluated.

    Returns:
        The path of the card.

    Raises:
        ValueError: If the folder is not a checkpoint of this package, if its weights are not those of
            `config.weights_sha256` or of its sample of training clips, or if the results are of other weights.

    Example:
        >>> write_card("runs/sl", "results/sl/emodb/results.json")  # doctest: +SKIP
    """
    checkpoint = read_checkpoint(Path(folder))
    records = read_results(results)
    for record in records:
        refuse_results_of_another(record, checkpoint.config)
    for record, source in zip(records, results if isinstance(results, list) else [results], strict=False):
        with damage_is_named("the results" if isinstance(source, dict) else source, "its figures", fields=True):
            check_figures(record, checkpoint.config)
    refuse_other_weights(checkpoint.folder, checkpoint.config)
    refuse_other_training_clips(checkpoint.folder)
    return save_card(checkpoint, records)


def read_checkpoint(folder: Path, name: str = "") -> Checkpoint:
    """Read what a card states of a checkpoint. No weights are read and no code of the folder is run.

    Args:
        folder: Folder of the checkpoint.
        name: Name on the card; default: that of the folder.

    Raises:
        ValueError: If the folder is not a checkpoint of this package. The message says what is wrong.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json there; give the folder of a trained checkpoint")
    check_checkpoint_files(folder)
    content = read_object(folder / "config.json")
    names = [name for name in content.get("architectures") or [] if name in ARCHITECTURES]
    if content.get("model_type") != GEmoClapConfig.model_type or not names:
        raise ValueError(f"{folder}: not a checkpoint of train.py, but a {content.get('model_type')!r} model")
    with damage_is_named(folder, "config.json"):
        config = GEmoClapConfig.from_pretrained(folder)
    return Checkpoint(folder, names[0], config, _sampling_rate(folder), load_facts(folder), name)


def save_card(checkpoint: Checkpoint, results: list[dict]) -> Path:
    """Write the card, the notebook of a model with a text encoder, and `.eval_results/` for RavdessZeroshot.

    Args:
        checkpoint: The checkpoint.
        results: Contents of `results.json`.
    """
    folder = checkpoint.folder
    folder.mkdir(parents=True, exist_ok=True)
    content = card_content(checkpoint, results)
    with write_atomically(folder / CARD) as temporary:
        ModelCard(content).save(temporary)
    if checkpoint.architecture == CONTRASTIVE:
        with write_atomically(folder / NOTEBOOK) as temporary:
            Path(temporary).write_text(_notebook(checkpoint), encoding="utf-8")
    zeroshot = [record for record in results if is_zeroshot(record)]
    if zeroshot:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        entries = yaml.safe_dump(
            community_eval(zeroshot[-1], checkpoint.config), sort_keys=False, allow_unicode=True, width=1000
        )
        (folder / EVAL_RESULTS).write_text(entries, encoding="utf-8")
    else:
        (folder / EVAL_RESULTS).unlink(missing_ok=True)
    return folder / CARD


def card_content(checkpoint: Checkpoint, results: list[dict]) -> str:
    """The content of the card.

    Args:
        checkpoint: The checkpoint.
        results: Contents of `results.json`.
    """
    config, facts, records = checkpoint.config, checkpoint.facts, checkpoint.records
    contrastive, classifier = (checkpoint.architecture == name for name in (CONTRASTIVE, CLASSIFIER))
    prompts = config.class_prompts() if contrastive else []
    stage = next((record["stage"] for record in reversed(records) if "stage" in record), "")
    sources, known = checkpoint.encoders, checkpoint.start_is_known
    return (
        environment()
        .get_template("card.md")
        .render(
            **{
                "config": config,
                "facts": _as_markup(facts),
                "compression": facts.compression,
                "name": checkpoint.name,
            },
            card_data=Markup(metadata(checkpoint, results).to_yaml()),
            contrastive=contrastive,
            classifier=classifier,
            stage=stage,
            teacher_stage=TEACHER,
            clusters=any("unlabelled" in record for record in records),
            supervised=any(record.get("stage") == SUPERVISED for record in records),
            audio_source=_source(sources["audio"], known) + (f", then as {stage} (see below)" if stage else ""),
            text_source=_source(sources.get("text", ""), known),
            encoders=[(Path(source).name, _licence_of(source)) for source in sources.values() if source],
            sampling_rate=checkpoint.sampling_rate,
            class_prompts=max(map(len, prompts), default=0),
            prompts=_prompts(config) if contrastive else "",
            results=results,
            verified=[is_verified(record, config) for record in results],
            training_clips=load_training_clips(checkpoint.folder),
            training_clips_file=TRAINING_CLIPS,
            code=code_sha256(checkpoint.folder),
        )
    )


def _notebook(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    words = [config.words_of(emotion) for emotion in config.emotions]
    return notebook_content(
        environment(),
        **{"config": config, "facts": _as_markup(checkpoint.facts), "name": checkpoint.name},
        labels=[(synonyms or [word])[0] for word, *synonyms in words],
    )


def metadata(checkpoint: Checkpoint, results: list[dict]) -> ModelCardData:
    """Metadata of the card for the Hub, with `model-index` if there are results.

    Args:
        checkpoint: The checkpoint.
        results: Contents of `results.json`.
    """
    contrastive = checkpoint.architecture == CONTRASTIVE
    predicts = checkpoint.architecture in (CONTRASTIVE, CLASSIFIER)
    corpora = [CORPORA[record["known"]] for record in checkpoint.records if record.get("known") in CORPORA]
    license = {"license": checkpoint.facts.license} if checkpoint.facts.license else {}
    index = {}
    if results:
        index["eval_results"] = [entry for record in results for entry in eval_results(record, checkpoint.config)]
        index["model_name"] = checkpoint.name
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK if predicts else "feature-extraction",
        tags=["speech-emotion-recognition", "gemo-clap", "speech", *(["zero-shot"] if contrastive else [])],
        base_model=[name for name in map(_on_the_hub, checkpoint.encoders.values()) if name] or None,
        datasets=sorted({corpus.name for corpus in corpora}) or None,
        language=sorted({corpus.language for corpus in corpora}) or None,
        **license,
        **index,
    )


def environment() -> jinja2.Environment:
    """A Jinja environment that escapes values, so that names from data create no markup, table cells or lines."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    found = jinja2.Environment(loader=loader, finalize=_escape)  # it is Markdown  # nosec B701
    found.filters["code"] = lambda value: Markup(as_code(str(value)))
    found.filters["cell_code"] = lambda value: Markup(as_code(str(value), in_table=True))
    found.filters["block"] = lambda value: Markup(as_block(value))
    found.filters["percent"] = lambda value: Markup(f"{100 * value:.1f}")
    found.filters["points"] = lambda value: Markup(f"{100 * value:+.1f}")
    found.globals |= {"score_rows": score_rows, "class_rows": class_rows, "gender_rows": gender_rows}
    found.globals |= {"evaluated_on": evaluated_on, "rejection_rows": rejection_rows}
    return found


def _escape(value):
    return as_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _as_markup(facts: CardFacts) -> dict:
    """The facts, whose texts are Markdown and are not escaped."""
    return {name: Markup(value) if isinstance(value, str) else value for name, value in vars(facts).items()}


def _sampling_rate(folder: Path) -> int | None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            content = read_object(folder / name)
            rate = (content.get("feature_extractor") or content).get("sampling_rate")
            if isinstance(rate, int):
                return rate
    return None


def _source(name: str, known: bool) -> str:
    if name:
        return f"pretrained: {Path(name).name}"
    return "trained from scratch" if known else "its initial weights are not recorded"


def _fetched(source: str) -> Encoder | None:
    """The encoder of this name on the Hub, or in the folder that `modeling_gemoclap pretrained` writes."""
    path = Path(source)
    for encoder in ENCODERS.values():
        if source == encoder.repository or (path.parent.name == FETCHED and path.name == encoder.name):
            return encoder
    return None


def _licence_of(source: str) -> str:
    encoder = _fetched(source)
    return encoder.licence if encoder else "unknown"


def _on_the_hub(source: str) -> str | None:
    """The repository of an encoder; None if it was trained from scratch or comes from another folder."""
    if encoder := _fetched(source):
        return encoder.repository
    return source if REPOSITORY.fullmatch(source) and not os.path.exists(source) else None


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
