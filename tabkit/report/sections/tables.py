"""What only predictions of a table have: a closer look at the holdout, importance of columns, their worth."""

from __future__ import annotations

import numpy as np
import polars as pl

from tabkit.data.encode import as_text
from tabkit.errors import count
from tabkit.report import class_charts, diagnose, numbers, rows, value_charts
from tabkit.report.numbers import number, share
from tabkit.report.pieces import Cell, Figure, Grid, Piece, Row, Section, Table, Terms, stacked
from tabkit.report.reading import Reading
from tabkit.report.svg import aside
from tabkit.result import Interval, TableResult, Value


def look(reading: Reading) -> Section | None:
    """Return how the champion does on the holdout, in terms of the task."""
    result, frame = reading.result, reading.predictions
    if not isinstance(result, TableResult):
        return None
    figures: list[Figure | None] = []
    table: Table | None = None
    sentence = "How the champion does on the holdout."
    if frame is None:
        sentence = "The holdout's predictions are no longer in the run folder, so curves cannot be drawn."
    elif result.positive is not None:
        figures = [make(reading, frame, result.positive) for make in (class_charts.roc, class_charts.precision_recall)]
        sentence = _detection(reading, result, frame, result.positive) or sentence
    elif result.task == "regression" and result.champion in frame.columns and frame.height:
        figures = list(_regression_figures(reading, result, frame))
        sentence = _typical_error(reading, result, frame)
    elif result.task == "multiclass" and (matrix := diagnose.confusion(frame, result.champion, result.classes)):
        table = _confusion_table(reading, matrix)
        sentence = _hardest_class(reading, matrix) or sentence
    if result.positive is not None:
        figures.append(class_charts.reliability(reading, result.positive))
    drawn = tuple(figure for figure in figures if figure)
    pieces: list[Piece] = [Grid(drawn)] if drawn else []
    pieces += [table] if table else []
    if result.weighted and pieces and result.positive is None:
        pieces.append(aside("Rows are counted here, whatever they weigh."))
    return Section("look", "Holdout", "A closer look at the holdout", sentence, tuple(pieces))


def _detection(reading: Reading, result: TableResult, frame: pl.DataFrame, positive: str) -> str:
    """Say how many of the positive class the champion finds."""
    if result.champion not in frame.columns:
        return ""
    found = (as_text(frame["target"]) == positive).to_numpy()
    curve = diagnose.roc(found, frame[result.champion].to_numpy(), diagnose.weights_of(frame))
    if curve is None:
        return ""
    hits = float(diagnose.at_grid(curve, np.array([0.1]))[0])
    negative = next((c for c in result.classes if c != positive), "others")
    calibration = reading.champion.calibration
    tail = f"; its probabilities are off by {share(calibration.ece)} on average." if calibration else "."
    return (
        f"If one in ten of the '{negative}' may be flagged wrongly, {reading.champion.title} finds {share(hits)} of the "
        f"'{positive}'{tail}"
    )


def _hardest_class(reading: Reading, matrix: diagnose.Confusion) -> str:
    if not matrix.counts.sum():
        return ""
    right = float(np.trace(matrix.counts) / matrix.counts.sum())
    low, hardest = min((v, c) for c, v in zip(matrix.classes, matrix.recall(), strict=True) if v is not None)
    return (
        f"{reading.champion.title} names the right class for {share(right)} of the holdout; "
        f"'{hardest}' is the hardest, found in {share(low)} of its rows."
    )


def _typical_error(reading: Reading, result: TableResult, frame: pl.DataFrame) -> str:
    error = np.abs((frame["target"] - frame[result.champion]).to_numpy())
    unit = f" {reading.metric.unit}" if reading.metric.unit else ""
    cover = result.interval_coverage
    tail = f"; its 90% intervals held the truth for {share(cover)} of holdout rows." if cover is not None else "."
    return (
        f"Half of {reading.champion.title}'s predictions are within {number(float(np.median(error)))}{unit} "
        f"of the truth{tail}"
    )


def _regression_figures(reading: Reading, result: TableResult, frame: pl.DataFrame) -> tuple[Figure, ...]:
    unit = result.metrics["rmse"].unit if "rmse" in result.metrics else ""
    observed, predicted = frame["target"].to_numpy(), frame[result.champion].to_numpy()
    pairs = value_charts.Residuals(reading.champion.title, unit, observed, predicted)
    return (
        value_charts.predicted_observed(pairs),
        value_charts.residuals_predicted(pairs, result.prediction_interval),
        value_charts.residuals(pairs),
    )


def _confusion_table(reading: Reading, matrix: diagnose.Confusion) -> Table:
    body = []
    ends = zip(matrix.classes, matrix.counts.tolist(), matrix.recall(), matrix.precision(), matrix.auc, strict=True)
    for i, (name, counts, recall, precision, auc) in enumerate(ends):
        total = sum(counts)
        cells = (
            Cell(
                f"{n:,}",
                css="heat right" if i == j else "heat",
                style=f"--part:{round(100 * n / total) if total else 0}%",
            )
            for j, n in enumerate(counts)
        )
        body.append(Row(name, (*cells, f"{total:,}", share(recall), share(precision), numbers.fixed(auc, 3))))
    caption = (
        f"{reading.champion.title}: observed classes in rows, predicted ones in columns; shading is the share of the row; "
        "a class's ROC AUC is against all others"
    )
    columns = ("Observed", *matrix.classes, "Rows", "Recall", "Precision", "ROC AUC")
    return Table.of("Confusion matrix", columns, body, caption, css="confusion")


def importance(reading: Reading) -> Section | None:
    """Return what the champion leans on."""
    result = reading.result
    if not isinstance(result, TableResult):
        return None
    title = "What the model looks at"
    block = result.importance
    if block is None or not block.columns:
        return Section("importance", "Columns", title, "No column's importance was measured.")
    name, first, n = reading.title(block.candidate), block.columns[0], len(block.columns)
    matter = sum(c.low > 0 for c in block.columns)
    decimals = numbers.decimals_for([Interval(first.drop, first.low, first.high)])
    sentence = f"No single column of {n} matters beyond chance to {name}."
    if matter:
        sentence = (
            f"{name} leans most on ‘{reading.column(first.name)}’: shuffled, {name} {reading.change(-first.drop, decimals)}. "
            f"{matter} of {count(n, 'column')} matter beyond chance."
        )
    return Section("importance", "Columns", title, sentence, (rows.importance(reading, block),))


def money(reading: Reading) -> Section | None:
    """Return what predictions are worth; None if the recipe says nothing of it."""
    value = reading.result.value
    if value is None:
        return None
    pieces: list[Piece] = [Terms(_money_terms(reading, value)), _money_table(reading, value)]
    if value.assumptions:
        pieces.append(aside(f"Assumed: {value.assumptions}"))
    return Section("money", "Money", "What it is worth", _worth(reading, value), tuple(pieces))


def _worth(reading: Reading, v: Value) -> str:
    """Say what the adapted candidate changes, or what the baseline earns."""
    name, per = reading.title(v.gain.candidate), f"per {v.per:,} decisions"
    if v.gain.candidate == v.gain.against:
        return numbers.typographic(v.sentence)
    gain = numbers.amount(Interval(v.gain.value, v.gain.low, v.gain.high), v.unit, sign=True)
    shown = "worth it" if v.worth_it else "not shown to be worth it"
    return (
        f"{name} changes the result by {gain} {per} against {reading.title(v.gain.against)}, at "
        f"{numbers.money(v.adapt_cost, v.unit)} of computing to adapt: {shown}."
    )


def _money_terms(reading: Reading, v: Value) -> tuple[tuple[str, str], ...]:
    names = f"{reading.title(v.gain.candidate)} over {reading.title(v.gain.against)}"
    decided = f"{numbers.whole(v.decisions_per_year)} decisions" if v.decisions_per_year else "a year's decisions"
    gain = Interval(v.gain.value, v.gain.low, v.gain.high)
    return (
        (f"Gain of {names}, per {v.per:,}", numbers.amount(gain, v.unit, sign=True)),
        ("Computing to adapt, once", numbers.money(v.adapt_cost, v.unit)),
        ("Computing to score 1,000 records", numbers.money(v.score_cost_per_1000, v.unit)),
        (f"Net gain a year, {decided}", numbers.money(v.net_gain_per_year, v.unit, sign=True)),
        ("Worth it, even at the low end", "yes" if v.worth_it else "not shown"),
    )


def _money_table(reading: Reading, v: Value) -> Table:
    acted = any(c.acted_share is not None for c in v.candidates)
    columns = ["Candidate", "Value"]
    if acted:
        columns += ["Acted on", f"Threshold, from {'all rows' if reading.result.split.folds > 1 else 'valid'}"]
    body = []
    for c in v.candidates:
        cells: list[Cell | str] = [stacked(numbers.amount(Interval(c.value, c.low, c.high), v.unit))]
        if acted:
            own = v.threshold if c.threshold is None else c.threshold
            cells += [share(c.acted_share), number(own)]
        body.append(Row(reading.title(c.name), tuple(cells)))
    act = f"; to act is to {v.action}" if v.action else ""
    caption = f"{v.unit} per {numbers.whole(v.per)} decisions on the holdout, with 95% intervals{act}"
    return Table.of("Value by candidate", columns, body, caption)
