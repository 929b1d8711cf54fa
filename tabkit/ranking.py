"""The table ``[ranking]`` of a recipe: what the columns of an event table are, and which question is asked of it.

Its keys describe themselves: ``docs/ranking.md`` is written from them (``python docs/write.py``).
"""

from __future__ import annotations

from datetime import date, datetime

from pydantic import Field as Key
from pydantic import model_validator

from tabkit.strict import Strict


class Ranking(Strict):
    """What the columns of an event table are, and which question is asked of it.

    The user is the recipe's ``id``, the item its ``target``, the moment its ``time``. :attr:`bases_end` and
    :meth:`cutoff_of` say what follows from keys that were left out.
    """

    days: float = Key(
        default=28,
        gt=0,
        examples=[7, 0.25],
        description="Length of the window whose items are to be listed, in days; 0.25 is six hours. The window before it is the one that "
        "choices are made on. Rankers count time in twenty-eighths of it: half-lives, label windows and what counts as recent follow.",
    )
    cutoff: date | datetime | None = Key(
        default=None,
        examples=[date(2024, 3, 1), datetime(2024, 3, 1, 18)],
        description="When the holdout window begins. Without it, `days` before the end of the events: before the midnight after "
        "the last of them, or, for windows under a day, before the full hour (under an hour, minute) after it.",
    )
    sample_cutoff: date | None = Key(
        default=None,
        examples=[date(2017, 12, 4)],
        description="The cutoff on the recipe's own sample only. Events of your own are cut by `cutoff`, or at their end.",
    )
    base_days: float | None = Key(
        default=None,
        gt=0,
        examples=[84],
        description="Bases know only what was there so many days before the cutoff, at least twice `days`. Without it, three times `days`.",
    )
    length: int = Key(
        default=20, gt=0, le=1000, examples=[10], description="Items in each list that the bundle scores."
    )
    basket: str | None = Key(
        default=None,
        examples=["basket_id"],
        description="The column that says which lines were taken together: an order, a visit. Its values name a basket of one user; another "
        "user's are other baskets. A line without one is a basket of its own. Without the key, lines that "
        "repeat user, item and time of another count once.",
    )
    store: str | None = Key(
        default=None, examples=["store_id"], description="The column of the place where it was taken."
    )
    price: str | None = Key(
        default=None, examples=["unit_price"], description="The numeric column of what one piece cost."
    )
    quantity: str | None = Key(
        default=None,
        examples=["qty"],
        description="The numeric column of how many were taken. A line whose quantity is not above 0, such as a return, is left out; "
        "otherwise a line counts once, whatever its quantity.",
    )
    attributes: list[str] = Key(
        default=[],
        examples=[["product_type", "brand"]],
        description="Columns that say what an item is: its kind, its maker. The finest comes first, for it is combined with each other one.",
    )
    text: list[str] = Key(
        default=[],
        examples=[["product_type"]],
        description="Columns whose words are read by a language model, for `cold_items`; needs the extra `text`.",
    )
    new_only: bool = Key(
        default=False, examples=[True], description="List only what the user has never taken: films, not milk."
    )
    cold_users: float = Key(
        default=0.0,
        ge=0,
        lt=1,
        examples=[0.25],
        description="Share of the users, drawn at random, that is kept out of the bases, has `cold_weeks` weeks of history on any day, "
        "and is whom the lists are for. 0: lists are for everyone.",
    )
    cold_weeks: int = Key(default=2, gt=0, examples=[4], description="Weeks of history of those users.")
    home_stores: list[int | str] = Key(
        default=[],
        examples=[[367, 356]],
        description="Lists are for the users who went to these values of `store` most often before the bases' end. Bases know everyone; "
        "adaptations learn from those users.",
    )
    cold_items: bool = Key(
        default=False,
        examples=[True],
        description="List only items first taken in the window, among themselves. They are told by their `attributes` and `text`.",
    )
    margin: float | None = Key(
        default=None,
        gt=0,
        examples=[0.25],
        description="Share of the price that is margin: the report then says what better lists are worth. Needs `price`.",
    )
    currency: str = Key(default="", examples=["EUR"], description="Of the price, as the report writes it.")

    @property
    def bases_end(self) -> float:
        """Days before the cutoff at which the bases' knowledge ends."""
        return 3 * self.days if self.base_days is None else self.base_days

    def cutoff_of(self, sample: bool) -> date | datetime | None:
        """Return when the holdout window begins, on the recipe's sample or on other events; None for relative to their end."""
        return self.sample_cutoff if sample and self.sample_cutoff is not None else self.cutoff

    @model_validator(mode="after")
    def _keys_agree(self) -> Ranking:
        if self.bases_end < 2 * self.days:
            raise ValueError(
                f"base_days = {self.bases_end:g} reaches into the window that choices are made on; expected at least {2 * self.days:g}."
            )
        if self.home_stores and (self.store is None or self.cold_users):
            raise ValueError(
                'home_stores needs the column of the store, and no cold_users. Give store = "COLUMN", or remove one.'
            )
        if self.cold_items and not self.attributes:
            raise ValueError("cold_items can only be told by what they are. Give attributes = [...].")
        return self
