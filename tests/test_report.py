"""The report: it shows what is in the run folder, all of it literally, in one file that needs nothing else."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest
from run_folders import CLASSES, NASTY, TASKS, interval_of, make_lists, make_predictions, make_result, typed

from tabkit.errors import UsageError
from tabkit.recipe import Plan, load_recipe
from tabkit.report import card, compare_runs, diagnose, numbers, scorecard_table, summary_html, write_report
from tabkit.report.page import render
from tabkit.report.sections import SECTIONS
from tabkit.report.tried import all_tried, like
from tabkit.result import Interval, read_result, result_schema, to_json, write_result
from tabkit.result.document import SCHEMA, schema_text


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(task: str = "binary", full: bool = True, **changes: Any) -> Path:
        folder = tmp_path / f"{task}-{full}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        result = make_result(task, full=full) | changes
        (folder / "result.json").write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        make_predictions(result).write_parquet(folder / "holdout_predictions.parquet")
        return folder

    return make


def check_against_schema(folder: Path) -> None:
    jsonschema.Draft202012Validator(result_schema()).validate(json.loads(to_json(read_result(folder))))


class Page(HTMLParser):
    """What the tests look at: elements with attributes, and figures with what is inside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[set[str]] = []
        self.inside = False
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "figure":
            self.inside = True
            self.figures.append(set())
        elif self.inside:
            self.figures[-1].add(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "figure"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("task", TASKS)
def test_report_of_every_task_is_complete_and_self_contained(
    task: str, full: bool, run_folder: Callable[..., Path]
) -> None:
    folder = run_folder(task, full)
    check_against_schema(folder)
    path = write_report(folder)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert path == folder / "report.html"
    assert len(html.encode()) < 300_000
    assert sorted(p.name for p in folder.iterdir()) == ["holdout_predictions.parquet", "report.html", "result.json"]

    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "img", "base", "form"}
    policy = [a for tag, a in page.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert [p["content"] for p in policy] == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert all((attributes.get(name) or "#").startswith("#") for name in ("href", "src", "xlink:href"))
    assert not re.search(r"@import|url\(", html)

    assert page.figures and all({"svg", "title", "desc", "details", "table"} <= inside for inside in page.figures)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, a in page.elements:
        if tag == "svg":
            assert a["role"] == "img" and set((a["aria-labelledby"] or "").split()) <= set(ids)
    regions = [a["aria-label"] for _, a in page.elements if a.get("role") == "region"]
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert len({*regions, *headings}) == len(regions) + len(headings), "whoever hears the page tells them by name"
    assert not re.search(r"\b(nan|None|inf|Undefined)\b", " ".join(page.words))
    assert not re.search(r"(?<![\d.,])[-−+]?0\.0+(?![\d.])", " ".join(page.words))


def test_sections_follow_the_order_a_reader_needs(run_folder: Callable[..., Path]) -> None:
    html = write_report(run_folder()).read_text(encoding="utf-8")
    sections = re.findall(r'<section id="(\w+)"', html)
    assert sections == [
        "verdict",
        "gain",
        "money",
        "look",
        "checks",
        "candidates",
        "gaps",
        "importance",
        "slices",
        "others",
        "learning",
        "cost",
        "proof",
        "data",
        "words",
    ]
    assert html.index('class="sentence"') < html.index('class="reason"') < html.index('id="gain"')
    failed, passed = html.index("Number 0:"), html.index("Number 2:")
    assert html.index('id="checks"') < failed < passed < html.index("Number 4:")


def test_all_text_from_data_is_shown_literally(run_folder: Callable[..., Path]) -> None:
    result = make_result("binary")
    for c in result["candidates"]:
        c["title"] += NASTY
        c["notes"], c["settings"] = [NASTY], {NASTY: NASTY}
        for h in c["history"]:
            h["stage"] += NASTY
    result["candidates"][4]["refused"] = NASTY
    html = write_report(
        run_folder(
            "binary",
            candidates=result["candidates"],
            title=NASTY,
            question=NASTY,
            command=NASTY,
            row=NASTY,
            target=NASTY,
        )
    ).read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "link"} & {tag for tag, _ in page.elements}
    assert "49" not in re.findall(r"quoted&#34; (\S+)", html)
    assert "".join(page.words).count("<script>alert('x')</script>") > 30
    assert "<script" not in html


def test_class_and_column_names_are_escaped_in_pictures(run_folder: Callable[..., Path]) -> None:
    classes = ["<b>good", "<b>bad"]
    folder = run_folder("binary", classes=classes, positive=classes[1])
    html = write_report(folder).read_text(encoding="utf-8")
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.S)
    assert sum("&lt;b&gt;bad" in svg for svg in svgs) >= 3 and "<b>" not in html


def test_refused_candidates_are_shown_with_their_reason(run_folder: Callable[..., Path]) -> None:
    html = write_report(run_folder()).read_text(encoding="utf-8")
    row = re.search(r"<tr>\s*<th[^>]*>TabNet \(new head\).*?</tr>", html.replace("\n", " "))
    assert row and "Refused:" in row[0] and "blocks below the head moved" in row[0]


def test_small_numbers_are_not_shown_as_zero(run_folder: Callable[..., Path]) -> None:
    html = write_report(run_folder()).read_text(encoding="utf-8")
    assert "left ROC AUC about as it was against LightGBM (tuned)" in html
    assert "under 0.01 USD" in html and "× 10" not in html


def test_report_without_predictions_says_so(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    (folder / "holdout_predictions.parquet").unlink()
    html = write_report(folder).read_text(encoding="utf-8")
    assert "curves cannot be drawn" in html and "Candidates" in html


def test_undefined_scores_are_shown_as_missing(run_folder: Callable[..., Path]) -> None:
    result = make_result("binary")
    nothing = {"value": None, "low": None, "high": None}
    for c in result["candidates"][:2]:
        c["scores"]["holdout"]["roc_auc"] = nothing
        c["overfit_gap"] = c["excess_gap"] = c["selection_optimism"] = c["cost_per_million"] = None
    result["planned"]["against"][0] |= {"gain": None, "low": None, "high": None}
    result["slices"][0]["scores"] = {"lgbm_tuned": nothing}
    folder = run_folder(candidates=result["candidates"], planned=result["planned"], slices=result["slices"])
    check_against_schema(folder)
    assert "–" in write_report(folder).read_text(encoding="utf-8")


def test_an_interrupted_report_leaves_the_old_one(
    run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder()
    (folder / "report.html").write_text("old", encoding="utf-8")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == "old"
    assert not list(folder.glob(".report*"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no result.json"),
        ("{", "cannot be read as JSON"),
        ("[]", "expected the result"),
        ('{"format": 2, "tabkit": "9"}', "reads format 1"),
        ('{"format": 1}', "(task: "),
        ('{"format": 1, "task": "binary"}', "'candidates'"),
    ],
)
def test_a_broken_run_folder_is_told(content: str | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(told)):
        write_report(tmp_path)
    assert not list(tmp_path.glob("*report*"))


def test_what_is_no_folder_or_no_parquet_is_told(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_result(tmp_path / "nowhere")
    folder = run_folder()
    (folder / "holdout_predictions.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match="Parquet"):
        write_report(folder)


def test_compare_runs_side_by_side(run_folder: Callable[..., Path]) -> None:
    a, b = run_folder(), run_folder()
    same = compare_runs([a, b])
    assert same.warnings == () and [r.run for r in same.rows] == [str(a), str(b)]
    assert same.rows[0].holdout == pytest.approx(0.64) and same.rows[0].rows == 2396
    split = make_result("binary")["split"] | {"seed": 7}
    other = run_folder("regression", data_fingerprint="cd" * 32, split=split)
    told = " ".join(compare_runs([a, other]).warnings)
    assert all(word in told for word in ("primary metrics differ", "fingerprints", "splits differ", "different things"))
    with pytest.raises(UsageError, match="at least one"):
        compare_runs([])
    shutil.rmtree(b)
    with pytest.raises(UsageError, match="does not exist"):
        compare_runs([a, b])


def test_schema_refuses_what_is_not_documented() -> None:
    validator = jsonschema.Draft202012Validator(result_schema())
    result = json.loads(to_json(typed(make_result("binary"))))
    assert not list(validator.iter_errors(result))
    for change in ({"task": "clustering"}, {"champion": None}, {"rows": {}}, {"champions": []}):
        assert list(validator.iter_errors(result | change))
    broken = copy.deepcopy(result)
    del broken["candidates"][0]["proof"]
    broken["candidates"][1]["proof"][0]["moved"] = 1
    places = {e.json_path for error in validator.iter_errors(broken) for e in error.context}
    assert {"$.candidates[0]", "$.candidates[1].proof[0]"} <= places


def test_a_result_with_keys_of_another_version_is_read(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    result = json.loads((folder / "result.json").read_text())
    expected = read_result(folder)
    result["later"] = 1
    result["candidates"][0]["proof"][0]["later"] = 1
    (folder / "result.json").write_text(json.dumps(result))
    assert read_result(folder) == expected


def test_every_key_of_the_schema_is_described() -> None:
    """By itself; pydantic leaves out a description that says the same as that of what it refers to."""
    schema = result_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, record in schema["$defs"].items():
        for key, value in record["properties"].items():
            target = schema["$defs"].get(value.get("$ref", "").removeprefix("#/$defs/"), {})
            assert value.get("description") or target.get("description"), f"{name}.{key}"


def test_the_schema_file_is_made_from_the_models() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "write it again: python -m tabkit.result"


def test_curves_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    y = rng.random(4000) < 0.2
    score = np.round(rng.normal(size=4000) + y, 2)  # ties
    roc, pr = diagnose.roc(y, score), diagnose.precision_recall(y, score)
    assert (
        roc is not None and pr is not None and len(roc.x) <= diagnose.MOST_POINTS and len(pr.x) <= diagnose.MOST_POINTS
    )
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(metrics.roc_auc_score(y, score), abs=5e-4)
    precision, recall, _ = metrics.precision_recall_curve(y, score)
    theirs = {(round(float(r), 9), round(float(p), 9)) for p, r in zip(precision, recall, strict=True)}
    assert all((round(float(r), 9), round(float(p), 9)) in theirs for r, p in zip(pr.x, pr.y, strict=True))
    assert diagnose.roc(np.ones(5, dtype=bool), np.arange(5.0)) is None
    frame = make_predictions(make_result("multiclass"))
    matrix = diagnose.confusion(frame, "linear", CLASSES["multiclass"])
    guessed = np.array(CLASSES["multiclass"])[
        frame.select(f"linear:{c}" for c in CLASSES["multiclass"]).to_numpy().argmax(axis=1)
    ]
    assert matrix is not None
    assert (matrix.counts == metrics.confusion_matrix(frame["target"], guessed, labels=CLASSES["multiclass"])).all()
    assert matrix.recall() == pytest.approx(
        metrics.recall_score(frame["target"], guessed, labels=CLASSES["multiclass"], average=None)
    )
    for k, name in enumerate(CLASSES["multiclass"]):
        theirs = metrics.roc_auc_score(frame["target"] == name, frame[f"linear:{name}"])
        assert matrix.auc[k] == pytest.approx(theirs)


def test_a_multiclass_report_tells_each_class(run_folder: Callable[..., Path]) -> None:
    result = make_result("multiclass")
    html = write_report(run_folder("multiclass")).read_text(encoding="utf-8")
    matrix = diagnose.confusion(make_predictions(result), result["champion"], result["classes"])
    assert matrix is not None
    table = Page(re.search(r'<table class="confusion">.*?</table>', html, flags=re.S)[0])  # type: ignore[index]
    cells = [word.strip() for word in table.words if word.strip()]
    for k, name in enumerate(result["classes"]):
        recall, precision = (numbers.share(values[k]) for values in (matrix.recall(), matrix.precision()))
        row = [*(f"{n:,}" for n in matrix.counts[k]), f"{matrix.counts[k].sum():,}", recall, precision]
        start = cells.index(name, cells.index("ROC AUC"))
        assert cells[start + 1 : start + 1 + len(row) + 1] == [*row, numbers.fixed(matrix.auc[k], 3)]


def test_a_regression_report_tells_its_residuals_and_the_intervals_coverage(run_folder: Callable[..., Path]) -> None:
    result = make_result("regression")
    frame, champion = make_predictions(result), result["champion"]
    html = write_report(run_folder("regression")).read_text(encoding="utf-8")
    for title in ("Predicted and observed", "Residuals by prediction", "Residuals"):
        assert f"{title}: LightGBM (tuned)" in html
    error = (frame["target"] - frame[champion]).to_numpy()
    inside = np.abs(error) <= 9.5
    assert f"The 90% intervals (± 9.5 g/kg) held {numbers.share(inside.mean())} of 600 rows" in html
    lowest = np.argsort(frame[champion].to_numpy(), kind="stable")[:200]
    assert f": {numbers.share(inside[lowest].mean())} in the lowest third" in html
    assert f"Mean residual {numbers.signed(error[lowest].mean())} g/kg in the third of the lowest predictions" in html


def test_intervals_on_a_logarithm_widen_with_the_prediction(run_folder: Callable[..., Path]) -> None:
    frame = make_predictions(make_result("regression")).with_columns(pl.col("^lgbm.*$").abs() + 1)
    log = {"level": 0.9, "half_width": 0.5, "scale": "log"}
    folder = run_folder("regression", prediction_interval=log)
    frame.write_parquet(folder / "holdout_predictions.parquet")
    html = write_report(folder).read_text(encoding="utf-8")
    ratio = (frame["target"] / frame["lgbm_tuned"]).log().abs().to_numpy()
    assert "as wide on the logarithm for every row" in html
    assert f"held {numbers.share(float((ratio <= 0.5).mean()))} of 600 rows" in html


def test_a_regression_result_from_before_intervals_were_kept_is_read(run_folder: Callable[..., Path]) -> None:
    folder = run_folder("regression")
    text = json.loads((folder / "result.json").read_text())
    del text["prediction_interval"]
    (folder / "result.json").write_text(json.dumps(text))
    html = write_report(folder).read_text(encoding="utf-8")
    assert "Residuals by prediction" in html and "% intervals (" not in html


def test_a_column_has_the_decimals_of_its_narrowest_interval() -> None:
    wide, narrow = (Interval(**interval_of(0.7214, half)) for half in (0.06, 0.0031))
    assert numbers.decimals_for([wide]) == 3 and numbers.decimals_for([wide, narrow]) == 4
    assert numbers.interval(wide) == "0.721 [0.661, 0.781]"
    assert numbers.decimals_for([None, Interval(math.nan, math.nan, math.nan)]) == 3


def test_three_opponents_are_told_in_one_sentence(run_folder: Callable[..., Path]) -> None:
    """An adapted blend has to beat the blend of baselines too."""
    result = make_result("binary")
    third = {"name": "linear", "role": "the blend of baselines alone", "gain": 0.02, "low": 0.01, "high": 0.03}
    planned = {**result["planned"], "against": [*result["planned"]["against"], third]}
    html = write_report(run_folder(planned=planned)).read_text(encoding="utf-8")
    assert "about as it was against LightGBM (tuned) and gained 0.0200 ROC AUC against Linear;" in html
    assert "only 2 of the 3 gains are shown to be above the 0.005 that would matter" in html
    sure = [{**a, "low": 0.01} for a in planned["against"]]
    html = write_report(run_folder(planned={**planned, "against": sure})).read_text(encoding="utf-8")
    assert "all 3 gains are shown to be above" in html


def test_a_student_is_shown_apart_and_an_old_result_without_one_is_read(run_folder: Callable[..., Path]) -> None:
    result = make_result("binary")
    (tuned,) = [c for c in result["candidates"] if c["name"] == "lgbm_tuned"]
    student = {**tuned, "name": "lgbm_student", "how": "student", "kind": "student", "title": "LightGBM (student)"}
    told = {
        "candidate": "lgbm_student",
        "teacher": "lgbm_tuned",
        "unlabelled": 0,
        "agreement": 0.98,
        "mean_difference": 0.01,
        "r2": None,
        "speedup": 31.0,
        "gain": interval_of(-0.001, 0.002),
        "sentence": "The student decides as the champion does for 98.0% of holdout rows.",
    }
    folder = run_folder(candidates=[*result["candidates"], student], student=told)
    check_against_schema(folder)
    html = write_report(folder).read_text(encoding="utf-8")
    assert told["sentence"] in html and "1 student" in html
    old = run_folder()
    text = json.loads((old / "result.json").read_text())
    del text["student"]
    (old / "result.json").write_text(json.dumps(text))
    assert "student" not in write_report(old).read_text(encoding="utf-8").lower()


def test_a_report_of_lists_tells_lift_cutoffs_and_margin() -> None:
    page = Page(render(typed(make_lists()), None))
    text = " ".join(" ".join(page.words).split())
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert "lists" in sections and not {"look", "importance", "money"} & set(sections)
    assert "were 6% better than those of LightGBM (tuned); on the holdout 6% worse" in text
    assert text.index("2017-11-06 1,900") < text.index("2017-12-04 1,994")
    assert "Margin on them, at 25% of the price +0.11 USD [+0.08, +0.14]" in text
    assert "too few users for a score" in text and "1,994 users in the 28 days from 2017-12-04" in text


@pytest.mark.parametrize("content", [make_result("binary"), make_lists()], ids=["table", "lists"])
def test_each_section_shown_is_in_the_contents_and_only_once(content: dict[str, Any]) -> None:
    html = render(typed(content), None)
    anchors = re.findall(r'<a href="#(\w+)">', html.split("<nav")[1].split("</nav>")[0])
    assert anchors == re.findall(r'<section id="(\w+)"', html)[1:]
    assert len(set(anchors)) == len(anchors) < len(SECTIONS)


def loans() -> Plan:
    return load_recipe("finance/loan_default")


def test_a_card_of_a_table_says_what_it_is_for_and_where_it_fails() -> None:
    result = make_result("binary")
    weights = {"tabnet": {"source": "shipped", "sha256": "ab" * 32, "licence": "MIT"}}
    for c in result["candidates"]:
        c["weights"] = weights if c["base"] == "tabnet" else {}
    text = card(typed(result), loans(), "tabnet_gradual")
    headings = re.findall("^## (.*)$", text, flags=re.M)
    assert headings == ["Intended use", "Base", "Data", "Results", "Limits", "Biases", "How to repeat it"]
    assert text.startswith("# Loans: an example: TabNet, unfrozen step by step\n\nNot enough evidence")
    assert (
        "| metric | train | valid | holdout (95% interval) |\n|---|---|---|---|\n| ROC AUC | 0.78 [0.759, 0.801] |"
        in text
    )
    assert "- `tabnet`: weights shipped with tabkit, sha256 `abab" in text and "all 2,396 labelled rows" in text
    assert "- Check 0: Number 0" in text and "Check 2" not in text
    assert "by slice:\n- <script>" in text and "addr_state" in text
    assert "## Base" not in card(typed(result), loans(), "lgbm_tuned")


def test_a_card_of_lists_has_neither_train_scores_nor_biases() -> None:
    result = make_lists()
    result["candidates"][2]["scores"]["valid"]["roc_auc"] = {"value": None, "low": None, "high": None}
    text = card(typed(result), loans(), result["champion"])
    headings = re.findall("^## (.*)$", text, flags=re.M)
    assert headings == ["Intended use", "Data", "Results", "Limits", "How to repeat it"]
    assert "| metric | valid | holdout (95% interval) |\n|---|---|---|\n| ROC AUC | undefined | 0.64 [" in text
    assert "1,994 users were evaluated, who took 49.8 items each" in text


def test_a_card_of_a_student_names_its_teacher() -> None:
    result = make_result("binary")
    sentence = "The student decides as the champion does for 98.0% of holdout rows."
    facts = {
        "candidate": "linear",
        "teacher": "lgbm_tuned",
        "unlabelled": 0,
        "agreement": 0.98,
        "mean_difference": 0.01,
    }
    facts |= {"r2": None, "speedup": 31.0, "gain": interval_of(-0.001, 0.002), "sentence": sentence}
    told = f"the answers of lgbm_tuned, the champion, not the labels. {sentence}"
    assert told in card(typed(result | {"student": facts}), loans(), "linear")
    assert told not in card(typed(result | {"student": facts}), loans(), "lgbm_tuned")


def test_the_scorecard_holds_every_score_and_null_for_undefined_ones() -> None:
    result = make_result("binary")
    result["candidates"][0]["scores"]["train"]["brier"] = {"value": 0.1, "low": None, "high": None}
    table = scorecard_table(typed(result))
    assert table.height == 6 * 3 * 3 and table.columns[:6] == ["candidate", "base", "how", "kind", "part", "metric"]
    row = table.row(
        by_predicate=(pl.col("candidate") == "prior") & (pl.col("part") == "train") & (pl.col("metric") == "brier")
    )
    assert row[6:] == (0.1, None, None)


ELEMENTS = {"div", "p", "strong", "ul", "li", "table", "caption", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("content", [make_result("binary"), make_result("regression", full=False), make_lists()])
def test_a_summary_shows_verdict_gains_and_candidates_literally(content: dict[str, Any]) -> None:
    for c in content["candidates"]:
        c["title"] += NASTY
    html = summary_html(typed(content | {"title": NASTY}))
    page = Page(html)
    text = " ".join("".join(page.words).split())
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    assert all(name in ("class", "scope") for _, attributes in page.elements for name in attributes)
    assert "<script" not in html and "49" not in html and text.count("<script>alert('x')</script>") > 3
    assert text.count("(champion)") == 1 and re.search(
        r"LightGBM \(tuned\)<script>[^<]*</script>[^<]*\(champion\)", text
    )
    if content["planned"]:
        assert "against LightGBM (tuned)" in text and "(the best baseline on valid): ≈ 0 [−0.021" in text
        assert "TabNet (new head)" not in text, "a refused candidate has no scores"


def test_a_summary_puts_the_best_on_holdout_first() -> None:
    for task in ("binary", "regression"):
        html = summary_html(typed(make_result(task)))
        titles = [re.sub("<.*?>", "", t) for t in re.findall(r'<th scope="row">(.*?)</th>', html)]
        assert titles[0] == "TabNet (all layers)" and titles[-1] == "Prior" and "LightGBM (tuned) (champion)" in titles


def test_an_undefined_number_is_null_wherever_it_stands(tmp_path: Path) -> None:
    result = typed(make_result("binary"))
    first = result.candidates[1].model_copy(update={"overfit_gap": math.nan, "settings": {"pull": [math.inf]}})
    write_result(tmp_path, result.model_copy(update={"candidates": (first,)}))

    def refused(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    candidate = json.loads((tmp_path / "result.json").read_text(), parse_constant=refused)["candidates"][0]
    assert candidate["overfit_gap"] is None and candidate["settings"] == {"pull": [None]}
    assert read_result(str(tmp_path)).candidates[0].overfit_gap is None


def test_a_report_says_how_runs_on_such_tables_fared(run_folder: Callable[..., Path]) -> None:
    for task, kind in (("binary", "classes"), ("regression", "a number")):
        text = write_report(run_folder(task)).read_text(encoding="utf-8")
        assert re.search(rf"How often is this wrong\? Of \d+ simulated tables? \({kind}, ", text)
    largest = max((t for t in all_tried() if not t.numbers), key=lambda t: t.most_rows)
    assert like(numbers=False, rows=2 * largest.most_rows) == largest
    assert like(numbers=False, rows=10**6) is None  # what small tables do says nothing of it
