"""Company: who is told how a run comes along before its live line begins.

This one listens to nothing; cli/training_company.py shows it.
"""

from llamita.data.progress import Progress
from llamita.train.plan import Plan


class Company(Progress):
    """Who is told how a run comes along before and after training; the methods do nothing here."""

    def planned(self, plan: Plan) -> None:
        """Take the plan that the run will follow."""

    def training_begins(self) -> None:
        """From now on the recorder talks to the user."""
