"""Company: who is told how a run comes along before its live line begins and after it has ended.

This one listens to nothing; cli/training_company.py shows it.
"""

from pathlib import Path

from llamita.data.progress import Progress
from llamita.train.plan import Plan


class Company(Progress):
    """Who is told how a run comes along before and after training; the methods do nothing here."""

    def planned(self, plan: Plan) -> None:
        """Take the plan that the run will follow."""

    def training_begins(self) -> None:
        """From now on the recorder talks to the user."""

    def finished(self, folder: Path) -> None:
        """The last step is done, and the model is in the folder."""

    def stopped(self, folder: Path) -> None:
        """A signal ended the run early, and it is saved."""
