"""Make every candidate: pretrain the bases, adapt them each way the recipe asks, fit the baselines.

Nothing here ever sees a holdout row, or a day of the holdout window: what is handed in does not hold them. The
strategies themselves live with the models and rankers.
"""

from tabkit.adapt.runtime import Runtime, Wanted, Watch

__all__ = ["Runtime", "Wanted", "Watch"]
