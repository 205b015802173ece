"""The results of an evaluation on a model card: tables, `model-index` and `.eval_results/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import EvalResult

from ..corpora.catalogue import CORPORA
from ..corpora.files import read_object, require
from ..intervals import interval_text

TASK = "audio-classification"
# The task RavdessZeroshot of MTEB, and the data set on the Hub that MTEB names for it.
ZEROSHOT, ZEROSHOT_TASK, ZEROSHOT_DATASET = "ravdess-zeroshot", "RavdessZeroshot", "narad/ravdess"
EVAL_RESULTS = Path(".eval_results", f"{ZEROSHOT_TASK}.yaml")
METRICS = {  # type on the Hub and name in texts, by the field of results.json
    "uar": ("recall", "UAR (unweighted average recall)"),
    "war": ("accuracy", "WAR (accuracy)"),
    "macro_f1": ("f1", "macro F1"),
}
FIELDS = {
    **dict.fromkeys(METRICS, float),
    **{"n": int, "recall": dict, "intervals": dict, "calibration": dict, "controls": dict, "speakers": list},
    **{"corpus": str, "protocol": str, "command": str, "versions": dict, "fairness": (dict, type(None))},
}


def read_results(results: Path | str | dict | Iterable[Path | str | dict] | None) -> list[dict]:
    """Read the results of evaluations.

    Args:
        results: `results.json` of `evaluate.py`, as a path or its content; several; or None.

    Raises:
        ValueError: If a file or a dict has not the fields of `results.json`.
    """
    if results is None:
        return []
    if isinstance(results, (str, Path, dict)):
        results = [results]
    records = []
    for each in results:
        if isinstance(each, dict):
            require(each, "the results of evaluate.py", **FIELDS)
            records.append(each)
        else:
            records.append(read_object(each, **FIELDS))
    return records


def check_figures(record: dict, config) -> None:
    """Read all figures that a card shows, so that damage is found before a card is written.

    Args:
        record: Content of `results.json`.
        config: Configuration of the checkpoint.

    Raises:
        Exception: An error of any type, if a field is missing or is of another type.
    """
    figures = [record["calibration"][name] for name in ("confidence", "accuracy", "ece")]
    for _, value, _ in (*score_rows(record), *class_rows(record), *gender_rows(record)):
        figures.append(value)
    if rejected := rejection_rows(record):
        figures += [record["rejection"][name] for name in ("aurc", "aurc_of_random_order")]
        figures += [value for row in rejected for value in row[1:] if value is not None]
    for value in figures:
        f"{100 * value:.1f}"
    iter(record.get("notes", ())), len(record.get("skipped") or ())
    evaluated_on(record), at_chance([record]), eval_results(record, config)


def refuse_results_of_another(record: dict, config) -> None:
    """Check that results were measured with the weights of a checkpoint.

    Args:
        record: Content of `results.json`.
        config: Configuration of the checkpoint.

    Raises:
        ValueError: If they are of a protocol's run or of other weights.
    """
    if record.get("protocols"):
        raise ValueError(
            f"these results of {record['corpus']} are of a protocol with a model for each fold, not of this "
            f"checkpoint: evaluate the checkpoint with evaluate.py --model, and give its results.json"
        )
    hashes = _hashes(record, config)
    other = None not in hashes and hashes[0] != hashes[1]
    if other or record.get("training_data") != config.training_data:
        raise ValueError(
            f"these results of {record['corpus']} were measured with another checkpoint ({record.get('model')}): "
            f"evaluate this checkpoint with evaluate.py, and give its results.json"
        )


def is_verified(record: dict, config) -> bool:
    """Whether results and the configuration record the same hash of the weights.

    Without a hash, only the records of training data are compared, which other weights may share.

    Args:
        record: Content of `results.json`.
        config: Configuration of the checkpoint.
    """
    measured, described = _hashes(record, config)
    return measured is not None and measured == described


def _hashes(record: dict, config) -> tuple[str | None, str | None]:
    """The hash of the weights that results were measured with, and that of the configuration; None if unknown."""
    return record.get("weights_sha256"), getattr(config, "weights_sha256", None)


def at_chance(results: list[dict]) -> str | None:
    """Say that a model is at the level of chance on every corpus that it was evaluated on.

    It is there if the interval of its UAR, or without an interval the UAR, does not exceed that of the controls: a
    constant answer, and a model that was trained on shuffled labels.

    Args:
        results: Contents of `results.json`.

    Returns:
        A sentence; None if the model is better than chance somewhere, or was not evaluated.
    """
    figures = []
    for record in results:
        controls = [control["uar"] for control in record["controls"].values() if control]
        lowest = (record["intervals"].get("uar") or [record["uar"]])[0]
        if not controls or lowest > max(controls):
            return None
        figures.append(f"{corpus_title(record['corpus'])}: UAR {record['uar']:.1%}, chance {max(controls):.1%}")
    return f"the results are at the level of chance ({'; '.join(figures)})" if figures else None


def corpus_title(name: str) -> str:
    """The title of a published corpus, or the name of another one."""
    return CORPORA[name].title if name in CORPORA else name


def is_zeroshot(record: dict) -> bool:
    """Whether results are those of the task RavdessZeroshot."""
    return (record.get("asked") or {}).get("protocol") == ZEROSHOT


def evaluated_on(record: dict) -> str:
    """The test set of an evaluation, as a heading."""
    if is_zeroshot(record):
        return f"{ZEROSHOT_TASK} of MTEB"
    speakers, most = record["speakers"], 10
    named = f"speakers {', '.join(speakers)}" if len(speakers) <= most else f"{len(speakers)} speakers"
    return f"{corpus_title(record['corpus'])}, {named}"


def score_rows(record: dict) -> list[tuple[str, float, str]]:
    """Name, value and interval of UAR, WAR and macro F1, and the UAR of the controls."""
    intervals, number = record["intervals"], len(record["speakers"])
    rows = []
    for name, (_, title) in METRICS.items():
        known = name in intervals
        rows.append((title, record[name], interval_text(intervals[name], number) if known else "not computed"))
    constant, shuffled = (record["controls"].get(name) for name in ("constant", "shuffled_labels"))
    if constant:
        rows.append(("UAR of a constant answer", constant["uar"], ""))
    if shuffled:
        rows.append(("UAR after training on shuffled labels", shuffled["uar"], ""))
    return rows


def class_rows(record: dict) -> list[tuple[str, float, str]]:
    """Emotion, recall and interval."""
    intervals = record.get("recall_intervals")
    rows = []
    for emotion, recall in record["recall"].items():
        found = intervals and intervals.get(emotion)
        rows.append((emotion, recall, interval_text(found["interval"], found["speakers"]) if found else "unknown"))
    return rows


def gender_rows(record: dict) -> list[tuple[str, float, str]]:
    """UAR for women and for men and their difference, with intervals; empty if they are unknown."""
    figures = record["fairness"]
    if not figures:
        return []
    rows = []
    for title, gender in (("women", "female"), ("men", "male")):
        number, key = figures[f"num_{gender}"], f"interval_{gender}"
        interval = interval_text(figures[key], number) if key in figures else "unknown"
        rows.append((f"{title} ({number} speaker{'s' * (number != 1)})", figures[f"uar_{gender}"], interval))
    numbers = (figures["num_female"], figures["num_male"])
    return [*rows, ("women minus men", figures["gap"], interval_text(figures["gap_interval"], *numbers, sign="+"))]


def rejection_rows(record: dict) -> list[tuple[str, float, float | None, float | None]]:
    """What remains if predictions with a low score are rejected.

    Returns:
        The threshold, the share of clips that keep an answer, and the accuracy and UAR of these, which are None if
        there are none; first without rejection. Empty for results that do not record it.
    """
    found = record.get("rejection")
    if not found:
        return []
    rows = [("nothing", 1.0, record["war"], record["uar"])]
    return rows + [
        (f"{row['threshold']:.2f}", row["coverage"], row["accuracy"], row["uar"]) for row in found["thresholds"]
    ]


def eval_results(record: dict, config) -> list[EvalResult]:
    """Entries of `model-index`: UAR, WAR and macro F1 with the protocol that they were measured with.

    Results that are not verified to be of these weights have `verified: false`. Others have no `verified`, because
    true is reserved for the evaluation service of the Hub.

    Args:
        record: Content of `results.json`.
        config: Configuration of the checkpoint.
    """
    zeroshot = is_zeroshot(record)
    speakers = ", ".join(record["speakers"])  # a text: YAML 1.2 would read 08 as a number
    dataset = {
        "dataset_type": ZEROSHOT_DATASET if zeroshot else record["corpus"],
        "dataset_name": evaluated_on(record),
        "dataset_args": {
            "protocol": record["protocol"],
            "clips": record["n"],
            "speakers": speakers,
        },
    }
    verified = None if is_verified(record, config) else False
    return [
        EvalResult(
            task_type=TASK,
            task_name="speech emotion recognition",
            metric_type=kind,
            metric_name=title,
            metric_value=round(record[name], 4),
            verified=verified,
            **dataset,
        )
        for name, (kind, title) in METRICS.items()
    ]


def community_eval(record: dict, config) -> list[dict]:
    """The content of `.eval_results/RavdessZeroshot.yaml`, the Hub's format for results of benchmarks.

    The format is documented at https://huggingface.co/docs/hub/eval-results. No revision of the data set is given,
    because the recordings were not read from the Hub.

    Args:
        record: Content of `results.json` of RavdessZeroshot.
        config: Configuration of the checkpoint. Notes state if the results are not verified to be of its weights.
    """
    unverified = "" if is_verified(record, config) else "; not verified to be of these weights"
    notes = (
        f"accuracy on all {record['n']} clips with the prompts of the task, measured by evaluate.py --protocol "
        f"{ZEROSHOT} of gemoclap on the corpus as published, not by mteb; {record['protocol']}{unverified}"
    )
    value = round(record["war"], 6)
    return [{"dataset": {"id": ZEROSHOT_DATASET, "task_id": ZEROSHOT_TASK}, "value": value, "notes": notes}]
