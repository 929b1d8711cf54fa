"""Checks of a run: each is one class in one file of this package, or comes from an outside package."""

from tabkit.evaluate.checks.base import Check, Evidence, Finding, ListCheck, ListEvidence, TableCheck, TableEvidence
from tabkit.evaluate.checks.discovery import AnyCheck, all_checks, run_checks
from tabkit.evaluate.checks.shift import column_psi, two_sample_auc
from tabkit.evaluate.checks.tables import LEAST_DAYS, MIN_GROUP_ROWS, few_cases, sensitive_groups

__all__ = [
    "LEAST_DAYS",
    "MIN_GROUP_ROWS",
    "AnyCheck",
    "Check",
    "Evidence",
    "Finding",
    "ListCheck",
    "ListEvidence",
    "TableCheck",
    "TableEvidence",
    "all_checks",
    "column_psi",
    "few_cases",
    "run_checks",
    "sensitive_groups",
    "two_sample_auc",
]
