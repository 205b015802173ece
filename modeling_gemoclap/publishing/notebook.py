"""The notebook of a checkpoint, `notebook.ipynb`, which needs transformers and not this package."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

NOTEBOOK = "notebook.ipynb"
TEMPLATE = "notebook.md"  # Markdown; its blocks of Python are the cells of code
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook_content(environment: jinja2.Environment, **values) -> str:
    """The content of a notebook, without outputs. The same values give the same bytes.

    The template is split into cells before its values are filled in, so that no value can add a cell of code.

    Args:
        environment: The environment of the model cards, which escapes values.
        **values: The values of the template.
    """
    source, _, _ = environment.loader.get_source(environment, TEMPLATE)
    cells = []
    for index, text in enumerate(CODE.split(source)):  # Markdown, code, Markdown, ...
        if not text.strip():
            continue
        text = environment.from_string(text.strip()).render(values).strip()
        cell = {"cell_type": ("markdown", "code")[index % 2], "id": f"cell-{len(cells) + 1}", "metadata": {}}
        cell |= {"execution_count": None, "outputs": []} if index % 2 else {}
        cells.append(cell | {"source": text.splitlines(keepends=True)})
    content = {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
