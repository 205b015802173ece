"""Figures in documents: quotients agree with their neighbours, and figures in prose come from a record."""

import json
import re
import sys
from itertools import combinations, product

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import documents  # noqa: E402
import evidence_tables  # noqa: E402
import gradient_caching  # noqa: E402
import interval_coverage  # noqa: E402
import scaling  # noqa: E402
from documents import BLOCK, render  # noqa: E402
from evidence_intervals import gap_interval, paired_difference, uar_interval, widening  # noqa: E402
from evidence_plan import COMPACT, OTHER_PARTS, PLAN, SYSTEMS, record_name  # noqa: E402
from evidence_record import load  # noqa: E402
from harness import machine  # noqa: E402

from modeling_gemoclap.evaluation.statistics import METHOD  # noqa: E402

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def tables_of(text):
    """Tables of a document: a head and rows, as lists of cells."""
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def bounds(cell):
    """The smallest and the largest number that is printed like this."""
    text = NUMBER.search(cell)[0]
    half = 0.5 * 10 ** -len(text.partition(".")[2])
    return float(text) - half, float(text) + half


def wrong_quotients(text):
    """Rows whose column "A over B" is not the quotient of the columns A and B."""
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


def test_a_wrong_quotient_is_detected():
    head = "| input | files | shards | shards over files |\n|---|---|---|---|\n"
    text = head + "| waves | 399 clips/s | 525 clips/s | {} |\n"
    assert wrong_quotients(text.format("1.10")) and not wrong_quotients(text.format("1.32"))


@pytest.mark.parametrize("first, second", product((399.4, 17.6, 2374.2), (525.3, 208.1)))
def test_templates_write_quotients_of_their_figures(first, second):
    manifest = {
        "rows": 1000,
        "selected": 10,
        "seconds": {"open": 6.4, "select": 0.1},
        "mib": {"before": 1, "above": 2},
    }
    rates = [{"input": "waves", "files": first, "shards": second}]
    text = render("data_at_scale", manifest=manifest, rates=rates, workers=2, batch=32, clips=768, rounds=5)
    assert f"{first:.0f} clips/s | {second:.0f} clips/s | {second / first:.2f} |" in text
    checks = {name: scaling.Check(first, second) for name in ("memory", "speed")}
    tables = [text, render("scaling_checks", values=checks, seconds=4.0)]
    assert all(len(list(tables_of(f"{table}\n"))) == 1 and not wrong_quotients(f"{table}\n") for table in tables)


def test_the_section_of_gradient_caching_has_every_measurement(monkeypatch):
    measured = {(32, None): {"mib": 3102.4, "seconds": 25.2}, (512, 32): {"mib": 3728.1, "seconds": 561.3}}
    monkeypatch.setattr(gradient_caching, "measure_step_alone", lambda batch, chunk, *_: measured[batch, chunk])
    monkeypatch.setattr(gradient_caching, "time_of", lambda *_: (58.04, 1.06))
    monkeypatch.setattr(gradient_caching, "accumulation_error", {2: 0.16, 4: 0.26, 8: 0.5}.get)
    text = gradient_caching.section([1.0], "cpu", 5)
    assert [row[3:] for row in next(tables_of(text))[1]] == [
        ["3102 MiB", "1", "25 s"],
        ["3728 MiB", f"{3728.1 / 3102.4:.3f}", "561 s"],
    ]
    assert "1.06 times" in text and "58.0 s" in text and "16% with 2 parts, 26% with 4 parts, 50% with 8 parts" in text


@pytest.mark.parametrize(
    "document, templates",
    {
        "benchmarks/RESULTS.md": ("gradient_caching", "data_at_scale", "whisper_window"),
        "docs/scaling.md": ("scaling_encoders", "scaling_checks", "scaling_prediction"),
        "docs/encoders.md": ("encoders", "whisper_window"),
    }.items(),
)
def test_measured_documents_have_the_text_of_their_templates(document, templates):
    text = (ROOT / document).read_text(encoding="utf-8")
    for template in templates:
        source = (ROOT / f"benchmarks/templates/{template}.md").read_text(encoding="utf-8")
        for line in source.splitlines():
            fixed = [part for part in re.split(r"{[{%].*?[%}]}", line) if len(part) > 12 or part == line]
            assert all(part in text for part in fixed), f"{template}: {line}"


def test_a_section_of_results_is_replaced_or_added(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "RESULTS", tmp_path / "RESULTS.md")
    documents.RESULTS.write_text("# Results\n\n## `a`\n\nold\n\n## `b`\n\nother\n")
    documents.write_section("a", "new")
    documents.write_section("c", "last")
    text = documents.RESULTS.read_text()
    assert text.replace(f"Machine: {machine()}.\n\n", "") == (
        "# Results\n\n## `a`\n\nnew\n\n## `b`\n\nother\n\n## `c`\n\nlast\n"
    )


def test_blocks_keep_their_markers_and_blank_lines():
    text = "<!-- evidence: x -->\n\nold\n\n<!-- end of evidence -->\n<!-- y -->\nold\n<!-- /y -->\n<!-- /z -->\n"
    assert documents.with_blocks(text, {"x": "new", "y": "newer"}.get) == text.replace("old", "new", 1).replace(
        "old", "newer"
    )
    assert documents.with_blocks(text, lambda name: None) == text


def test_an_empty_block_does_not_reach_into_the_next():
    empty = "<!-- evidence: x -->\n\n<!-- end of evidence -->\n"
    other = empty.replace("x", "y").replace("\n\n", "\n\nold\n\n")
    text = f"{empty}\nprose\n\n{other}"
    filled = documents.with_blocks(text, {"x": "new"}.get)
    assert "new" in filled and "prose" in filled and "old" in filled


def test_memory_over_plain_is_the_quotient():
    head, rows = next(
        table for table in tables_of((ROOT / "benchmarks/RESULTS.md").read_text()) if "memory over plain" in table[0]
    )
    memory, over, chunks = (head.index(name) for name in ("memory", "memory over plain", "chunk"))
    for plain, row in zip(rows[::2], rows[1::2], strict=True):
        assert plain[chunks] == "plain"
        (low, high), (least, most), (smallest, largest) = map(bounds, (row[memory], plain[memory], row[over]))
        assert low / most <= largest and smallest <= high / least


def test_differences_are_those_of_their_neighbours():
    for part in evidence_tables.records_of(PLAN["tables"]):
        head, rows = next(tables_of(evidence_tables.block(part)))
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
    evidence = (ROOT / "docs/evidence_compact.md").read_text(encoding="utf-8")
    for number, words in ((5, "with five speakers"), (10, "with ten")):
        shares = [float(row[3].split()[0]) for row in rows if row[2] == str(number)]
        assert f"{min(shares):.0f} to {max(shares):.0f} %" in evidence.partition(words)[0][-120:]
    widened = [float(row[head.index("percentile, widened")].split()[0]) for row in rows]
    assert f"widened, {min(widened):.0f} to {max(widened):.0f} % hold it" in evidence


def test_intervals_of_records_follow_the_rule():
    old = {"speakers": 10, "uar": 0.8, "intervals": {"uar": [0.7, 0.88], "war": None}}
    assert uar_interval(old) == pytest.approx([0.8 - 0.1 * 1.2166, 0.8 + 0.08 * 1.2166], abs=1e-3)
    assert uar_interval(old | {"speakers": 4}) is None
    new = old | {"intervals": {"uar": [0.7, 0.88], "war": None, "method": METHOD}}
    assert uar_interval(new) == [0.7, 0.88]
    fair = {"gap": 0.1, "gap_interval": [0.0, 0.2], "num_female": 5, "num_male": 5}
    assert gap_interval(fair)[0] < -0.02
    assert gap_interval(fair | {"num_male": 4}) is None
    assert gap_interval(fair | {"method": METHOD}) == [0.0, 0.2]
    head, rows = next(tables_of(evidence_tables.block("ablation")))
    assert not [cell for row in rows for cell in row[1:] if "to" in cell], "four speakers have no interval"


def test_published_figures_name_their_file_and_commit():
    published = [model for row in PLAN["rows"].values() for model in row.get("beside", [])]
    assert published and all(re.fullmatch(r"[0-9a-f]{40}", model["commit"]) for model in published)
    assert all(re.fullmatch(r"results/.*RavdessZeroshot\.json", model["path"]) for model in published)
    compared = load("opensmile")
    assert "opensmile_baseline.py" in compared["command"] and "opensmile" in compared["versions"]
    for features in compared["rows"].values():
        assert {"eGeMAPS"} <= set(features) <= {"eGeMAPS", "ComParE"}


def scalars(value):
    """All numbers of a record, and the mean of each list of losses."""
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
    """Numbers that the prose of some parts may quote, as it would print them."""
    numbers = set()
    for part in parts:
        record = load(part)
        assert record, f"{part} was not run"
        for value in map(abs, scalars(record)):
            numbers |= {f"{value:.1f}", f"{value:.2f}", f"{value:.3f}", f"{100 * value:.1f}"}
        for group in records_with_seeds(record):
            for first, second in combinations(group, 2):
                numbers |= {f"{100 * abs(a - b):.1f}" for a, b in zip(first, second, strict=False)}
        for layers in (record["layers"][when] for when in ("before", "after") if "layers" in record):
            numbers.add(f"{layers['positive'][-1] - layers['negative'][-1]:.3f}")
    return numbers | {"0.001"}  # prose gives smaller p values as below 0.001


def quoted(text):
    """Numbers with decimals in prose, without generated blocks, code, links, tables and headings."""
    lines = [line for line in BLOCK.sub("", text).splitlines() if not line.startswith(("|", "#", "!["))]
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->", " ", "\n".join(lines), flags=re.DOTALL)
    return re.findall(r"(?<![\d.\w])\d+\.\d+(?![\d\w]|\.\d)", prose)


def not_in_a_record(text):
    """Numbers in the prose of sections that are neither in their tables nor in the records of their parts."""
    missing = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        parts = re.findall(r"<!-- evidence: ([\w-]+) -->", section)
        parts = [part for part in parts if not part.endswith("commands")]
        if not parts:
            continue
        compact = any(part.startswith("compact-") for part in parts)
        systems = [COMPACT] if compact else [*SYSTEMS] if {"systems", "runs"} & {*parts} else []
        files = [record_name(row, system) for system in systems for row in evidence_tables.rows_of(system)]
        parts += re.findall(r"`([\w-]+)`", section)  # a part that prose names
        names = [*PLAN["tables"], *OTHER_PARTS, *SYSTEMS[COMPACT]["rows"]]
        parts = [record_name(part, COMPACT if part in PLAN["rows"] else None) for part in parts if part in names]
        files += [part for part in parts if load(part)]
        allowed = quotable(files)
        allowed |= {number for line in section.splitlines() if line[:1] == "|" for number in NUMBER.findall(line)}
        allowed |= {f"{widening(number):.2f}" for number in (10, 24)}
        counts = json.loads((ROOT / "docs/evidence/corpora.json").read_text())["corpora"]["ravdess"]
        allowed |= {f"{100 * number / counts['clips']:.1f}" for number in counts["clips_of_an_emotion"].values()}
        missing += [number for number in quoted(section) if number not in allowed]
    return missing


@pytest.mark.parametrize("name", [name for name in evidence_tables.DOCUMENTS if name.startswith("docs/")])
def test_what_prose_quotes_stands_in_a_record(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not_in_a_record(text) == []


def test_a_paired_difference_needs_the_same_clips():
    """Six speakers of two emotions. The second record is wrong in one clip of a speaker, and has two seeds."""
    right, wrong = [["2 0", "0 2"]], [["2 0", "1 1"]]
    record = {"speaker_confusions": dict.fromkeys("abcdef", right)}
    other = {"speaker_confusions": {name: 2 * (wrong if name == "a" else right) for name in "abcdef"}}
    comparison = paired_difference(record, other)
    assert comparison["difference"] == pytest.approx(1 / 24) and comparison["interval"][0] < 0
    assert paired_difference(record, record)["difference"] == 0
    assert (
        paired_difference(record, {"speaker_confusions": dict(list(other["speaker_confusions"].items())[:5])}) is None
    )
    assert paired_difference(record, {"speaker_confusions": {name: [["1 0", "0 2"]] for name in "abcdef"}}) is None


def test_a_figure_without_a_record_is_found():
    text = (ROOT / "docs/supcon.md").read_text(encoding="utf-8")
    where = text.index("- The first stage may contribute.")
    assert not_in_a_record(f"{text[:where]}- Its loss ends at 2.41, or 3.7 points.\n{text[where:]}") == ["2.41", "3.7"]


@pytest.mark.parametrize("suffix", ["json", "txt", "md"])
def test_records_and_documents_name_no_absolute_path(suffix):
    found = re.compile(r"(?<![\w.~])/(?:tmp|home|root|work|Users|mnt)/")
    names = [path for folder in ("docs", "benchmarks", "checkpoints") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    assert names and [str(path) for path in names if found.search(path.read_text(encoding="utf-8"))] == []
