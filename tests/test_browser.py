"""The report as a browser draws it: nothing off the screen, no text cut or over another, few pages on paper."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from run_folders import TASKS, make_lists, make_predictions, make_result

from tabkit.report import write_report

# Where there is no browser there is nothing to measure; tabkit itself needs none.
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

MOST_PAGES = 7
LONG = "Interest rate, set by the lender's own risk model"

MEASURE = """(() => {
  const found = [];
  document.querySelectorAll('details').forEach(d => d.open = true);
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) found.push(`the page is ${wide} wide`);
  const meet = (a, b, slack) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > slack
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2 * slack;
  for (const svg of document.querySelectorAll('svg')) {
    const box = svg.getBoundingClientRect(), name = svg.querySelector('title').textContent;
    const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    const lines = [...svg.querySelectorAll('.zero, .worthwhile')].map(l => l.getBoundingClientRect());
    texts.forEach(([text, at], i) => {
      if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 3 || at.bottom > box.bottom + 3)
        found.push(`${name}: '${text}' is cut`);
      for (const [other, there] of texts.slice(i + 1))
        if (meet(at, there, 1)) found.push(`${name}: '${text}' is over '${other}'`);
      if (svg.classList.contains('rows') && lines.some(l => l.left > at.left && l.left < at.right
          && l.top < at.bottom - 4 && l.bottom > at.top + 4)) found.push(`${name}: a line runs through '${text}'`);
    });
  }
  for (const e of document.querySelectorAll('main *')) {
    if (e.closest('svg, .hidden, .scroll')) continue;
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
      found.push(`<${e.tagName} class="${e.className}"> holds more than it shows: ${e.textContent.slice(0, 40)}`);
  }
  const first = document.querySelector('.candidates thead th:nth-child(2)');
  if (first.textContent !== 'Holdout' || first.getBoundingClientRect().right > innerWidth)
    found.push(`the first column in sight is '${first.textContent}'`);
  return found;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


def hard(task: str) -> dict[str, Any]:
    """A result with what has not fitted before: long titles, long roles, large and small numbers, many candidates."""
    result = make_lists() if task == "ranking" else make_result(task)
    result["features"]["titles"] = {"int_rate": LONG}
    for against, role in zip(
        result["planned"]["against"], ("the same blend without adapted members", LONG), strict=True
    ):
        against["role"] = role
    more = []
    for i, candidate in enumerate(result["candidates"]):
        if candidate["kind"] == "baseline":
            title = f"{candidate['title']} (source rows pooled in)"
            more.append({**copy.deepcopy(candidate), "name": f"{candidate['name']}_{i}", "title": title})
    result["candidates"] += more
    if task == "ranking":
        for each in ("lifts", "lists"):
            result["ranking"][each] |= {c["name"]: next(iter(result["ranking"][each].values())) for c in more}
    if task == "regression":
        times_a_million(result)
    return result


def times_a_million(result: dict[str, Any]) -> None:
    scores = [s for c in result["candidates"] for part in c["scores"].values() for s in part.values()]
    for score in (*scores, *result["planned"]["against"]):
        score |= {key: 3.1e6 * score[key] for key in ("value", "gain", "low", "high") if key in score}
    for candidate in result["candidates"]:
        for key in ("overfit_gap", "excess_gap", "selection_optimism"):
            candidate[key] = candidate[key] and 3.1e6 * candidate[key]


@pytest.fixture(scope="module", params=(*TASKS, "ranking"))
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    result = hard(request.param)
    (folder / "result.json").write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
    if request.param != "ranking":
        predictions = make_predictions(result)
        if request.param == "regression":
            predictions = predictions.with_columns(predictions.drop("row") * 1e6)
        predictions.write_parquet(folder / "holdout_predictions.parquet")
    return write_report(folder)


def test_nothing_is_cut_or_over_another_on_any_screen(browser: Browser, page: Path) -> None:
    browser.open(page)
    found = {}
    for scheme in ("light", "dark"):
        for width in (320, 390, 1280):
            browser.show(width, scheme)
            assert browser.evaluate("innerWidth") == width
            found[f"{width} {scheme}"] = browser.evaluate(MEASURE)
    assert not any(found.values()), json.dumps(found, indent=1, ensure_ascii=False)


def test_the_page_has_a_light_and_a_dark_look(browser: Browser, page: Path) -> None:
    browser.open(page)
    colours = []
    for scheme in ("light", "dark"):
        browser.show(390, scheme)
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(18, 21, 26)"]


def test_it_prints_on_few_pages(browser: Browser, page: Path) -> None:
    browser.open(page)
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    assert 1 <= pages <= MOST_PAGES
