"""A student: LightGBM that learns a candidate's answers, never the labels."""

from __future__ import annotations

from dataclasses import replace

from tabkit.adapt.runtime import Wanted, measured
from tabkit.adapt.tables import Origins
from tabkit.data.encode import Features
from tabkit.errors import count
from tabkit.learner import Budget
from tabkit.models.base import Model, TableCandidate, model_class
from tabkit.seed import stream

STUDENT = Wanted("lgbm", "student", "student")


def teach(
    teacher: TableCandidate, rows: tuple[Features, Features, Features | None], origins: Origins
) -> TableCandidate:
    """Distil a candidate into LightGBM.

    The teacher answers train rows context-safe, as it would answer new ones; its answers of valid stop the growing.

    Parameters
    ----------
    rows
        Train, valid, and those without a label.
    """
    train, valid, unlabelled = rows
    runtime = origins.runtime
    answers = _answers(teacher.adapted.model, train.with_y(teacher.train), unlabelled)
    origin = origins.scaled(model_class(STUDENT.base)())
    rng = runtime.stream("adapt", STUDENT.name)
    with measured() as cost:
        adapted = origin.adapt(answers, valid.with_y(teacher.valid), STUDENT.how, rng, runtime.budget_of(STUDENT.name))
    notes = (*adapted.notes, f"learned the answers of {teacher.name} on {count(len(answers), 'row')}")
    return TableCandidate(
        STUDENT.name,
        STUDENT.base,
        STUDENT.how,
        STUDENT.kind,
        origin,
        replace(adapted, notes=notes),
        cost[0],
        adapted.model.predict(train),
        adapted.model.predict(valid),
    )


def teach_again(
    student: TableCandidate, teacher: Model, rows: tuple[Features, Features | None], seed: int, budget: Budget
) -> Model:
    """Distil a teacher that was trained on labelled rows into a student of the size found before.

    Parameters
    ----------
    rows
        Labelled rows, and those without a label.
    """
    labelled, unlabelled = rows
    answers = _answers(teacher, labelled.with_y(teacher.predict_train(labelled)), unlabelled)
    rng = stream(seed, "adapt", student.name)
    return student.origin.adapt(answers, None, student.how, rng, budget, student.adapted.settings).model


def _answers(teacher: Model, rows: Features, unlabelled: Features | None) -> Features:
    return rows if unlabelled is None else rows.stack(unlabelled.with_y(teacher.predict(unlabelled)))
