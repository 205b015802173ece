"""Files of an evaluation: `results.json`, `results.md`, predictions, pictures and `report.html`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..corpora.files import read_object, write_json
from ..intervals import interval_text
from ..markdown import as_block, as_text
from .page import write_page
from .pictures import EmbeddingFigures, draw
from .prediction_files import write_rows
from .rejection import RiskCoverage, risk_coverage

# Files that an evaluation writes. Other files in the folder belong to the user.
WRITTEN = re.compile(
    r"results\.(json|md)|report\.html|predictions(_seed_\d+)?\.csv"
    r"|(confusion_matrix|fairness|calibration|coverage|projection_(emotion|gender|speaker)|similarity)\.png"
)


class Report(NamedTuple):
    """What `write_report` writes.

    Args:
        record: Content of `results.json`.
        rows: Rows of predictions of each seed.
        figures: Data of the figures of embeddings.
        output_dir: Folder for the files.
    """

    record: dict
    rows: list[list[dict]]
    figures: EmbeddingFigures
    output_dir: Path


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def as_table(record: dict) -> str:
    """The figures as a Markdown table with the model, the constant baseline and the control on shuffled labels.

    Args:
        record: Content of `results.json`.
    """
    controls, emotions = record["controls"], list(record["recall"])
    interval = interval_text(record["intervals"]["uar"], len(record["speakers"]))
    rows = [
        ("model", record, interval),
        (as_text(f"constant ({controls['constant']['says']})"), controls["constant"], ""),
    ]
    if controls["shuffled_labels"]:
        rows.append(("trained on shuffled labels", controls["shuffled_labels"], ""))
    header = ["", "WAR", "UAR", "95 % interval of UAR", "macro F1", *map(as_text, emotions)]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for name, scores, uar_interval in rows:
        cells = [name, _percent(scores["war"]), _percent(scores["uar"]), uar_interval, _percent(scores["macro_f1"])]
        cells += [_percent(scores["recall"].get(emotion)) for emotion in emotions]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def remarks(record: dict) -> list[str]:
    """Sentences below the table.

    Args:
        record: Content of `results.json`.
    """
    sentences = [
        _over_folds(record),
        _fairness(record),
        _calibration(record),
        _rejection(record),
        _gender_probe(record),
    ]
    if record.get("no_control"):
        sentences.append(_sentence(record["no_control"]))
    if record["skipped"]:
        sentences.append(f"{len(record['skipped'])} clips could not be used and were skipped.")
    return [sentence for sentence in sentences if sentence] + [_sentence(note) for note in record["notes"]]


def _over_folds(record: dict) -> str:
    folds = record["over_folds"]
    if not folds:
        return ""
    uar, war = (f"{_percent(folds[name]['mean'])} ± {_percent(folds[name]['std'])}" for name in ("uar", "war"))
    return f"Mean and standard deviation over folds: UAR {uar}, WAR {war}."


def _fairness(record: dict) -> str:
    figures = record["fairness"]
    if not figures:
        return ""
    interval = interval_text(figures["gap_interval"], figures["num_female"], figures["num_male"], sign="+")
    interval = f"95 % interval {interval}" if figures["gap_interval"] else interval
    return (
        f"UAR for women {_percent(figures['uar_female'])} ({_speakers(figures['num_female'])}), for men "
        f"{_percent(figures['uar_male'])} ({_speakers(figures['num_male'])}); the gap is {100 * figures['gap']:+.1f} "
        f"({interval})."
    )


def _speakers(number: int) -> str:
    return f"{number} speaker{'' if number == 1 else 's'}"


def _calibration(record: dict) -> str:
    figures = record["calibration"]
    return (
        f"Expected calibration error {_percent(figures['ece'])} (mean highest score "
        f"{_percent(figures['confidence'])}, accuracy {_percent(figures['accuracy'])}; {how_calibrated(record)})."
    )


def _rejection(record: dict) -> str:
    figures = record.get("rejection")
    if not figures:  # of an earlier version
        return ""
    half = figures["coverages"][-1]
    return (
        f"If all predictions with a score below {half['threshold']:.2f} are rejected, {_percent(half['coverage'])} % "
        f"remain, with accuracy {_percent(half['accuracy'])} and UAR {_percent(half['uar'])}; area under the "
        f"risk-coverage curve {_percent(figures['aurc'])}."
    )


def _gender_probe(record: dict) -> str:
    if not record["gender_probe"]:
        return ""
    seen = "; these speakers were also in the training of the probe" if record["seen_speakers"] else ""
    return (
        f"A gender probe on the embeddings has a UAR of {_percent(record['gender_probe']['uar'])} (chance 50){seen}."
    )


def how_calibrated(record: dict) -> str:
    """Describe whether scores are calibrated, and with which temperatures.

    Args:
        record: Content of `results.json`.
    """
    temperatures = record["temperatures"]
    fitted = [value for value in temperatures if value is not None]
    if not fitted:
        return "not calibrated"
    models = f" in {len(fitted)} of {len(temperatures)} models" if len(temperatures) > 1 else ""
    values = f"{min(fitted):.2f}" + (f" to {max(fitted):.2f}" if len(fitted) > 1 else "")
    labels = ", fitted for other labels" if record["temperature_of_other_labels"] else ""
    return f"calibrated{models}, temperature {values}{labels}"


def as_markdown(record: dict) -> str:
    """Content of `results.md`: protocol, table, remarks, hashes of the protocols, and commands.

    Args:
        record: Content of `results.json`.
    """
    heading = f"# {as_text(record['corpus'])}: {record['n']} clips"
    parts = [heading, as_text(record["protocol"]), as_table(record)]
    parts.append("\n".join(f"- {as_text(remark)}" for remark in remarks(record)))
    if record["protocols"]:
        protocols = record["protocols"].items()
        parts.append("\n".join(f"- seed {seed}: protocol `{protocol['sha256']}`" for seed, protocol in protocols))
    commands = [command for command in (record["training_command"], record["command"]) if command]
    return "\n\n".join([*parts, as_block("\n".join(commands))]) + "\n"


def refuse_other_results(asked: dict, output_dir: Path, overwrite: bool = False, name: str = "results.json") -> None:
    """Check, before the evaluation starts, that it does not overwrite results of another model or selection.

    Args:
        asked: The selection that identifies the results. `results.json` stores it as `asked`.
        output_dir: Folder for the results.
        overwrite: Whether other results may be overwritten.
        name: File of the results.

    Raises:
        ValueError: If the folder has other results and `overwrite` is False.
    """
    path = output_dir / name
    if overwrite or not path.is_file():
        return
    record = read_object(path)
    recorded = record.get("asked")
    # Earlier versions did not record the seeds in `asked`.
    recorded = {"seeds": record.get("seeds")} | (recorded if isinstance(recorded, dict) else {})
    differing = [name for name in asked if recorded.get(name) != asked[name]]
    if differing:
        raise ValueError(
            f"{output_dir} holds the results of another run, with another {', '.join(differing)}: give another "
            f"--output_dir, or --overwrite_output"
        )


def write_report(record: dict, rows: list[list[dict]], figures: EmbeddingFigures, output_dir: Path) -> None:
    """Write all files of an evaluation.

    Files of an earlier evaluation are removed first. `results.json` declares the predictions complete, so it is
    written after them. Pictures are written last, so that a full disk does not cost the results.

    Args:
        record: Content of `results.json`.
        rows: Rows of predictions of each seed.
        figures: Data of the figures of embeddings.
        output_dir: Folder for the files.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for path in sorted(output_dir.iterdir(), key=lambda path: path.name != "results.json"):
        if WRITTEN.fullmatch(path.name):
            path.unlink()
    seeds = record.get("seeds")
    names = [f"predictions_seed_{seed}.csv" for seed in seeds] if seeds else ["predictions.csv"]
    for name, rows_of_seed in zip(names, rows, strict=True):
        write_rows(output_dir / name, rows_of_seed)
    (output_dir / "results.md").write_text(as_markdown(record), encoding="utf-8")
    write_json(output_dir / "results.json", record)
    pictures = draw(record, output_dir, figures, _curve(record["labels"], rows))
    write_page(record, remarks(record), how_calibrated(record), pictures, output_dir / "report.html")


def _curve(labels: list[str], rows: list[list[dict]]) -> RiskCoverage:
    """The risk-coverage curve of the rows of all seeds."""
    together = [row for rows_of_seed in rows for row in rows_of_seed]
    scores = np.array([[float(row[f"score_{label}"]) for label in labels] for row in together])
    return risk_coverage(scores, np.array([labels.index(row["emotion"]) for row in together]))
