"""What every candidate scored: on each part, while learning, by other metrics, on slices."""

from __future__ import annotations

from markupsafe import Markup

from tabkit.errors import count
from tabkit.report import charts, numbers, rows
from tabkit.report.numbers import interval, known, number
from tabkit.report.pieces import Cell, Details, Grid, Group, Piece, Row, Section, Table, stacked
from tabkit.report.reading import KINDS, Reading, gain_of, listed, once
from tabkit.report.svg import aside, tag
from tabkit.result import PARTS, Ablation, CandidateFacts, Kind, ListResult, Part, TableResult

_MOST_CURVES = 12
_COLUMNS = (
    *("Candidate", "Holdout", "Valid", "Train", "Overfit gap", "Excess gap"),
    *("Selection optimism", "Parameters trained", "Time"),
)
_KIND_NAMES: dict[Kind, str] = {
    "baseline": "baseline",
    "base": "untouched base",
    "adapted": "adapted candidate",
    "student": "student",
}


def candidates(reading: Reading) -> Section:
    """Return every candidate by kind: its scores on each part, gaps, size and time."""
    metric = reading.metric
    decimals = numbers.decimals_for(reading.score(c.name, part) for c in reading.scored for part in PARTS)
    groups = []
    for kind, title in KINDS.items():
        members = [c for c in reading.result.candidates if c.kind == kind]
        if members:
            groups.append(Group(tuple(_candidate_row(reading, c, decimals) for c in members), title))
    unit = f" ({metric.unit})" if metric.unit else ""
    better = "higher" if metric.greater_is_better else "lower"
    weighted = reading.result.weighted
    by_weight = ", by weight" if weighted else ""
    caption = f"{metric.title}{unit}{by_weight}, {better} is better, with 95% intervals"
    table = Table("Candidates", _COLUMNS, tuple(groups), caption, css="candidates")
    left = reading.result.ranking.left_out if isinstance(reading.result, ListResult) else ()
    notes = [aside(f"{each.title} ({each.name}) was not tried: {each.reason}.") for each in left]
    if weighted:
        notes.append(aside(f"{weighted.text} {reading.unweighted}"))
    return Section("candidates", "Candidates", "The candidates", _who_is_best(reading), (table, *notes))


def _candidate_row(reading: Reading, c: CandidateFacts, decimals: int) -> Row:
    chosen = {name: role for role, name in reading.result.chosen if name}
    tags = ["champion"] if c is reading.champion else []
    tags += [f"chosen {chosen[c.name].replace('_', ' ')}"] if c.name in chosen else []
    header = Markup("{}{}").format(c.title, tag("small", c.name))
    if tags:
        header += tag("small", *(tag("span", text, class_="tag") + " " for text in tags), class_="tags")
    cells: list[Cell | str]
    if c.refused:
        refusal = Markup("{} {}").format(tag("strong", "Refused:"), c.refused)
        cells = [Cell(refusal, css="text refused", columns=6)]
    else:
        cells = [_score_cell(reading, c, part, decimals) for part in reversed(PARTS)]
        gaps = (c.overfit_gap, c.excess_gap, c.selection_optimism)
        cells += [numbers.fixed(gap, decimals, sign=True) for gap in gaps]
    size = numbers.parameters(c.trained_parameters, c.total_parameters)
    cells += [Cell(size, css="counts"), numbers.duration(c.seconds)]
    return Row(header, tuple(cells), champion=c is reading.champion)


def _score_cell(reading: Reading, c: CandidateFacts, part: Part, decimals: int) -> Cell:
    score = reading.score(c.name, part)
    value = numbers.fixed(score.value, decimals) if score else numbers.MISSING
    return Cell(value, numbers.limits(score, decimals), "num")


def _who_is_best(reading: Reading) -> str:
    result = reading.result
    kinds = {name: sum(c.kind == kind for c in result.candidates) for kind, name in _KIND_NAMES.items()}
    tried = listed([count(n, name) for name, n in kinds.items() if n])
    holdout = {c.name: score for c in reading.scored if (score := reading.score(c.name))}
    best = max(holdout, key=lambda name: reading.metric.sign * holdout[name].value, default=None)
    if best is None:
        return f"{tried} were tried."
    refused = sum(c.refused is not None for c in result.candidates)
    tail = f" {count(refused, 'candidate')} {'was' if refused == 1 else 'were'} refused." if refused else ""
    if skipped := sum(c.refused is None for c in result.candidates) - len(reading.scored):
        tail = f" On the holdout, {count(skipped, 'candidate')} not chosen on valid {'was' if skipped == 1 else 'were'} not measured.{tail}"
    top = "highest" if reading.metric.greater_is_better else "lowest"
    lead = f"Of {tried}, {reading.title(best)} has the {top} {reading.metric_name} on the holdout, {interval(holdout[best])}{reading.unit}"
    if best == result.champion:
        return f"{lead}; it is the champion.{tail}"
    own = f"{reading.champion.title}, {interval(reading.score(result.champion))}{reading.unit}"
    return f"{lead}. The champion, picked by rules fixed before the holdout was read, is {own}.{tail}"


def gaps(reading: Reading) -> Section:
    """Return how far train is from holdout for each candidate."""
    figures = (rows.gaps(reading),) if reading.scored else ()
    return Section("gaps", "Overfitting", "Who overfits?", _who_overfits(reading), figures)


def _who_overfits(reading: Reading) -> str:
    gap_of = [(c.overfit_gap, c.title) for c in reading.scored if known(c.overfit_gap)]
    if not gap_of:
        return "No candidate has a score on both train and holdout."
    widest, whose = max(gap_of, key=lambda pair: pair[0])
    own, title = reading.champion.overfit_gap, reading.champion.title
    seen = "on rows it was trained on than on rows nobody touched"
    decimals = numbers.decimals_for(reading.score(c.name) for c in reading.scored)
    if not known(own):
        lead = "The champion's gap is not known"
    elif own > 0:
        way = "higher" if reading.metric.greater_is_better else "lower"
        size = f"{numbers.fixed(own, decimals)}{reading.unit}"
        lead = f"The {reading.metric_name} of {title} is {size} {way} {seen}"
    else:
        lead = f"{title} does no better {seen} (gap {numbers.fixed(own, decimals, sign=True)}{reading.unit})"
    if known(own) and widest <= own:
        return f"{lead}; no candidate has a wider gap."
    return f"{lead}; the widest gap is that of {whose}, {numbers.fixed(widest, decimals)}{reading.unit}."


def learning(reading: Reading) -> Section | None:
    """Return the loss by step of all who learned step by step, and the scores by number of rows."""
    result = reading.result
    learned = [c for c in reading.by_kind if len(c.history) > 1]
    figures = [charts.learning(f"learning{i}", c) for i, c in enumerate(learned[:_MOST_CURVES])]
    pieces: list[Piece] = []
    if isinstance(result, TableResult) and result.curve and result.curve.points:
        pieces.append(Grid((charts.by_rows(reading, result.curve),)))
    if figures:
        pieces.append(Details(f"Loss by step of {count(len(figures), 'candidate')}", (Grid(tuple(figures)),)))
    if not pieces:
        return None
    return Section("learning", "Learning", "How they learned", _who_learned(reading), tuple(pieces))


def _who_learned(reading: Reading) -> str:
    learned = [c for c in reading.scored if len(c.history) > 1 and c.kind != "student"]
    losses = {c.name: [h.valid_loss for h in c.history if known(h.valid_loss)] or [0.0] for c in learned}
    adapted = [losses[c.name] for c in learned if c.kind == "adapted" and c.history[0].step == 0]
    if learned and not adapted:
        last = losses[learned[-1].name]
        best = last.index(min(last)) + 1
        return f"{learned[-1].title} was at its best on valid at point {best} of {len(last)}; more did not help."
    better = sum(min(each) < each[0] for each in adapted)
    return (
        f"{better} of {count(len(adapted), 'adapted candidate')} reached a lower loss on valid than the untouched base; "
        "what training returns is never worse than the base on valid, but only the holdout tells whether that lasts."
    )


def others(reading: Reading) -> Section:
    """Return every metric on the holdout, and the comparisons that nobody planned."""
    pieces: list[Piece] = [Details("Every metric of every candidate", (_metric_table(reading),))]
    exploratory = reading.result.exploratory
    unit = f" ({reading.metric.unit})" if reading.metric.unit else ""
    if exploratory:
        body = [
            Row(
                listed([reading.title(each.candidate) for each in same]),
                (
                    Cell(reading.title(e.against), css="text"),
                    interval(gain_of(e), sign=True),
                    number(e.p, 2),
                    number(e.p_holm, 2),
                ),
            )
            for same in once(exploratory)
            for e in same[:1]
        ]
        columns = ("Candidate", Cell("Against", css="text"), f"{reading.gain_title}{unit}", "p", "p, adjusted")
        hint = aside("Not planned: read them as hints. The last column is adjusted for their number (Holm).")
        table = Table.of("Exploratory comparisons", columns, body)
        pieces.append(Details("Exploratory comparisons", (hint, table)))
    return Section("others", "Metrics", "Other metrics on the holdout", _where_champion_leads(reading), tuple(pieces))


def _metric_table(reading: Reading) -> Table:
    """Return every metric on the holdout, candidates in rows, the best of each column marked."""
    columns: list[str] = []
    cells: dict[str, list[Cell | str]] = {c.name: [] for c in reading.by_kind}
    for name, metric in reading.result.metrics.items():
        scores = {c.name: reading.score(c.name, metric=name) for c in reading.by_kind}
        decimals = numbers.decimals_for(scores.values())
        best = max((metric.sign * s.value for s in scores.values() if s), default=None)
        unit = f", {metric.unit}" if metric.unit else ""
        columns.append(f"{metric.title}{unit}\u00a0{'↑' if metric.greater_is_better else '↓'}")
        for candidate, s in scores.items():
            value = numbers.fixed(s.value, decimals) if s else numbers.MISSING
            css = "num best" if s and metric.sign * s.value == best else "num"
            cells[candidate].append(Cell(value, numbers.limits(s, decimals), css))
    body = [Row(c.title, tuple(cells[c.name]), champion=c is reading.champion) for c in reading.by_kind]
    caption = "Best of each column in bold; arrows say which way is better"
    return Table.of("Other metrics", ("Candidate", *columns), body, caption)


def _where_champion_leads(reading: Reading) -> str:
    result, best = reading.result, 0
    for name, metric in result.metrics.items():
        values = {c.name: metric.sign * s.value for c in reading.scored if (s := reading.score(c.name, metric=name))}
        best += bool(values) and values.get(result.champion) == max(values.values())
    sentence = (
        f"{reading.champion.title}, the champion, is best or tied on {best or 'none'} of "
        f"{count(len(result.metrics), 'metric')} on the holdout."
    )
    if result.exploratory:
        clear = sum(e.p_holm < 0.05 for e in result.exploratory)
        tried = count(len(result.exploratory), "exploratory comparison")
        sentence += f" Of {tried}, {clear} {'is' if clear == 1 else 'are'} clear after adjusting for their number."
    return sentence


def slices(reading: Reading) -> Section | None:
    """Return the scores on slices, and what leaving columns out costs."""
    result = reading.result
    ablations = result.ablations if isinstance(result, TableResult) else ()
    pieces = [_slice_table(reading)] if result.slices else []
    if ablations:
        pieces.append(_ablation_table(reading, ablations))
    if not pieces:
        return None
    sentences = [_weakest_slice(reading)]
    for a in ablations[:1]:
        change = reading.change(a.gain.value, numbers.decimals_for([a.gain]))
        sentences.append(f"{a.name[:1].upper()}{a.name[1:]}, {reading.title(a.candidate)} {change}.")
    sentence = " ".join(filter(None, sentences)) or "No slice has enough rows for a score."
    return Section("slices", "Slices", "Slices and ablations", sentence, tuple(pieces))


def _slice_table(reading: Reading) -> Table:
    names = dict.fromkeys(name for s in reading.result.slices for name in s.scores)
    shown = sorted(names, key=lambda n: n != reading.result.champion)
    body = []
    for s in reading.result.slices:
        cells: list[Cell | str] = [stacked(interval(s.scores.get(n))) for n in shown]
        if s.too_few:
            cells = [Cell(f"too few {reading.units} for a score", css="text quiet", columns=len(shown))]
        body.append(Row(reading.column(s.name), (numbers.whole(s.rows), *cells)))
    columns = ("Slice", reading.units.capitalize(), *map(reading.title, shown))
    unit = f" ({reading.metric.unit})" if reading.metric.unit else ""
    return Table.of("Slices", columns, body, f"{reading.metric.title}{unit} on parts of the holdout")


def _ablation_table(reading: Reading, ablations: tuple[Ablation, ...]) -> Table:
    body = [
        Row(
            a.name,
            (
                Cell("; ".join(map(reading.column, a.drop)), css="text"),
                Cell(reading.title(a.candidate), css="text"),
                interval(a.score),
                interval(a.gain, sign=True),
            ),
        )
        for a in ablations
    ]
    texts = [Cell(name, css="text") for name in ("Columns left out", "Candidate")]
    columns: list[Cell | str] = ["Ablation", *texts, reading.metric.title, "Change"]
    return Table.of("Ablations", columns, body, "Trained again without some columns")


def _weakest_slice(reading: Reading) -> str:
    champion = reading.result.champion
    overall = reading.score(champion)
    scores = {s.name: s.scores[champion] for s in reading.result.slices if champion in s.scores}
    defined = {name: score for name, score in scores.items() if known(score.value)}
    name = min(defined, key=lambda n: reading.metric.sign * defined[n].value, default=None)
    if name is None or overall is None:
        return ""
    weakest = interval(defined[name])
    whole = numbers.fixed(overall.value, numbers.decimals_for([overall]))
    return (
        f"The champion is weakest on '{reading.column(name)}': {reading.metric_name} {weakest}{reading.unit}, against "
        f"{whole} overall."
    )
