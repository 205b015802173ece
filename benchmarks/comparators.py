"""What stands beside the rows of docs/evidence.md: openSMILE's functionals, and published figures with their files."""

from __future__ import annotations

from evidence_markdown import load, markdown, percent


def beside(name: str, row: dict) -> str:
    """UAR and WAR of what a row is compared with: openSMILE's functionals, and published figures."""
    compared = (load("opensmile") or {"rows": {}})["rows"].get(name, {})
    figures = [(features, one["uar"], one["war"]) for features, one in compared.items()]
    figures += [
        (one["name"], one.get("uar"), one["war"]) for one in row.get("beside", []) if one.get("in_table", True)
    ]
    return "; ".join(f"{title} {percent(uar)} / {percent(war)}" for title, uar, war in figures)


def sources(plan: dict) -> str:
    """Where the published figures beside the rows were read."""
    published = [one for row in plan["rows"].values() for one in row.get("beside", [])]
    rows = [
        [one["name"], percent(one["war"]), percent(one.get("uar")), f"`{one['commit'][:12]}`", f"`{one['path']}`"]
        for one in published
    ]
    return markdown(f"model|accuracy|recall, mean over classes|commit of {plan['published_in']}|file", rows)
