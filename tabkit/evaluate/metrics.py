"""Metrics, vectorised over row weights: tabkit's own, and those that other packages register.

A bootstrap resample is a vector of row counts, so a metric that takes weights (B, n_rows) scores B resamples
in one pass over sorted predictions. Weights of one give the plain metric. Definitions are scikit-learn's
(``sample_weight``), which the tests compare against; a resample on which a metric is undefined gives NaN.

To add a metric, add an entry to ``_OWN`` (of lists: by :func:`of_lists`). A package outside tabkit registers one by an
entry point of the group ``tabkit.metrics`` that loads a :class:`Metric`; the entry point's name is the metric's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from tabkit.errors import UsageError, inside, nearest
from tabkit.evaluate.ranking import Hits
from tabkit.plugins import plugins

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """What metrics look at; metrics of one case share its sort.

    Attributes
    ----------
    y
        Class index or target (n,).
    p
        Probabilities (n, n_classes), or predictions (n,).
    w
        Row weights (B, n), one line a resample.
    """

    y: Labels
    p: Floats
    w: Floats

    @cached_property
    def ranked(self) -> tuple[Floats, Floats]:
        """Positive and negative weights per distinct probability, highest first: two (B, n_distinct)."""
        return _ranked(self.y, self.p[:, 1], self.w)


MetricFunction = Callable[[Case], Floats]
"""Case -> values (B,)."""

_BINARY, _CLASSES, _REGRESSION = frozenset({"binary"}), frozenset({"binary", "multiclass"}), frozenset({"regression"})
_RANKING = frozenset({"ranking"})


@dataclass(frozen=True)
class Metric:
    """One metric: what it computes, which way is better, for which tasks, in which unit."""

    title: str
    function: MetricFunction
    _: KW_ONLY
    greater_is_better: bool
    tasks: frozenset[str]
    within: tuple[float, float]
    """The least and the greatest possible value; intervals are clipped to them."""
    unit: str = ""
    by_order: bool = False
    """Whether only the order of the predictions counts: rows that different models ranked are then not to be compared."""
    too_high: bool = False
    """Whether its value tends to be too high, as the largest of many distances does."""
    per_user: Callable[[Hits], Floats] | None = None
    """Of lists: the number of each user (n_users,) that ``function`` averages; NaN if it is undefined."""

    @property
    def called(self) -> str:
        """The title as it stands inside a sentence."""
        return inside(self.title)

    def of_users(self, hits: Hits) -> Floats:
        """Return the number of each user (n_users,)."""
        assert self.per_user is not None, f"{self.title}: a metric of lists needs per_user"
        return self.per_user(hits)

    @property
    def sign(self) -> int:
        """+1 if greater is better, else -1: ``sign * (a - b)`` is the gain of a over b."""
        return 1 if self.greater_is_better else -1

    def value(self, y: Labels, predicted: Floats, weights: Floats | None = None) -> float:
        """Return the metric on rows with weights (n_rows,), or that all count once."""
        w = np.ones((1, len(y))) if weights is None else weights[None, :]
        return float(self.function(Case(y, predicted, w))[0])


def ranked_within(predicted: Floats, fold: npt.NDArray[np.int64], weights: Floats | None = None) -> Floats:
    """Return probabilities (n, n_classes) as mid-ranks within their fold, from 0 to 1.

    Over folds, what one model says of its rows and another of its own has no common order: a model that says the same of
    every row but for its own training rows' mean has a pooled ROC AUC below .5 (Forman & Scholz, *Apples-to-Apples in
    Cross-Validation Studies*, SIGKDD Explorations 2010; Airola et al., *Comput. Stat. Data Anal.* 2011).

    Parameters
    ----------
    fold
        The fold (n,) of each row.
    weights
        For how many rows each stands, (n,): a rank is then the share of the fold's weight below it.
    """
    from scipy.stats import rankdata

    out = np.empty_like(predicted)
    for name in np.unique(fold):
        rows = np.flatnonzero(fold == name)
        if weights is None:
            out[rows] = (rankdata(predicted[rows], axis=0) - 0.5) / len(rows)
        else:
            own = weights[rows]
            out[rows] = np.column_stack([_share_below(column, own) for column in predicted[rows].T])
    return out


def _share_below(values: Floats, w: Floats) -> Floats:
    """Return, for each value, the share of the weight that the smaller ones have, and half that of its equals."""
    distinct, at = np.unique(values, return_inverse=True)
    own = np.bincount(at, weights=w, minlength=len(distinct))
    filled = np.cumsum(own)
    # Over their own sum: a constant is then one half to the last bit, in every fold.
    return np.asarray(((filled - own / 2) / filled[-1])[at])


def resolve(names: list[str], task: str, where: str) -> dict[str, Metric]:
    """Return the named metrics, checked against the task.

    Raises
    ------
    UsageError
        An unknown metric, or one of another task; near names are suggested.
    """
    fitting = [name for name, metric in METRICS.items() if task in metric.tasks]
    for name in names:
        if name not in METRICS:
            raise UsageError(f"{where}: unknown metric '{name}'.{nearest(name, fitting)} See: tabkit list metrics.")
        if name not in fitting:
            raise UsageError(f"{where}: metric '{name}' is not for {task} tasks.{nearest('', fitting)}")
    return {name: METRICS[name] for name in names}


def _ratio(top: Floats, bottom: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(bottom > 0, top / bottom, np.nan))


def _ranked(y: Labels, score: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Sum positive and negative weights per distinct score, best score first: two (B, n_distinct)."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights = w[:, order]
    positive = np.add.reduceat(weights * (y[order] == 1), starts, axis=1)
    return positive, np.add.reduceat(weights, starts, axis=1) - positive


def _auc(ranked: tuple[Floats, Floats]) -> Floats:
    positive, negative = ranked
    worse = negative.sum(axis=1, keepdims=True) - np.cumsum(negative, axis=1) + negative / 2
    return _ratio((positive * worse).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def _roc_auc(c: Case) -> Floats:
    return _auc(c.ranked)


def _gini(c: Case) -> Floats:
    return 2.0 * _auc(c.ranked) - 1.0


def _rates(c: Case) -> tuple[Floats, Floats]:
    positive, negative = c.ranked
    tp, fp = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    return _ratio(tp, tp[:, -1:]), _ratio(fp, fp[:, -1:])


def _ks(c: Case) -> Floats:
    tpr, fpr = _rates(c)
    return np.asarray(np.abs(tpr - fpr).max(axis=1))


def _pr_auc(c: Case) -> Floats:
    positive, negative = c.ranked
    tp = np.cumsum(positive, axis=1)
    flagged = tp + np.cumsum(negative, axis=1)
    precision = np.divide(tp, flagged, out=np.zeros_like(tp), where=flagged > 0)
    return _ratio((positive * precision).sum(axis=1), tp[:, -1])


def _fpr_at_80_recall(c: Case) -> Floats:
    tpr, fpr = _rates(c)
    # A hair of slack: 4 of 5 positives is a recall of .8, whatever the rounding of the sum.
    first = np.argmax(tpr >= 0.8 - 1e-9, axis=1)
    return np.asarray(np.where(np.isnan(tpr[:, -1]), np.nan, fpr[np.arange(len(fpr)), first]))


def _sensitivity_at_90_specificity(c: Case) -> Floats:
    tpr, fpr = _rates(c)
    # The best sensitivity among thresholds that keep 90% of the negatives below; the same hair of slack.
    within = fpr <= 0.1 + 1e-9
    best = np.where(within, tpr, 0.0).max(axis=1)
    return np.asarray(np.where(np.isnan(tpr[:, -1]) | np.isnan(fpr[:, -1]), np.nan, best))


def _net_benefit_at_30(c: Case) -> Floats:
    """True positives less false ones at the odds 3 to 7, a row (Vickers & Elkin, *Med. Decis. Making* 2006)."""
    acted = (c.p[:, 1] >= 0.3).astype(np.float64)
    return _weighted_mean(acted * np.where(c.y == 1, 1.0, -0.3 / 0.7), c.w)


def _weighted_mean(loss: Floats, w: Floats) -> Floats:
    return _ratio(w @ loss, w.sum(axis=1))


def _log_loss(c: Case) -> Floats:
    tiny = np.finfo(np.float64).eps
    return _weighted_mean(-np.log(np.clip(c.p[np.arange(len(c.y)), c.y], tiny, 1.0)), c.w)


def _brier(c: Case) -> Floats:
    return _weighted_mean((c.p[:, 1] - c.y) ** 2, c.w)


def _accuracy(c: Case) -> Floats:
    return _weighted_mean((c.p.argmax(axis=1) == c.y).astype(np.float64), c.w)


def _balanced_accuracy(c: Case) -> Floats:
    hit = (c.p.argmax(axis=1) == c.y).astype(np.float64)
    recalls = [_weighted_mean(hit[c.y == k], c.w[:, c.y == k]) for k in range(c.p.shape[1]) if (c.y == k).any()]
    return np.asarray(np.nanmean(np.vstack(recalls), axis=0))


def _macro_roc_auc(c: Case) -> Floats:
    return np.asarray(
        np.vstack([_auc(_ranked((c.y == k).astype(np.int64), c.p[:, k], c.w)) for k in range(c.p.shape[1])]).mean(
            axis=0
        )
    )


def _mae(c: Case) -> Floats:
    return _weighted_mean(np.abs(c.y - c.p), c.w)


def _rmse(c: Case) -> Floats:
    return np.asarray(np.sqrt(_weighted_mean((c.y - c.p) ** 2, c.w)))


def _r2(c: Case) -> Floats:
    centred = c.y - c.y.mean()  # shifting the target first keeps the weighted variance accurate for large targets
    mean = _weighted_mean(centred, c.w)
    variance = _weighted_mean(centred**2, c.w) - mean**2
    return np.asarray(1.0 - _ratio(_weighted_mean((c.y - c.p) ** 2, c.w), variance))


def _rpiq(c: Case) -> Floats:
    """Interquartile range of the target over the RMSE (Bellon-Maurel et al., *Trends Anal. Chem.* 2010)."""
    return _ratio(_quantile(c, 0.75) - _quantile(c, 0.25), _rmse(c))


def _quantile(c: Case, share: float) -> Floats:
    """Return the target's quantile (B,), rows repeated as often as their weight says: NumPy's linear definition."""
    y = np.sort(c.y)
    filled = np.cumsum(c.w[:, np.argsort(c.y, kind="stable")], axis=1)
    at = (filled[:, -1] - 1) * share
    low, high = (y[np.minimum((filled <= np.floor(at + step)[:, None]).sum(axis=1), len(y) - 1)] for step in (0.0, 1.0))
    return np.asarray(low + (at - np.floor(at)) * (high - low))


def _per_user(c: Case) -> Floats:
    """Average a number per user, which ``c.p`` then is; users for whom it is undefined (NaN) are left out."""
    defined = np.isfinite(c.p)
    return _weighted_mean(c.p[defined], c.w[:, defined])


_SHARE = (0.0, 1.0)
_POSITIVE = (0.0, math.inf)
_UP_TO_1 = (-math.inf, 1.0)


def of_lists(title: str, per_user: Callable[[Hits], Floats]) -> Metric:
    """Return a metric of lists: the mean of a number per user. If its name begins with ``new_``, only new items are listed."""
    return Metric(title, _per_user, greater_is_better=True, tasks=_RANKING, within=_SHARE, per_user=per_user)


_OWN: dict[str, Metric] = {
    "roc_auc": Metric("ROC AUC", _roc_auc, greater_is_better=True, tasks=_BINARY, by_order=True, within=_SHARE),
    "gini": Metric("Gini (2 AUC - 1)", _gini, greater_is_better=True, tasks=_BINARY, by_order=True, within=(-1.0, 1.0)),
    "ks": Metric(
        "Kolmogorov-Smirnov",
        _ks,
        greater_is_better=True,
        tasks=_BINARY,
        by_order=True,
        within=_SHARE,
        too_high=True,
    ),
    "pr_auc": Metric(
        "PR AUC (average precision)", _pr_auc, greater_is_better=True, tasks=_BINARY, by_order=True, within=_SHARE
    ),
    "brier": Metric("Brier score", _brier, greater_is_better=False, tasks=_BINARY, within=_SHARE),
    "log_loss": Metric("Log loss", _log_loss, greater_is_better=False, tasks=_CLASSES, within=_POSITIVE, unit="nats"),
    "fpr_at_80_recall": Metric(
        "False positive rate at 80% recall",
        _fpr_at_80_recall,
        greater_is_better=False,
        tasks=_BINARY,
        by_order=True,
        within=_SHARE,
    ),
    "sensitivity_at_90_specificity": Metric(
        "Sensitivity at 90% specificity",
        _sensitivity_at_90_specificity,
        greater_is_better=True,
        tasks=_BINARY,
        by_order=True,
        within=_SHARE,
    ),
    "net_benefit_at_30": Metric(
        "Net benefit at a threshold of 30%", _net_benefit_at_30, greater_is_better=True, tasks=_BINARY, within=_UP_TO_1
    ),
    "accuracy": Metric("Accuracy", _accuracy, greater_is_better=True, tasks=_CLASSES, within=_SHARE),
    "balanced_accuracy": Metric(
        "Balanced accuracy", _balanced_accuracy, greater_is_better=True, tasks=_CLASSES, within=_SHARE
    ),
    "macro_roc_auc": Metric(
        "Macro ROC AUC (one against the rest)",
        _macro_roc_auc,
        greater_is_better=True,
        tasks=_CLASSES,
        by_order=True,
        within=_SHARE,
    ),
    "rmse": Metric(
        "Root mean squared error", _rmse, greater_is_better=False, tasks=_REGRESSION, within=_POSITIVE, unit="target"
    ),
    "mae": Metric(
        "Mean absolute error", _mae, greater_is_better=False, tasks=_REGRESSION, within=_POSITIVE, unit="target"
    ),
    "r2": Metric("R squared", _r2, greater_is_better=True, tasks=_REGRESSION, within=_UP_TO_1),
    "rpiq": Metric(
        "RPIQ (interquartile range over RMSE)", _rpiq, greater_is_better=True, tasks=_REGRESSION, within=_POSITIVE
    ),
    "ndcg@10": of_lists("NDCG@10", lambda hits: hits.ndcg(10)),
    "ndcg@20": of_lists("NDCG@20", lambda hits: hits.ndcg(20)),
    "recall@10": of_lists("Recall@10", lambda hits: hits.recall(10)),
    "recall@20": of_lists("Recall@20", lambda hits: hits.recall(20)),
    "mrr@20": of_lists("Mean reciprocal rank within 20", Hits.reciprocal_rank),
    "map@10": of_lists("Mean average precision at 10", lambda hits: hits.average_precision(10)),
    "hit_rate@10": of_lists("Hit rate at 10", lambda hits: hits.any_hit(10)),
    "new_recall@20": of_lists("Recall@20 of items new to the user", lambda hits: hits.new_recall(20)),
}


class _Metrics(Mapping[str, Metric]):
    """Every metric by name; plugins are loaded when the first metric is asked for."""

    @cached_property
    def _all(self) -> dict[str, Metric]:
        outside = plugins("tabkit.metrics", dict.fromkeys(_OWN, "tabkit's own"))
        return _OWN | {name: plugin.load(_is_metric, f"a {__name__}.Metric") for name, plugin in outside.items()}

    def __getitem__(self, name: str) -> Metric:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def _is_metric(value: Any) -> TypeGuard[Metric]:
    return isinstance(value, Metric)


METRICS: Mapping[str, Metric] = _Metrics()
"""Every metric by name, those of other packages after tabkit's own."""
