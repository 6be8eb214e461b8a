"""A page of sections, with embedded pictures, that needs no other file.

`page.html.jinja` has the layout.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from instructgpt.evals.report.plotting import to_data_uri

_TEMPLATE = "page.html.jinja"


class Model(NamedTuple):
    """Name and colour of a model in the page."""

    label: str
    color: str


class Row(NamedTuple):
    """A row of a table: cells, and the model if the row is about one."""

    cells: Sequence[str]
    model: Model | None = None
    marked: bool = False


class Table(NamedTuple):
    """A table; the title is shown if the table opens on a click."""

    columns: Sequence[str]
    rows: Sequence[Row]
    title: str = ""


class Image(NamedTuple):
    """A picture that is embedded in the page."""

    source: str
    description: str


class Answer(NamedTuple):
    """A model's answer and its rating."""

    model: Model
    text: str
    rating: str


class Sample(NamedTuple):
    """A prompt with the answers of all models."""

    category: str
    prompt: str
    answers: Sequence[Answer]


class Section(NamedTuple):
    """A heading, a caption, and the content below."""

    title: str
    caption: str
    table: Table | None = None
    image: Image | None = None
    details: Table | None = None
    samples: Sequence[Sample] = ()


def render_page(
    sections: Iterable[Section],
    *,
    heading: str,
    facts: Mapping[str, Any],
    note: str = "",
) -> str:
    """Renders sections, those with content, as one page that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        heading=heading,
        facts=facts,
        note=note,
        sections=[section for section in sections if any(section[2:])],
    )


def as_image(figure: Figure | None, description: str) -> Image | None:
    """A figure to be embedded in the page; None if there is none."""
    return None if figure is None else Image(to_data_uri(figure), description)
