"""The READMEs: short, with links that lead somewhere, and lines that can be run."""

import re
import shlex
from pathlib import Path

import pytest

from configs import common
from configs.sweep import SWEEPS
from instructgpt.evals.report.tables import format_interval
from instructgpt.evals.report.writing import load_results

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for path in REPO.rglob("README.md")
    if not {".venv", ".cache", "runs"} & set(path.relative_to(REPO).parts)
)
NAMES = [str(path.relative_to(REPO)) for path in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of each command of the page, without its comment."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [
        words
        for line in lines
        if re.match(r"(python|bash|[A-Z]+=\S+ )", line)
        and (words := shlex.split(line, comments=True))
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def test_the_first_page_is_short():
    assert len((REPO / "README.md").read_text().split()) <= 1800


def test_the_table_is_that_of_the_finished_run():
    """The first page and the notebook show the same run."""
    results = load_results(REPO / "notebooks" / "mini_results.json")
    page = (REPO / "README.md").read_text()
    assert results["meta"]["commit"][:7] in page
    for name, model in results["models"].items():
        wins = format_interval(model["win_rate"]) if name != "sft" else "0.50"
        likert = format_interval(model["likert"])
        loss = results["pretrain_loss"][name]
        assert f"| {model['label']} | {wins} | {likert} | {loss:.3f} |" in page


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_lines_name_scripts_configs_and_variants_that_exist(page):
    for words in commands(page):
        for word in words:
            path, _, variant = word.removeprefix("--config=").partition(":")
            if re.fullmatch(r"(launch|tests|configs)/[\w/]+\.(sh|py)", path):
                assert (REPO / path).exists(), words
            if path.startswith("configs/") and variant not in ("VARIANT", ""):
                sweeps = SWEEPS if path == "configs/sweep.py" else ()
                assert variant in (*common.VARIANTS, *sweeps), words
        if words[:2] == ["python", "-m"] and words[2].startswith("instructgpt."):
            module = REPO / words[2].replace(".", "/")
            assert module.is_dir() or module.with_suffix(".py").exists(), words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_is_python(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_what_is_added_goes_to_places_that_exist():
    """The table of additions names files, and the tests to follow."""
    text = (REPO / "README.md").read_text()
    table = text[text.index("| to add |") :].split("\n\n")[0]
    places = re.findall(r"`((?:[\w]+/)+[\w.]*)`", table)
    assert len(places) > 15
    for place in places:
        roots = (REPO, REPO / "instructgpt")
        assert any((root / place).exists() for root in roots), place
