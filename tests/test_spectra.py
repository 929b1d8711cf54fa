"""Spectra reach the models as components fitted on train rows; a field's published figure comes out of our folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import write_recipe
from sklearn.decomposition import PCA

import tabkit
from tabkit.data.encode import Encoder, fit_encoder
from tabkit.data.spectra import fit_compression
from tabkit.data.split import split_rows
from tabkit.errors import DataError, UsageError
from tabkit.evaluate.metrics import METRICS
from tabkit.recipe import load_recipe
from tabkit.samples import load_sample

BANDS = tuple(f"wl_{400 + i}" for i in range(60))


def spectra(n_rows: int, seed: int = 0) -> pl.DataFrame:
    """Two hidden substances with a smooth band each, scattered light on top; the target is the first one's amount."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0, 1, size=(n_rows, 2))
    at = np.linspace(0, 1, len(BANDS))
    shapes = np.stack([np.exp(-((at - 0.3) ** 2) / 0.01), np.exp(-((at - 0.7) ** 2) / 0.02)])
    scatter = rng.uniform(0.5, 2.0, size=(n_rows, 1))
    bands = scatter * (1 + amounts @ shapes) + 0.001 * rng.normal(size=(n_rows, len(BANDS)))
    return pl.DataFrame({**dict(zip(BANDS, bands.T, strict=True)), "target": amounts[:, 0]})


def encoder(train: pl.DataFrame, components: int = 5, normalise: bool = False) -> Encoder:
    made = fit_compression(train, "nir", BANDS, components, normalise)
    return fit_encoder(train, list(BANDS), "regression", "target", (), (made,))


def test_components_are_those_of_an_independent_implementation() -> None:
    frame = spectra(80)
    ours = encoder(frame[:50]).encode(frame[50:]).x_num
    x = frame.select(BANDS).to_numpy()
    theirs = PCA(5, svd_solver="full").fit(x[:50]).transform(x[50:])
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-5)


def test_components_know_the_train_rows_only() -> None:
    frame = spectra(80)
    other = frame.with_columns(pl.when(pl.int_range(80) >= 50).then(pl.col(BANDS) * 100).otherwise(pl.col(BANDS)))
    assert encoder(frame[:50]).to_json() == encoder(other[:50]).to_json()
    alone = [encoder(frame[:50]).encode(frame[i : i + 1]).x_num[0] for i in range(50, 60)]
    np.testing.assert_array_equal(np.stack(alone), encoder(frame[:50]).encode(frame[50:60]).x_num)


def test_normalised_rows_forget_the_scatter() -> None:
    frame = spectra(60)
    twice = frame.with_columns(pl.col(BANDS) * 2 + 1)
    fitted = encoder(frame[:40], normalise=True)
    np.testing.assert_allclose(fitted.encode(twice).x_num, fitted.encode(frame).x_num, atol=1e-5)


def test_an_encoder_with_spectra_is_restored_and_names_its_bands() -> None:
    fitted = encoder(spectra(40), normalise=True)
    assert Encoder.from_json(fitted.to_json()) == fitted
    assert fitted.inputs == BANDS and fitted.layout.columns == tuple(f"nir.{i}" for i in range(1, 6))


def test_few_rows_have_few_components_and_none_say_so() -> None:
    assert len(fit_compression(spectra(4), "nir", BANDS, 15, False).axes) == 3
    with pytest.raises(DataError, match="2 training rows have all of its 60 bands"):
        fit_compression(spectra(2), "nir", BANDS, 15, False)
    with pytest.raises(DataError, match="the same in every training row"):
        fit_compression(pl.concat([spectra(1)] * 9), "nir", BANDS, 15, False)


def test_a_row_without_a_band_is_missing_not_wrong() -> None:
    frame = spectra(40)
    holed = frame.with_columns(pl.when(pl.int_range(40) == 3).then(None).otherwise(pl.col("wl_410")).alias("wl_410"))
    x = encoder(frame).encode(holed).x_num
    assert np.isnan(x[3]).all() and not np.isnan(np.delete(x, 3, axis=0)).any()


def test_a_recipe_with_spectra_runs_over_folds_and_its_bundle_reads_the_bands(tmp_path: Path) -> None:
    frame = spectra(90).with_columns(f=pl.int_range(90) % 3)
    recipe = (
        'task = "regression"\ntarget = "target"\n[metrics]\nprimary = "r2"\nreport = ["rpiq"]\n'
        '[split]\nkind = "given"\ncolumn = "f"\nfolds = "given"\n[[spectra]]\nname = "nir"\ncolumns = "wl_*"\n'
        "[candidates]\nwithout = ['catboost']\n[candidates.adapt]\n"
    )
    path = write_recipe(tmp_path, frame, recipe)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    linear = done.result.candidate("linear")
    assert linear.scores["holdout"]["r2"].value > 0.5
    copies = next(c for c in done.result.checks if c.code == "duplicate_rows")
    assert copies.outcome == "pass"
    scored = tabkit.score(done.folder / "bundle", tmp_path / "d.parquet", tmp_path / "s.parquet")
    assert scored.rows_scored == 90
    frame.drop("wl_430").write_parquet(tmp_path / "less.parquet")
    with pytest.raises(DataError, match="'wl_430' is missing"):
        tabkit.score(done.folder / "bundle", tmp_path / "less.parquet", tmp_path / "t.parquet")


def test_a_published_figure_comes_out_of_the_given_folds() -> None:
    """LimeSoDa's own example: BB.250, SOC, its ten folds, plain linear regression: R2 .7507837, RMSE .2448791."""
    pytest.importorskip("LimeSoDa")
    plan, frame = load_recipe("agriculture/soil"), load_sample("limesoda:BB.250")
    predicted = np.full(frame.height, np.nan)
    columns = [c for c in frame.columns if plan.is_feature(c)]
    for split in split_rows(frame, plan.recipe, seed=0):
        rest = np.sort(np.concatenate([split.train, split.valid]))
        encoder = fit_encoder(frame[rest], columns, "regression", "SOC_target", ())
        a, b = encoder.encode(frame[rest]), encoder.encode(frame[split.holdout])
        weights = np.linalg.lstsq(np.c_[np.ones(len(a)), a.x_std.astype(float)], a.labels, rcond=None)[0]
        predicted[split.holdout] = np.c_[np.ones(len(b)), b.x_std.astype(float)] @ weights
    truth = frame["SOC_target"].to_numpy()
    assert METRICS["r2"].value(truth, predicted) == pytest.approx(0.7507837, abs=5e-5)
    assert METRICS["rmse"].value(truth, predicted) == pytest.approx(0.2448791, abs=5e-5)


def test_an_unknown_field_suggests_the_nearest() -> None:
    pytest.importorskip("LimeSoDa")
    with pytest.raises(UsageError, match=r"BB\.250"):
        load_sample("limesoda:BB.25")


def test_blocks_are_eight_even_parts_of_places_that_lie_together() -> None:
    pytest.importorskip("LimeSoDa")
    frame = load_sample("limesoda:BB.250")
    sizes = frame["block"].value_counts()["count"]
    assert len(sizes) == 8 and sizes.max() - sizes.min() <= 1
    places = frame.select("x", "y").to_numpy()
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    together = frame["block"].to_numpy()[:, None] == frame["block"].to_numpy()[None]
    assert apart[together].mean() < 0.5 * apart[~together].mean()
    assert "block" not in load_sample("limesoda:O.32").columns  # its places are not known


@pytest.mark.parametrize("name", ["soil", "soil_ph", "soil_clay", "soil_blocks"])
def test_no_soil_recipe_learns_from_places_folds_or_other_targets(name: str) -> None:
    pytest.importorskip("LimeSoDa")
    plan, frame = load_recipe(f"agriculture/{name}"), load_sample("limesoda:BB.250")
    used = {c for c in frame.columns if plan.is_feature(c)}
    assert not used & {"x", "y", "fold", "block", "SOC_target", "pH_target", "Clay_target"} and len(used) == 17
