"""What a reader needs to trust the numbers: checks, cost, proof, data, and the terms in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterable

from markupsafe import Markup

from tabkit.report.numbers import MISSING, duration, money, number, parameters, share, typographic, whole
from tabkit.report.pieces import Cell, Details, Group, Piece, Row, Section, Table, Terms
from tabkit.report.reading import Reading
from tabkit.report.svg import aside, tag
from tabkit.result import Block, CandidateFacts, CheckOutcome

_MOST_COLUMNS, _MOST_LACKING = 60, 20


def checks(reading: Reading) -> Section:
    """Return every check by outcome, failures first."""
    by = {o: [c for c in reading.result.checks if c.outcome == o] for o in ("fail", "pass", "not_applicable")}
    pieces: list[Piece] = []
    if by["fail"]:
        failures = sorted(by["fail"], key=lambda c: c.severity)
        pieces.append(tag("ul", *map(_failure, failures), class_="failed"))
    for outcome, title, css in (("pass", "Passed", "passed"), ("not_applicable", "Could not be made", "passed quiet")):
        if by[outcome]:
            items = (tag("li", tag("strong", c.title), f" {typographic(c.message)}") for c in by[outcome])
            pieces.append(Details(f"{title}: {len(by[outcome])}", (tag("ul", *items, class_=css),)))
    return Section("checks", "Checks", "Checks", _failures(by["fail"], len(by["fail"] + by["pass"])), tuple(pieces))


def _failure(c: CheckOutcome) -> Markup:
    title = tag("p", tag("span", c.severity, class_="tag"), " ", tag("strong", c.title))
    return tag("li", title, tag("p", typographic(c.message)), class_=c.severity)


def _failures(failed: list[CheckOutcome], of: int) -> str:
    if not failed:
        return f"All {of} checks that could be made passed."
    errors = sum(c.severity == "error" for c in failed)
    worst = "none of them an error" if not errors else f"{errors} of them {'an error' if errors == 1 else 'errors'}"
    return f"{len(failed)} of {of} checks failed, {worst}: {', '.join(c.title.lower() for c in failed)}."


def cost(reading: Reading) -> Section:
    """Return what the run and each candidate cost."""
    result, units = reading.result, reading.units
    unit = result.value.unit if result.value else ""
    body = []
    for c in result.candidates:
        scoring = (number(c.score_cpu_seconds_per_million), money(c.cost_per_million, unit))
        making = (number(c.seconds, 2), number(c.cpu_seconds, 2), number(c.peak_mb), number(c.energy_wh, 2))
        cells = (*making, *(scoring if "holdout" in c.scores else (MISSING, MISSING)))
        body.append(Row(c.title, cells, champion=c is reading.champion))
    columns = (
        *("Candidate", "Seconds", "CPU seconds", "Peak memory, MB", "Energy, Wh (estimate)"),
        *(f"Scoring a million {units}, CPU seconds", f"Price of a million {units}"),
    )
    note = (
        f"Measured on {result.machine.cpus} CPUs, {result.machine.system}. Energy assumes a fixed power per busy core."
    )
    return Section(
        "cost",
        "Cost",
        "What it cost",
        _cost_sentence(reading, unit),
        (Details("Cost of every candidate", (Table.of("Cost", columns, body), aside(note))),),
    )


def _cost_sentence(reading: Reading, unit: str) -> str:
    c = reading.champion
    total, own = duration(reading.result.seconds_total), duration(c.cpu_seconds)
    sentence = f"The whole run took {total}; making the champion took {own} of CPU time."
    if c.score_cpu_seconds_per_million is not None:
        priced = unit and c.cost_per_million is not None
        price = f" ({money(c.cost_per_million, unit)} of computing)" if priced else ""
        took = f"{duration(c.score_cpu_seconds_per_million)} of one core{price}"
        sentence += f" Scoring a million {reading.units} with it takes about {took}."
    return f"{sentence} {reading.student.sentence}" if reading.student else sentence


def proof(reading: Reading) -> Section:
    """Return what was trained, block by block, and the settings found."""
    every = reading.result.candidates
    learned = [c for c in every if c.kind in ("base", "adapted")]
    settings = tuple((c.title, _settings(c)) for c in every if c.settings or c.notes)
    baselines = _block_table("Blocks of baselines", (c for c in every if c.kind in ("baseline", "student")))
    pieces: list[Piece] = (
        [
            Details(
                "What was trained, block by block", (_block_table("Blocks of bases and adapted candidates", learned),)
            )
        ]
        if learned
        else []
    )
    pieces.append(Details("Baselines, and the settings found", (baselines, Terms(settings, prose=True))))
    return Section("proof", "Proof", "What was trained", _proof_sentence(reading), tuple(pieces))


def _block_table(label: str, members: Iterable[CandidateFacts]) -> Table:
    groups = []
    for c in members:
        title = Cell(c.title, small=c.how, rows=len(c.proof))
        groups.append(Group(tuple(_block_row(b, None if i else title) for i, b in enumerate(c.proof))))
    text = {name: Cell(name, css="text") for name in ("Block", "Share")}
    columns = ("Candidate", text["Block"], "Trained", text["Share"], "Change of weights")
    return Table(label, columns, tuple(groups))


def _block_row(b: Block, header: Cell | None) -> Row:
    trained = round(100 * b.trained / b.total, 1) if b.total else 0
    meter = tag("span", tag("span", "", style=f"width:{trained}%"), class_="meter")
    cells = (Cell(b.name, css="text"), parameters(b.trained, b.total), Cell(meter, css="text"), number(b.change))
    return Row(header, cells)


def _proof_sentence(reading: Reading) -> str:
    lead = ""
    adapted = [c for c in reading.result.candidates if c.name == reading.result.chosen.adapted]
    for c in adapted:
        part = share(c.trained_parameters / max(1, c.total_parameters))
        moved = f"{whole(c.trained_parameters)} of {whole(c.total_parameters)} parameters"
        lead = f"{c.title} trained {moved} ({part}). "
    refused = [c.title for c in reading.result.candidates if c.refused]
    if refused:
        return f"{lead}Refused, since its proof contradicts its name: {', '.join(refused)}."
    return f"{lead}Every candidate trained what its name says, measured on the weights themselves."


def _settings(c: CandidateFacts) -> str:
    """Return the settings found for a candidate, and its notes."""
    plain = ", ".join(
        f"{key} {number(value) if isinstance(value, float) else json.dumps(value)}"
        for key, value in c.settings.items()
        if not isinstance(value, dict)  # a blend's weights are in its notes, its members' settings with the members
    )
    return "; ".join([*([plain] if plain else []), *c.notes])


def data(reading: Reading) -> Section:
    """Return which rows and columns were used, and how to repeat the run."""
    repeat = tag("p", "To repeat it:", class_="repeat")
    command = tag("pre", tag("code", reading.result.command), class_="scroll", tabindex=0)
    terms = Terms((*_row_terms(reading), *_column_terms(reading), *_method_terms(reading)), prose=True)
    return Section(
        "data",
        "Data",
        "The data, and how to repeat it",
        _data_sentence(reading),
        (repeat, command, Details("Rows, columns, methods, versions", (terms,))),
    )


def _data_sentence(reading: Reading) -> str:
    r = reading.result
    left = _left_out(reading)
    tail = f" ({', '.join(left)})" if left else ""
    one = f", each {r.row}" if r.row else ""
    return f"{whole(r.rows.used)} of {whole(r.rows.input)} rows read were used{tail}{one}. {r.split.text}"


def _left_out(reading: Reading) -> list[str]:
    rows = reading.result.rows
    reasons = {
        "rejected": rows.rejected,
        "outside the recipe's scope": rows.out_of_scope,
        "without a label": rows.unlabelled,
        "of weight 0": rows.weightless,
    }
    return [f"{whole(n)} {reason}" for reason, n in reasons.items() if n]


def _row_terms(reading: Reading) -> list[tuple[str, str]]:
    r = reading.result
    read = [f"{whole(r.rows.input)} read", *_left_out(reading)]
    if not r.rows.rejected:
        read.insert(1, "0 rejected")
    if r.rows.source:
        read.append(f"{whole(r.rows.source)} of a source table")
    terms = [("Rows", ", ".join(read))]
    for s in r.sources:
        without = f", without {_first(s.lacking, _MOST_LACKING, ' columns')}, which are missing in all of them"
        terms.append(("Source", f"{s.name}: {whole(s.rows)} rows{without if s.lacking else ''}"))
    by = f", by {r.split.column}" if r.split.column else ""
    sizes = f"{whole(r.rows.train)} train, {whole(r.rows.valid)} valid, {whole(r.rows.holdout)} holdout"
    positive = f", positive class ‘{r.positive}’" if r.positive is not None else ""
    if r.weighted:
        terms.append(("Weights", f"{r.weighted.text} {reading.unweighted}"))
    return [*terms, ("Parts", f"{sizes} ({r.split.kind}{by})"), ("Target", f"{r.target}{positive}")]


def _column_terms(reading: Reading) -> list[tuple[str, str]]:
    f = reading.result.features
    encoded = f"{f.numeric} numeric and {f.categorical} categorical after encoding"
    dropped = "; ".join(f"{column}: {why}" for column, why in f.dropped.items())
    terms = [
        ("Columns", f"{len(f.columns)} used ({encoded}): {_first(f.columns, _MOST_COLUMNS)}"),
        ("Dropped", dropped or "none"),
    ]
    if f.ignored:
        terms.append(("Ignored", _first(f.ignored, _MOST_COLUMNS)))
    if f.infinite:
        terms.append(("Infinite values", f"{whole(f.infinite)}, treated as missing"))
    return terms


def _first(names: tuple[str, ...], most: int, noun: str = "") -> str:
    """Return the first names, and how many more there are.

    >>> _first(("a", "b", "c"), 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more{noun}" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _method_terms(reading: Reading) -> list[tuple[str, str]]:
    r = reading.result
    opened = "not recorded" if r.holdout_opened is None else f"{whole(r.holdout_opened)} times"
    level = f"{number(100 * r.intervals.level)}%"
    trained = f"the {whole(r.bundle.rows)} train rows: the very model measured here"
    if r.bundle.train_on == "all":
        trained = f"all {whole(r.bundle.rows)} labelled rows by the procedure measured here"
    return [
        ("Holdout opened", "once" if r.holdout_opened == 1 else opened),
        (
            "Intervals",
            f"{level}, {r.intervals.method}, {whole(r.intervals.resamples)} resamples of {r.intervals.unit}s",
        ),
        ("Bundle", f"{', '.join(r.bundle.members)}, trained on {trained}"),
        ("Fingerprint", tag("code", r.data_fingerprint)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in r.versions.items())),
    ]


def glossary(reading: Reading) -> Section:
    """Return the terms of the page."""
    taught = "; a student learned the champion's answers" if reading.student else ""
    terms = {
        "Train, valid, holdout": "Rows to learn from, rows to choose on, and rows that nobody touches until every choice is "
        "made. Only the holdout tells how a model does on rows it has never met.",
        "95% interval": "The range in which the number would land in 95 of 100 repetitions with other rows of the same kind. "
        "A gain whose interval holds zero may be luck.",
        "Overfit gap": "How much better a model looks on rows it learned from than on the holdout. The excess gap is what it "
        "has above the best baseline's.",
        "Selection optimism": "How much better valid looks than the holdout, because the winner was picked there.",
        "Base, adapted, baseline": "A base was trained elsewhere and is used untouched; an adapted one was trained further on "
        "these rows; a baseline learned from these rows alone. A blend is the weighted mean of other candidates' "
        f"predictions{taught}.",
        "Champion": "The candidate that the verdict picks. It is the one in the bundle.",
        "Worthwhile": "The smallest gain that would matter in practice, written in the recipe before the run.",
    }
    lead = "The terms of this page, in case the numbers have to be explained to someone else."
    return Section("words", "Words", "In plain words", lead, (Terms(tuple(terms.items()), css="glossary"),))
