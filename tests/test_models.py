"""One contract for every model: proof, determinism, round trip, and rows that stand alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import holds_pickle, make_features

from tabkit.data.encode import Features
from tabkit.evaluate.proof import contradiction
from tabkit.learner import BUDGETS, Adapted, Block, Budget, Proof
from tabkit.models.base import Model, model_class, model_names
from tabkit.models.blend import Blend, Member

BUDGET = replace(BUDGETS["quick"], trials=3, epochs=4, trees=40)
CASES = [
    (name, how, task)
    for name in model_names()
    for how in model_class(name).hows
    for task in ("binary", "multiclass", "regression")
    if model_class(name).lacks() is None and task in model_class(name).tasks
]


def first_task(name: str) -> str:
    """A task the model does; binary where it does that."""
    return "binary" if "binary" in model_class(name).tasks else "regression"


@pytest.fixture(autouse=True)
def small_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """The in-context base reads little here: the contract is about what it does, not how well."""
    from tabkit.models import icl

    small = icl.Effort(members=2, context_rows=150, epochs=2, episodes=2, episode_rows=64)
    monkeypatch.setitem(icl.EFFORTS, "quick", small)


def prepared(name: str, how: str, task: str) -> tuple[Model, Features, Features]:
    """A model ready to be adapted, and its train and valid rows; the source shares the target's relation."""
    train, valid = make_features(task, 240, seed=1), make_features(task, 120, seed=2)
    model = model_class(name)
    if name == "blend":
        return blend_of(how, task), train, valid
    if how == "student":  # it learns a teacher's answers
        teacher = adapt(model_class("linear")(), train, valid, "scratch").model
        return model(), train.with_y(teacher.predict(train)), valid.with_y(teacher.predict(valid))
    if model.hows[how] == "baseline":
        return model(), train, valid
    source = make_features(task, 400, seed=3)
    if model.has_weights:
        return model.open_weights(None, task).knowing(source), train, valid
    base = model.pretrain(source, train.with_y(None), np.random.default_rng(0), BUDGET)
    assert base is not None
    return base, train, valid


def blend_of(how: str, task: str) -> Model:
    """Members that have weight on these rows, one of the kind that the blend is named for among them."""
    base, _, _ = prepared("lgbm", "as_is", task)
    linear, prior = Member("linear", 0.5, model_class("linear")()), Member("prior", 0.5, model_class("prior")())
    last = {
        "baselines": Member("lgbm", 0.5, model_class("lgbm")()),
        "bases": Member("lgbm_as_is", 0.5, base),
        "all": Member("lgbm_continue", 0.5, base),
    }
    return Blend([prior if how == "all" else linear, last[how]])


def adapt(model: Model, train: Features, valid: Features | None, how: str, **more: object) -> Adapted:
    return model.adapt(train, valid, how, np.random.default_rng(7), BUDGET, **more)  # type: ignore[arg-type]


def first_how(name: str) -> str:
    """The model's own baseline, or its base untouched where it has none."""
    hows = model_class(name).hows
    return next((how for how, kind in hows.items() if kind == "baseline"), "as_is")


@pytest.mark.parametrize(("name", "how", "task"), CASES)
def test_contract(name: str, how: str, task: str, tmp_path: Path) -> None:
    model, train, valid = prepared(name, how, task)
    baseline = model.hows[how] in ("baseline", "student") or name == "blend"
    base_before = None if baseline else adapt(model, train, valid, "as_is").model.predict(valid)
    adapted = adapt(model, train, valid, how)

    # what it predicts
    predicted = adapted.model.predict(valid)
    assert predicted.dtype == np.float64 and np.isfinite(predicted).all()
    if task == "regression":
        assert predicted.shape == (len(valid),)
    else:
        assert predicted.shape == (len(valid), len(train.layout.classes))
        np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-9)

    # what it proves
    assert contradiction(adapted, name) is None
    assert (adapted.proof.trained_parameters == 0) == (how in ("as_is", "context"))
    assert adapted.how == how

    # the base it came from is untouched
    if base_before is not None:
        np.testing.assert_array_equal(adapt(model, train, valid, "as_is").model.predict(valid), base_before)

    # a row stands alone, whatever is beside it
    for rows in (np.array([5]), np.arange(50, 53), np.arange(len(valid))[::-1]):
        np.testing.assert_array_equal(adapted.model.predict(valid.take(rows)), predicted[rows])

    # the same seed gives the same model
    np.testing.assert_array_equal(adapt(model, train, valid, how).model.predict(valid), predicted)

    # the weights survive a folder
    adapted.model.save(tmp_path)
    restored = model_class(name).load(tmp_path)
    np.testing.assert_array_equal(restored.predict(valid), predicted)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert not holds_pickle(path.read_bytes()), path

    # the settings found are enough to run it again without choosing
    again = adapt(model, train, None, how, settings=adapted.settings).model.predict(valid)
    np.testing.assert_allclose(again, predicted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in model_names() if model_class(n).lacks() is None])
def test_strange_rows_are_scored(name: str) -> None:
    how = first_how(name)
    model, train, valid = prepared(name, how, first_task(name))
    fitted = adapt(model, train, valid, how).model
    strange = valid.take(np.arange(4))
    x_num, x_cat = strange.x_num.copy(), strange.x_cat.copy()
    x_num[0] = np.nan
    x_num[1] = 1e9
    x_cat[:, 0] = [0, 1, 4, 2]
    assert np.isfinite(fitted.predict(replace(strange, x_num=x_num, x_cat=x_cat))).all()


@pytest.mark.parametrize("name", [n for n in model_names() if model_class(n).lacks() is None])
@pytest.mark.parametrize("shape", ["only_numbers", "only_categories"])
def test_one_kind_of_column_is_enough(name: str, shape: str) -> None:
    how = first_how(name)
    gone = ["kind"] if shape == "only_numbers" else ["x0", "x1", "x2", "x3"]
    task = first_task(name)
    train, valid = make_features(task, 200, seed=1).without(gone), make_features(task, 100, seed=2).without(gone)
    model, _, _ = prepared(name, how, task)
    assert np.isfinite(adapt(model, train, valid, how).model.predict(valid)).all()


@pytest.mark.parametrize("name", [n for n in model_names() if n != "prior" and model_class(n).lacks() is None])
def test_learns_a_known_relation(name: str) -> None:
    how = first_how(name)
    task = first_task(name)
    train, valid = make_features(task, 1500, seed=1, signal=4.0), make_features(task, 600, seed=2, signal=4.0)
    budget = replace(BUDGET, epochs=40, trees=200)
    model, _, _ = prepared(name, how, task)
    fitted = model.adapt(train, valid, how, np.random.default_rng(0), budget).model
    assert valid.y is not None
    if task == "regression":
        assert np.corrcoef(fitted.predict(valid), valid.y)[0, 1] > 0.9
        return
    assert ((fitted.predict(valid)[:, 1] > 0.5) == valid.y).mean() > 0.82  # the noise allows about .89


def test_linear_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    train, valid = make_features("binary", 300, seed=1), make_features("binary", 150, seed=2)
    adapted = adapt(model_class("linear")(), train, valid, "scratch")

    def design(rows: Features) -> np.ndarray:
        missing = np.isnan(rows.x_num)
        return np.hstack([np.where(missing, 0, rows.x_num), missing[:, [1]], np.eye(5)[rows.x_cat[:, 0]]])

    reference = LogisticRegression(C=1 / adapted.settings["strength"], max_iter=10_000, tol=1e-9).fit(
        design(train), train.y
    )
    np.testing.assert_allclose(adapted.model.predict(valid), reference.predict_proba(design(valid)), atol=1e-5)


def test_tuned_is_never_worse_than_scratch_on_valid() -> None:
    from tabkit.models.base import loss

    train, valid = make_features("binary", 300, seed=4), make_features("binary", 150, seed=5)
    losses = [
        loss(valid, adapt(model_class("lgbm")(), train, valid, how).model.predict(valid))
        for how in ("tuned", "scratch")
    ]
    assert losses[0] <= losses[1] + 1e-12


@pytest.mark.parametrize("how", ["refit", "continue"])
def test_adapted_trees_are_never_worse_than_the_base_on_valid(how: str) -> None:
    from tabkit.models.base import loss

    for seed in range(4):
        source = make_features("regression", 400, seed=seed)
        noise = np.random.default_rng(seed)
        train, valid = (make_features("regression", n, seed=seed + 50 + n) for n in (60, 40))
        train, valid = (rows.with_y(noise.permutation(rows.y)) for rows in (train, valid))
        base = model_class("lgbm").pretrain(source, train, np.random.default_rng(0), BUDGET)
        assert base is not None
        adapted = adapt(base, train, valid, how)
        assert loss(valid, adapted.model.predict(valid)) <= loss(valid, base.predict(valid)) + 1e-12


def test_trees_split_tables_of_thirty_rows() -> None:
    """With 20 rows to a leaf, 24 rows cannot be split, and what is left is the prior."""
    train, valid = (
        make_features("regression", 24, seed=1, signal=4.0),
        make_features("regression", 300, seed=2, signal=4.0),
    )
    fitted = adapt(model_class("lgbm")(), train, valid, "scratch").model
    assert np.corrcoef(fitted.predict(valid), valid.labels)[0, 1] > 0.5


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_trees_that_find_no_split_are_counted_as_none(task: str) -> None:
    """LightGBM goes on without adding trees where no split is left; continuing then keeps the base, and says so."""
    source, train, valid = (make_features(task, n, seed=n) for n in (400, 40, 30))
    train = replace(train, x_num=np.zeros_like(train.x_num), x_cat=np.full_like(train.x_cat, 2))
    base = model_class("lgbm").pretrain(source, train, np.random.default_rng(0), BUDGET)
    assert base is not None
    adapted = adapt(base, train, valid, "continue")
    assert adapted.settings["trees"] == 0
    np.testing.assert_array_equal(adapted.model.predict(valid), base.predict(valid))
    fault = contradiction(adapted, "lgbm")
    assert fault is not None and "it grew no tree" in fault


def test_trees_without_a_source_say_so() -> None:
    train = make_features("binary", 100)
    assert model_class("lgbm").pretrain(None, train, np.random.default_rng(0), BUDGET) is None
    with pytest.raises(ValueError, match="source table"):
        adapt(model_class("lgbm")(), train, train, "refit")
    with pytest.raises(ValueError, match="not 'gradual'"):
        adapt(model_class("lgbm")(), train, train, "gradual")


class TestProof:
    """The harness refuses a candidate whose proof contradicts its how."""

    @staticmethod
    def proof(how: str, *blocks: tuple[str, int, int, float]) -> Adapted:
        return Adapted(model_class("prior")(), how, Proof(tuple(Block(*b) for b in blocks)))

    @pytest.mark.parametrize(
        ("how", "blocks", "reason"),
        [
            ("head", [("trunk", 10, 3, 0.1), ("head", 2, 2, 0.1)], "below the head moved"),
            ("head", [("trunk", 10, 0, 0.1), ("head", 2, 2, 0.1)], "below the head moved"),
            ("head", [("trunk", 10, 0, 0.0), ("head", 2, 0, 0.0)], "never trained"),
            ("gradual", [("trunk", 10, 0, 0.0), ("head", 2, 2, 0.1)], "never trained"),
            ("full", [("trunk", 10, 0, 0.0), ("head", 2, 2, 0.1)], "never trained"),
            ("lora", [("trunk", 10, 0, 0.0), ("head", 2, 2, 0.1)], "no low-rank adapter"),
            ("lora", [("trunk", 10, 1, 0.2), ("lora_q", 2, 2, 0.1)], "outside the adapters"),
            ("as_is", [("trunk", 10, 1, 0.0)], "moved"),
            ("refit", [("splits", 10, 1, 0.1), ("leaves", 2, 2, 0.1)], "changed splits"),
            ("continue", [("base_trees", 10, 0, 0.2), ("new_trees", 2, 2, 0.1)], "changed the base"),
            ("continue", [("base_trees", 10, 0, 0.0), ("new_trees", 0, 0, 0.0)], "grew no tree"),
            ("magic", [("trunk", 1, 1, 1.0)], "no rule"),
        ],
    )
    def test_contradictions_are_named(self, how: str, blocks: list[tuple[str, int, int, float]], reason: str) -> None:
        fault = contradiction(self.proof(how, *blocks), "base")
        assert fault is not None and reason in fault

    @pytest.mark.parametrize(
        ("how", "blocks"),
        [
            ("head", [("trunk", 10, 0, 0.0), ("head", 2, 2, 0.1)]),
            ("full", [("trunk", 10, 10, 0.0), ("head", 2, 2, 0.0)]),  # trained, and the base stayed best on valid
            ("lora", [("trunk", 10, 0, 0.0), ("lora_q", 2, 2, 0.1), ("head", 2, 2, 0.1)]),
        ],
    )
    def test_honest_proofs_pass(self, how: str, blocks: list[tuple[str, int, int, float]]) -> None:
        assert contradiction(self.proof(how, *blocks), "base") is None


def test_budget_is_declared_for_every_level() -> None:
    assert list(BUDGETS) == ["quick", "standard", "thorough"]
    for smaller, larger in zip(list(BUDGETS.values()), list(BUDGETS.values())[1:], strict=False):
        assert isinstance(smaller, Budget)
        assert smaller.trials < larger.trials and smaller.epochs < larger.epochs and smaller.trees < larger.trees


def test_trees_that_are_late_before_they_begin_are_still_a_model() -> None:
    train, valid = make_features("binary", 200), make_features("binary", 100, seed=1)
    late = replace(BUDGETS["quick"], seconds=0.0)
    adapted = model_class("lgbm")().adapt(train, valid, "scratch", np.random.default_rng(0), late)
    assert np.isfinite(adapted.model.predict(valid)).all()
    assert any("stopped by the clock" in note for note in adapted.notes)


def test_support_vectors_answer_as_scikit_learn_does() -> None:
    from sklearn.svm import SVR

    from tabkit.models.svm import EPSILON, _design

    train, valid = make_features("regression", 300, seed=1), make_features("regression", 150, seed=2)
    adapted = adapt(model_class("svm")(), train, valid, "scratch")
    mean, std, x = train.labels.mean(), train.labels.std(), _design(train)
    gamma = adapted.settings["width"] / (x.shape[1] * x.var())
    reference = SVR(C=adapted.settings["cost"], epsilon=EPSILON, gamma=gamma).fit(x, (train.labels - mean) / std)
    np.testing.assert_allclose(adapted.model.predict(valid), reference.predict(_design(valid)) * std + mean, rtol=1e-6)
