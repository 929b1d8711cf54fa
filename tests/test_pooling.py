"""Source rows beside the target's: pooled into one line, or standing in the in-context base's context."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_features

from tabkit.adapt import Runtime
from tabkit.adapt.candidates import open_weights, wanted
from tabkit.adapt.tables import Lessons, Origins, make_all
from tabkit.data.encode import Features
from tabkit.learner import BUDGETS, Adapted
from tabkit.models import icl
from tabkit.models.base import Model, model_class
from tabkit.models.linear import Linear, _design
from tabkit.recipe import Recipe, TargetScale

QUICK = replace(BUDGETS["quick"], trees=30)


@pytest.fixture(autouse=True)
def small_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    small = icl.Effort(members=2, context_rows=150, epochs=2, episodes=2, episode_rows=64)
    monkeypatch.setitem(icl.EFFORTS, "quick", small)


def parts(task: str, n_rows: int = 30) -> tuple[Features, Features, Features, Features]:
    """Return source, train, valid and new rows of one relation."""
    source, train, valid, new = (
        make_features(task, n, seed=s, signal=3.0) for s, n in enumerate((400, n_rows, 40, 500))
    )
    return source, train, valid, new


def adapt(model: Model, train: Features, valid: Features | None, how: str, **more: object) -> Adapted:
    return model.adapt(train, valid, how, np.random.default_rng(7), QUICK, **more)  # type: ignore[arg-type]


def pretrained(source: Features, train: Features) -> Linear:
    base = Linear.pretrain(source, train.with_y(None), np.random.default_rng(0), QUICK)
    assert base is not None
    return base


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_pooled_line_is_scikit_learns_with_the_sources_rows_weighted(task: str) -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    source, train, _, new = parts(task)
    base = pretrained(source, train)
    pooled = adapt(base, train, None, "pool", settings={"source_weight": 0.1}).model
    both = source.stack(train)
    indicated = np.flatnonzero(np.isnan(both.x_num).any(axis=0))
    weights = np.repeat([0.1, 1.0], [len(source), len(train)])
    x, asked = _design(both, indicated), _design(new, indicated)
    if task == "regression":
        theirs = Ridge(alpha=base.strength_).fit(x, both.y, sample_weight=weights).predict(asked)
        np.testing.assert_allclose(pooled.predict(new), theirs, atol=1e-8)
    else:
        reference = LogisticRegression(C=1 / base.strength_, max_iter=10_000, tol=1e-9)
        theirs = reference.fit(x, both.y, sample_weight=weights).predict_proba(asked)
        np.testing.assert_allclose(pooled.predict(new), theirs, atol=1e-5)


def test_pooling_pays_where_the_relation_is_the_same() -> None:
    source, train, valid, new = parts("regression")
    alone = adapt(Linear(), train, valid, "scratch").model.predict(new)
    pooled = adapt(pretrained(source, train), train, valid, "pool").model.predict(new)
    assert np.mean((new.labels - pooled) ** 2) < 0.9 * np.mean((new.labels - alone) ** 2)


def test_a_source_that_says_the_opposite_is_weighted_down() -> None:
    source, train, valid, new = parts("regression", 120)
    opposite = source.with_y(-source.labels)
    made = adapt(pretrained(opposite, train), train, valid, "pool")
    assert made.settings["source_weight"] == 0.01
    assert np.corrcoef(made.model.predict(new), new.labels)[0, 1] > 0.7


def test_where_no_weight_beats_the_base_on_valid_the_base_returns() -> None:
    source, train, valid, _ = parts("binary")
    base = pretrained(source, train)
    agreeing = valid.with_y(base.predict(valid).argmax(axis=1))
    against = train.with_y(1 - train.labels)
    made = adapt(base, against, agreeing, "pool")
    assert made.settings["source_weight"] is None and made.history[0].stage == "untouched base"
    np.testing.assert_array_equal(made.model.predict(valid), base.predict(valid))


def test_source_rows_in_the_context_pay_where_the_relation_is_the_same() -> None:
    source, train, valid, new = parts("regression", 16)
    base = model_class("icl").open_weights(None, "regression").knowing(source)
    alone, beside = (adapt(base, train, valid, how).model for how in ("as_is", "context"))
    errors = [np.mean((new.labels - m.predict(new)) ** 2) for m in (alone, beside)]
    assert errors[1] < 0.8 * errors[0]


def test_no_row_of_a_misleading_source_enters_the_context() -> None:
    source, train, valid, new = parts("regression", 100)
    base = model_class("icl").open_weights(None, "regression").knowing(source.with_y(-5 * source.labels))
    made = adapt(base, train, valid, "context")
    assert made.settings["source_rows"] == 0
    np.testing.assert_array_equal(made.model.predict(new), adapt(base, train, valid, "as_is").model.predict(new))


def test_the_context_has_room_for_the_targets_rows_first() -> None:
    source, train, valid, _ = parts("binary", 150)
    base = model_class("icl").open_weights(None, "binary").knowing(source)
    made = adapt(base, train, valid, "context")
    assert made.settings["source_rows"] == 0 and any("no room" in note for note in made.notes)
    fewer = adapt(base, train.take(np.arange(140)), None, "context", settings={"source_rows": 90, "temperature": 1.0})
    assert fewer.settings["source_rows"] == 10


def test_train_rows_are_answered_without_their_own_labels_and_with_the_source() -> None:
    """Labels of the target are noise here: whoever answers them well has read them."""
    source, train, _, _ = parts("binary", 60)
    noise = train.with_y(np.random.default_rng(1).integers(0, 2, len(train)))
    base = model_class("icl").open_weights(None, "binary").knowing(source)
    model = adapt(base, noise, None, "context", settings={"source_rows": 60, "temperature": 1.0}).model
    on_train = model.predict_train(noise).argmax(axis=1)
    assert np.mean(on_train == noise.labels) < 0.7
    assert np.mean(on_train == train.labels) > 0.7  # what the source says


@pytest.mark.parametrize("how", ["as_is", "pool"])
def test_a_line_without_a_source_says_so(how: str) -> None:
    _, train, valid, _ = parts("binary")
    with pytest.raises(ValueError, match="source table"):
        adapt(Linear(), train, valid, how)
    with pytest.raises(ValueError, match="source table"):
        adapt(model_class("icl").open_weights(None, "binary"), train, valid, "context")


def test_a_source_reaches_every_base_and_titles_say_what_was_done() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "a/b", "title": "T", "schema": "s", "task": "regression", "target": "y",
            "metrics": {"primary": "rmse"},
            "candidates": {"without": ["catboost"], "adapt": {"icl": ["context"], "linear": ["pool"]}},
        }
    )  # fmt: skip
    source, train, valid, new = (rows.with_y(np.exp(rows.labels / 3)) for rows in parts("regression"))
    todo = wanted(recipe, True)
    for scale in (None, TargetScale(kind="log")):
        opened = open_weights(todo, {}, "regression")
        origins = Origins(Lessons(train, source, scale=scale), opened, Runtime(0, QUICK))
        made = make_all(todo, origins, train, valid)
        titles = {c.name: c.title for c in made}
        assert titles["linear"] == "Linear" and titles["linear_pool"] == "Linear (source rows pooled in)"
        assert titles["icl_context"] == "In-context base (source rows in its context)"
        for c in made:
            if c.name in ("linear_pool", "icl_context"):
                assert np.corrcoef(c.adapted.model.predict(new), new.labels)[0, 1] > 0.7


def test_a_base_that_is_listed_without_ways_and_without_a_source_is_a_baseline() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "a/b", "title": "T", "schema": "s", "task": "binary", "target": "y", "metrics": {"primary": "roc_auc"},
            "candidates": {"without": ["catboost"], "adapt": {"lgbm": [], "linear": []}},
        }
    )  # fmt: skip
    assert {w.kind for w in wanted(recipe, False)} == {"baseline"}
    assert {w.name for w in wanted(recipe, True) if w.kind == "base"} == {"lgbm_as_is", "linear_as_is"}
