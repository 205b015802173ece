"""The page `/docs`: HTML made from the OpenAPI schema, without scripts and without files of other servers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape

RANGES = {"minimum": "from", "maximum": "to", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { border: 1px solid #8886; padding: .3rem .6rem; text-align: left; vertical-align: top; }
code, pre { font: .9em ui-monospace, monospace; }
pre { white-space: pre-wrap; }
@media (max-width: 40rem) { table { font-size: .8rem; } th, td { padding: .2rem .3rem; }
                           td, h2, p { overflow-wrap: anywhere; } }
h2 { border-top: 1px solid #8886; padding-top: 1rem; }
:root { color-scheme: light dark; }
"""


EXAMPLES = {  # for curl, at the default address
    "/predict": "curl -F file=@clip.wav -F labels=furious,gloomy -F top_k=1 127.0.0.1:8000/predict",
    "/timeline": "curl -F file=@clip.wav -F threshold=0.4 127.0.0.1:8000/timeline",
    "/health": "curl 127.0.0.1:8000/health",
}


def render_page(schema: dict) -> str:
    """Render an OpenAPI schema as a page.

    Args:
        schema: The schema, from `FastAPI.openapi`.

    Returns:
        HTML.
    """
    info, models = schema["info"], schema.get("components", {}).get("schemas", {})
    title = f"{info['title']} {info['version']}"
    parts = [f"<h1>{escape(title)}</h1><p>{escape(info.get('description', ''))}</p>"]
    parts.append('<p>The schema for programs: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in schema["paths"].items():
        parts += [_operation(method, path, operation) for method, operation in methods.items()]
    parts.append("<h2>Answers</h2>")
    parts += [_model(name, model) for name, model in models.items()]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _operation(method: str, path: str, operation: dict) -> str:
    text = f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(operation['description'])}</p>"
    if path in EXAMPLES:
        text += f"<pre>{escape(EXAMPLES[path])}</pre>"
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
        text += f"<p>Body: {kinds}. In a form, the field <code>file</code> has the recording.</p>"
    if parameters := operation.get("parameters"):
        rows = ((each["name"], *_values(each["schema"]), each.get("description", "")) for each in parameters)
        text += _table(("option", "values", "default", "meaning"), rows)
    rows = ((code, _answer(response), response["description"]) for code, response in operation["responses"].items())
    return text + _table(("status", "answer", "meaning"), rows)


def _answer(response: dict) -> str:
    return ", ".join(_type(content["schema"]) for content in response.get("content", {}).values())


def _model(name: str, model: dict) -> str:
    rows = (
        (field, _type(schema), schema.get("description", "")) for field, schema in model.get("properties", {}).items()
    )
    text = f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(model.get("description", ""))}</p>'
    return text + _table(("field", "type", "meaning"), rows)


def _values(schema: dict) -> tuple[str, str]:
    """The values that an option can have, and its default; empty if the description has it."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    bounds = {name: value for each in (*kinds, schema) for name, value in each.items()}
    ranges = [f"{word} {bounds[name]:g}" for name, word in RANGES.items() if name in bounds]
    names = " or ".join(", ".join(each["enum"]) if "enum" in each else _type(each) for each in kinds)
    default = schema.get("default")
    text = "" if default is None else default if isinstance(default, str) else json.dumps(default)
    return " ".join([names, *ranges]), text


def _type(schema: dict) -> str:
    """The type of a value in words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{_type(schema['additionalProperties'])} by name"
    return schema.get("type", "any")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
