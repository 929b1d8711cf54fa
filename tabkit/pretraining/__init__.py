"""Pretraining of the shipped bases, and continuing them on a domain; resumable, reproducible: ``tabkit pretrain icl``."""

from tabkit.pretraining.bases import Pretrained, pretrain
from tabkit.pretraining.continuation import Continuation, Continued, continue_icl
from tabkit.pretraining.loop import Stint, pretrain_icl
from tabkit.pretraining.schedule import Schedule

__all__ = [
    "Continuation",
    "Continued",
    "Pretrained",
    "Schedule",
    "Stint",
    "continue_icl",
    "pretrain",
    "pretrain_icl",
]
