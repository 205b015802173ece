"""Figures in documents: quotients are those of their neighbours, and what prose quotes stands in a record."""

import json
import re
import sys
from itertools import combinations, product

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import data_at_scale  # noqa: E402
import evidence_markdown  # noqa: E402
import evidence_tables  # noqa: E402
import interval_coverage  # noqa: E402
from evidence_runs import PLAN  # noqa: E402

from modeling_gemoclap.evaluation.statistics import METHOD  # noqa: E402

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def tables_of(text):
    """Tables of a document: a head and rows, as lists of cells."""
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def bounds(cell):
    """Between what a printed number may have been before it was rounded."""
    text = NUMBER.search(cell)[0]
    half = 0.5 * 10 ** -len(text.partition(".")[2])
    return float(text) - half, float(text) + half


def wrong_quotients(text):
    """Rows whose column "A over B" is not the quotient of the columns A and B, and differences that are none."""
    wrong = []
    for head, rows in tables_of(text):
        for place, name in enumerate(head):
            above, over, below = name.partition(" over ")
            if not over or not {above, below} <= set(head):
                continue
            for row in rows:
                (low, high), (least, most) = (bounds(row[head.index(part)]) for part in (above, below))
                smallest, largest = bounds(row[place])
                if largest < low / most or smallest > high / least:
                    wrong.append(row)
    return wrong


@pytest.mark.parametrize("name", ["benchmarks/RESULTS.md", "docs/scaling.md", "docs/encoders.md"])
def test_quotients_are_those_of_their_neighbours(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert wrong_quotients(text) == []


def test_a_wrong_quotient_is_found():
    head = "| input | files | shards | shards over files |\n|---|---|---|---|\n"
    text = head + "| waves | 399 clips/s | 525 clips/s | {} |\n"
    assert wrong_quotients(text.format("1.10")) and not wrong_quotients(text.format("1.32"))
    for local, streamed in product((399.4, 17.6, 2374.2), (525.3, 208.1)):
        row = data_at_scale.table_row("waves", local, streamed)
        assert not wrong_quotients(f"{head}{row}\n")


def test_memory_over_plain_is_the_quotient():
    head, rows = next(
        found for found in tables_of((ROOT / "benchmarks/RESULTS.md").read_text()) if "over plain" in found[0]
    )
    memory, over, chunks = (head.index(name) for name in ("memory", "over plain", "chunks of"))
    for plain, row in zip(rows[::2], rows[1::2], strict=True):
        assert plain[chunks] == "(plain)"
        (low, high), (least, most), (smallest, largest) = map(bounds, (row[memory], plain[memory], row[over]))
        assert low / most <= largest and smallest <= high / least


def test_differences_are_those_of_their_neighbours():
    for part in PLAN["tables"]:
        head, rows = next(tables_of(evidence_tables.table(part)))
        uar, less = (next(i for i, name in enumerate(head) if name.startswith(text)) for text in ("UAR", "UAR minus"))
        for row in rows[1:]:
            printed = float(row[less].split()[0])
            assert printed == pytest.approx(float(row[uar]) - float(rows[0][uar]), abs=0.101)


def test_the_documented_coverage_is_that_of_the_results():
    section = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8").partition(interval_coverage.COMMAND)[2]
    head, rows = next(tables_of(section))
    document = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert interval_coverage.summary(rows, head[3:]) in document
    chosen = [float(row[-1].split()[0]) for row in rows]
    assert head[-1] == "t, logit" and min(chosen) > 93 and max(chosen) < 97
    evidence = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    for number, words in ((5, "with five speakers"), (10, "with ten")):
        shares = [float(row[3].split()[0]) for row in rows if row[2] == str(number)]
        assert f"{min(shares):.0f} to {max(shares):.0f} %" in evidence.partition(words)[0][-120:]
    widened = [float(row[head.index("percentile, widened")].split()[0]) for row in rows]
    assert f"widened, {min(widened):.0f} to {max(widened):.0f} % hold it" in evidence


def test_intervals_of_records_follow_the_rule():
    old = {"speakers": 10, "uar": 0.8, "intervals": {"uar": [0.7, 0.88], "war": None}}
    found = evidence_markdown.uar_interval(old)
    assert found == pytest.approx([0.8 - 0.1 * 1.2166, 0.8 + 0.08 * 1.2166], abs=1e-3)
    assert evidence_markdown.uar_interval(old | {"speakers": 4}) is None
    new = old | {"intervals": {"uar": [0.7, 0.88], "war": None, "method": METHOD}}
    assert evidence_markdown.uar_interval(new) == [0.7, 0.88]
    fair = {"gap": 0.1, "gap_interval": [0.0, 0.2], "num_female": 5, "num_male": 5}
    assert evidence_markdown.gap_interval(fair)[0] < -0.02
    assert evidence_markdown.gap_interval(fair | {"num_male": 4}) is None
    assert evidence_markdown.gap_interval(fair | {"method": METHOD}) == [0.0, 0.2]
    head, rows = next(tables_of(evidence_tables.table("ablation")))
    assert not [cell for row in rows for cell in row[1:] if "to" in cell], "four speakers have no interval"


def test_published_figures_name_their_file_and_commit():
    published = [one for row in PLAN["rows"].values() for one in row.get("beside", [])]
    assert published and all(re.fullmatch(r"[0-9a-f]{40}", one["commit"]) for one in published)
    assert all(
        one["path"].startswith("results/") and one["path"].endswith("RavdessZeroshot.json") for one in published
    )
    compared = evidence_markdown.load("opensmile")
    assert "opensmile_baseline.py" in compared["command"] and "opensmile" in compared["versions"]
    for one in compared["rows"].values():
        assert {"eGeMAPS"} <= set(one) <= {"eGeMAPS", "ComParE"}


def scalars(value):
    """All numbers of a record, lists of losses as their mean as well."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "losses":
                yield sum(item) / len(item)
            yield from scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def records_with_seeds(value):
    """The UAR of each seed of all trained models in a record, by the table that they stand in."""
    if isinstance(value, dict):
        items = list(value.values())
    else:
        items = value if isinstance(value, list) else []
    here = [
        [seed["uar"] for seed in item["per_seed"]] for item in items if isinstance(item, dict) and "per_seed" in item
    ]
    if here:
        yield here
    for item in items:
        yield from records_with_seeds(item)


def quotable(parts):
    """Numbers that prose beside some parts may quote, as it would print them."""
    found = set()
    for part in parts:
        record = evidence_markdown.load(part)
        for value in map(abs, scalars(record)):
            found |= {f"{value:.1f}", f"{value:.2f}", f"{value:.3f}", f"{100 * value:.1f}"}
        for group in records_with_seeds(record):
            for one, other in combinations(group, 2):
                found |= {f"{100 * abs(a - b):.1f}" for a, b in zip(one, other, strict=False)}
        for layers in (record["layers"][when] for when in ("before", "after") if "layers" in record):
            found.add(f"{layers['positive'][-1] - layers['negative'][-1]:.3f}")
    return found | {"0.001"}  # of which prose says that a p is below it


def quoted(text):
    """Numbers with decimals in prose; what is made from records, code, links, tables and headings left out."""
    lines = [
        line for line in evidence_tables.BLOCK.sub("", text).splitlines() if not line.startswith(("|", "#", "!["))
    ]
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", " ", "\n".join(lines), flags=re.DOTALL)
    return re.findall(r"(?<![\d.\w])\d+\.\d+(?![\d\w]|\.\d)", prose)


def not_in_a_record(text):
    """Numbers that a section's prose quotes and neither its tables nor the records of its parts have."""
    missing = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        parts = re.findall(r"<!-- evidence: ([\w-]+) -->", section)
        parts = [part for part in parts if part != "commands"]
        if not parts:
            continue
        files = [*PLAN["rows"]] if {"rows", "costs"} & {*parts} else []
        parts += re.findall(r"`([\w-]+)`", section)  # a part that prose names
        files += [part for part in parts if (ROOT / f"docs/evidence/{part}.json").is_file()]
        allowed = quotable(files)
        allowed |= {number for line in section.splitlines() if line[:1] == "|" for number in NUMBER.findall(line)}
        allowed |= {f"{evidence_markdown.widening(number):.2f}" for number in (10, 24)}
        counts = json.loads((ROOT / "docs/evidence/corpora.json").read_text())["corpora"]["ravdess"]
        allowed |= {f"{100 * number / counts['clips']:.1f}" for number in counts["clips_of_an_emotion"].values()}
        missing += [number for number in quoted(section) if number not in allowed]
    return missing


@pytest.mark.parametrize("name", ["docs/evidence.md", "docs/supcon.md", "docs/speakers.md"])
def test_what_prose_quotes_stands_in_a_record(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not_in_a_record(text) == []


def test_a_figure_without_a_record_is_found():
    text = (ROOT / "docs/supcon.md").read_text(encoding="utf-8")
    where = text.index("- The other cause is the first stage.")
    assert not_in_a_record(f"{text[:where]}- Its loss ends at 2.41, or 3.7 points.\n{text[where:]}") == ["2.41", "3.7"]
