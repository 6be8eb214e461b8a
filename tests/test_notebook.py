"""The notebook runs, keeps to its script, and has no outputs committed."""

import os
import re
import runpy
import shutil
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from configs.recipe import get_config
from tests.stages.recipe_run import finished

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SCRIPT, NOTEBOOK = NOTEBOOKS / "quickstart.py", NOTEBOOKS / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def source_of(cells: list) -> list[tuple]:
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in cells]


def test_notebook_and_script_are_in_sync(notebook):
    script = jupytext.read(SCRIPT)
    assert source_of(notebook.cells) == source_of(script.cells), (
        "run: python notebooks/build.py"
    )
    formats = notebook.metadata["jupytext"]["formats"]
    assert formats == script.metadata["jupytext"]["formats"] == "ipynb,py:percent"


def test_notebook_has_no_outputs(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


def test_notebook_says_what_it_takes(notebook):
    text = "\n".join(cell.source for cell in notebook.cells[:3])
    assert re.search(r"\*\*Hardware and time:\*\* .* minutes on", text)
    (parameters,) = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    assert parameters.source.startswith("SMOKE = ")


def test_one_setting_says_where_the_repository_lives(tmp_path):
    """Badge and clone lines come from it, and are absent until it is set."""
    root = tmp_path / "repo"
    shutil.copytree(NOTEBOOKS, root / "notebooks")
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(NOTEBOOKS.parent / name, root)

    def files() -> dict[str, str]:
        return {str(p): p.read_text() for p in root.rglob("*") if p.is_file()}

    links = runpy.run_path(str(NOTEBOOKS / "build.py"))
    before = files()
    assert links["repository"](root) == ""
    assert not any("OWNER/REPOSITORY" in text for text in before.values())
    assert not any(
        "colab-badge" in before[str(root / "notebooks" / name)]
        for name in ("quickstart.py", "quickstart.ipynb")
    )
    links["build"](root)
    assert files() == before
    links["keep"]("me/mine", root)
    links["build"](root)
    assert links["repository"](root) == "me/mine"
    readme = (root / "README.md").read_text()
    assert (
        "```bash\ngit clone https://github.com/me/mine && cd mine\nbash launch/quick"
        in readme
    )
    made = nbformat.read(root / "notebooks" / "quickstart.ipynb", as_version=4)
    badge = "github/me/mine/blob/main/notebooks/quickstart.ipynb"
    assert badge in made.cells[0].source
    code = "\n".join(c.source for c in made.cells if c.cell_type == "code")
    assert 'REPOSITORY = "https://github.com/me/mine"' in code
    links["keep"]("", root)
    links["build"](root)
    assert files() == before


def test_notebook_runs_the_stages_in_the_recipes_order(notebook):
    code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    stages = re.findall(r'\brun\("(\w+)"\)', code)
    assert stages == list(get_config("smoke").order)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_notebook_runs(notebook, tmp_path, tmp_path_factory, monkeypatch):
    """On the finished recipe, but for one stage that it has to run itself."""
    recipe = finished(tmp_path_factory).workdir
    workdir = shutil.copytree(recipe, tmp_path / "recipe")
    shutil.rmtree(workdir / "select")
    for name, value in dict(SMOKE="1", WORKDIR=str(workdir)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    before = set(NOTEBOOKS.parent.rglob("*.ipynb")) | set(os.listdir(NOTEBOOKS.parent))

    client = nbclient.NotebookClient(
        notebook.copy(),
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    done = client.execute()

    after = set(NOTEBOOKS.parent.rglob("*.ipynb")) | set(os.listdir(NOTEBOOKS.parent))
    assert after == before
    assert (workdir / "select" / "selected.json").exists()
    outputs = [out for c in done.cells if c.cell_type == "code" for out in c.outputs]
    assert not [out for out in outputs if out.get("name") == "stderr"]
    shown = [out.data for out in outputs if out.output_type == "display_data"]
    assert sum("image/png" in data for data in shown) == 10
    tables = [data["text/html"] for data in shown if "text/html" in data]
    assert len(tables) == 7
    for label in ("GPT", "GPT (prompted)", "SFT", "PPO", "PPO-ptx"):
        assert f">{label}</td>" in tables[-1]  # each answers the reader's prompt
        assert f">{label}</th>" in tables[-2]
