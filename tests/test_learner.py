"""What models and rankers share: budgets, strategies, and how both are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from tabkit import plugins
from tabkit.errors import UsageError
from tabkit.learner import BUDGETS, STRATEGIES, Learner, budget_of, discover
from tabkit.models.base import Model, baselines, model_class, model_names
from tabkit.rankers import base as rankers
from tabkit.rankers.base import ranker_class, ranker_names

LEARNERS: list[type[Learner]] = [*map(model_class, model_names()), *map(ranker_class, ranker_names())]


@pytest.fixture
def fresh_discovery() -> Iterator[None]:
    discover.cache_clear()
    yield
    discover.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    points = [EntryPoint(name, value, "tabkit.models")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "tabkit.models" else [])


def test_a_budget_that_there_is_none_of_is_refused() -> None:
    assert budget_of("quick", "cpu").device == "cpu" and budget_of("quick").trees == BUDGETS["quick"].trees
    with pytest.raises(UsageError, match=r"Unknown budget 'quik'\. Did you mean 'quick'\?"):
        budget_of("quik")


@pytest.mark.parametrize("kind", LEARNERS, ids=lambda kind: kind.__name__)
def test_every_strategy_has_a_title_and_a_rule(kind: type[Learner]) -> None:
    assert set(kind.hows) <= set(STRATEGIES)
    assert set(kind.how_titles) <= set(STRATEGIES)


@pytest.mark.parametrize("kind", LEARNERS, ids=lambda kind: kind.__name__)
def test_only_a_baseline_is_declared_as_one(kind: type[Learner]) -> None:
    declared = {*kind.baselines, *getattr(kind, "cold_baselines", ())}
    assert all(kind.hows[how] == "baseline" for how in declared)


def test_titles_say_how_in_words() -> None:
    assert model_class("lgbm")().called("tuned") == "LightGBM (tuned)"
    assert model_class("lgbm")().called("scratch") == "LightGBM"
    assert model_class("tabnet")().called("scratch") == "TabNet (from scratch)"
    assert model_class("tabnet")().called("full") == "TabNet (all weights)"
    assert ranker_class("als")().called("scratch") == "ALS"
    assert ranker_class("als")().called("full") == "ALS (from scratch on all)"


def test_baselines_stand_in_their_order() -> None:
    first = [("prior", "scratch"), ("linear", "scratch"), ("lgbm", "scratch"), ("lgbm", "tuned")]
    assert baselines(["catboost"], "recipe") == first
    counts = [("counts", how) for how in ("popular", "recent", "frequency", "decay")]
    others = [(name, "scratch") for name in ("tifu", "itemknn", "als", "ease", "bpr")]
    assert rankers.baselines([], "standard", cold_items=False, where="recipe") == [*counts, *others]
    assert rankers.baselines(["als"], "quick", cold_items=False, where="recipe") == [
        *counts,
        *(o for o in others if o[0] not in ("als", "bpr")),
    ]
    cold = [("counts", "popular"), ("content", "affinity")]
    assert rankers.baselines([], "quick", cold_items=True, where="recipe") == cold


def test_what_cannot_be_left_out_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"recipe: table \[candidates\], without names 'catbost'.*Did you mean 'catboost'"
    ):
        baselines(["catbost"], "recipe")
    with pytest.raises(UsageError, match="without names 'prior'"):
        baselines(["prior"], "recipe")
    with pytest.raises(UsageError, match="without names 'catboost'"):
        rankers.baselines(["catboost"], "quick", cold_items=False, where="recipe")


@pytest.mark.usefixtures("fresh_discovery")
def test_a_model_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "outside", "tabkit.models.prior:Prior")
    assert "outside" in model_names()
    assert model_class("outside").title == "Prior"


@pytest.mark.usefixtures("fresh_discovery")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("lgbm", "their.trees:Trees", r"'lgbm': tabkit\.models\.lgbm, and their\.trees:Trees"),
        ("a_b", "their.trees:Trees", "'a_b'.*Expected lower-case letters"),
        ("trees", "their_trees:Trees", "their_trees:Trees.*cannot be loaded"),
        ("trees", "tabkit.errors:UsageError", "expected a subclass of Model"),
    ],
)
def test_an_entry_point_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    offer(monkeypatch, name, value)
    with pytest.raises(UsageError, match=told):
        model_class(name)


@pytest.mark.usefixtures("fresh_discovery")
def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Unknown model 'lgmb'\. Did you mean 'lgbm'.*tabkit list models"):
        model_class("lgmb")
    assert issubclass(model_class("lgbm"), Model)


def test_listing_names_imports_no_model() -> None:
    code = (
        "import sys; from tabkit.models.base import model_names; from tabkit.rankers.base import ranker_names;"
        "model_names(); ranker_names();"
        "print(*(m for m in sys.modules if m.startswith(('tabkit.models.', 'tabkit.rankers.'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) == {"tabkit.models.base", "tabkit.rankers.base"}
