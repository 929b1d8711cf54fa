"""The wheel: built, installed alone, it lists and shows every recipe and holds nothing it should not."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tabkit.shipped import recipe_names

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True, capture_output=True
    )
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_code_recipes_and_schemas_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    endings = {Path(n).suffix for n in names if ".dist-info/" not in n}
    assert endings <= {".py", ".toml", ".md", ".json", ".html", ".css", ".j2", ".typed", ".safetensors", ".jsonl"}, (
        endings
    )
    assert all(n.startswith(("tabkit/", "tabkit_ml-")) for n in names)
    for name in recipe_names():
        assert f"tabkit/domains/{name}.toml" in names
    assert wheel.stat().st_size < 20_000_000


def test_installed_alone_it_lists_every_recipe(wheel: Path, tmp_path: Path) -> None:
    # The dependencies come from this environment, the package from the wheel alone, far from the checkout.
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)],
        check=True,
    )
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import tabkit, pathlib\n"
        f"assert pathlib.Path(tabkit.__file__).is_relative_to({str(site)!r}), tabkit.__file__\n"
        "from tabkit.cli import main\n"
        "sys.argv = ['tabkit', *sys.argv[1:]]\n"
        "main()"
    )

    def tabkit(*words: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = tabkit("list", "recipes")
    for name in recipe_names():
        assert name in listed
        assert name in tabkit("show", name)
