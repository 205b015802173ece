"""How alike clips of one emotion are, and clips of two, layer by layer of an audio tower (Xiang's Figure 4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm.auto import tqdm
from transformers import PretrainedConfig, set_seed

from ..base_gemoclap import GEmoClapPreTrainedModel
from ..configuration_gemoclap import GEmoClapConfig
from ..corpora.files import write_json
from ..corpora.manifest import Corpus
from ..corpora.protocols import Protocol
from ..corpora.provenance import Heard, merged
from ..feature_extraction_gemoclap import AudioError, GEmoClapFeatureExtractor
from ..modeling_gemoclap import GEmoClapForXVector
from ..pipeline_gemoclap import load_clip, process_in_batches
from ..towers_gemoclap import load_complete_model
from .answers import is_control, refuse_seen_speakers
from .fold_identity import refuse_fold_of_another_run
from .protocol_runs import clips_of_run, read_run

LAYERS = "layer_similarity.json"
KINDS = {"positive": "one emotion", "positive_across": "one emotion, two corpora", "negative": "two emotions"}


def pair_sums(means: np.ndarray, emotions: list[str], corpora: list[int]) -> dict[str, tuple[np.ndarray, int]]:
    """Sums of the cosines of all pairs of clips, by kind of pair, without making the pairs.

    With `u` of unit length, the sum over the pairs of a group is `(|sum u|^2 - n) / 2`.

    Args:
        means: A clip's mean frame in each layer, `(clips, layers, hidden_size)`.
        emotions: Emotion of each clip.
        corpora: Corpus of each clip.

    Returns:
        For each kind of pair the sum `(layers,)` and the number of pairs.
    """
    units = means.astype(np.float64)
    units /= np.linalg.norm(units, axis=-1, keepdims=True).clip(1e-12)

    def within(groups: list) -> tuple[np.ndarray, int]:
        total, count = np.zeros(units.shape[1]), 0
        for group in sorted(set(groups)):
            mine = units[[own == group for own in groups]]
            total += (np.square(mine.sum(0)).sum(-1) - len(mine)) / 2
            count += len(mine) * (len(mine) - 1) // 2
        return total, count

    every, same = within([0] * len(units)), within(emotions)
    near = within(list(zip(emotions, corpora, strict=True)))
    return {
        "positive": same,
        "positive_across": (same[0] - near[0], same[1] - near[1]),
        "negative": (every[0] - same[0], every[1] - same[1]),
    }


def layer_means(
    model: GEmoClapPreTrainedModel,
    extractor: GEmoClapFeatureExtractor,
    corpus: Corpus,
    batch_size: int = 16,
    on_bad_audio: str = "raise",
) -> tuple[np.ndarray, list[int], list[str]]:
    """The mean frame of each clip in each layer: what goes into the first Transformer layer, then what each gives.

    Args:
        model: Any model of ours.
        extractor: Its extractor.
        corpus: The clips.
        batch_size: Clips that go through the model together.
        on_bad_audio: `"raise"`, or `"skip"`.

    Returns:
        `(clips, layers + 1, hidden_size)`, the places of these clips in the corpus, and what is wrong with others.

    Raises:
        AudioError: If clips cannot be used and `on_bad_audio` is `"raise"`.
    """

    @torch.no_grad()
    def answer(clips: list) -> list:
        inputs = extractor.collate(clips).to(model.device)
        return list(model.layer_means(**inputs).float().cpu().numpy())

    stream = process_in_batches(
        corpus.recordings(), batch_size, lambda clip: load_clip(extractor, clip, None, "return"), answer
    )
    found = list(tqdm(stream, total=len(corpus), desc="encoding"))
    bad = [item["error"] for item in found if isinstance(item, dict)]
    kept = [place for place, item in enumerate(found) if not isinstance(item, dict)]
    if bad and (on_bad_audio == "raise" or not kept):
        raise AudioError(f"{corpus.cannot_be_used(bad)}or give --on_bad_audio skip to go on without")
    return np.stack([found[place] for place in kept]), kept, bad


def before(config: GEmoClapConfig, name: str | None) -> tuple[GEmoClapPreTrainedModel, str, list[dict] | None]:
    """An encoder as it was before training, what it is, in words, and the records of what it has heard.

    Args:
        config: Of the trained one.
        name: A checkpoint of ours or a pretrained encoder; None: an encoder with fresh weights, where the trained one
            started from such.

    Raises:
        ValueError: If it started from another checkpoint of ours or from a pretrained encoder, which is not named. A
            configuration says which, but a file does not choose what is fetched.
    """
    if not name and any("stage" in record for record in config.training_data or []):
        raise ValueError("it was trained from another checkpoint: name that by --before")
    if not name and (start := getattr(config.audio_config, "_name_or_path", "")):
        raise ValueError(f"it was trained from a pretrained encoder, it says from {start!r}: name that by --before")
    if name and PretrainedConfig.get_config_dict(name)[0].get("model_type") == GEmoClapConfig.model_type:
        model = load_complete_model(GEmoClapForXVector, name)
        return model, name, model.config.training_data
    if name:
        model = GEmoClapForXVector.from_audio_pretrained(name)
        return model, name, _records_of_encoder(model.config.audio_config, name)
    set_seed(0)
    return GEmoClapForXVector(GEmoClapConfig(audio_config=config.audio_config)).eval(), "fresh weights", []


def _records_of_encoder(config: PretrainedConfig, name: str) -> list[dict]:
    """The records that a tower of ours keeps, or the name of a pretrained encoder, which keeps none."""
    own = getattr(config, "training_data", None)
    return [{"encoder": Path(name).name if Path(name).exists() else name}] if own is None else own


def checkpoints_of(root: Path, corpus: Corpus, allow_seen: bool) -> Iterator[tuple[Path, Corpus, Heard]]:
    """Each checkpoint, the clips to compare, and whether it has heard their speakers, if that is allowed.

    Of a protocol's run every fold with what that judges.

    Raises:
        ValueError: If a fold is not trained to its end, or is of another run.
        SeenSpeakersError: If a checkpoint has heard the speakers, and that is not allowed.
    """
    if not (root / "run.json").is_file():
        records = GEmoClapConfig.from_pretrained(root).training_data
        yield root, corpus, refuse_seen_speakers(corpus, records, allow_seen)
        return
    corpus = clips_of_run(root, corpus)
    run = read_run(root)
    for seed, found in run["protocols"].items():
        protocol = Protocol(
            **{name: found[name] for name in ("name", "corpus", "folds", "seed", "by") if name in found}
        )
        for fold in range(len(protocol.folds)):
            folder = root / f"fold_{fold}" / f"seed_{seed}"
            refuse_fold_of_another_run(root, run, protocol, fold, folder)
            clips = protocol.test(corpus, fold)
            records = GEmoClapConfig.from_pretrained(folder).training_data
            yield folder, clips, refuse_seen_speakers(clips, records, not protocol.speaker_independent)


def judge_layers(
    root: Path,
    corpus: Corpus,
    start: str | None = None,
    device: str | None = None,
    batch_size: int = 16,
    on_bad_audio: str = "raise",
    allow_seen: bool = False,
) -> dict:
    """Mean cosine of positive and negative pairs in every layer, before and after training.

    Args:
        root: A checkpoint, or a protocol's run, whose folds' pairs are put together.
        corpus: Clips; pairs are those of clips with an emotion.
        start: As `before` has it.
        device: Where the models run.
        batch_size: Clips that go through a model together.
        on_bad_audio: As for `layer_means`.
        allow_seen: Judge even on speakers that were trained on.

    Returns:
        `before` and `after`: for each kind of pair a list, a number a layer; `pairs`, `clips` (of all seeds together),
        `before_is`, `heard` (by either of the two), `control` (trained on shuffled labels), `skipped`.

    Raises:
        ValueError: If there are no pairs, or what is compared has other layers.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    sums: dict[str, dict] = {"before": {}, "after": {}}
    skipped, answers, clips, was, control = [], [], 0, "", False
    for folder, judged, heard in checkpoints_of(root, corpus, allow_seen):
        judged = judged.where("emotion", bool)
        config, extractor = (kind.from_pretrained(folder) for kind in (GEmoClapConfig, GEmoClapFeatureExtractor))
        first, was, records = before(config, start)
        allow = allow_seen or bool(heard.speakers)  # what the trained one may have heard, the other may too
        answers += [heard, refuse_seen_speakers(judged, records, allow, f"--before {start}")]
        control = control or is_control(config.training_data)
        emotions, corpora = judged.column("emotion").to_pylist(), judged.part_numbers()
        for when, model in (("before", first), ("after", load_complete_model(GEmoClapForXVector, str(folder)))):
            options = (extractor, judged, batch_size, on_bad_audio)
            means, kept, bad = layer_means(model.to(device).eval(), *options)
            found = pair_sums(means, [emotions[place] for place in kept], [corpora[place] for place in kept])
            for kind, (total, count) in found.items():
                known = sums[when].get(kind, (np.zeros(len(total)), 0))
                sums[when][kind] = (known[0] + total, known[1] + count)
        skipped, clips = skipped + bad, clips + len(kept)
    pairs = {kind: count for kind, (_, count) in sums["after"].items() if count}
    if not {"positive", "negative"} <= set(pairs):
        raise ValueError(f"{corpus.name}: these clips make no pairs of one emotion and of two; give more of them")
    record = {when: {kind: (sums[when][kind][0] / pairs[kind]).tolist() for kind in pairs} for when in sums}
    layers = {when: len(record[when]["negative"]) for when in record}
    if layers["before"] != layers["after"]:
        raise ValueError(f"{was} has {layers['before'] - 1} layers, {root} {layers['after'] - 1}: --before another")
    record |= {"pairs": pairs, "clips": clips, "before_is": was, "heard": merged(answers).to_dict()}
    return record | {"control": control, "skipped": skipped}


def write_layers(record: dict, folder: Path) -> str:
    """Write `layer_similarity.json` and `layer_similarity.png`.

    Returns:
        The numbers as a table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layer_similarity.png").unlink(missing_ok=True)  # no old picture beside new numbers
    write_json(folder / LAYERS, record)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, when in zip(figure.subplots(1, 2, sharey=True), ("before", "after"), strict=True):
        for kind, values in record[when].items():
            axes.plot(range(len(values)), values, marker="o", markersize=3, label=KINDS[kind])
        axes.set_title(f"{when}: {record['before_is']}" if when == "before" else when, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer (0: what goes into the first)")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean cosine of pairs of clips")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(folder / "layer_similarity.png", dpi=150)
    head = [f"{when}: {KINDS[kind]}" for when in ("before", "after") for kind in record[when]]
    lines = [f"| layer | {' | '.join(head)} |", f"|{'---|' * (len(head) + 1)}"]
    columns = [record[when][kind] for when in ("before", "after") for kind in record[when]]
    for layer, values in enumerate(zip(*columns, strict=True)):
        lines.append(f"| {layer} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)
