"""The filters of the templates of evidence: figures, intervals, differences and words as text."""

from __future__ import annotations

from statistics import fmean

from documents import ENVIRONMENT, percent
from evidence_intervals import difference_interval, gap_interval, paired_difference, uar_interval
from evidence_plan import PLAN

from modeling_gemoclap.evaluation.cluster_analysis import cells_of
from modeling_gemoclap.intervals import interval_text


def _signed(value: float, bounds: list[float] | None) -> str:
    """A difference in points, with its interval if there is one."""
    return f"{100 * value:+.1f}" + (f" ({interval_text(bounds, sign='+')})" if bounds else "")


def scores(record: dict) -> str:
    """UAR and WAR in per cent; published records may have no UAR."""
    return f"{percent(record.get('uar'))} / {percent(record['war'])}"


def interval(record: dict, speakers: int | None = None, metric: str = "uar") -> str:
    """The interval of a record's UAR or WAR in per cent, or why there is none."""
    return interval_text(uar_interval(record, speakers, metric), speakers or record["speakers"])


def difference(comparison: dict | None) -> str:
    """A paired difference of UAR; nothing where nothing was compared."""
    return _signed(comparison["difference"], difference_interval(comparison)) if comparison else ""


def gender_gap(fairness: dict | None) -> str:
    """UAR of women minus UAR of men."""
    return _signed(fairness["gap"], gap_interval(fairness)) if fairness else "–"


def seeds(record: dict, metric: str = "uar") -> str:
    """UAR or WAR of each seed, in per cent."""
    return ", ".join(percent(seed[metric]) for seed in record["per_seed"])


def start_title(start: str) -> str:
    """What tables and pictures call a start of the fine-tuning on growing shares of the labels."""
    return "no pretraining on clusters" if start == "scratch" else start


def words_by_kind(words: list[dict], emotion: str) -> list[tuple[str, list[dict]]]:
    """The measured words of an emotion: those of its training, others, and the control, which means no emotion."""
    words = [word for word in words if word["emotion"] == emotion]
    control = [word for word in words if word["word"] == PLAN["words"]["unknown"]]
    trained = [word for word in words if word["trained"]]
    others = [word for word in words if not word["trained"] and word not in control]
    return [("of training", trained), ("not of training", others), ("control", control)]


for function in (scores, interval, difference, gender_gap, paired_difference, seeds, start_title, words_by_kind):
    ENVIRONMENT.filters[function.__name__] = function
ENVIRONMENT.filters |= {"agreement": cells_of, "minutes": lambda seconds: f"{seconds / 60:.0f}"}
ENVIRONMENT.filters |= {"parts_of_minutes": lambda seconds: f"{seconds / 60:.1f}"}
ENVIRONMENT.filters |= {"mean_of": lambda values: fmean(values), "megabytes": lambda size: f"{size / 1e6:.1f}"}
ENVIRONMENT.filters |= {"mean": lambda losses: f"{fmean(losses):.2f}"}
