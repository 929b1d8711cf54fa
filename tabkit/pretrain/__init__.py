"""Pretraining of the shipped bases, and continuing them on a domain; resumable, reproducible: ``tabkit pretrain icl``."""

from tabkit.pretrain.continuation import Continuation, Continued, continue_icl
from tabkit.pretrain.loop import Plan, pretrain_icl

__all__ = ["Continuation", "Continued", "Plan", "continue_icl", "pretrain_icl"]
