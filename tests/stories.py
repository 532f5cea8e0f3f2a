"""Stories made up for tests: as many different ones as a test needs."""

SENTENCES = (
    "Once upon a time there was a girl named Lily who had {} apples.",
    "The big dog ran {} times around the house and slept.",
    "Tom and his {} friends played in the park until the night.",
)


def story(number: int) -> str:
    """A story of three lines that no other number tells."""
    return "\n".join(sentence.format(number + i) for i, sentence in enumerate(SENTENCES))
