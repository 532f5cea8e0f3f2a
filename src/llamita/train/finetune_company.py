"""FinetuneCompany: who is told how fine-tuning comes along before its live line begins. This one listens to nothing.

cli/finetune_company.py shows it, and starts without torch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from llamita.train.company import Company

if TYPE_CHECKING:
    from llamita.data.examples import ChatData
    from llamita.train.base import Base
    from llamita.train.finetune_plan import FinetunePlan


class FinetuneCompany(Company):
    """Who is told how fine-tuning comes along, beside what every run tells; the methods do nothing here."""

    def prepared(self, data: "ChatData", base: "Base") -> None:
        """The chats are rendered."""

    def planned_finetuning(self, plan: "FinetunePlan", base: "Base") -> None:
        """The plan that the run will follow."""

    def counting(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG002
        """Work of `total` parts begins; whoever does it tells how many more are done."""
        return nullcontext(lambda _: None)
