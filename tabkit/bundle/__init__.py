"""A bundle: the champion in a folder that answers new rows anywhere. No pickle; every file with its hash."""

from tabkit.bundle.bundles import (
    BASES,
    CHUNK_ROWS,
    Bundle,
    Contents,
    Missing,
    Scores,
    TableBundle,
    count_rows,
    save_bundle,
    saving_ranker,
    with_integers,
)
from tabkit.bundle.lists import ListBundle, Wishes
from tabkit.bundle.loading import load_bundle
from tabkit.bundle.manifest import MANIFEST, SEAL, Manifest, verify

__all__ = [
    "BASES",
    "CHUNK_ROWS",
    "MANIFEST",
    "SEAL",
    "Bundle",
    "Contents",
    "ListBundle",
    "Manifest",
    "Missing",
    "Scores",
    "TableBundle",
    "Wishes",
    "count_rows",
    "load_bundle",
    "save_bundle",
    "saving_ranker",
    "verify",
    "with_integers",
]
