"""The table ``[censoring]`` of a recipe: the outcome is whether an event comes by a horizon, and follow-up may end before."""

from __future__ import annotations

from pydantic import Field as Key

from tabkit.strict import Strict


class Censoring(Strict):
    """Follow-up that may end before the outcome is known. It makes the target: ``yes`` if the event comes by ``horizon``.

    A row whose follow-up ended before the horizon without the event has no label. The others stand for it: each weighs
    1 / (the chance of not being lost by then), see :func:`tabkit.data.censoring.censoring_weights`.

    ``time`` is the column of the follow-up, ``horizon`` a number in its unit, and ``event`` a Polars SQL condition that
    tells whether it ended with the event: ``status = 1``, or a column that is true or false.
    """

    time: str
    event: str
    horizon: float = Key(gt=0, allow_inf_nan=False)

    @property
    def outcome(self) -> str:
        """Polars SQL that makes the target: ``yes``, ``no``, or NULL if it is not known."""
        time = '"' + self.time.replace('"', '""') + '"'
        return (
            f"CASE WHEN ({self.event}) AND {time} <= {self.horizon!r} THEN 'yes' "
            f"WHEN ({self.event}) IS NOT NULL AND {time} >= {self.horizon!r} THEN 'no' ELSE NULL END"
        )
