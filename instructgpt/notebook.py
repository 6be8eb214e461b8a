"""Tables, figures, coloured text and commands in a notebook."""

import html
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instructgpt.evals.report.plotting import to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = "text-align:left; vertical-align:top; white-space:pre-wrap"
_NEGATIVE, _POSITIVE = (202, 0, 32), (5, 113, 176)  # red and blue, safe for most eyes


def picture(figure: "Figure | None", *, dpi: int = 110) -> None:
    """Shows a Matplotlib figure; nothing if it is None, as without its data."""
    from IPython.display import Image, display

    if figure is not None:
        display(Image(to_png(figure, dpi=dpi)))


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> None:
    """Shows rows of text; line breaks stay, and nothing is read as HTML."""
    _show_table([_row("th", columns), *(_row("td", row) for row in rows)])


def _show_table(lines: Sequence[str]) -> None:
    from IPython.display import HTML, display

    display(HTML(f"<table>{''.join(lines)}</table>"))


def _row(tag: str, cells: Sequence[Any]) -> str:
    inner = "".join(
        f"<{tag} style='{_CELL}'>{html.escape(str(cell))}</{tag}>" for cell in cells
    )
    return f"<tr>{inner}</tr>"


def colored(
    lines: Iterable[tuple[str, Sequence[str], Sequence[float]]],
    *,
    limit: float = 0.0,
) -> None:
    """Shows texts whose tokens have colours: blue above 0, red below, white at 0.

    Args:
      lines: (name, N tokens, N values) of each line; a value that is not finite leaves
        its token without a colour. A token shows its value where the pointer rests.
      limit: Absolute value of the full colour; 0: the largest of all values.
    """
    lines = list(lines)
    if not limit:
        sizes = [abs(float(v)) for _, _, values in lines for v in values]
        limit = max((s for s in sizes if np.isfinite(s)), default=0.0) or 1.0
    out = []
    for name, tokens, values in lines:
        text = "".join(
            _token(token, float(value), limit)
            for token, value in zip(tokens, values, strict=True)
        )
        out.append(
            f"<tr><th style='{_CELL}'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{text}</td></tr>"
        )
    _show_table(out)


def _token(token: str, value: float, limit: float) -> str:
    shown = html.escape(token.replace("\n", "\N{RETURN SYMBOL}")) or "&nbsp;"
    style = "white-space:pre; padding:1px 0"
    if not np.isfinite(value):
        return f"<span style='{style}'>{shown}</span>"
    share = min(abs(value) / limit, 1.0)
    full = _POSITIVE if value > 0 else _NEGATIVE
    red, green, blue = (round(255 + share * (part - 255)) for part in full)
    ink = "#fff" if share > 0.6 else "#000"
    style += f"; background:rgb({red},{green},{blue}); color:{ink}"
    return f"<span title='{value:.3f}' style='{style}'>{shown}</span>"


def command(module: str, *arguments: str, check: bool = True) -> None:
    """Runs `python -m module arguments`, and prints its output as it comes.

    Args:
      module: Name of the module, such as instructgpt.main.
      arguments: The arguments, as a shell would pass them.
      check: Whether a command that fails ends the cell.

    Raises:
      SystemExit: the command failed, and `check` is set.
    """
    print("$ python -m", shlex.join([module, *arguments]), flush=True)
    line = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for text in process.stdout or ():
            print(text, end="", flush=True)
    if check and process.returncode:
        raise SystemExit(f"{module} ended with exit code {process.returncode}")
