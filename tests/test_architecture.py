"""The shape of the code: layers, sizes, output and what the command line may load."""

import ast
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("daemon", "policies", "stages", "kernels", "ops")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_LINES = 400


def relative(path: Path) -> str:
    """Name a file as a reader of the repository does."""
    return path.relative_to(ROOT).as_posix()


def prints(path: Path) -> bool:
    """Tell whether a module calls the built-in print."""
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        for node in ast.walk(ast.parse(path.read_bytes()))
    )


def layer_names() -> Iterator[str]:
    """Yield the modules that the first import contract places, without their separators and parentheses."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for layer in pyproject["tool"]["importlinter"]["contracts"][0]["layers"]:
        for name in layer.replace("|", " ").replace(":", " ").split():
            yield name.strip("()")


def test_nobody_imports_upwards() -> None:
    """The import contracts of pyproject.toml hold."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_module_has_its_layer() -> None:
    """A module that lies directly in `daemon` is named by the import contract, or it would escape it."""
    children = {f"daemon.{child.name}" for child in pkgutil.iter_modules([str(ROOT / "daemon")])}

    assert not children - set(layer_names())


@pytest.mark.parametrize("path", MODULES + TESTS, ids=relative)
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    """A module that grew past 400 lines has more than one idea and is divided."""
    with path.open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) <= MOST_LINES


def test_only_the_command_line_prints() -> None:
    """Outside of `daemon/cli` nothing calls print; what happens is logged or recorded."""
    may_print = {"daemon/__main__.py", "daemon/cli.py"}
    printing = {relative(path) for path in MODULES if prints(path)}

    assert {name for name in printing - may_print if not name.startswith("daemon/cli/")} == set()


def test_the_command_line_loads_no_heavy_library() -> None:
    """Importing the command line and building its parser loads neither torch nor MLflow nor NumPy."""
    code = """
import sys
from daemon.cli import main
sys.argv = ["rewarm", "--help"]
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
heavy = {"torch", "mlflow", "numpy", "scipy", "pandas", "triton"} & set(sys.modules)
sys.exit(f"loaded: {sorted(heavy)}" if heavy else 0)
"""
    started = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert started.returncode == 0, started.stderr
