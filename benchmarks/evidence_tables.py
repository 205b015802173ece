"""The tables that documents quote from docs/evidence/*.json, between `evidence: NAME` and `end of evidence`."""

from __future__ import annotations

import json
from statistics import fmean

from documents import ENVIRONMENT, percent, render, write_blocks
from evidence_intervals import difference_interval, gap_interval, uar_interval
from evidence_record import load
from harness import ROOT

from modeling_gemoclap.evaluation.cluster_analysis import MEASURES, cells_of
from modeling_gemoclap.evaluation.statistics import interval_text

CHECKPOINT = ROOT / "checkpoints" / "gemoclap-compact-emodb"
CARD = str(CHECKPOINT.relative_to(ROOT) / "README.md")
DOCUMENTS = ("README.md", "model_card.md", "docs/evidence.md", "docs/supcon.md", "docs/speakers.md", CARD)
DEVELOPMENT = ROOT / "configs" / "folds" / "emodb_development.json"  # speakers that were used for choosing settings
OF_ALL_ROWS = ("rows", "costs", "commands", "sources")


def _signed(value: float, bounds: list[float] | None) -> str:
    """A difference in points, with its interval if there is one."""
    return f"{100 * value:+.1f}" + (f" ({interval_text(bounds, sign='+')})" if bounds else "")


def scores(record: dict) -> str:
    """UAR and WAR in per cent; published records may have no UAR."""
    return f"{percent(record.get('uar'))} / {percent(record['war'])}"


def interval(record: dict, speakers: int | None = None) -> str:
    """The interval of a record's UAR in per cent, or why there is none."""
    return interval_text(uar_interval(record, speakers), speakers or record["speakers"])


def difference(comparison: dict | None) -> str:
    """A paired difference of UAR; nothing where nothing was compared."""
    return _signed(comparison["difference"], difference_interval(comparison)) if comparison else ""


def gender_gap(fairness: dict | None) -> str:
    """UAR of women minus UAR of men."""
    return _signed(fairness["gap"], gap_interval(fairness)) if fairness else "–"


def seeds(record: dict) -> str:
    """UAR of each seed, in per cent."""
    return ", ".join(percent(seed["uar"]) for seed in record["per_seed"])


for function in (scores, interval, difference, gender_gap, seeds):
    ENVIRONMENT.filters[function.__name__] = function
ENVIRONMENT.filters |= {"agreement": cells_of, "minutes": lambda seconds: f"{seconds / 60:.0f}"}
ENVIRONMENT.filters |= {"mean": lambda losses: f"{fmean(losses):.2f}"}


def records_of(names) -> dict[str, dict]:
    """The records of those parts that were run, by name."""
    return {name: record for name in names if (record := load(name))}


def block(name: str, plan: dict) -> str | None:
    """The content of a block, or None if nothing that it shows was run."""
    rows, record = records_of(plan["rows"]), load(name)
    if not (rows if name in OF_ALL_ROWS else record):
        return None

    def comparisons(row: str) -> list[dict]:
        """Title, UAR and WAR of what a row is compared with: openSMILE's functionals, and published figures."""
        baselines = (load("opensmile") or {"rows": {}})["rows"].get(row, {})
        published = [model for model in plan["rows"][row].get("beside", []) if model.get("in_table", True)]
        return [{"name": features} | figures for features, figures in baselines.items()] + published

    return render(
        "grid" if name in plan["tables"] else name,
        part=record,
        rows=rows,
        parts=records_of([*plan["rows"], *plan["tables"], "checkpoint", "supcon", "speakers"]),
        plan=plan,
        comparisons=comparisons,
        development=sorted(sum(json.loads(DEVELOPMENT.read_text(encoding="utf-8")), [])),
        measures=MEASURES,
    )


def write_documents(plan: dict) -> None:
    """Put the tables into the documents."""
    for name in DOCUMENTS:
        if (path := ROOT / name).is_file():
            write_blocks(path, lambda block_name: block(block_name, plan))
