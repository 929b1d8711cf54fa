"""Weights for rows whose follow-up may end before the outcome is known: inverse probability of censoring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import CensoredData, ecdf

from tabkit.errors import DataError

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def censoring_weights(time: Floats, event: Flags, horizon: float, train: Flags) -> Floats:
    """Return the weight of each row (n_rows,) for the question whether the event comes by ``horizon``.

    A row censored before the horizon has no answer and weighs 0. Any other weighs 1 / G(min(time, horizon)-): G is the
    Kaplan-Meier estimate of staying uncensored, so that a row stands for those like it that were lost before. Over the
    train rows, the weighted share with the event is the Kaplan-Meier risk at the horizon. It holds where censoring does
    not depend on the outcome. Sources: Robins & Finkelstein, Biometrics 2000; Vock et al., J. Biomed. Inform. 2016.

    Parameters
    ----------
    time, event
        Follow-up (n_rows,), in the unit of ``horizon``, and whether it ended with the event rather than by censoring.
    train
        Rows (n_rows,) that G is estimated on.

    Raises
    ------
    DataError
        A follow-up is missing, infinite or negative, or no train row is followed as long as a row that needs a weight.
    """
    wrong = ~(np.isfinite(time) & (time >= 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"The follow-up time of row {row} is {time[row]:g}. Expected a finite number from 0 on; correct it."
        )
    if not train.any():
        raise DataError("There are no train rows to estimate censoring on. Expected at least one; check the split.")
    moments = np.unique(time)
    # Whole steps in place of times: at one moment events come first, so that they are not at risk of its censoring.
    step = 2 * np.searchsorted(moments, time) + ~event
    stays = ecdf(CensoredData.right_censored(step[train], event[train])).sf
    asked = np.minimum(time, horizon)
    kept = stays.evaluate(2 * np.searchsorted(moments, asked) - 1)
    known = event | (time >= horizon)
    if (known & (kept <= 0)).any():
        raise DataError(
            f"No train row is followed to {asked[known & (kept <= 0)].min():g}, though the horizon is {horizon:g}. "
            "Expected train rows followed as long; take a shorter horizon."
        )
    return np.where(known, 1 / np.where(known, kept, 1.0), 0.0)
