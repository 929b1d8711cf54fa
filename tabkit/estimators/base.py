"""What both estimators share: parameters, the way from ``X`` and ``y`` to a run, pickling."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from narwhals.dependencies import is_into_dataframe, is_pandas_dataframe
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, column_or_1d, validate_data

from tabkit.adapt.candidates import wanted
from tabkit.bundle import TableBundle, load_bundle
from tabkit.data.frames import to_polars
from tabkit.errors import TabkitError
from tabkit.estimators.model import TypedModel, fit_linear
from tabkit.estimators.table import Labelled, Wishes, write_plan
from tabkit.evaluate.metrics import resolve
from tabkit.files import whole_folder
from tabkit.learner import Device, Predictions
from tabkit.learner.budget import budget_of
from tabkit.recipe import Plan
from tabkit.result import TableResult, Verdict
from tabkit.workflow import run


class NotJudgedWarning(UserWarning):
    """The table is too small to compare candidates on: a linear model was fitted, and there is no verdict."""


class Estimator(BaseEstimator):  # type: ignore[misc]
    """A run behind ``fit``, and its champion behind ``predict``."""

    result_: TableResult | None
    verdict_: Verdict | None
    bundle_: TableBundle | None
    _files: dict[str, bytes] | None
    _unjudged: TypedModel | None

    # scikit-learn reads an estimator's parameters from its constructor, so each is there by itself.
    def __init__(  # noqa: PLR0913
        self,
        *,
        budget: str = "quick",
        metric: str | None = None,
        candidates: Mapping[str, Sequence[str]] | None = None,
        without: Sequence[str] | None = None,
        worthwhile: float | None = None,
        folds: int | None = None,
        weights: Mapping[str, str | Path] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: Device = "auto",
    ) -> None:
        self.budget = budget
        self.metric = metric
        self.candidates = candidates
        self.without = without
        self.worthwhile = worthwhile
        self.folds = folds
        self.weights = weights
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # The bundle travels as the bytes of its files: models promise to be saved, not to be pickled.
        return {name: value for name, value in super().__getstate__().items() if name != "bundle_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_files" in state:
            self.bundle_ = None
            if self._files is not None:
                with tempfile.TemporaryDirectory(prefix="tabkit-") as place:
                    _write_files(self._files, Path(place))
                    self.bundle_ = _load(Path(place))

    def write_bundle(self, folder: str | Path) -> None:
        """Write the champion's bundle, for ``tabkit score`` and :func:`tabkit.load_bundle`.

        Parameters
        ----------
        folder
            Must not exist yet.

        Raises
        ------
        ValueError
            The table was too small to be judged, so there is no bundle; or the folder exists.
        """
        check_is_fitted(self)
        if self._files is None:
            raise ValueError("There is no bundle: the table was too small to be judged. Fit on more rows.")
        if Path(folder).exists():
            raise ValueError(f"{folder} exists already. Choose another folder, or remove it.")
        with whole_folder(Path(folder)) as place:
            _write_files(self._files, place)

    def _features(self, X: Any, *, reset: bool) -> pl.DataFrame:
        """Return the features under the names that ``fit`` met: ``x0``, ``x1``, ... if there were none."""
        if is_into_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return _features_of(X, self._names())
        least = 2 if reset else 1
        array = validate_data(
            self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan", ensure_min_samples=least
        )
        return pl.DataFrame(array.astype(np.float64), schema=self._names(), orient="row")

    def _names(self) -> list[str]:
        if hasattr(self, "feature_names_in_"):
            return list(self.feature_names_in_)
        return [f"x{i}" for i in range(self.n_features_in_)]

    def _learn(self, table: Labelled) -> None:
        """Run the table's recipe; if it cannot be judged, fit a linear model, and say so."""
        wishes = Wishes(self.metric, self.candidates, self.without, self.worthwhile, self.folds)
        with tempfile.TemporaryDirectory(prefix="tabkit-") as place:
            plan = write_plan(Path(place), table, wishes)
            obstacle = table.obstacle()
            if obstacle is None:
                self._unjudged = None
                self._run(plan, table, Path(place) / "run")
                return
        message = f"{obstacle} A linear model is fitted on all rows, and there is no verdict."
        warnings.warn(message, NotJudgedWarning, stacklevel=3)
        # What a run would refuse is refused here too.
        resolve([plan.recipe.metrics.primary], table.task, type(self).__name__)
        wanted(plan.recipe, False, type(self).__name__)
        budget = budget_of(self.budget, self.device)
        self._unjudged = fit_linear(plan, table.frame, table.classes, self._seed(), budget)
        self.result_ = self.verdict_ = self.bundle_ = self._files = None

    def _run(self, plan: Plan, table: Labelled, folder: Path) -> None:
        outcome = run(
            plan.path,
            table.frame,
            out=folder,
            seed=self._seed(),
            budget=self.budget,
            device=self.device,
            weights=self.weights,
            command=" ".join(f"{self!r}.fit(X, y)".split()),
        )
        assert isinstance(outcome.result, TableResult)
        bundle = folder / "bundle"
        self.result_, self.verdict_, self.bundle_ = outcome.result, outcome.result.verdict, _load(bundle)
        files = (path for path in bundle.rglob("*") if path.is_file())
        self._files = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in files}

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _predict(self, X: Any) -> tuple[Predictions, tuple[str, ...]]:
        """Return predictions, and the classes of their columns."""
        check_is_fitted(self)
        model = self._unjudged
        if model is None:
            assert self.bundle_ is not None
            model = TypedModel.of(self.bundle_)
        with value_errors():
            return model.predict(self._features(X, reset=False)), model.encoder.classes


@contextmanager
def value_errors() -> Iterator[None]:
    """Raise a user's fault as callers of scikit-learn expect it."""
    try:
        yield
    except TabkitError as problem:
        raise ValueError(str(problem)) from problem


def labels_of(estimator: Estimator, y: Any) -> npt.NDArray[Any]:
    """Return the labels (n_rows,), none of them missing.

    Raises
    ------
    ValueError
        There are none, or they are no single column of values.
    """
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
    return np.asarray(check_array(column_or_1d(y, warn=True), ensure_2d=False, dtype=None, input_name="y"))


def counted(
    features: pl.DataFrame, labels: npt.NDArray[Any], sample_weight: Any
) -> tuple[pl.DataFrame, npt.NDArray[Any], pl.Series | None]:
    """Return the rows that count: features, labels (n_rows,), and weights (n_rows,) above 0, None if each counts once.

    Raises
    ------
    ValueError
        Weights are no single column of finite numbers from 0 on, one for each row, or all are 0.
    """
    check_consistent_length(features, labels)
    if sample_weight is None:
        return features, labels, None
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(labels), sample_weight)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, and sample_weight has {weights.ndim} dimensions.")
    check_consistent_length(features, weights)
    if (weights < 0).any():
        raise ValueError(f"sample_weight has {weights.min():g} at its lowest. Expected numbers from 0 on.")
    counts = weights > 0
    if not counts.any():
        raise ValueError("sample_weight is zero in every row. Expected numbers above 0 in the rows that count.")
    return features.filter(counts), labels[counts], pl.Series(weights[counts])


def name_of(y: Any) -> str:
    """Return the name of a series; empty for other labels."""
    name = getattr(y, "name", None)
    return name if isinstance(name, str) else ""


def _features_of(X: Any, names: list[str]) -> pl.DataFrame:
    if is_pandas_dataframe(X):
        X = X.reset_index(drop=True).set_axis(names, axis=1)  # an index is no feature
    frame = to_polars(X)
    if not frame.height or not frame.width:
        raise ValueError(f"Found a frame with {frame.height} sample(s) and {frame.width} feature(s): nothing is there.")
    for column in frame:
        if column.dtype.is_float() and column.is_infinite().any():
            raise ValueError(f"Input X contains infinity, in column '{column.name}'. Expected a number, or none.")
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def _load(folder: Path) -> TableBundle:
    bundle = load_bundle(folder)
    assert isinstance(bundle, TableBundle)
    return bundle


def _write_files(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
