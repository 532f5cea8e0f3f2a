"""Progress: who is told how work on text goes on. This one listens to nothing; cli/ has one that shows it."""


class Progress:
    """Takes lines for the user and how much is done; the methods do nothing here."""

    def say(self, line: str) -> None:
        """Take a line for the user."""

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Take the bytes of text done, and about how many there are; 0 where nobody knows."""
