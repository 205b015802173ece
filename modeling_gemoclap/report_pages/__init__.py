"""HTML pages of reports, without other files: their templates, and the style that they share."""

from __future__ import annotations

from pathlib import Path


def render(template: str, **values) -> str:
    """Fill a template of this folder. Values are escaped, so that names from data create no markup.

    Args:
        template: Its file name.
        **values: What it contains. A missing value is an error.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    return environment.get_template(template).render(**values)
