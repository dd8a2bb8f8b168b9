"""Tables for notebooks, through dask's own templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def table(title: str, rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """HTML of a table; the first cell of each row is its heading, all text is escaped."""
    from dask.widgets import TEMPLATE_PATHS, get_template  # loads jinja2, which only a notebook needs

    folder = str(Path(__file__).parent / "templates")
    if folder not in TEMPLATE_PATHS:
        TEMPLATE_PATHS.append(folder)
    return get_template("dfit_table.html.j2").render(title=title, rows=rows, notes=notes)
