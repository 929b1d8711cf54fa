"""From a recipe and data to a run folder: one spine, two arms."""

from tabkit.workflow.options import ListOptions, TableOptions
from tabkit.workflow.run import Run, check, run

__all__ = ["ListOptions", "Run", "TableOptions", "check", "run"]
