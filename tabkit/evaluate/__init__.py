"""The one harness: every candidate on the same rows, with the same resamples, measured the same way.

Nothing here trains a candidate; what is fitted here (a two-sample classifier, a calibration line) measures.
"""
