"""The notebooks run, keep to their scripts, and have no outputs committed."""

import dataclasses
import re
import runpy
import shutil
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

from configs.recipe import get_config
from instructgpt.evals.report.tables import format_interval
from instructgpt.evals.report.writing import load_results
from tests.hf_models import write_chat_model
from tests.stages.recipe_run import finished

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source_of(cells: list) -> list[tuple]:
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in cells]


def test_every_script_is_a_notebook():
    scripts = {path.stem for path in NOTEBOOKS.glob("*.py")} - {"build"}
    assert scripts == set(NAMES), "run: python notebooks/build.py"


@pytest.mark.parametrize("name", NAMES)
def test_notebook_and_script_are_in_sync(name):
    notebook, script = read(name), jupytext.read(NOTEBOOKS / f"{name}.py")
    assert source_of(notebook.cells) == source_of(script.cells), (
        "run: python notebooks/build.py"
    )
    formats = notebook.metadata["jupytext"]["formats"]
    assert formats == script.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code_of(notebook):
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_notebook_says_what_it_takes(name):
    notebook = read(name)
    text = "\n".join(cell.source for cell in notebook.cells[:3])
    assert re.search(r"\*\*Hardware and time:\*\* [\d.]+ minutes on", text)
    (parameters,) = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    assert parameters.source.startswith("SMOKE = ")


def test_all_notebooks_are_set_up_alike():
    """The first cell of code, which acts on Colab, is the same in each."""
    assert len({code_of(read(name))[0].source for name in NAMES}) == 1


def test_the_set_up_is_written_once():
    """build.py copies it from quickstart.py into the other scripts."""
    set_up = runpy.run_path(str(NOTEBOOKS / "build.py"))["set_up"]
    example, other = (
        (NOTEBOOKS / f"{name}.py").read_text() for name in ("quickstart", "scale_out")
    )
    assert set_up(other, example) == other
    changed = example.replace("/content/code", "/content/elsewhere")
    copied = set_up(other, changed)
    assert "/content/elsewhere" in copied and "/content/code" not in copied
    assert copied.replace("/content/elsewhere", "/content/code") == other


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
        "colab-badge" in before[str(root / "notebooks" / f"{name}.{kind}")]
        for name in NAMES
        for kind in ("py", "ipynb")
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
    for name in NAMES:
        made = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
        badge = f"github/me/mine/blob/main/notebooks/{name}.ipynb"
        assert badge in made.cells[0].source
        code = "\n".join(c.source for c in made.cells if c.cell_type == "code")
        assert 'REPOSITORY = "https://github.com/me/mine"' in code
    links["keep"]("", root)
    links["build"](root)
    assert files() == before


def test_quickstart_runs_the_stages_in_the_recipes_order():
    code = "\n".join(cell.source for cell in code_of(read("quickstart")))
    stages = re.findall(r'\brun\("(\w+)"\)', code)
    assert stages == list(get_config("smoke").order)


@dataclasses.dataclass
class Done:
    """An executed notebook: what its cells have shown."""

    outputs: list[nbformat.NotebookNode]

    @property
    def text(self) -> str:
        return "".join(out.text for out in self.outputs if out.get("name") == "stdout")

    @property
    def shown(self) -> list[dict]:
        return [o.data for o in self.outputs if o.output_type == "display_data"]

    @property
    def pictures(self) -> int:
        return sum("image/png" in data for data in self.shown)

    @property
    def tables(self) -> list[str]:
        return [data["text/html"] for data in self.shown if "text/html" in data]


@pytest.fixture
def execute(monkeypatch):
    """Runs a notebook with SMOKE; its folder and the checkout stay as they were."""

    def run(name: str, **variables: str) -> Done:
        for key, value in dict(SMOKE="1", **variables).items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")

        def files() -> set:
            root = NOTEBOOKS.parent
            return {*root.glob("*"), *NOTEBOOKS.rglob("*")} - {root / ".cache"}

        before = files()
        client = nbclient.NotebookClient(
            read(name),
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(NOTEBOOKS)}},
        )
        done = client.execute()
        assert files() == before
        outputs = [out for cell in code_of(done) for out in cell.outputs]
        assert not [out for out in outputs if out.get("name") == "stderr"]
        return Done(outputs)

    return run


@pytest.fixture(scope="module")
def recipe_of_smoke(tmp_path_factory) -> Path:
    """A copy of the finished recipe without one of its stages."""
    workdir = tmp_path_factory.mktemp("notebooks") / "recipe"
    shutil.copytree(finished(tmp_path_factory).workdir, workdir)
    shutil.rmtree(workdir / "select")
    return workdir


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.long
def test_quickstart(execute, recipe_of_smoke):
    """It opens what is finished, and runs what is not."""
    done = execute("quickstart", WORKDIR=str(recipe_of_smoke))
    assert (recipe_of_smoke / "select" / "selected.json").exists()
    assert done.pictures == 10
    assert len(done.tables) == 7
    for label in ("GPT", "GPT (prompted)", "SFT", "PPO", "PPO-ptx"):
        assert f">{label}</td>" in done.tables[-1]  # each answers the reader's prompt
        assert f">{label}</th>" in done.tables[-2]
    # The figures are those of a finished run, as these models are noise.
    shown = load_results(NOTEBOOKS / "mini_results.json")["models"]["sft"]
    assert format_interval(shown["likert"]) in done.text


@pytest.mark.long
def test_reward_model(execute, recipe_of_smoke):
    done = execute("reward_model", WORKDIR=str(recipe_of_smoke))
    assert done.pictures == 3
    assert len(done.tables) == 5
    by_hand, in_code = re.search(
        r"by hand ([\d.]+), in the code ([\d.]+)", done.text
    ).groups()
    assert float(by_hand) == pytest.approx(float(in_code), abs=1e-4)
    (training,) = [table for table in done.tables if ">updates</th>" in table]
    losses = [float(x) for x in re.findall(r">(\d\.\d{3})</td>", training)]
    assert losses[0] == pytest.approx(
        0.693, abs=0.1
    )  # half of the pairs are right by chance
    assert losses[-2] < losses[0]


@pytest.mark.long
def test_ppo_ptx(execute, recipe_of_smoke):
    done = execute("ppo_ptx", WORKDIR=str(recipe_of_smoke))
    assert done.pictures == 1
    colored = [table for table in done.tables if "background:rgb" in table]
    assert len(colored) == 5
    assert re.search(r"\d+% of the tokens moved", done.text)
    assert ">PPO-ptx</td>" in done.tables[-1]


@pytest.mark.long
def test_your_data(execute, tmp_path):
    """A broken line is named, and the rest goes from import to export."""
    write_chat_model(tmp_path / "theirs")
    workdir = tmp_path / "museum"
    done = execute("your_data", MODEL=str(tmp_path / "theirs"), WORKDIR=str(workdir))
    assert re.search(rf"error: {workdir}/damaged.jsonl.*30", done.text)
    assert (workdir / "ppo_ptx" / "finished.json").exists()
    assert (workdir / "exported" / "model.safetensors").exists()
    assert done.tables[-1].count(">PPO-ptx</td>") == 3


@pytest.mark.long
def test_scale_out(execute):
    done = execute("scale_out")
    assert done.pictures == 2
    (meshes,) = [table for table in done.tables if ">gradient norm</th>" in table]
    losses = {float(x) for x in re.findall(r">(\d\.\d{6})</td>", meshes)}
    assert len(re.findall(r"<tr>", meshes)) == 6
    assert max(x for x in losses if x > 1) - min(x for x in losses if x > 1) < 2e-6
    assert "fsdp=8" in done.text and "sbatch" in done.text
