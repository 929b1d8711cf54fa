"""What only lists have: their lift over the best baseline, their character, earlier cutoffs, the margin."""

from __future__ import annotations

from tabkit.report import numbers
from tabkit.report.numbers import interval, known, number, share, whole
from tabkit.report.pieces import Piece, Row, Section, Table, Terms
from tabkit.report.reading import Reading, gain_of
from tabkit.report.svg import aside, heading
from tabkit.result import ListFacts, ListResult, Planned

_COLUMNS = ("Candidate", "Lift, last window before", "Lift, holdout", "Catalogue listed", "Novelty, bits", "Diversity")


def lists(reading: Reading) -> Section | None:
    """Return what lists are like, and how far they are above those of the best baseline."""
    result = reading.result
    if not isinstance(result, ListResult):
        return None
    facts = result.ranking
    pieces: list[Piece] = [
        _list_table(reading, facts),
        aside(
            f"{whole(facts.users)} users took {number(facts.truth_mean)} items each in the {facts.length} from "
            f"{facts.cutoff}, {share(facts.repeat_share)} of them not for the first time; {whole(facts.catalogue)} items "
            "are in the catalogue. Novelty is the surprise of an item by how few have taken it; diversity the share of "
            "pairs in a list that differ in kind."
        ),
        heading("Other cutoffs"),
    ]
    if facts.cutoffs and result.planned:
        pieces.append(_cutoff_table(reading, facts, result.planned))
    else:
        pieces.append(
            aside(
                "One window was looked at. tabkit run --cutoffs 3 repeats the comparison at earlier ones, and the verdict "
                "is then one over all of them."
            )
        )
    if facts.value is not None:
        pieces += [heading(f"What it is worth to a user, in the {facts.length}"), _worth(reading, facts)]
    return Section("lists", "Lists", "The lists", _surviving_lift(reading, facts), tuple(pieces))


def _list_table(reading: Reading, facts: ListFacts) -> Table:
    body = []
    for c in reading.by_kind:
        lift, character = facts.lifts[c.name], facts.lists[c.name]
        cells = (
            share(lift.train, sign=True),
            share(lift.holdout, sign=True),
            share(character.coverage),
            number(character.novelty),
            share(character.diversity),
        )
        body.append(Row(c.title, cells, champion=c is reading.champion))
    baseline = reading.title(reading.result.chosen.baseline)
    caption = f"{reading.metric.title} beside that of {baseline}, and what the lists on the holdout are like"
    return Table.of("Lists", _COLUMNS, body, caption)


def _cutoff_table(reading: Reading, facts: ListFacts, planned: Planned) -> Table:
    windows = [(c.cutoff, c.users, {g.name: gain_of(g) for g in c.gains}) for c in reversed(facts.cutoffs)]
    windows.append((facts.cutoff, facts.users, {a.name: a.interval for a in planned.against}))
    body = [
        Row(day, (whole(users), *(interval(gains.get(a.name), sign=True) for a in planned.against)))
        for day, users, gains in windows
    ]
    caption = (
        f"Gain of {reading.title(planned.candidate)} in {reading.metric_name}, with 95% intervals, each with what was "
        "known on its day"
    )
    columns = ("Window from", "Users", *(f"against {reading.title(a.name)}" for a in planned.against))
    return Table.of("Cutoffs", columns, body, caption)


def _worth(reading: Reading, facts: ListFacts) -> Terms:
    value, chosen = facts.value, reading.result.chosen
    assert value is not None
    names = f"{reading.title(chosen.adapted)} beyond {reading.title(chosen.baseline)}"
    return Terms(
        (
            (f"Items listed and taken, {names}", interval(value.extra_items, sign=True)),
            (
                f"Margin on them, at {share(value.margin)} of the price",
                numbers.amount(value.extra_margin, value.currency, sign=True),
            ),
        )
    )


def _surviving_lift(reading: Reading, facts: ListFacts) -> str:
    """Say what lift over the best baseline survived its own window."""
    baseline = reading.title(reading.result.chosen.baseline)
    lifts = {n: lift for n, lift in facts.lifts.items() if known(lift.train) and known(lift.holdout)}
    name = max(lifts, key=lambda n: lifts[n].train, default=None)
    if name is None:
        return "No lift over the best baseline is known."
    before, after = lifts[name].train, lifts[name].holdout
    if before <= 0:
        return f"No candidate's lists beat those of {baseline} in the last window before the holdout."
    return (
        "In the last window before the holdout, the one that models may have been fitted to, the lists of "
        f"{reading.title(name)} were {share(before)} better than those of {baseline}; on the holdout "
        f"{share(abs(after))} {'better' if after >= 0 else 'worse'}. "
        "Only the second number says what lists made tomorrow will be worth."
    )
