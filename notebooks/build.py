"""Makes each notebook of the script beside it, with links to the repository.

The set-up cells of all of them are those of quickstart.py.

    python notebooks/build.py [OWNER/NAME]

OWNER/NAME is where the repository lives on GitHub. It is kept in pyproject.toml, and
from there the notebooks get their Colab badge and the cell that clones the code, and
README.md its clone line; without it there are none of them.
"""

import argparse
import re
import tomllib
from pathlib import Path

import jupytext

REPO = Path(__file__).resolve().parents[1]
GITHUB = "https://github.com/"
_COLAB = "https://colab.research.google.com"
_BADGE = re.compile(r"# \[!\[Open In Colab\].*\n#\n")
_CLONE = re.compile(r"^git clone .*\n", re.M)
_QUICKSTART = "bash launch/quickstart.sh "
# The cells that find or fetch the repository.
_SETUP = re.compile(r"# %% \[markdown\]\n# ## Set-up\n.*?(?=# %% \[markdown\]\n)", re.S)


def repository(root: Path = REPO) -> str:
    """OWNER/NAME as pyproject.toml has it; "" if it is not known."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("repository", "").removeprefix(GITHUB)


def keep(owner_and_name: str, root: Path = REPO) -> None:
    """Writes OWNER/NAME into pyproject.toml; "" removes it."""
    path = root / "pyproject.toml"
    text = re.sub(r"\[project\.urls\]\nrepository = .*\n\n", "", path.read_text())
    if owner_and_name:
        entry = f'[project.urls]\nrepository = "{GITHUB}{owner_and_name}"\n\n'
        following = "[tool.setuptools.dynamic]"
        text = text.replace(following, entry + following, 1)
    path.write_text(text)


def linked(script: str, name: str, where: str) -> str:
    """A script with the badge below its title and the address for Colab.

    Args:
      script: The script's text.
      name: The notebook's name, without .ipynb.
      where: OWNER/NAME; "" for none.
    """
    script = _BADGE.sub("", script)
    address = f"{GITHUB}{where}" if where else ""
    script = re.sub(
        r'^REPOSITORY = ".*"', f'REPOSITORY = "{address}"', script, flags=re.M
    )
    if not where:
        return script
    target = f"{_COLAB}/github/{where}/blob/main/notebooks/{name}.ipynb"
    badge = f"# [![Open In Colab]({_COLAB}/assets/colab-badge.svg)]({target})\n#\n"
    title = re.compile(r"^(# # .*\n#\n)", re.M)
    return title.sub(lambda found: found[1] + badge, script, count=1)


def set_up(script: str, example: str) -> str:
    """A script with the set-up cells of another, so that they are written once."""
    found = _SETUP.search(example)
    return script if found is None else _SETUP.sub(lambda _: found[0], script)


def cloned(readme: str, where: str) -> str:
    """README.md with the line that clones the repository before the first command."""
    readme = _CLONE.sub("", readme)
    if not where:
        return readme
    line = f"git clone {GITHUB}{where} && cd {where.partition('/')[2]}\n"
    return readme.replace(_QUICKSTART, line + _QUICKSTART, 1)


def build(root: Path = REPO) -> None:
    """Writes the links, and the notebooks."""
    where = repository(root)
    readme = root / "README.md"
    readme.write_text(cloned(readme.read_text(), where))
    example = (root / "notebooks" / "quickstart.py").read_text()
    for path in sorted((root / "notebooks").glob("*.py")):
        if path.name == Path(__file__).name:
            continue
        script = set_up(path.read_text(), example)
        path.write_text(linked(script, path.stem, where))
        notebook = jupytext.read(path)
        for number, cell in enumerate(notebook.cells):
            cell["id"] = (
                f"cell-{number}"  # else they are random, and every build differs
            )
        jupytext.write(notebook, path.with_suffix(".ipynb"))


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", nargs="?", metavar="OWNER/NAME")
    where = parser.parse_args().where
    if where is not None:
        if where and not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
            parser.error(f"{where}: give OWNER/NAME")
        keep(where)
    build()


if __name__ == "__main__":
    main()
