"""Rules of the house that a reader could break without noticing."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tabkit

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "lightgbm",
    "implicit",
    "sklearn",
    "pytorch_tabnet",
    "polars",
    "pandas",
    "optuna",
    "catboost",
    "tabicl",
    "tabpfn",
    "autogluon",
)


def loaded_by(code: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in found.stdout.split()}


HELP = "import sys; from tabkit.cli import main; sys.argv[1:] = ['--help']\ntry: main()\nexcept SystemExit: pass"
LIGHT = ("cli", "errors", "files", "recipe", "result", "schema", "seed", "shipped", "strict")


@pytest.mark.parametrize(
    "code", ["import tabkit", HELP, *(f"import tabkit.{name}" for name in LIGHT), "import tabkit; tabkit.load_recipe"]
)
def test_light_imports_load_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & set(HEAVY)


def test_no_module_takes_the_place_of_a_name_that_tabkit_offers() -> None:
    modules = {module.name for module in pkgutil.iter_modules(tabkit.__path__)}
    assert not modules & set(tabkit.__all__)
    for name in modules - {"__main__"}:
        assert importlib.import_module(f"tabkit.{name}") is sys.modules[f"tabkit.{name}"] is getattr(tabkit, name)
    for name in tabkit.__all__:
        assert callable(getattr(tabkit, name)) and not isinstance(getattr(tabkit, name), ModuleType), name


def test_every_verb_is_a_file_and_has_a_twin() -> None:
    from tabkit.cli import VERBS

    files = {module.name.rstrip("_") for module in pkgutil.iter_modules(tabkit.cli.__path__)}
    assert files - {"options", "output"} == set(VERBS)
    assert {{"list": "listing", "report": "write_report"}.get(verb, verb) for verb in VERBS} <= set(tabkit.__all__)


def test_loading_data_and_reports_needs_no_learning_library() -> None:
    heavy = set(HEAVY) - {"polars"}
    assert not loaded_by("import tabkit.data.source, tabkit.data.validate, tabkit.report") & heavy


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python3 -m venv .*pytest$", readme, flags=re.M)
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_domains_are_pure_data() -> None:
    endings = {path.suffix for path in (ROOT / "domains").rglob("*") if path.is_file()}
    assert endings <= {".toml", ".md", ".json"}
    for vertical in (ROOT / "domains").iterdir():
        assert (vertical / "README.md").is_file(), f"{vertical} has no README.md"


def test_no_pickle_anywhere_in_the_package() -> None:
    pattern = re.compile(r"\b(pickle|joblib)\.(dump|load)|torch\.(save|load)\(|allow_pickle\s*=\s*True")
    for path in (ROOT / "tabkit").rglob("*.py"):
        assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_every_shipped_recipe_loads_and_its_names_are_known() -> None:
    from tabkit.adapt.candidates import wanted, wanted_rankers
    from tabkit.evaluate.metrics import resolve
    from tabkit.recipe import load_recipe
    from tabkit.shipped import recipe_names

    assert "finance/loan_default" in recipe_names()
    for name in recipe_names():
        plan = load_recipe(name)
        assert plan.recipe.name == name
        resolve([plan.recipe.metrics.primary, *plan.recipe.metrics.report], plan.recipe.task, name)
        if plan.recipe.task == "ranking":
            assert wanted_rankers(plan.recipe, "standard", name)
        else:
            assert wanted(plan.recipe, bool(plan.recipe.sources))
