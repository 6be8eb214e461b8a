"""The package keeps the order of its README: levels, sizes, and what imports what."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "instructgpt"

# A module imports only from smaller levels or from its own folder. Files that lie side
# by side in the package and share a level may import each other.
LEVELS = {
    "arrays": 0,
    "batches": 0,
    "cli": 0,
    "distributed": 0,
    "errors": 0,
    "file_kinds": 0,
    "finite": 0,
    "locks": 0,
    "signals": 0,
    "manifest": 0,
    "named": 0,
    "outputs": 0,
    "paths": 0,
    "ranges": 0,
    "reading": 0,
    "sharding": 0,
    "tokenizer": 0,
    "world": 0,
    "checkpoints": 1,
    "checksums": 0,
    "data": 1,
    "drawing": 1,
    "identity": 1,
    "losses": 1,
    "metrics": 1,
    "trackers": 1,
    "progress": 1,
    "models": 1,
    "optim": 1,
    "ring": 2,
    "rl": 1,
    "batching": 2,
    "sampling": 2,
    "state": 2,
    "steps": 3,
    "trained": 3,
    "inference": 4,
    "loop": 4,
    "generation": 3,
    "rewards": 3,
    "rollouts": 4,
    "evals": 5,
    "labelling": 6,
    "stages": 7,
    "chat": 8,
    "label": 8,
    "compare": 8,
    "toxicity": 8,
    "truthful": 8,
    "notebook": 8,
    "convert": 8,
    "curate": 8,
    "main": 8,
    "plan": 8,
    "prepare": 8,
}
FOLDERS = {
    "convert",
    "data",
    "evals",
    "inference",
    "labelling",
    "models",
    "plan",
    "prepare",
    "stages",
    "steps",
    "world",
}
TOP_LEVEL = {
    "README.md",
    "configs",
    "instructgpt",
    "launch",
    "notebooks",
    "pyproject.toml",
    "requirements.txt",
    "tests",
}
MAX_FILE_LINES = {"instructgpt": 400, "configs": 400, "tests": 450}
MAX_FUNCTION_LINES = 60  # without the docstring


def imports(tree: ast.Module, path: Path) -> Iterator[str]:
    """Dotted names of everything a module imports, also inside its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from instructgpt import rl` imports the module instructgpt.rl.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit(dotted: str) -> str | None:
    """Top-level module or folder of the package that a dotted name lies in."""
    root, *rest = dotted.split(".")
    return rest[0] if root == "instructgpt" and rest else None


def level_errors(own: str, names: Iterator[str]) -> list[str]:
    """What `own`, a module or folder of the package, imports against the order."""
    errors = []
    for name in names:
        other = unit(name)
        if other is None or other == own:
            continue
        files = not {own, other} & FOLDERS
        if LEVELS.get(other, 99) >= LEVELS[own] + files:
            errors.append(f"{own} (level {LEVELS[own]}) imports {name}")
    return errors


def function_sizes(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                docstring = node.body[0]
                size -= docstring.end_lineno - docstring.lineno + 1
            yield node.name, size


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(), str(path)) for path in modules()}


def own_unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_level(trees):
    units = {own_unit(path) for path in trees} - {"__init__"}
    assert units <= LEVELS.keys(), "give new modules a level in this file"


def test_imports_point_downwards(trees):
    errors = []
    for path, tree in trees.items():
        if own_unit(path) != "__init__":
            errors += level_errors(own_unit(path), imports(tree, path))
    assert not errors, "\n".join(errors)


def test_the_level_check_sees_a_breach():
    source = "def f():\n    from instructgpt import rl\n    import instructgpt.main\n"
    names = list(imports(ast.parse(source), Path("x.py")))
    assert len(level_errors("batches", names)) == 2
    assert len(level_errors("models", names)) == 2  # rl has the level of the folder
    assert len(level_errors("losses", names)) == 1  # and lies beside the file
    assert len(level_errors("steps", names)) == 1


def test_data_imports_no_jax(trees):
    banned = {"jax", "jaxlib", "flax", "optax", "orbax", "jaxtyping"}
    for path, tree in trees.items():
        if own_unit(path) == "data":
            found = {name.split(".")[0] for name in imports(tree, path)} & banned
            assert not found, f"{path} imports {found}"


def test_the_model_says_nothing_of_compilers_and_machines():
    """What is made for speed lies in models/kernels, beside its plain reference."""
    words = "custom_vjp platform_dependent optimization_barrier XLA CPU".split()
    for path in (PACKAGE / "models").glob("*.py"):
        text = path.read_text()
        assert not [word for word in words if word in text], path


def test_only_programs_read_flags(trees):
    programs = {PACKAGE / n for n in ("cli.py", "main.py", "plan/__main__.py")}
    for path, tree in trees.items():
        if path not in programs:
            names = set(imports(tree, path))
            assert not any(
                name.startswith(("absl.flags", "absl.app"))
                or "config_flags" in name.split(".")
                for name in names
            ), path


@pytest.mark.parametrize("folder", ["instructgpt", "configs", "tests"])
def test_files_hold_one_idea(folder):
    sizes = {
        path: len(path.read_text().splitlines())
        for path in (REPO / folder).rglob("*.py")
    }
    long = [
        f"{path}: {n} lines" for path, n in sizes.items() if n > MAX_FILE_LINES[folder]
    ]
    assert not long, "\n".join(long)


def test_functions_hold_one_idea(trees):
    long = [
        f"{path}: {name} has {size} lines"
        for path, tree in trees.items()
        for name, size in function_sizes(tree)
        if size > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_function_sizes_leave_the_docstring_out():
    source = 'def f():\n    """One\n    two.\n    """\n    a = 1\n    return a\n'
    assert list(function_sizes(ast.parse(source))) == [("f", 3)]


def test_top_level_holds_only_what_the_readme_lists():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listing.stdout.splitlines()}
    stray = {name for name in names - TOP_LEVEL if not name.startswith(".")}
    assert not stray
