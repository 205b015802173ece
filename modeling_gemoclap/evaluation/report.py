"""The files that an evaluation leaves behind: results.json, results.md, pictures, predictions, report.html."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import transformers

from ..corpora.files import read_object, write_json
from ..corpora.manifest import Corpus
from ..corpora.provenance import Heard
from ..markdown import as_block, as_text
from .answers import Evaluation, is_control
from .page import write_page
from .pictures import draw
from .protocol_runs import JudgedRun
from .statistics import (
    Judged,
    calibration,
    fairness,
    interval_text,
    intervals,
    mean_scores,
    over_folds,
    scores_of,
    speaker_confusions,
)
from .stored import write_rows

# What an evaluation writes; other files are somebody's own.
WRITTEN = re.compile(
    r"results\.(json|md)|report\.html|predictions(_seed_\d+)?\.csv"
    r"|(confusion_matrix|fairness|calibration|projection_(emotion|gender|speaker)|similarity)\.png"
)
CONTROL = "; A CONTROL, trained on shuffled labels"


def _common(runs: list[Judged], corpus: Corpus, model: str, command: str) -> dict:
    confusion = sum(run.confusion() for run in runs)
    known = [part.known for part, _ in corpus.by_part() if part.known]
    return mean_scores(runs) | {
        "n": len(runs[0]),
        "labels": runs[0].labels,
        "confusion": confusion.tolist(),
        "speaker_confusions": speaker_confusions(runs),
        "intervals": intervals(runs),
        "fairness": fairness(runs),
        "calibration": calibration(runs),
        "model": model,
        "corpus": corpus.name,
        "licence": "; ".join(part.licence for part in known) or None,
        "citation": "; ".join(part.citation for part in known) or None,
        "speakers": sorted(set(runs[0].speakers.tolist())),
        "manifest_sha256": corpus.manifest_sha256,
        "command": command,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def results_record(evaluation: Evaluation, corpus: Corpus, config, model: str, command: str, notes: list[str]) -> dict:
    """What `results.json` says of one checkpoint.

    Args:
        evaluation: The answers.
        corpus: The clips they are about.
        config: The checkpoint's configuration.
        model: Name or path of the checkpoint.
        command: The command that made them.
        notes: What is to be told beside the corpus's own remarks.

    Returns:
        A dict that JSON can hold.
    """
    protocol = f"{evaluation.method}; {speaker_independence(evaluation.heard, len(corpus.speakers), corpus.name)}"
    protocol += CONTROL * is_control(config.training_data)
    judged = evaluation.judged()
    best = max(sorted(set(evaluation.references)), key=evaluation.references.count)
    always = judged.where(slice(None))
    always.scores = (judged.scores * 0) + [label == best for label in judged.labels]
    return _common([judged], corpus, model, command) | {
        "protocol": protocol,
        "controls": {"constant": scores_of(always) | {"says": f"always {best}"}, "shuffled_labels": None},
        "gender_probe": None,
        "temperatures": [config.calibration_temperature],
        "temperature_of_other_labels": set(evaluation.labels) != set(config.emotions),
        "protocols": None,
        "training_command": None,
        "per_seed": None,
        "over_folds": None,
        "seen_speakers": evaluation.heard.speakers,
        "heard": evaluation.heard.to_dict(),
        "training_data": config.training_data,
        "skipped": evaluation.skipped,
        "notes": [*corpus.notes, *notes],
    }


def speaker_independence(heard: Heard, count: int, corpus: str) -> str:
    """What a report says of the judged speakers: that they were heard, were not heard, or that it is unknown.

    Args:
        heard: What the checkpoints' records tell.
        count: How many speakers were judged.
        corpus: The name of their corpus.
    """
    encoders = f"; what {' and '.join(heard.encoders)} was pretrained on is not recorded" if heard.encoders else ""
    if heard.speakers:
        others = f"; of the others it is unknown: {'; '.join(heard.unknown)}" if heard.unknown else ""
        return f"NOT speaker-independent: trained on speakers {', '.join(heard.speakers)}{others}{encoders}"
    if heard.unknown:
        return f"UNKNOWN whether speaker-independent: {'; '.join(heard.unknown)}{encoders}"
    return f"speaker-independent: {count} speakers of {corpus}, none of them in the record of its training{encoders}"


def protocol_record(found: JudgedRun, corpus: Corpus, model: str, command: str) -> dict:
    """What `results.json` says of a protocol's run: figures are of pooled answers, averaged over seeds.

    Args:
        found: The answers.
        corpus: The clips.
        model: Folder of the run.
        command: The command that made them.

    Returns:
        A dict that JSON can hold.
    """
    first = next(iter(found.protocols.values()))
    kind = "SPEAKER-DEPENDENT: the same speakers in both parts"
    if first.speaker_independent:
        kind = speaker_independence(found.heard, len(corpus.speakers), corpus.name)
    seeds = list(found.protocols)
    probe = _probe(found.probe)
    return _common(found.runs, corpus, model, command) | {
        "protocol": f"{first.name} ({kind}), {len(first.folds)} folds, seeds {', '.join(map(str, seeds))}; "
        f"pooled over folds, mean over seeds; {found.method}",
        "protocols": {
            str(seed): protocol.to_dict() | {"sha256": protocol.sha256} for seed, protocol in found.protocols.items()
        },
        "seeds": seeds,
        "per_seed": {str(seed): scores_of(run) for seed, run in zip(seeds, found.runs, strict=True)},
        "over_folds": over_folds(found.runs),
        "controls": {
            "constant": mean_scores(found.constant) | {"says": "the most frequent emotion of each training part"},
            "shuffled_labels": scores_of(found.shuffled) if found.shuffled else None,
        },
        "gender_probe": probe,
        "temperatures": found.temperatures,
        "temperature_of_other_labels": False,
        "no_control": found.no_control,
        "settings": found.settings,
        "training_command": "\n".join(found.commands),
        "seen_speakers": found.heard.speakers if first.speaker_independent else corpus.speakers,
        "heard": found.heard.to_dict(),
        "speaker_independent": first.speaker_independent,
        "training_data": None,
        "skipped": found.skipped,
        "notes": found.notes,
    }


def _probe(pairs: list[tuple[str, str]]) -> dict | None:
    pairs = [pair for pair in pairs if pair[0]]
    recalls = [
        sum(truth == answer for truth, answer in pairs if truth == gender) / sum(truth == gender for truth, _ in pairs)
        for gender in ("female", "male")
        if any(truth == gender for truth, _ in pairs)
    ]
    return {"uar": sum(recalls) / len(recalls), "n": len(pairs)} if len(recalls) == 2 else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def as_table(record: dict) -> str:
    """The figures as a Markdown table: the model, a constant answer and, of a protocol, a run on shuffled labels."""
    emotions = list(record["recall"])
    head = ["", "WAR", "UAR", "95 % interval of UAR", "macro F1", *map(as_text, emotions)]
    found = record["intervals"]["uar"]
    rows = [("model", record, interval_text(found, len(record["speakers"])))]
    rows.append((as_text(f"constant ({record['controls']['constant']['says']})"), record["controls"]["constant"], ""))
    if record["controls"]["shuffled_labels"]:
        rows.append(("trained on shuffled labels", record["controls"]["shuffled_labels"], ""))
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, values, interval in rows:
        figures = [values["war"], values["uar"], interval, values["macro_f1"]]
        figures += [values["recall"].get(emotion) for emotion in emotions]
        cells = [figure if isinstance(figure, str) else _percent(figure) for figure in figures]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def remarks(record: dict) -> list[str]:
    """What stands below the table, a sentence each."""
    text = []
    if folds := record["over_folds"]:
        text.append(
            f"Mean and standard deviation over folds: UAR {_percent(folds['uar']['mean'])} ± "
            f"{_percent(folds['uar']['std'])}, WAR {_percent(folds['war']['mean'])} ± {_percent(folds['war']['std'])}."
        )
    if fair := record["fairness"]:
        gap = fair["gap_interval"]
        within = interval_text(gap, fair["num_female"], fair["num_male"], sign="+")
        within = f"95 % interval {within}" if gap else within
        text.append(
            f"UAR for women {_percent(fair['uar_female'])} ({fair['num_female']} speakers), for men "
            f"{_percent(fair['uar_male'])} ({fair['num_male']}): a gap of {100 * fair['gap']:+.1f} ({within})."
        )
    found = record["calibration"]
    text.append(
        f"Expected calibration error {_percent(found['ece'])} (mean best score {_percent(found['confidence'])}, right "
        f"{_percent(found['accuracy'])}; {how_calibrated(record)})."
    )
    alike = "; the probe has heard these speakers too" if record["seen_speakers"] else ""
    if probe := record["gender_probe"]:
        text.append(
            f"Gender can be read from the embeddings with a UAR of {_percent(probe['uar'])} (chance 50){alike}."
        )
    if record.get("no_control"):
        text.append(f"{record['no_control'][0].upper()}{record['no_control'][1:]}.")
    if record["skipped"]:
        text.append(f"{len(record['skipped'])} clips could not be used and were skipped.")
    return text + [f"{note[0].upper()}{note[1:]}." for note in record["notes"]]


def how_calibrated(record: dict) -> str:
    """Whether scores are calibrated, and by which temperatures."""
    fitted = [value for value in record["temperatures"] if value is not None]
    if not fitted:
        return "not calibrated"
    of = f" in {len(fitted)} of {len(record['temperatures'])} models" if len(record["temperatures"]) > 1 else ""
    values = f"{min(fitted):.2f}" + (f" to {max(fitted):.2f}" if len(fitted) > 1 else "")
    other = ", fitted on its own labels and not on these" if record["temperature_of_other_labels"] else ""
    return f"calibrated{of}, temperature {values}{other}"


def as_markdown(record: dict) -> str:
    """The table, what stands below it, the protocol with its hash, and the command."""
    heading = f"# {as_text(record['corpus'])}: {record['n']} clips"
    lines = [heading, as_text(record["protocol"]), as_table(record)]
    lines.append("\n".join(f"- {as_text(remark)}" for remark in remarks(record)))
    if record["protocols"]:
        lines.append("\n".join(f"- seed {s}: protocol `{p['sha256']}`" for s, p in record["protocols"].items()))
    commands = [command for command in (record["training_command"], record["command"]) if command]
    return "\n\n".join([*lines, as_block("\n".join(commands))]) + "\n"


def refuse_other_results(asked: dict, output_dir: Path, overwrite: bool = False, name: str = "results.json") -> None:
    """Make sure, before anything is judged, that results are not written over those of another model or selection.

    Args:
        asked: What is to be judged; it is written into `results.json` as `asked`.
        output_dir: Where.
        overwrite: Whether others may be written over.
        name: The file of the results.

    Raises:
        ValueError: If there are such, and they may not be written over.
    """
    path = output_dir / name
    if overwrite or not path.is_file():
        return
    record = read_object(path)
    recorded = record.get("asked")
    # Earlier versions did not ask for seeds.
    found = {"seeds": record.get("seeds")} | (recorded if isinstance(recorded, dict) else {})
    differing = [name for name in asked if found.get(name) != asked[name]]
    if differing:
        raise ValueError(
            f"{output_dir} holds the results of another run, with another {', '.join(differing)}: give another "
            f"--output_dir, or --overwrite_output"
        )


def write_report(record: dict, runs: list[list[dict]], pictured: dict, output_dir: Path) -> None:
    """Write everything.

    What an earlier evaluation left there is removed first. `results.json` vouches for the predictions and is written
    after them; pictures come last, so that the figures are there should there be no room for these.

    Args:
        record: Of `results_record` or `protocol_record`.
        runs: Rows of predictions of each seed.
        pictured: What `draw` needs beside the record: `judged`, `embeddings`, `similarities`, `title`.
        output_dir: Where.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for path in sorted(output_dir.iterdir(), key=lambda path: path.name != "results.json"):
        if WRITTEN.fullmatch(path.name):
            path.unlink()
    seeds = record.get("seeds")
    names = [f"predictions_seed_{seed}.csv" for seed in seeds] if seeds else ["predictions.csv"]
    for name, rows in zip(names, runs, strict=True):
        write_rows(output_dir / name, rows)
    (output_dir / "results.md").write_text(as_markdown(record), encoding="utf-8")
    write_json(output_dir / "results.json", record)
    pictures = draw(record, output_dir, **pictured)
    write_page(record, remarks(record), how_calibrated(record), pictures, output_dir / "report.html")
