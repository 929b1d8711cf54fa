"""One plain sentence per section, made from its numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from tabkit.errors import count, inside
from tabkit.report import diagnose
from tabkit.report.numbers import duration, interval, money, number, share, signed, whole

DECISIONS = {
    "adapt": "Adapt",
    "keep_base": "Keep the base",
    "use_baseline": "Use the baseline",
    "not_enough_evidence": "Not enough evidence",
}


class Words:
    """The sentences of one result."""

    def __init__(self, result: dict[str, Any], frame: pl.DataFrame | None) -> None:
        self.r = result
        self.frame = frame
        self.by_name: dict[str, dict[str, Any]] = {c["name"]: c for c in result["candidates"]}
        self.titles: dict[str, str] = {n: c["title"] for n, c in self.by_name.items()}
        self.primary: str = result["primary"]
        self.metric: dict[str, Any] = result["metrics"][self.primary]
        self.called = inside(self.metric["title"])
        self.sign = 1 if self.metric["greater_is_better"] else -1
        self.scored = [c for c in result["candidates"] if c["scores"]]

    def title(self, name: str | None) -> str:
        """Return what a candidate is called."""
        return self.titles.get(name or "", name or "")

    def score(self, name: str, part: str = "holdout", metric: str | None = None) -> dict[str, Any] | None:
        """Return a candidate's score, or None."""
        found: dict[str, Any] | None = self.by_name[name]["scores"].get(part, {}).get(metric or self.primary)
        return found if found and found["value"] is not None else None

    def gain(self) -> str:
        """Return what adapting gained."""
        planned = self.r["planned"]
        if planned is None:
            return "Nothing was adapted in this run, so there is no gain to show."
        bar = self.r["worthwhile"]
        told, shown = [], 0
        for a in planned["against"]:
            shown += a["low"] is not None and a["low"] > bar
            verb = "gained" if (a["gain"] or 0) > 0 else "lost" if a["gain"] else "neither gained nor lost"
            amount = f" {number(abs(a['gain']))}" if a["gain"] else ""
            told.append(f"{verb}{amount} {self.called} against {self.title(a['name'])}")
        n = len(planned["against"])
        each = "both gains are" if n == 2 else "the gain is" if n == 1 else f"all {n} gains are"
        if shown == n:
            end = (
                f"{each} shown to be above the {number(bar)} that would matter"
                if bar
                else f"{each} shown to be above zero"
            )
        else:
            which = (
                "the gain is not"
                if n == 1
                else ("neither gain is" if n == 2 else f"none of the {n} gains is")
                if not shown
                else f"only {'one' if shown == 1 else shown} of the {'two' if n == 2 else n} gains {'is' if shown == 1 else 'are'}"
            )
            end = (
                f"{which} shown to be above the {number(bar)} that would matter"
                if bar
                else f"{which} shown to be above zero"
            )
        return f"{self.title(planned['candidate'])} {_listed(told)}; {end}."

    def candidates(self) -> str:
        """Return who scored best on holdout."""
        kinds = [
            (k, sum(c["kind"] == k for c in self.r["candidates"])) for k in ("baseline", "base", "adapted", "student")
        ]
        names = {
            "baseline": ("baseline", None),
            "base": ("untouched base", None),
            "adapted": ("adapted candidate", None),
            "student": ("student", None),
        }
        told = _listed([count(n, *names[k]) for k, n in kinds if n])
        refused = sum(c["refused"] is not None for c in self.r["candidates"])
        best = self._best_on_holdout()
        if best is None:
            return f"{told} were tried."
        tail = f" {count(refused, 'candidate')} {'was' if refused == 1 else 'were'} refused." if refused else ""
        top = f"{self.title(best)} has the highest" if self.sign > 0 else f"{self.title(best)} has the lowest"
        lead = f"Of {told}, {top} {self.called} on the holdout, {interval(self.score(best))}"
        if best == self.r["champion"]:
            return f"{lead}; it is the champion.{tail}"
        own = f"{self.title(self.r['champion'])}, {interval(self.score(self.r['champion']))}"
        return f"{lead}. The champion, picked by rules fixed before the holdout was read, is {own}.{tail}"

    def _best_on_holdout(self) -> str | None:
        names = [c["name"] for c in self.scored if self.score(c["name"])]
        return max(names, key=lambda n: self.sign * float((self.score(n) or {})["value"]), default=None)

    def gaps(self) -> str:
        """Return who overfits."""
        known = [c for c in self.scored if c["overfit_gap"] is not None]
        if not known:
            return "No candidate has a score on both train and holdout."
        champion = self.by_name[self.r["champion"]]
        widest = max(known, key=lambda c: c["overfit_gap"])
        own = champion["overfit_gap"]
        seen = "rows it was trained on than on rows nobody touched"
        if own is None:
            told = "The champion's gap is not known"
        elif own > 0:
            told = f"{champion['title']} scores {number(own)} {self.called} better on {seen}"
        else:
            told = f"{champion['title']} scores no better on {seen} ({signed(own)})"
        if own is not None and widest["overfit_gap"] <= own:
            return f"{told}; no candidate has a wider gap."
        return f"{told}; the widest gap is that of {widest['title']}, {number(widest['overfit_gap'])}."

    def learning(self) -> str:
        """Return whether training beat the untouched base on valid."""
        learned = [c for c in self.scored if len(c["history"]) > 1 and c["kind"] != "student"]
        adapted = [c for c in learned if c["kind"] == "adapted" and c["history"][0]["step"] == 0]
        if learned and not adapted:
            losses = _losses(learned[-1])
            best = losses.index(min(losses)) + 1
            return (
                f"{learned[-1]['title']} was at its best on valid at point {best} of {len(losses)}; more did not help."
            )
        better = [c for c in adapted if min(_losses(c)) < _losses(c)[0]]
        tried = count(len(adapted), "adapted candidate")
        return (
            f"{len(better)} of {tried} reached a lower loss on valid than the untouched base; what training returns is "
            "never worse than the base on valid, but only the holdout tells whether that lasts."
        )

    def look(self) -> str:
        """Return how the champion does, in terms of the task."""
        champion = self.r["champion"]
        frame = self.frame
        if frame is None:
            return "The holdout's predictions are no longer in the run folder, so curves cannot be drawn."
        if self.r["task"] == "binary" and champion in frame.columns:
            curve = diagnose.roc(
                (frame["target"].cast(pl.String) == self.r["positive"]).to_numpy(), frame[champion].to_numpy()
            )
            if curve is not None:
                found = float(diagnose.at_grid(curve, np.array([0.1]))[0])
                said = (
                    f"If one in ten of the '{self._negative()}' may be flagged wrongly, "
                    f"{self.title(champion)} finds {share(found)} of the '{self.r['positive']}'"
                )
                calibration = self.by_name[champion]["calibration"]
                return said + (
                    f"; its probabilities are off by {share(calibration['ece'])} on average." if calibration else "."
                )
        if self.r["task"] == "multiclass":
            matrix = diagnose.confusion(frame, champion, self.r["classes"])
            if matrix is not None and matrix.counts.sum():
                right = float(np.trace(matrix.counts) / matrix.counts.sum())
                recalls = [(v, c) for c, v in zip(matrix.classes, matrix.recall(), strict=True) if v is not None]
                low, hardest = min(recalls)
                return (
                    f"{self.title(champion)} names the right class for {share(right)} of the holdout; "
                    f"'{hardest}' is the hardest, found in {share(low)} of its rows."
                )
        if self.r["task"] == "regression" and champion in frame.columns:
            off = float((frame["target"] - frame[champion]).abs().median() or 0.0)
            unit = f" {self.metric['unit']}" if self.metric["unit"] else ""
            said = f"Half of {self.title(champion)}'s predictions are within {number(off)}{unit} of the truth"
            cover = self.r["interval_coverage"]
            return said + (
                f"; its 90% intervals held the truth for {share(cover)} of holdout rows." if cover is not None else "."
            )
        return "How the champion does on the holdout."

    def lists(self) -> str:
        """Return what lift over the best baseline survived its own window."""
        lifts, baseline = self.r["ranking"]["lifts"], self.title(self.r["chosen"]["baseline"])
        known = {n: v for n, v in lifts.items() if v["train"] is not None and v["holdout"] is not None}
        name = max(known, key=lambda n: known[n]["train"], default=None)
        if name is None:
            return "No lift over the best baseline is known."
        there, here = known[name]["train"], known[name]["holdout"]
        if there <= 0:
            return f"No candidate's lists beat those of {baseline} in the last window before the holdout."
        return (
            f"In the last window before the holdout, the one that models may have been fitted to, the lists of {self.title(name)} "
            f"were {share(there)} better than those of {baseline}; on the holdout {share(abs(here))} {'better' if here >= 0 else 'worse'}. "
            "Only the second number says what lists made tomorrow will be worth."
        )

    def _negative(self) -> str:
        return next((c for c in self.r["classes"] if c != self.r["positive"]), "others")

    def importance(self) -> str:
        """Return what the champion leans on."""
        block = self.r["importance"]
        columns = block["columns"] if block else []
        if not columns:
            return "No column's importance was measured."
        first = columns[0]
        matter = sum(c["low"] is not None and c["low"] > 0 for c in columns)
        if not matter:
            return f"No single column of {len(columns)} matters beyond chance to {self.title(block['candidate'])}."
        return (
            f"{self.title(block['candidate'])} leans most on {first['name']}: "
            f"shuffling it costs {number(first['drop'])} {self.called}. "
            f"{matter} of {count(len(columns), 'column')} matter beyond chance."
        )

    def others(self) -> str:
        """Return on how many metrics the champion leads."""
        champion = self.r["champion"]
        best = 0
        for name, metric in self.r["metrics"].items():
            sign = 1 if metric["greater_is_better"] else -1
            values = {
                c["name"]: sign * s["value"] for c in self.scored if (s := self.score(c["name"], "holdout", name))
            }
            best += bool(values) and values.get(champion) == max(values.values())
        on = "none" if not best else f"{best}"
        of = count(len(self.r["metrics"]), "metric")
        told = f"{self.title(champion)}, the champion, is best or tied on {on} of {of} on the holdout."
        found = [e for e in self.r["exploratory"] if e["p_holm"] is not None and e["p_holm"] < 0.05]
        if self.r["exploratory"]:
            tried = count(len(self.r["exploratory"]), "exploratory comparison")
            clear = f"{len(found)} {'is' if len(found) == 1 else 'are'} clear"
            told += f" Of {tried}, {clear} after adjusting for their number."
        return told

    def slices(self) -> str:
        """Return where the champion is weakest, and what leaving columns out costs."""
        told = []
        champion, overall = self.r["champion"], self.score(self.r["champion"])
        known = [
            (s["name"], s["scores"][champion])
            for s in self.r["slices"]
            if s["scores"].get(champion, {}).get("value") is not None
        ]
        if known and overall:
            name, weakest = min(known, key=lambda k: self.sign * k[1]["value"])
            told.append(
                f"The champion is weakest on '{name}': {interval(weakest)}, against {number(overall['value'])} overall."
            )
        for a in self.r["ablations"][:1]:
            change = a["gain"]["value"]
            told.append(
                f"{a['name'][:1].upper()}{a['name'][1:]}, {self.title(a['candidate'])} "
                f"changes by {signed(change)} {self.called}."
            )
        return " ".join(told) or "No slice has enough rows for a score."

    def checks(self) -> str:
        """Return how many checks failed."""
        by = {o: [c for c in self.r["checks"] if c["outcome"] == o] for o in ("fail", "pass", "not_applicable")}
        made = len(by["fail"]) + len(by["pass"])
        if not by["fail"]:
            return f"All {made} checks that could be made passed."
        errors = sum(c["severity"] == "error" for c in by["fail"])
        worst = "none of them an error" if not errors else f"{errors} of them {'an error' if errors == 1 else 'errors'}"
        return (
            f"{len(by['fail'])} of {made} checks failed, {worst}: {', '.join(c['title'].lower() for c in by['fail'])}."
        )

    def cost(self) -> str:
        """Return what the run and the champion cost."""
        c = self.by_name[self.r["champion"]]
        unit = self.r["value"]["unit"] if self.r["value"] else ""
        price = (
            f" ({money(c['cost_per_million'], unit)} of computing)"
            if unit and c["cost_per_million"] is not None
            else ""
        )
        scoring = c["score_cpu_seconds_per_million"]
        units = "users" if self.r["task"] == "ranking" else "rows"
        tail = (
            f" Scoring a million {units} with it takes about {duration(scoring)} of one core{price}."
            if scoring is not None
            else ""
        )
        made = f"making the champion took {duration(c['cpu_seconds'])} of CPU time"
        student = self.r.get("student")  # results written before there were students have none
        taught = f" {student['sentence']}" if student else ""
        return f"The whole run took {duration(self.r['seconds_total'])}; {made}.{tail}{taught}"

    def proof(self) -> str:
        """Return what the chosen adapted candidate trained."""
        refused = [c for c in self.r["candidates"] if c["refused"]]
        name = self.r["chosen"]["adapted"]
        told = ""
        if name in self.by_name:
            c = self.by_name[name]
            part = c["trained_parameters"] / max(1, c["total_parameters"])
            moved = f"{whole(c['trained_parameters'])} of {whole(c['total_parameters'])} parameters"
            told = f"{c['title']} trained {moved} ({share(part)}). "
        if refused:
            return told + f"Refused, since its proof contradicts its name: {', '.join(c['title'] for c in refused)}."
        return told + "Every candidate trained what its name says, measured on the weights themselves."

    def settings(self, candidate: dict[str, Any]) -> str:
        """Return the settings found for a candidate, and its notes."""
        found = [
            f"{k} {number(v) if isinstance(v, float) else json.dumps(v)}"
            for k, v in candidate["settings"].items()
            if not isinstance(v, dict)  # a blend's weights are in its notes, its members' settings with the members
        ]
        return "; ".join([*([", ".join(found)] if found else []), *candidate["notes"]])

    def sliced(self) -> list[str]:
        """Return the candidates that slices were scored for, the champion first."""
        names = dict.fromkeys(name for s in self.r["slices"] for name in s["scores"])
        return sorted(names, key=lambda n: n != self.r["champion"])

    def data(self) -> str:
        """Return how many rows were used."""
        rows = self.r["rows"]
        used = rows["train"] + rows["valid"] + rows["holdout"]
        left = [f"{whole(rows[k])} {text}" for k, text in _LEFT_OUT.items() if rows.get(k)]
        tail = f" ({', '.join(left)})" if left else ""
        one = f", each {self.r['row']}" if self.r["row"] else ""
        return f"{whole(used)} of {whole(rows['input'])} rows read were used{tail}{one}. {self.r['split']['text']}"


def _listed(parts: list[str]) -> str:
    """Return a list in words.

    >>> _listed(["a", "b", "c"]), _listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


_LEFT_OUT = {"rejected": "rejected", "out_of_scope": "outside the recipe's scope", "unlabelled": "without a label"}


def _losses(candidate: dict[str, Any]) -> list[float]:
    return [h["valid_loss"] for h in candidate["history"] if h["valid_loss"] is not None] or [0.0]
