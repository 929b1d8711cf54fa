"""What models and rankers share, and what the rest of tabkit knows of them."""

from tabkit.learner.base import (
    Adapted,
    Candidate,
    Learner,
    Predictions,
    Settings,
    candidate_name,
    candidate_parts,
    check_without,
    in_order,
)
from tabkit.learner.budget import BUDGETS, Budget, Device, Effort, budget_of, n_threads
from tabkit.learner.discovery import discover, named
from tabkit.learner.strategies import STRATEGIES, Strategy
from tabkit.result.facts import Block, Cost, Kind, Proof, Step, Task, Weights

__all__ = [
    "BUDGETS",
    "STRATEGIES",
    "Adapted",
    "Block",
    "Budget",
    "Candidate",
    "Cost",
    "Device",
    "Effort",
    "Kind",
    "Learner",
    "Predictions",
    "Proof",
    "Settings",
    "Step",
    "Strategy",
    "Task",
    "Weights",
    "budget_of",
    "candidate_name",
    "candidate_parts",
    "check_without",
    "discover",
    "in_order",
    "n_threads",
    "named",
]
