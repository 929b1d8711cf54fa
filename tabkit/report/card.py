"""A model card: intended use, data, results, limits, biases (Mitchell et al. 2019)."""

from __future__ import annotations

from tabkit.recipe import Plan
from tabkit.report.numbers import known
from tabkit.result import PARTS, CandidateFacts, Interval, ListResult, Part, Result, TableResult

_NONE = "- none"
_MOST_COLUMNS = 40


def card(result: Result, plan: Plan, name: str) -> str:
    """Return the model card of a bundled candidate, as Markdown."""
    candidate = result.candidate(name)
    if isinstance(result, ListResult):
        sections = _list_sections(result, candidate)
    else:
        sections = _table_sections(result, plan, candidate)
    sections["How to repeat it"] = (
        f"`{result.command}` with tabkit {result.tabkit}, seed {result.seed}, Python {result.versions['python']}."
    )
    lead = f"# {result.title}: {candidate.title}\n\n{result.verdict.sentence}{_taught(result, name)}\n"
    return lead + "".join(f"\n## {title}\n{text}\n" for title, text in sections.items() if text)


def _table_sections(result: TableResult, plan: Plan, candidate: CandidateFacts) -> dict[str, str]:
    positive = f" (positive: {result.positive})" if result.positive else ""
    trained = "The model here is the very one that was measured."
    if result.bundle.train_on == "all":
        trained = (
            f"The model here is that procedure run again on all {result.bundle.rows:,} labelled rows, with the settings "
            "found. The figures above are those of held-out rows under the same procedure."
        )
    if candidate.unweighted:
        trained += f" Made without the rows' weights: {candidate.unweighted}."
    return {
        "Intended use": (
            f"{result.question or result.title} One row is {result.row or 'a record'}. Recipe `{result.recipe}`, task "
            f"{result.task},\ntarget `{result.target}`{positive}. It is meant for rows like those it was trained on, and "
            "supports a\ndecision; it does not replace the person who answers for it."
        ),
        "Base": _bases(candidate),
        "Data": f"{_origin(result)} Features: {', '.join(result.features.columns[:_MOST_COLUMNS])}.",
        "Results": _results(result, candidate, PARTS, trained),
        "Limits": _limits(result),
        "Biases": _biases(result, plan, candidate.name),
    }


def _list_sections(result: ListResult, candidate: CandidateFacts) -> dict[str, str]:
    facts = result.ranking
    trained = "The ranker here is the very one that was measured."
    if result.bundle.train_on == "all":
        trained = "The ranker here is that procedure run again on all events, with the settings found."
    return {
        "Intended use": (
            f"{result.question or result.title} It lists `{result.target}` for users whose history it holds. A user it "
            "has never seen gets what is popular\nnow, marked `cold`. The bundle holds the users' histories: treat it as "
            "the personal data it is."
        ),
        "Data": (
            f"{_origin(result)} {facts.users:,} users were evaluated, who took {facts.truth_mean:.1f} items each\n"
            f"on average, {facts.repeat_share:.1%} of them not for the first time; {facts.catalogue:,} items are in the "
            "catalogue."
        ),
        "Results": _results(result, candidate, ("valid", "holdout"), trained),
        "Limits": _limits(result),
    }


def _taught(result: Result, name: str) -> str:
    student = result.student if isinstance(result, TableResult) else None
    if student is None or student.candidate != name:
        return ""
    return (
        f"\n\nThis is a student: LightGBM that learned the answers of {student.teacher}, the champion, not the labels. "
        f"{student.sentence}"
    )


def _bases(candidate: CandidateFacts) -> str:
    lines = []
    for base, weights in candidate.weights.items():
        place = "shipped with tabkit" if weights.source == "shipped" else f"from {weights.source}"
        lines.append(f"- `{base}`: weights {place}, sha256 `{weights.sha256}`, licence: {weights.licence}")
    return "\n".join(lines)


def _origin(result: Result) -> str:
    weighted = f" {result.weighted.text}" if result.weighted else ""
    return f"{result.split.text}{weighted} Fingerprint `{result.data_fingerprint[:16]}`."


def _results(result: Result, candidate: CandidateFacts, parts: tuple[Part, ...], trained: str) -> str:
    columns = ("metric", *(f"{part} (95% interval)" if part == "holdout" else part for part in parts))
    rows = [
        (result.metrics[metric].title, *(_range(candidate.score(metric, part)) for part in parts))
        for metric in candidate.scores["holdout"]
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([result.verdict.reason, "", *lines, "", trained])


def _limits(result: Result) -> str:
    return "\n".join(f"- {c.title}: {c.message}" for c in result.checks if c.outcome == "fail") or _NONE


def _biases(result: TableResult, plan: Plan, name: str) -> str:
    sensitive = [field for field, facts in plan.schema.fields.items() if facts.sensitive]
    sliced = [f"- {s.name} ({s.rows:,} rows): {_range(s.scores[name])}" for s in result.slices if name in s.scores]
    marked = ", ".join(sensitive) or "none marked"
    lead = f"Sensitive fields in the schema: {marked}. {result.metric.title} by slice:"
    return "\n".join([lead, *(sliced or [_NONE])])


def _range(score: Interval | None) -> str:
    if score is None or not (known(score.value) and known(score.low)):
        return "undefined"
    return f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}]"
