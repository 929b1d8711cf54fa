"""What is adapted beside the candidates, for the harness: shuffled labels, columns left out, fewer rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tabkit.adapt.runtime import Runtime, Wanted, silent
from tabkit.adapt.tables import make
from tabkit.data.encode import Features
from tabkit.learner import Adapted, Budget, Predictions
from tabkit.models.base import Model, TableCandidate
from tabkit.models.blend import Part, mix
from tabkit.models.parts.bagged import Bagged
from tabkit.seed import stream


def shuffled(candidate: TableCandidate, train: Features, valid: Features, seed: int, budget: Budget) -> Predictions:
    """Run the procedure on shuffled labels and predict valid: a pipeline without a leak now knows nothing."""
    labels = stream(seed, "shuffle").permutation(train.labels)
    rng = stream(seed, "adapt", candidate.name)
    adapted = candidate.origin.adapt(train.with_y(labels), None, candidate.how, rng, budget, candidate.adapted.settings)
    return adapted.predict_valid(valid)


def without_columns(
    columns: tuple[str, ...], candidate: TableCandidate, train: Features, valid: Features, runtime: Runtime
) -> TableCandidate:
    """Fit a baseline again without some columns, its search included."""
    item, dropped = Wanted(candidate.base, candidate.how, candidate.kind), list(columns)
    quiet = replace(runtime, watch=silent)
    return make(item, candidate.origin, train.without(dropped), valid.without(dropped), quiet)


def learning_curve(
    candidates: tuple[TableCandidate, ...], train: Features, valid: Features, runtime: Runtime
) -> list[tuple[int, dict[str, Predictions]]]:
    """Predict valid after training on nested shares of train, choices included; the last point is all of train."""
    points: list[tuple[int, dict[str, Predictions]]] = []
    order = _nested_order(train, runtime.stream("curve"))
    budget = runtime.budget
    smaller = replace(budget, trials=max(1, budget.trials // 4), seconds=budget.seconds / 4)
    shares = budget.curve_shares
    singles = {member.name: member for c in candidates for member in c.members or (c,)}
    for done, share in enumerate(shares):
        rows = np.sort(order[: max(2, round(share * len(train)))])
        fitted: dict[str, Adapted[Model]] = {}
        for name, candidate in singles.items():  # once each, however many blends they are members of
            runtime.watch("learning curve", done / len(shares), f"{name} on {len(rows):,} rows")
            rng = runtime.stream("adapt", name)
            fitted[name] = candidate.origin.adapt(train.take(rows), valid, candidate.how, rng, smaller)
        on_valid = {name: _on_valid(adapted, rows, valid) for name, adapted in fitted.items()}
        for c in candidates:
            if c.members:
                parts = [Part(m.name, fitted[m.name], on_valid[m.name]) for m in c.members]
                on_valid[c.name] = mix(c.how, parts, valid, runtime.stream("blend")).predict_valid(valid)
        points.append((len(rows), {c.name: on_valid[c.name] for c in candidates}))
    runtime.watch("learning curve", 1.0, "")
    return [*points, (len(train), {c.name: c.valid for c in candidates})]


def _on_valid(adapted: Adapted[Model], rows: npt.NDArray[np.int64], valid: Features) -> Predictions:
    """Predict valid; if it is train itself (inner folds), ``rows`` of it were learned from and are predicted out of fold."""
    if not isinstance(adapted.model, Bagged):
        return adapted.predict_valid(valid)
    predicted = adapted.model.predict(valid)
    predicted[rows] = adapted.predict_valid(valid.take(rows))
    return predicted


def _nested_order(train: Features, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Order rows at random, a row of each class first, so that every share has every class."""
    order = rng.permutation(len(train))
    if train.layout.task == "regression":
        return order
    _, first = np.unique(train.labels[order], return_index=True)
    return np.concatenate([order[first], np.delete(order, first)])
