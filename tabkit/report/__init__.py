"""What people see of a run: its report in one self-contained page, its model card, its summary; runs side by side.

Nothing here loads a model or computes a score that the harness did not: curves are drawn from stored predictions.
"""

from __future__ import annotations

from tabkit.report.card import card
from tabkit.report.notebook import summary_html
from tabkit.report.page import write_report
from tabkit.report.scorecard import scorecard_table
from tabkit.report.sidebyside import Comparison, RunRow, compare_runs

__all__ = ["Comparison", "RunRow", "card", "compare_runs", "scorecard_table", "summary_html", "write_report"]
