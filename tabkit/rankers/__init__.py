"""Rankers: models that list items for users. One file each; strangers to each other, but for base.py."""
