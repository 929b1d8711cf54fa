"""The blend: selection as published, no optimism on valid, folders, and when it counts as adapted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, holds_pickle, make_features, signal_table, write_recipe

import tabkit
from tabkit import learner
from tabkit.adapt import Runtime, Wanted
from tabkit.adapt.candidates import wanted
from tabkit.adapt.controls import learning_curve
from tabkit.adapt.tables import Lessons, Origins, blend_all, make_all, rerun
from tabkit.data.encode import Features
from tabkit.errors import UsageError
from tabkit.evaluate.choice import Choice, Terms, refusals
from tabkit.evaluate.comparison import compare_planned, decide, plan_of
from tabkit.evaluate.folds import _mean_blend
from tabkit.evaluate.harness import facts_of
from tabkit.evaluate.intervals import Resampled
from tabkit.evaluate.metrics import METRICS
from tabkit.evaluate.proof import contradiction
from tabkit.learner import BUDGETS, Adapted, Block, Cost, Kind, Proof, candidate_parts
from tabkit.models.base import Model, TableCandidate, loss, model_class
from tabkit.models.blend import LEAST_WEIGHT, Blend, Member, Part, blended, greedy_weights, mix, title_of
from tabkit.recipe import load_recipe
from tabkit.result import CandidateFacts, Chosen, Verdict

BUDGET = replace(BUDGETS["quick"], trials=3, epochs=4, trees=60)
AUC = METRICS["roc_auc"]
TERMS = Terms({"roc_auc": AUC}, 0.0, 1000, 0)


def log_loss(mean: np.ndarray) -> float:
    return float(-np.log(np.clip(mean, 1e-15, None)).mean())


def losses_of(predicted: np.ndarray, counts: tuple[int, ...]) -> float:
    return log_loss(np.asarray(counts) @ predicted / sum(counts))


@pytest.mark.parametrize("seed", range(5))
def test_greedy_selection_is_the_published_one_and_near_the_best_there_is(seed: int) -> None:
    p = np.random.default_rng(seed).uniform(0.2, 0.95, size=(3, 12))
    # As published, spelled out: every step tries every member, with replacement.
    bag: list[int] = []
    path = []
    for _ in range(6):
        tried = [log_loss(p[[*bag, m]].mean(axis=0)) for m in range(3)]
        bag.append(int(np.argmin(tried)))
        path.append((min(tried), np.bincount(bag, minlength=3)))
    _, counts = min(path, key=lambda entry: entry[0])
    np.testing.assert_allclose(greedy_weights(p, "binary", steps=6), counts / counts.sum())
    # Brute force: every multiset of up to six members.
    every = [c for c in itertools.product(range(7), repeat=3) if 0 < sum(c) <= 6]
    best = min(losses_of(p, c) for c in every)
    assert losses_of(p, tuple(counts)) <= best + 0.002
    alone = min(log_loss(row) for row in p)
    assert losses_of(p, tuple(counts)) <= alone


def test_greedy_selection_for_regression_cancels_errors() -> None:
    residuals = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0], [0.6, 0.6, 0.6, 0.6]])
    np.testing.assert_allclose(greedy_weights(residuals, "regression"), [0.5, 0.5, 0.0], atol=0.06)
    np.testing.assert_allclose(greedy_weights(residuals[:2], "regression"), [0.5, 0.5])


def part(name: str, valid: np.ndarray) -> Part:
    return Part(name, Adapted(model_class("prior")(), "scratch", Proof((Block("p", 1, 1, 1.0),))), valid)


def columns(p: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - p, p])


def noise_parts(n: int, y: np.ndarray, rng: np.random.Generator, many: int = 40) -> list[np.ndarray]:
    """Guesses that know nothing of the labels, around the true share."""
    return [columns(np.clip(y.mean() + 0.25 * rng.normal(size=n), 0.02, 0.98)) for _ in range(many)]


def test_valid_is_scored_without_the_optimism_of_weights_found_on_it() -> None:
    """Among candidates that know nothing, weights found on valid look good there; cross-fitted ones do not."""
    naive, honest = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rows = make_features("binary", 150, seed=seed)
        y = rng.permutation(rows.labels)
        parts = [part(f"m{i}", p) for i, p in enumerate(noise_parts(150, y, rng))]
        blended = mix("baselines", parts, rows.with_y(y), rng)
        assert blended.on_valid is not None and isinstance(blended.model, Blend)
        in_sample = blended.model.combine({p.name: p.valid for p in parts})
        naive.append(AUC.value(y, in_sample))
        honest.append(AUC.value(y, blended.on_valid))
    assert np.mean(naive) > 0.6  # the guard is needed
    assert np.mean(honest) == pytest.approx(0.5, abs=0.04)


def test_noise_among_the_candidates_does_not_lower_what_new_rows_get() -> None:
    """A good candidate, an independent other one, and forty that know nothing: new rows lose next to nothing."""
    lost = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n = 800
        y = rng.integers(0, 2, n)
        signal = 1.2 * (2 * y - 1)
        good, other = (columns(1 / (1 + np.exp(-(signal + 1.5 * rng.normal(size=n))))) for _ in range(2))
        noise = noise_parts(n, y, rng)
        seen, new = np.arange(300), np.arange(300, n)
        rows = make_features("binary", 300).with_y(y[seen])
        every = {"good": good, "other": other, **{f"n{i}": p for i, p in enumerate(noise)}}
        few = {k: every[k] for k in ("good", "other")}
        found = []
        for pool in (few, every):
            blended = mix("baselines", [part(k, p[seen]) for k, p in pool.items()], rows, np.random.default_rng(0))
            assert isinstance(blended.model, Blend)
            found.append(AUC.value(y[new], blended.model.combine({k: p[new] for k, p in pool.items()})))
        assert found[0] > AUC.value(y[new], good[new])  # blending pays here
        lost.append(found[0] - found[1])
    assert np.mean(lost) < 0.005


def made(task: str, *names: str) -> tuple[tuple[TableCandidate, ...], Features, Features]:
    """Candidates adapted for real, on small tables."""
    train, valid = make_features(task, 240, seed=1), make_features(task, 160, seed=2)
    todo = tuple(Wanted(base, how, model_class(base).hows[how]) for base, how in map(candidate_parts, names))
    return make_all(todo, origins(train), train, valid), train, valid


def origins(train: Features) -> Origins:
    return Origins(Lessons(train, make_features(train.layout.task, 400, seed=3)), {}, Runtime(0, BUDGET))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_train_predictions_proof_and_cost_are_those_of_the_members(task: str) -> None:
    made_, train, valid = made(task, "prior", "linear", "lgbm", "lgbm_as_is", "lgbm_continue")
    blends = {c.name: c for c in blend_all(made_, valid, 0)}
    assert "blend_baselines" in blends
    for c in blends.values():
        weights = c.adapted.settings["weights"]
        assert sum(weights.values()) == pytest.approx(1.0) and min(weights.values()) >= 0.03
        by_name = {m.name: m for m in made_}
        expected = sum(w * by_name[name].adapted.model.predict_train(train) for name, w in weights.items())
        np.testing.assert_allclose(c.train, expected, atol=1e-12)
        assert c.adapted.proof.trained_parameters == sum(
            by_name[name].adapted.proof.trained_parameters for name in weights
        )
        assert c.cost.cpu_seconds >= sum(by_name[name].cost.cpu_seconds for name in weights)
        assert not refusals((c,))
        for name in weights:  # what a member has to say (rows it holds, a clock that stopped it) holds for the blend
            assert {f"{name}: {note}" for note in by_name[name].adapted.notes} <= set(c.adapted.notes)


class Context(Model):
    """A model with a context: it would see a train row's own label if asked in the plain way."""

    title = "Context"
    hows = {"scratch": "baseline"}

    def adapt(self, train, valid, how, rng, budget, settings=None):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    def predict(self, features):  # type: ignore[no-untyped-def]
        return columns(np.full(len(features), 0.9))

    def predict_train(self, train):  # type: ignore[no-untyped-def]
        return columns(np.full(len(train), 0.4))

    def save(self, folder):  # type: ignore[no-untyped-def]
        raise NotImplementedError

    @classmethod
    def load(cls, folder):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def test_train_rows_are_predicted_context_safe() -> None:
    rows = make_features("binary", 20)
    linear = made("binary", "linear")[0][0].adapted.model
    blend = Blend([Member("context", 0.5, Context()), Member("linear", 0.5, linear)])
    np.testing.assert_allclose(blend.predict_train(rows)[:, 1], 0.5 * 0.4 + 0.5 * linear.predict(rows)[:, 1])


def test_a_saved_blend_holds_folders_of_its_members_and_predicts_the_same(tmp_path: Path) -> None:
    made_, _, valid = made("binary", "linear", "lgbm", "tabnet")
    parts = [Part(c.name, c.adapted, c.valid) for c in made_]
    model = blended("baselines", parts, {"linear": 0.5, "lgbm": 0.3, "tabnet": 0.2}).model
    model.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "linear", "lgbm", "tabnet"}
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert not holds_pickle(path.read_bytes()), path
    restored = model_class("blend").load(tmp_path)
    np.testing.assert_array_equal(restored.predict(valid), model.predict(valid))
    pieces = [restored.predict(valid.take(rows)) for rows in np.array_split(np.arange(len(valid)), 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), model.predict(valid))


def test_again_keeps_the_weights_and_refits_only_members_that_have_one() -> None:
    made_, train, valid = made("binary", "prior", "linear", "lgbm")
    (blend,) = blend_all(made_, valid, 0)
    model = rerun(facts_of(blend, None, None, TERMS), origins(train), train.stack(valid), BUDGET)
    assert isinstance(model, Blend) and isinstance(blend.adapted.model, Blend)
    assert {m.name: m.weight for m in model.members_} == blend.adapted.settings["weights"]
    assert (model.predict(valid) != blend.adapted.model.predict(valid)).any()  # it learned from more rows


def test_the_learning_curve_fits_each_member_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made_, train, valid = made("binary", "linear", "lgbm")
    (blend,) = blend_all(made_, valid, 0)
    assert len(blend.members) == 2, "this guards nothing"
    fitted: list[str] = []
    for name in ("linear", "lgbm"):
        model = model_class(name)
        real = model.adapt
        monkeypatch.setattr(
            model, "adapt", lambda *a, _real=real, _name=name, **k: (fitted.append(_name), _real(*a, **k))[1]
        )
    points = learning_curve((blend, made_[1]), train, valid, Runtime(0, BUDGET))
    assert sorted(fitted) == ["lgbm", "linear"]
    assert [n for n, _ in points] == [120, 240] and set(points[0][1]) == {"blend_baselines", "lgbm"}
    np.testing.assert_array_equal(points[-1][1]["blend_baselines"], blend.valid)


def test_no_blend_of_one_candidate_and_the_prior() -> None:
    made_, _, valid = made("binary", "prior", "linear")
    assert blend_all(made_, valid, 0) == ()


def test_no_blend_on_a_handful_of_valid_rows() -> None:
    made_, train, _ = made("binary", "linear", "lgbm")
    few = train.take(np.arange(15))
    cut = tuple(replace(c, valid=c.adapted.model.predict(few)) for c in made_)
    assert blend_all(cut, few, 0) == ()
    assert blend_all(made_, make_features("binary", 160, seed=2), 0) != ()


def fake(name: str, kind: Kind, y: np.ndarray, knows: float, seed: int) -> TableCandidate:
    rng = np.random.default_rng(seed)
    p = columns(1 / (1 + np.exp(-(knows * (2 * y - 1) + rng.normal(size=len(y))))))
    base_name, how = candidate_parts(name)
    blocks = (Block("trees", 9, 0 if how == "as_is" else 9, 0.0),)
    if how == "continue":
        blocks = (Block("base_trees", 5, 0, 0.0), Block("new_trees", 4, 4, 1.0))
    adapted = Adapted(model_class(base_name)(), how, Proof(blocks))
    return TableCandidate(name, base_name, how, kind, model_class(base_name)(), adapted, Cost(1, 1, 1), p, p)


class TestWhenABlendCountsAsAdapted:
    """Only where adapted members have weight, and only against what blending does without them."""

    rows = make_features("binary", 400, seed=5)
    good = (0.8, 0.8, 0.8, 0.9)

    def blends(self, linear: float, lgbm: float, untouched: float, continued: float) -> dict[str, TableCandidate]:
        y = self.rows.labels
        pool = (
            fake("linear", "baseline", y, linear, 1),
            fake("lgbm", "baseline", y, lgbm, 2),
            fake("lgbm_as_is", "base", y, untouched, 3),
            fake("lgbm_continue", "adapted", y, continued, 4),
        )
        return {c.name: c for c in blend_all(pool, self.rows, 0)}

    def test_adapted_members_have_weight(self) -> None:
        found = self.blends(*self.good)
        assert {c.name: c.kind for c in found.values()} == {
            "blend_baselines": "baseline",
            "blend_bases": "base",
            "blend_all": "adapted",
        }
        assert "lgbm_continue" in found["blend_all"].adapted.settings["weights"]
        assert not refusals(tuple(found.values()))

    def test_without_weight_on_an_adapted_member_there_is_no_adapted_blend(self) -> None:
        found = self.blends(0.8, 0.8, 0.8, -2.0)
        assert set(found) == {"blend_baselines", "blend_bases"}
        assert set(self.blends(0.8, 0.8, -2.0, -2.0)) == {"blend_baselines"}

    def test_a_blend_that_says_otherwise_is_refused(self) -> None:
        blend = self.blends(*self.good)["blend_all"].adapted
        assert "of another kind" in str(contradiction(replace(blend, how="baselines"), "blend"))
        assert "of another kind" in str(contradiction(replace(blend, how="bases"), "blend"))
        bases = self.blends(*self.good)["blend_bases"].adapted
        assert "no adapted member has weight" in str(contradiction(replace(bases, how="all"), "blend"))
        moved = tuple(replace(b, change=1.0) if b.name == "lgbm_continue/base_trees" else b for b in blend.proof.blocks)
        assert moved != blend.proof.blocks
        assert "changed the base's trees" in str(contradiction(replace(blend, proof=Proof(moved)), "blend"))

    def test_over_folds_the_mean_of_the_weights_is_bundled(self) -> None:
        adapted = self.blends(*self.good)["blend_all"]
        without = self.blends(0.8, 0.8, 0.8, -2.0)["blend_bases"]
        mean = mean_of(adapted, adapted, without)
        names = {m.name for c in (adapted, without) for m in c.members}
        for name in names:
            both = [c.adapted.settings["weights"].get(name, 0.0) for c in (adapted, without)]
            assert mean.settings["weights"][name] == pytest.approx(np.mean(both), abs=0.03)
        assert sum(mean.settings["weights"].values()) == pytest.approx(1)
        assert set(mean.members) == names and mean.name == "blend_all" and is_sound(mean)
        # One fold of many gave an adapted member weight: the blend is still called adapted, and so it keeps that member.
        rare = mean_of(adapted, adapted, *[without] * 40)
        assert 0 < rare.settings["weights"]["lgbm_continue"] < LEAST_WEIGHT and is_sound(rare)
        assert mean.settings["members"]["linear"] == {"fold": 0}  # that of the first fold that gave it weight
        assert "the mean of the weights of 2 outer folds" in mean.notes[0]
        assert "lgbm_continue" not in mean_of(without, without, without).settings["weights"]

    def test_the_planned_comparison_is_also_against_blending_baselines_alone(self) -> None:
        names = ("lgbm", "blend_baselines", "blend_bases", "blend_all")
        chosen = Chosen(adapted="blend_all", base="blend_bases", baseline="lgbm")
        assert [name for name, _ in plan_of(chosen, names)] == ["blend_bases", "lgbm", "blend_baselines"]
        same = Chosen(adapted="blend_all", base="blend_bases", baseline="blend_baselines")
        assert [name for name, _ in plan_of(same, names)] == ["blend_bases", "blend_baselines"]

    @pytest.mark.parametrize(
        ("alone", "decision"),
        [(0.70, "adapt"), (0.82, "use_baseline"), (0.80, "not_enough_evidence"), (0.795, "not_enough_evidence")],
    )
    def test_it_must_beat_them(self, alone: float, decision: str) -> None:
        wide = np.linspace(-0.01, 0.01, 201)
        scores = {
            "blend_all": Resampled(0.80, 0.80 + 0 * wide),
            "blend_bases": Resampled(0.75, 0.75 + wide / 10),
            "lgbm": Resampled(0.74, 0.74 + wide / 10),
            "blend_baselines": Resampled(alone, alone + wide),
        }
        chosen = Chosen(adapted="blend_all", base="blend_bases", baseline="lgbm")
        on_valid = {"blend_all": 0.9, "blend_bases": 0.7, "lgbm": 0.8, "blend_baselines": 0.75}
        assert decided(chosen, on_valid, scores)[0].decision == decision

    def test_where_adapting_did_not_pay_the_blend_of_bases_may_stay(self) -> None:
        values = (("net_full", 0.7), ("net_as_is", 0.72), ("lgbm", 0.75))
        scores = {name: Resampled(v, np.full(50, v)) for name, v in values}
        chosen = Chosen(adapted="net_full", base="net_as_is", baseline="lgbm")
        on_valid = {"net_full": 0.8, "net_as_is": 0.7, "lgbm": 0.75, "blend_bases": 0.76}
        verdict, champion = decided(chosen, on_valid, scores)
        assert (verdict.decision, champion) == ("keep_base", "blend_bases")
        verdict, champion = decided(chosen, {**on_valid, "blend_bases": 0.75}, scores)
        assert (verdict.decision, champion) == ("use_baseline", "lgbm")


def mean_of(like: TableCandidate, *blends: TableCandidate) -> CandidateFacts:
    """Return the mean of the blends of several folds; each fold's members know which one they are of."""
    folds = []
    for number, blend in enumerate(blends):
        members = {
            m.name: facts_of(m, None, None, TERMS).model_copy(update={"settings": {"fold": number}})
            for m in blend.members
        }
        folds.append(SimpleNamespace(findings=SimpleNamespace(candidate=members.__getitem__)))
    facts = [facts_of(c, None, None, TERMS) for c in (like, *blends)]
    return _mean_blend(facts[0], facts[1:], tuple(folds))  # type: ignore[arg-type]


def is_sound(blend: CandidateFacts) -> bool:
    return contradiction(Adapted(Blend(), blend.how, Proof(blend.proof), blend.settings), "blend") is None


def decided(chosen: Chosen, on_valid: dict[str, float], scores: dict[str, Resampled]) -> tuple[Verdict, str]:
    choice = Choice(chosen, on_valid, {name: name for name in on_valid}, {})
    rows = {"train": 600, "valid": 100, "holdout": 300}
    return decide(compare_planned(chosen, TERMS, scores), choice, TERMS, rows, {})


WITHOUT = "[candidates]\nadapt = {}\nwithout = ['catboost']\n"


def run(folder: Path, frame: pl.DataFrame, recipe: str, out: str = "run", **more: object):  # type: ignore[no-untyped-def]
    path = write_recipe(folder, frame, recipe)
    frame.write_parquet(folder / "data.parquet")
    return tabkit.run(str(path), data=folder / "data.parquet", out=folder / out, budget="quick", **more)  # type: ignore[arg-type]


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", BUDGET)


def curved_table(n_rows: int) -> pl.DataFrame:
    """A slope that a line sees and a bump that trees see: two views that are better together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_rows, 12))
    score = x[:, :8].sum(axis=1) * 0.5 + 4.0 * (np.abs(x[:, 8]) < 0.7) - 2.0
    y = np.where(rng.random(n_rows) < 1 / (1 + np.exp(-score)), "yes", "no")
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(12)}, "y": y.tolist()})


def test_a_blend_that_wins_is_bundled_and_scores_like_any_other(tmp_path: Path, small_budget: None) -> None:
    frame = curved_table(1200)
    done = run(tmp_path, frame, BINARY + WITHOUT + "[bundle]\ntrain_on = 'train'\n")
    assert done.result.champion == "blend_baselines", "this guards nothing"
    members = done.result.bundle.members
    assert len(members) > 1 and {p.name for p in (done.folder / "bundle" / "model").iterdir()} == {
        *members,
        "config.json",
    }
    whole = tabkit.score(done.folder / "bundle", tmp_path / "data.parquet", tmp_path / "a.parquet").out
    parts = tabkit.score(done.folder / "bundle", tmp_path / "data.parquet", tmp_path / "b.parquet", chunk_rows=101).out
    scored = pl.read_parquet(whole)
    assert scored.equals(pl.read_parquet(parts))
    measured = pl.read_parquet(done.folder / "holdout_predictions.parquet")
    np.testing.assert_array_equal(  # put together of the members' predictions there, predicted whole here
        scored["probability_yes"].to_numpy()[measured["row"].to_numpy()], measured["blend_baselines"].to_numpy()
    )
    by_name = {c.name: c for c in done.result.candidates}
    seconds = sum(by_name[m].score_cpu_seconds_per_million for m in members)
    assert by_name["blend_baselines"].score_cpu_seconds_per_million == pytest.approx(seconds, rel=0.5)


def test_all_rows_refit_every_member(tmp_path: Path, small_budget: None) -> None:
    done = run(tmp_path, curved_table(1200), BINARY + WITHOUT)
    assert done.result.champion == "blend_baselines", "this guards nothing"
    scored = tabkit.score(done.folder / "bundle", tmp_path / "data.parquet", tmp_path / "a.csv")
    assert scored.rows_scored == 1200
    passed = {c.code for c in done.result.checks if c.outcome == "pass"}
    assert "label_shuffle" in passed  # the control ran on the blend, the chosen baseline
    assert {n for p in done.result.curve.points for n in p.scores} == {"blend_baselines"}


def test_a_recipe_can_leave_blends_out(tmp_path: Path, small_budget: None) -> None:
    done = run(tmp_path, signal_table(300), BINARY + WITHOUT.replace("['catboost']", "['catboost', 'blend']"))
    assert not [c for c in done.result.candidates if c.base == "blend"]


def test_a_blend_is_not_to_be_adapted(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, signal_table(60), BINARY + "[candidates.adapt]\nblend = ['all']\n")
    with pytest.raises(UsageError, match=r"made of the other candidates.*without"):
        wanted(load_recipe(str(path)).recipe, False)


def test_the_loss_that_weights_are_found_by_is_the_one_that_models_share() -> None:
    made_, _, valid = made("multiclass", "linear", "lgbm")
    (blend,) = blend_all(made_, valid, 0)
    assert loss(valid, blend.valid) < max(loss(valid, c.valid) for c in made_)


def test_a_blend_without_a_base_is_not_called_after_bases() -> None:
    assert title_of("bases", {"baseline", "base"}) == "Blend (with untouched bases)"
    assert title_of("bases", {"baseline"}) == "Blend (no base has weight)"
    assert title_of("all", {"baseline", "adapted"}) == "Blend (with adapted members)"
