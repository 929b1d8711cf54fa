"""How often runs were wrong, and how often their intervals held the truth: the rates of many draws, as tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy.stats import binomtest

from .draws import Candidate, Draw, Scored
from .scenarios import SCENARIOS

FIRM = ("use_baseline", "keep_base")
"""Decisions that say that adapting did not pay."""
STEPS = (-math.inf, 0.0, 0.5, 1.0, 2.0, 3.0, math.inf)
"""True gains beyond the worthwhile one, in half-widths of their interval, by which power is told."""


@dataclass(frozen=True)
class Rate:
    """How many of how many, with the exact binomial interval (Clopper & Pearson, *Biometrika* 1934)."""

    hits: int
    of: int

    @classmethod
    def over(cls, events: Iterable[bool]) -> Rate:
        """Count."""
        known = list(events)
        return cls(sum(known), len(known))

    @property
    def share(self) -> float:
        """The share; NaN of nothing."""
        return self.hits / self.of if self.of else math.nan

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of its 95% interval."""
        if not self.of:
            return math.nan, math.nan
        ci = binomtest(self.hits, self.of).proportion_ci(method="exact")
        return float(ci.low), float(ci.high)

    def __str__(self) -> str:
        return f"{self.hits} of {self.of}" if self.of else "-"

    @property
    def percent(self) -> str:
        """The share with its interval."""
        low, high = self.bounds
        return f"{self.share:.1%} [{low:.1%}, {high:.1%}]" if self.of else "-"

    @property
    def in_full(self) -> str:
        """The count, and the share with its interval."""
        return f"{self} ({self.percent})" if self.of else "-"


@dataclass(frozen=True)
class Judged:
    """A draw beside its truth; scores are turned so that greater is better."""

    draw: Draw

    @property
    def worth(self) -> bool:
        """Whether adapting truly is worthwhile: against every opponent of the plan."""
        gains = self.draw.planned.values()
        return bool(gains) and all(g.truth > self.draw.worthwhile for g in gains)

    @property
    def adapted(self) -> bool:
        """Whether the run says to adapt."""
        return self.draw.decision == "adapt"

    @property
    def numbers(self) -> bool:
        """Whether the target is a number."""
        return SCENARIOS[self.draw.scenario].kind.task == "regression"

    @property
    def firm(self) -> bool:
        """Whether the run says that adapting did not pay."""
        return self.draw.decision in FIRM

    def true(self, name: str) -> float:
        """Return a candidate's true score."""
        return self.draw.sign * float(self.draw.candidates[name].truth)

    @property
    def stays_wrongly(self) -> bool:
        """Whether what stays after a firm verdict is worse, by more than matters, than another that could have stayed."""
        chosen, had = self.draw.chosen, self.draw.candidates
        could = {chosen.baseline, chosen.base, chosen.best_base, "blend_bases"} & had.keys()
        return self.firm and self.worse_than(max(map(self.true, could)))

    @property
    def regret(self) -> float:
        """By how much the best of all candidates is truly better than the champion."""
        return max(map(self.true, self.draw.candidates)) - self.true(self.draw.champion)

    def worse_than(self, score: float, champion: str | None = None) -> bool:
        """Tell whether the champion is truly worse than a score, by more than matters."""
        return score - self.true(champion or self.draw.champion) > self.draw.worthwhile

    def of_practice(self) -> str:
        """Whom usual practice takes: the best on valid of all candidates."""
        had = {n: c for n, c in self.draw.candidates.items() if c.on_valid is not None}
        return max(had, key=lambda name: self.draw.sign * had[name].on_valid)

    @property
    def looks_better(self) -> bool:
        """Whether the adapted candidate has the better score on the holdout, which usual practice takes for proof."""
        gains = self.draw.planned.values()
        return bool(gains) and all(g.value is not None and g.value > 0 for g in gains)

    @property
    def champion(self) -> Candidate:
        """The champion's score."""
        return self.draw.candidates[self.draw.champion]

    @property
    def power(self) -> float:
        """The least true gain beyond the worthwhile one, in half-widths of its interval; NaN if one has none."""
        each = [
            (g.truth - self.draw.worthwhile) / ((g.high - g.low) / 2) if has_width(g) else math.nan
            for g in self.draw.planned.values()
        ]
        return min(each, default=math.nan) if not any(map(math.isnan, each)) else math.nan

    def optimism(self, truth: float | None) -> float:
        """Return by how much the champion's score on the holdout is better than the truth."""
        value = self.champion.value
        return math.nan if value is None or truth is None else self.draw.sign * (value - truth)


Pick = Callable[[Judged], str]
"""Whom a practice makes the champion."""


def has_width(scored: Scored) -> bool:
    """Tell whether a score has an interval that is more than a point: a gain over itself has none."""
    return scored.low is not None and scored.high is not None and scored.high > scored.low


def holds(scored: Scored) -> bool:
    """Tell whether an interval holds the truth."""
    return scored.low <= scored.truth <= scored.high


def coverage(scores: Iterable[Scored]) -> Rate:
    """Count the intervals that hold the truth."""
    return Rate.over(holds(s) for s in scores if has_width(s))


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean with 1.96 times its standard error; undefined values are left out."""
    known = np.array([v for v in values if math.isfinite(v)])
    if len(known) < 2:
        return (float(known.mean()) if len(known) else math.nan), math.nan
    return float(known.mean()), float(1.96 * known.std(ddof=1) / math.sqrt(len(known)))


def by_scenario(draws: Sequence[Draw]) -> dict[str, list[Judged]]:
    """Return the draws that tell a truth, by scenario."""
    out: dict[str, list[Judged]] = {name: [] for name in SCENARIOS}
    for d in draws:
        if d.candidates and not SCENARIOS[d.scenario].fault:
            out[d.scenario].append(Judged(d))
    return {name: those for name, those in out.items() if those}


def tables(draws: Sequence[Draw]) -> str:
    """Return all tables as Markdown."""
    groups = by_scenario(draws)
    everything = [j for those in groups.values() for j in those]
    seconds = sum(d.cpu_seconds for d in draws) / len(draws)
    scenarios = len({d.scenario for d in draws})
    head = f"{len(draws)} draws of {scenarios} scenarios; {len(everything)} of them tell the truth."
    head += f" {date.today()}, {seconds:.1f} CPU seconds a draw."
    parts = [
        head,
        verdicts(groups, everything),
        champions(everything),
        powers(everything),
        intervals(groups, everything),
    ]
    return "\n\n".join([*parts, more_rows(everything), checks(draws)])


def in_words(groups: Mapping[str, Sequence[Judged]]) -> str:
    """Return the main rates, for the README."""
    everything = [j for those in groups.values() for j in those]
    strong = [j for j in everything if j.power > STEPS[-2]]
    drawn = [j.draw.more for j in everything if j.draw.more is not None]

    def wrong(those: Iterable[Judged]) -> Rate:
        return Rate.over(j.adapted for j in those if not j.worth)

    told = [
        ("`adapt`, where adapting truly is not worthwhile", wrong(everything)),
        ("... and of those that only score better than every rival, as usual practice would say", claims(everything)),
        ('"did not pay", where it truly is worthwhile', Rate.over(j.firm for j in everything if j.worth)),
        ("such a verdict leaves a champion that another beats by more than matters", stays_wrongly(everything)),
        (f"`adapt`, where the true gain is over {STEPS[-2]:g} half-widths", Rate.over(j.adapted for j in strong)),
        ("the champion is worse than LightGBM untuned, by more than matters", worse_than("lgbm", everything)),
        ("... and the best on valid, as usual practice takes it", worse_than("lgbm", everything, Judged.of_practice)),
        ("the champion's interval holds its true score", coverage(j.champion for j in everything)),
        ("with the rows that a verdict asked for, it is settled", Rate.over(m.settled_as_first for m in drawn)),
    ]
    rows = [[what, str(rate), rate.percent] for what, rate in told]
    worst = max(groups, key=lambda name: wrong(groups[name]).share)
    mean, error = mean_and_error(j.optimism(j.champion.truth) for j in everything if j.draw.metric == "roc_auc")
    text = f"`adapt` was wrong most often in *{worst}*: {wrong(groups[worst])}. " if wrong(everything).hits else ""
    text += f"The champion's ROC AUC is better on the holdout than in truth by {mean:+.4f} ± {error:.4f}."
    return markdown([f"of {len(everything)} simulated tables", "counted", "share [95%]"], rows) + f"\n\n{text}"


def claims(everything: Iterable[Judged]) -> Rate:
    """Count, of the adapted candidates that score better than all opponents, those that truly are not worthwhile."""
    return Rate.over(not j.worth for j in everything if j.looks_better)


def stays_wrongly(everything: Iterable[Judged]) -> Rate:
    """Count, of the verdicts that adapting did not pay, those that leave the wrong champion."""
    return Rate.over(j.stays_wrongly for j in everything if j.firm)


def worse_than(default: str, everything: Iterable[Judged], champion: Pick | None = None) -> Rate:
    """Count whose champion is truly worse than an untuned model, by more than matters."""
    return Rate.over(j.worse_than(j.true(default), champion(j) if champion else None) for j in everything)


def verdicts(groups: dict[str, list[Judged]], everything: list[Judged]) -> str:
    """Return the table of verdicts."""

    def cells(those: list[Judged], told: Callable[[Rate], str]) -> list[str]:
        mean, error = mean_and_error(j.regret for j in those)
        rates = (
            Rate.over(j.worth for j in those),
            Rate.over(j.adapted for j in those),
            Rate.over(j.adapted and not j.worth for j in those),
            Rate.over(j.firm and j.worth for j in those),
            Rate.over(j.stays_wrongly for j in those),
            Rate.over(j.draw.decision == "not_enough_evidence" for j in those),
            Rate.over(j.regret <= j.draw.worthwhile for j in those),
        )
        return [str(len(those)), *map(told, rates), f"{mean:.3f} ± {error:.3f}"]

    def short(rate: Rate) -> str:
        return str(rate.hits)

    def full(rate: Rate) -> str:
        return f"{rate.hits}: {rate.percent}"

    rows = [[name, *cells(those, short)] for name, those in groups.items()]
    rows.append(["**all**", *cells(everything, full)])
    return markdown(
        [
            "scenario",
            "draws",
            "adapting truly is worthwhile",
            "`adapt`",
            "wrong `adapt`",
            'wrong "did not pay"',
            "the wrong one stays",
            "not enough evidence",
            "champion as good as the best",
            "mean regret",
        ],
        rows,
    )


def champions(everything: list[Judged]) -> str:
    """Return the table of champions beside untuned models, and beside what usual practice takes."""
    auc = [j for j in everything if j.draw.metric == "roc_auc"]
    rows = []
    for title, champion in (("tabkit", lambda j: j.draw.champion), ("best on valid", Judged.of_practice)):
        row = [worse_than(default, everything, champion).in_full for default in ("lgbm", "linear")]
        mean, error = mean_and_error(max(map(j.true, j.draw.candidates)) - j.true(champion(j)) for j in auc)
        rows.append([title, *row, f"{mean:.4f} ± {error:.4f}"])
    harmful = Rate.over(min(g.truth for g in j.draw.planned.values()) <= 0 for j in everything if j.adapted)
    tuned = Rate.over(j.worse_than(j.true("lgbm"), "lgbm_tuned") for j in everything)
    text = (
        f"Where the adapted candidate merely scores better on the holdout than all opponents, it truly is not worthwhile in "
        f"{claims(everything).in_full}. Of all `adapt`, the gain truly is zero or below in {harmful.in_full}. LightGBM tuned "
        f"is truly worse than untuned, by more than matters, in {tuned.in_full} (overtuning)."
    )
    head = ["champion", "worse than LightGBM untuned", "worse than the line", "mean regret, ROC AUC"]
    return markdown(head, rows) + "\n\n" + text


def powers(everything: list[Judged]) -> str:
    """Return the table of power by true gain."""
    rows = []
    for low, high in itertools.pairwise(STEPS):
        those = [j for j in everything if low < j.power <= high]
        name = "0 or less" if high == 0 else f"{low:g} to {high:g}" if math.isfinite(high) else f"over {low:g}"
        told = [Rate.over(j.adapted for j in those), Rate.over(j.firm for j in those)]
        rows.append([name, str(len(those)), *(rate.in_full for rate in told)])
    return markdown(["true gain, half-widths", "draws", "`adapt`", '"did not pay"'], rows)


def intervals(groups: dict[str, list[Judged]], everything: list[Judged]) -> str:
    """Return the table of coverage, width and optimism."""

    def cells(those: list[Judged]) -> list[str]:
        planned = [g for j in those for g in j.draw.planned.values() if has_width(g)]
        scores = [c for j in those for c in j.draw.candidates.values() if c is not None]
        others = [g for j in those for g in j.draw.over_baseline.values()]
        shares = [coverage([j.champion for j in those])]
        shares += [coverage(of) for of in (scores, planned, others)]
        bold = Rate.over(g.truth < g.low for g in planned)
        half = np.mean([(g.high - g.low) / 2 for g in planned]) if planned else math.nan
        return [shares[0].in_full, *(f"{rate.share:.1%}" for rate in shares[1:]), f"{bold.share:.1%}", f"{half:.3f}"]

    def optimism(those: list[Judged]) -> list[str]:
        reported = mean_and_error(j.optimism(j.champion.truth) for j in those)
        bundled = mean_and_error(j.optimism(j.draw.bundled) for j in those)
        return [f"{mean:+.4f} ± {error:.4f}" for mean, error in (reported, bundled)]

    rows = [[name, *cells(those), *optimism(those)] for name, those in groups.items()]
    auc = [j for j in everything if j.draw.metric == "roc_auc"]
    rows.append(["**all**", *cells(everything), "", ""])
    rows.append(["**all by ROC AUC**", *cells(auc), *optimism(auc)])
    head = [
        "scenario",
        "champion's score",
        "all scores",
        "planned gains",
        "other gains",
        "planned: low end above truth",
    ]
    return markdown([*head, "half-width", "optimism", "optimism, bundle"], rows)


def more_rows(everything: list[Judged]) -> str:
    """Say how often the rows that a verdict asked for settled it."""
    unsettled = [j.draw for j in everything if j.draw.decision == "not_enough_evidence"]
    named = [d for d in unsettled if d.rows_needed is not None]
    drawn = [d.more for d in named if d.more is not None]
    return (
        f"Of {len(unsettled)} verdicts of not enough evidence, {len(named)} name a number of rows. In {len(drawn)} they were "
        f"drawn: settled by the rule in {Rate.over(m.settled for m in drawn).in_full}; if asked as a first question, in "
        f"{Rate.over(m.settled_as_first for m in drawn).in_full}."
    )


def checks(draws: Sequence[Draw]) -> str:
    """Return the table of checks: how often each fires, with and without a planted fault."""
    clean = [d for d in draws if not SCENARIOS[d.scenario].fault]
    names = [name for name in SCENARIOS if any(d.scenario == name for d in draws)]
    rows = []
    for code in dict.fromkeys(code for d in draws for code in d.checks):
        fired = {
            name: Rate.over(fires(d, code) for d in draws if d.scenario == name and asked(d, code)) for name in names
        }
        most = sorted((n for n in names if fired[n].hits), key=lambda n: -fired[n].share)[:3]
        overall = Rate.over(fires(d, code) for d in clean if asked(d, code))
        rows.append([f"`{code}`", overall.in_full, "; ".join(f"{n} {fired[n]}" for n in most)])
    return markdown(["check", "fires where no fault is planted", "most often in"], rows)


def asked(draw: Draw, code: str) -> bool:
    """Tell whether a check could be made."""
    return draw.checks.get(code, "not_applicable") != "not_applicable"


def fires(draw: Draw, code: str) -> bool:
    """Tell whether a check failed."""
    return draw.checks[code] == "fail"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
