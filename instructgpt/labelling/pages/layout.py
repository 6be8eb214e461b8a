"""The layout of the pages, as Label Studio's labelling configs (paper, Fig. 12).

The instruction stands on the left or on top, the answers right of it or below. Cards
are dragged into ranks; several cards in one rank are a tie, and a rank may stay empty.
"""

from importlib import resources
from xml.etree import ElementTree as ET

from markdown_it import MarkdownIt

from instructgpt.evals.judgements import LIKERT
from instructgpt.labelling.interface import FLAGS, Page
from instructgpt.labelling.pages import names

FEWEST = 4  # ranks on offer, unless a task has more answers (§3.5: K = 4 to 9)

# Training data are labelled with helpfulness first, answers for the evaluation of
# models with truthfulness and harmlessness first (§3.4).
_INSTRUCTIONS = {"final": "final.md"}

# Label Studio hands the style on as it is escaped, so it holds no ">" and no quotes.
# The names that end with "-" or begin with "lsf" are Label Studio's own: without those
# rules a page is less tidy and works all the same.
_STYLE = """
.ig-two { display: flex; gap: 24px; align-items: flex-start; }
.ig-half { flex: 1 1 0; min-width: 0; }
.ig-two .ig-half:first-child { position: sticky; top: 0; }
.ig-box { border: 1px solid var(--color-neutral-border); border-radius: 6px;
  padding: 6px 14px; margin-bottom: 12px; overflow-wrap: anywhere; }
.ig-box .lsf-object { white-space: pre-wrap; }
.ig-key, .ig-key * { font-size: 12px; }
.ig-ask { display: flex; gap: 12px; justify-content: space-between;
  align-items: center; border-bottom: 1px solid var(--color-neutral-border); }
.ig-ask [class*=typography-], .ig-box [class*=typography-] {
  font-size: 15px; line-height: 1.3; margin: 5px 0 !important; }
.ig-ask .lsf-choices { margin: 0; flex-shrink: 0; }
.ig-ranks [class*=board--] { display: grid; gap: 8px; align-items: start;
  grid-template-columns: 1fr 1fr;
  grid-template-rows: repeat(9, min-content) 1fr; }
.ig-ranks .htx-ranker-column { width: auto; margin: 0; padding: 6px 10px;
  border-radius: 6px; border: 1px solid var(--color-neutral-border); }
.ig-ranks .htx-ranker-column:first-child { grid-row: 1 / span 10; }
.ig-ranks .htx-ranker-column:not(:first-child) { display: flex; gap: 8px; }
.ig-ranks .htx-ranker-column:not(:first-child) [class*=columnTitle--] { width: 130px; }
.ig-ranks [class*=columnTitle--] { align-self: flex-start; flex-shrink: 0; }
.ig-ranks [class*=columnTitle--] [class*=typography-] { font-size: 16px; }
.ig-ranks [class*=dropArea--] { flex: 1 1 0; min-width: 0; min-height: 46px; }
.htx-ranker-item { padding: 6px 10px; border-radius: 6px; font-size: 14px;
  white-space: pre-wrap; overflow-wrap: anywhere;
  border: 1px solid var(--color-neutral-border); }
.htx-ranker-item p:last-child { display: none; }
.ig-instruction h2, .ig-instruction p { margin: 10px 0; }
.ig-instruction li { margin: 4px 0 4px 20px; list-style: disc; }
.lsf-sidepanels__wrapper_align_right { display: none; }
.lsf-sidepanels { padding-right: 0 !important; }
"""


def layout(page: Page, columns: int = FEWEST) -> str:
    """The labelling config of a page.

    Args:
      page: The kind of task.
      columns: Number of ranks on offer, where answers are ranked.
    """
    view = ET.Element("View")
    ET.SubElement(view, "Style").text = _STYLE
    if page == "demonstration":
        _dialog(view)
        _header(view, "Your answer")
        _text_area(view, names.RESPONSE, rows=12, required="Write an answer, or skip.")
    elif page == "rating":
        two = _view(view, "ig-two")
        _dialog(_view(two, "ig-half"))
        right = _view(two, "ig-half")
        _rating(right, "0", "Answer")
        _note(right)
    else:
        _dialog(view)
        if page == "final":
            on = f"${names.ANSWERS}"
            each = ET.SubElement(view, "Repeater", on=on, indexFlag="{{idx}}")
            two = _view(each, "ig-two")
            _rating(two, "{{idx}}", f"${names.ANSWERS}[{{{{idx}}}}].title", half=True)
        _ranker(view, columns)
        _note(view)
    return ET.tostring(view, encoding="unicode")


def instruction(page: Page) -> str:
    """The instruction for labelers that a page shows, as HTML."""
    name = _INSTRUCTIONS.get(page, "training.md")
    file = resources.files("instructgpt.labelling") / "instructions" / name
    text = MarkdownIt().render(file.read_text(encoding="utf-8"))
    return f'<div class="ig-instruction">{text}</div>'


def _view(parent: ET.Element, style: str) -> ET.Element:
    return ET.SubElement(parent, "View", className=style)


def _header(parent: ET.Element, text: str) -> None:
    ET.SubElement(parent, "Header", value=text, size="4")


def _dialog(parent: ET.Element) -> None:
    _header(parent, "Instruction")
    dialog = f"${names.DIALOG}"
    each = ET.SubElement(parent, "Repeater", on=dialog, indexFlag="{{turn}}")
    box = _view(each, "ig-box")
    _header(box, f"{dialog}[{{{{turn}}}}].speaker")
    _shown(box, "turn_{{turn}}", f"{dialog}[{{{{turn}}}}].text")
    _shown(_view(parent, "ig-key"), names.TASK, "$key")


def _rating(parent: ET.Element, index: str, title: str, *, half: bool = False) -> None:
    """An answer with its rating; side by side if `half`, else one below the other."""
    left = _view(parent, "ig-half") if half else parent
    right = _view(parent, "ig-half") if half else parent
    answer = f"answer_{index}"
    _header(left, title)
    _shown(_view(left, "ig-box"), answer, f"${names.ANSWERS}[{index}].body")
    low, high = map(int, LIKERT)
    _header(right, f"Overall quality, {low} (worst) to {high} (best)")
    scale = [str(i) for i in range(low, high + 1)]
    _choices(right, names.likert(index), answer, scale, "Rate the overall quality.")
    for name, question in FLAGS.items():
        row = _view(right, "ig-ask")
        _header(row, question)
        field = names.flag(name, index)
        _choices(row, field, answer, [names.YES, names.NO], f"{question}: yes or no?")


def _shown(parent: ET.Element, name: str, value: str) -> None:
    ET.SubElement(parent, "Text", name=name, value=value, valueType="text")


def _choices(
    parent: ET.Element, field: str, on: str, values: list[str], message: str
) -> None:
    choices = ET.SubElement(
        parent,
        "Choices",
        name=field,
        toName=on,
        choice="single-radio",
        showInline="true",
        required="true",
        requiredMessage=message,
    )
    for value in values:
        ET.SubElement(choices, "Choice", value=value)


def _ranker(parent: ET.Element, columns: int) -> None:
    _header(
        parent, "Drag every answer into a rank; answers of like quality may share one"
    )
    parent, cards = _view(parent, "ig-ranks"), names.CARDS
    ET.SubElement(
        parent, "List", name=cards, value=f"${names.ANSWERS}", title="Not ranked yet"
    )
    ranker = ET.SubElement(parent, "Ranker", name=names.RANKS, toName=cards)
    for number in range(1, columns + 1):
        end = {1: " (best)", columns: " (worst)"}.get(number, "")
        title = f"Rank {number}{end}"
        ET.SubElement(ranker, "Bucket", name=names.rank(number), title=title)


def _note(parent: ET.Element) -> None:
    _header(parent, "Notes (optional)")
    _text_area(parent, names.NOTE, rows=3)


def _text_area(
    parent: ET.Element, field: str, *, rows: int, required: str = ""
) -> None:
    area = ET.SubElement(
        parent,
        "TextArea",
        name=field,
        toName=names.TASK,
        rows=str(rows),
        editable="true",
        maxSubmissions="1",
    )
    if required:
        area.set("required", "true")
        area.set("requiredMessage", required)
