"""Pretraining of the shipped bases, resumable and reproducible: ``tabkit pretrain icl``."""

from tabkit.pretrain.loop import Plan, pretrain_icl

__all__ = ["Plan", "pretrain_icl"]
