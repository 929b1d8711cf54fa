"""The report of a run: one self-contained page from ``result.json`` and the holdout's predictions; runs side by side.

Nothing here loads a model or computes a score that the harness did not: curves are drawn from stored predictions.
"""

from __future__ import annotations

from tabkit.report.page import write_report
from tabkit.report.read import read_result, result_schema
from tabkit.report.sidebyside import Comparison, Run, compare_runs

compare = compare_runs
"""The name by which ``tabkit.compare`` finds it."""

__all__ = ["Comparison", "Run", "compare", "compare_runs", "read_result", "result_schema", "write_report"]
