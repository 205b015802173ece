"""The tables that documents quote from docs/evidence/*.json, between `evidence: NAME` and `end of evidence`."""

from __future__ import annotations

import re

import comparators
import corpus_facts
import speaker_clusters
import supcon
from evidence_markdown import change, gap_interval, load, markdown, percent, recorded, span, tuned_on, uar_interval
from evidence_runs import ROOT

CHECKPOINT = ROOT / "checkpoints" / "gemoclap-compact-emodb"
CARD = str(CHECKPOINT.relative_to(ROOT) / "README.md")
DOCUMENTS = ("README.md", "model_card.md", "docs/evidence.md", "docs/supcon.md", "docs/speakers.md", CARD)
BLOCK = re.compile(r"(<!-- evidence: ([\w-]+) -->\n).*?(<!-- end of evidence -->)", re.DOTALL)


def that_ran(names) -> list[tuple[str, dict]]:
    """Names of parts and what was found, of those that were run."""
    return [(name, found) for name in names if (found := load(name))]


def _interval(found: dict) -> str:
    """The interval of a UAR, or why there is none."""
    return span(uar_interval(found), found["speakers"])


def rows(plan: dict) -> str:
    """Every row beside what it is to be compared with."""
    head, lines = "|UAR|WAR|95 % interval of UAR|UAR of the seeds|beside it: UAR / WAR", []
    for name, found in that_ran(plan["rows"]):
        seeds = ", ".join(percent(one["uar"]) for one in found["per_seed"])
        figures = [percent(found["uar"]), percent(found["war"]), _interval(found), seeds]
        lines.append([f"`{name}`: {found['title']}", *figures, comparators.beside(name, plan["rows"][name])])
    return markdown(head, lines)


def costs(plan: dict) -> str:
    """Chance beside each row, speakers that no choice was made on, and what the training cost."""
    head = "|chance: constant, shuffled labels|UAR / WAR of speakers that no choice saw|trainings|minutes|last loss"
    lines = []
    for name, found in that_ran(plan["rows"]):
        losses, apart, chance = found["losses"], found["untouched"], found["chance"]
        cells = [f"{percent(chance['constant'])}, {percent(chance['shuffled_labels'])}", "all"]
        if apart:
            number, bounds = len(plan["rows"][name]["untouched"]), apart["intervals"]
            within = span(recorded(bounds["uar"], apart["uar"], number, bounds.get("method")), number)
            cells[1] = f"{percent(apart['uar'])} / {percent(apart['war'])} ({within})"
        cells += [str(found["trainings"]), f"{found['training_seconds'] / 60:.0f}"]
        cells.append(f"{sum(losses) / len(losses):.2f} ({min(losses):.2f} to {max(losses):.2f})")
        lines.append([f"`{name}`", *cells])
    return markdown(head, lines)


def table(name: str) -> str:
    """The cells of a grid: figures, the difference to the first, fairness, probe, calibration, loss."""
    cells = load(name)["cells"]
    apart = bool(cells[0]["untouched"])
    head = "|UAR|WAR|UAR of the seeds|UAR minus the first's (interval)" + "|UAR of speakers that no choice saw" * apart
    lines = []
    for cell in cells:
        gap, losses = cell["fairness"], cell["losses"]
        seeds = ", ".join(percent(one["uar"]) for one in cell["per_seed"])
        line = [cell["name"], percent(cell["uar"]), percent(cell["war"]), seeds, change(cell["difference"])]
        line += [percent(cell["untouched"]["uar"])] if apart else []
        line.append(_gap(gap))
        line += [percent((cell["gender_probe"] or {}).get("uar")), percent(cell["calibration"]["ece"])]
        lines.append([*line, f"{sum(losses) / len(losses):.2f}"])
    return markdown(f"{head}|women − men|gender probe|ECE|last loss", lines)


def _gap(fair: dict | None) -> str:
    """Women minus men, with its interval where it has one."""
    if fair is None:
        return "–"
    bounds = gap_interval(fair)
    return f"{100 * fair['gap']:+.1f}" + (f" ({span(bounds, sign='+')})" if bounds else "")


def commands(plan: dict) -> str:
    """What each part ran, as one would type it."""
    parts = [*plan["rows"], *plan["tables"], "checkpoint", "supcon", "speakers"]
    return "\n\n".join(f"`{name}`\n\n{_typed(found)}" for name, found in that_ran(parts))


def _typed(found: dict) -> str:
    return "```bash\n{}\n```".format("\n".join(found["commands"]))


def checkpoint(plan: dict) -> str:
    """What the checkpoint that ships is worth, and how it is judged again."""
    found, recipe = load("checkpoint"), load("emodb-loso")
    recall, ece = ", ".join(f"{name} {percent(one)}" for name, one in found["recall"].items()), found["calibration"]
    lines = [
        f"Emo-DB, speakers 14 and 15, whom it has not heard ({found['n']} clips, last epoch): **UAR "
        f"{percent(found['uar'])}, WAR {percent(found['war'])}**; recall: {recall}. Always the same emotion: UAR "
        f"{percent(found['chance']['constant'])}. Mean best score {percent(ece['confidence'])}, right "
        f"{percent(ece['accuracy'])}; expected calibration error {percent(ece['ece'])}.",
        "The command from which it came, and the one that judges it:",
        _typed(found),
    ]
    if recipe:
        figures = f"UAR {percent(recipe['uar'])} (95 % interval {_interval(recipe)}), WAR {percent(recipe['war'])}"
        lines.append(
            f"Of the recipe, not of these weights: each of Emo-DB's ten speakers left out in turn, {figures}. "
            f"{tuned_on(recipe['untouched'])}"
        )
    return "\n\n".join(lines)


def words(plan: dict) -> str:
    """Templates that were kept out, and every synonym."""
    found, lines = load("words"), []
    rows = [[f"own prompts ({found['own']['templates']} templates)", percent(found["own"]["uar"]), ""]]
    for one in found["templates"]:
        rows.append([f'"{one["template"]}"', percent(one["uar"]), ", ".join(one["unknown"]) or "none"])
    first = markdown("template|UAR|words that it never saw", rows)
    for one in found["words"]:
        figures = [percent(one[name]) for name in ("recall", "uar")]
        lines.append([one["word"], one["emotion"], f"{one['cosine']:.2f}", one["nearest"], *figures])
    head = "word|in place of|cosine to it|nearest emotion|recall of that emotion|UAR"
    return f"{first}\n\n{markdown(head, lines)}"


def write_documents(plan: dict) -> None:
    """Put the tables into the documents."""
    for name in DOCUMENTS:
        if (path := ROOT / name).is_file():
            path.write_text(with_tables(path.read_text(encoding="utf-8"), plan), encoding="utf-8")


def with_tables(text: str, plan: dict) -> str:
    """A document with its tables as the JSON files have them; one of which nothing was run stays as it is."""
    makers = {"rows": rows, "costs": costs, "commands": commands, "checkpoint": checkpoint, "words": words}
    makers |= {"sources": comparators.sources, "corpora": lambda plan: corpus_facts.table(load("corpora"))}
    makers |= {name: lambda plan, name=name: table(name) for name in plan["tables"]}
    makers["supcon"] = lambda plan: supcon.table(load("supcon"))
    makers["speakers"] = lambda plan: speaker_clusters.table(load("speakers"))

    def made(found: re.Match) -> str:
        ran = that_ran(plan["rows"] if found[2] in ("rows", "costs", "commands", "sources") else [found[2]])
        return f"{found[1]}\n{makers[found[2]](plan)}\n\n{found[3]}" if ran else found[0]

    return BLOCK.sub(made, text)
