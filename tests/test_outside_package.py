"""A package outside tabkit adds a model, a ranker, a check and a metric, and a run uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import signal_table, write_recipe

LEARNERS = '''
import json
import numpy as np
from tabkit.learner import Adapted, Block, Proof
from tabkit.models.base import Model
from tabkit.rankers.base import Ranker


class Line(Model):
    """A logistic curve of the first column: flat as it is, as steep as the column correlates once adapted."""

    title = "Line"
    hows = {"as_is": "base", "full": "adapted"}
    tasks = frozenset({"binary"})

    def __init__(self, slope=0.0):
        self.slope = slope

    @classmethod
    def pretrain(cls, source, rows, rng, budget):
        return cls()

    def adapt(self, train, valid, how, rng, budget, settings=None):
        trained = int(how == "full")
        slope = float(np.corrcoef(train.x_num[:, 0], train.y)[0, 1]) if trained else 0.0
        block = Block("slope", 1, trained, abs(slope))
        return Adapted(Line(slope), how, Proof((block,)))

    def predict(self, features):
        p = 1 / (1 + np.exp(-3 * self.slope * features.x_num[:, 0].astype(np.float64)))
        return np.column_stack([1 - p, p])

    def save(self, folder):
        (folder / "line.json").write_text(json.dumps(self.slope))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "line.json").read_text()))


class Nothing(Ranker):
    """Scores every item alike."""

    title = "Nothing"
    hows = {"scratch": "baseline"}

    def adapt(self, past, judge, how, rng, budget, settings=None):
        self.past = past
        return Adapted(self, how, Proof((Block("nothing", 1, 1, 0.0),)))

    def scores(self, users):
        return np.zeros((len(users), self.past.n_items), np.float32)

    def save(self, folder): ...

    @classmethod
    def load(cls, folder, past):
        return cls()
'''
JUDGING = """
import numpy as np
from tabkit.evaluate.checks import TableCheck
from tabkit.evaluate.metrics import Metric

at_half = Metric(
    "Share called yes", lambda case: case.w @ (case.p[:, 1] > 0.5) / case.w.sum(axis=1),
    greater_is_better=True, tasks=frozenset({"binary"}), within=(0.0, 1.0),
)


class Friday(TableCheck):
    code = "friday"
    title = "Rows of a Friday"
    severity = "info"
    question = "Is there any row?"

    def find(self, evidence):
        return "pass", f"{len(evidence.holdout)} rows were held out."


class Clash(Friday):
    code = "overfit"
"""
FITTING = {"models": "line = learners:Line", "rankers": "nothing = learners:Nothing"} | {
    "checks": "friday = judging:Friday",
    "metrics": "called_yes = judging:at_half",
}


@pytest.fixture
def install(tmp_path: Path):
    """Return what installs the package of this text with some entry points, and its folder."""

    def installed(points: dict[str, str]) -> Path:
        place = tmp_path / "site"
        info = place / "almanac-1.0.dist-info"
        info.mkdir(parents=True)
        files = {
            place / "almanac" / "__init__.py": "",
            place / "almanac" / "learners.py": LEARNERS,
            place / "almanac" / "judging.py": JUDGING,
            info / "METADATA": "Metadata-Version: 2.1\nName: almanac\nVersion: 1.0\n",
            info / "entry_points.txt": "".join(
                f"[tabkit.{group}]\n{point.replace('= ', '= almanac.')}\n" for group, point in points.items()
            ),
        }
        (place / "almanac").mkdir()
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        return place

    return installed


def tabkit(*arguments: str | Path, site: Path, code: int = 0) -> str:
    """Run the command line with the package installed; return what it printed, or said if it ended otherwise."""
    paths = os.pathsep.join([str(site), str(Path(__file__).resolve().parent.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "tabkit", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_an_outside_package_takes_part_in_a_run(install, tmp_path: Path) -> None:
    site, folder = install(FITTING), tmp_path / "run"
    models = {row["model"]: row for row in json.loads(tabkit("list", "models", "--json", site=site))}
    assert models["line"]["how (kind)"] == "as_is (base), full (adapted)"
    assert models["nothing"]["title"] == "Nothing (ranking)"
    assert "called_yes" in tabkit("list", "metrics", site=site)
    assert "Rows of a Friday" in tabkit("list", "checks", site=site)

    table = signal_table(240)
    table.write_parquet(tmp_path / "data.parquet")
    recipe = write_recipe(
        tmp_path,
        table,
        'task = "binary"\ntarget = "y"\npositive = "yes"\n[metrics]\nprimary = "roc_auc"\nreport = ["called_yes"]\n'
        '[candidates]\nwithout = ["catboost", "blend"]\n[candidates.adapt]\nline = ["full"]\n',
    )
    tabkit("run", recipe, "--data", tmp_path / "data.parquet", "--budget", "quick", "--out", folder, site=site)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    line = next(c for c in result["candidates"] if c["name"] == "line_full")
    assert line["kind"] == "adapted" and line["refused"] is None and line["trained_parameters"] == 1
    assert 0 < line["scores"]["holdout"]["called_yes"]["value"] < 1
    assert result["metrics"]["called_yes"]["title"] == "Share called yes"
    assert result["chosen"]["adapted"] == "line_full" and result["chosen"]["base"] == "line_as_is"
    assert next(c for c in result["checks"] if c["code"] == "friday")["outcome"] == "pass"
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "Line (all weights)" in report and "Rows of a Friday" in report


@pytest.mark.parametrize(
    ("group", "point", "verb", "words"),
    [
        ("models", "lgbm = learners:Line", "models", "Two models are named 'lgbm': tabkit.models.lgbm, and almanac.learners:Line"),
        ("rankers", "als = learners:Nothing", "models", "Two rankers are named 'als': tabkit.rankers.als, and almanac.learners:Nothing"),
        ("metrics", "rmse = judging:at_half", "metrics", "Two metrics are named 'rmse': tabkit's own, and almanac.judging:at_half"),
        ("checks", "mine = judging:Clash", "checks", "Two checks are named 'overfit': tabkit.evaluate.checks.tables.Overfit, and almanac.judging:Clash"),
    ],
)  # fmt: skip
def test_a_name_that_tabkit_has_taken_is_refused(install, group: str, point: str, verb: str, words: str) -> None:
    said = tabkit("list", verb, site=install({group: point}), code=2)
    whose = ", an entry point of the package 'almanac'; rename one, or uninstall its package."
    assert said.strip() == f"tabkit: {words}{whose}"
