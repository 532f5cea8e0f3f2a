"""Make a model of stories write to order: turn stories into instructions with answers, and measure what is learned from them.

    python examples/story_instructions.py make stories.txt tales.jsonl --out instructions.jsonl --held-out asked.jsonl
    llamita finetune stories instructions.jsonl --template chatml --out writer
    python examples/story_instructions.py measure writer asked.jsonl

Each story becomes the answer to some orders such as "Write a story with the words: needle, button, shirt." The words are three
that it has more than once and few other stories have, in the order in which they come: other ones each time, so that it pays to
read them. `measure` asks for stories that were held out and counts how many of the words come; docs/finetuning.md has the
numbers. Stories are the files that `llamita train` reads, FairytaleQA's stories.jsonl among them.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llamita import load
from llamita.conversation import Conversation
from llamita.data.sources import documents, find_sources
from llamita.engine import Sampling
from llamita.files import atomic_file
from llamita.language_model import LanguageModel

N_WORDS = 3
SHORTEST_WORD = 4  # letters; shorter ones say little about a story
FEWEST_STORIES, LARGEST_SHARE = 8, 0.03  # of all stories, in which a word to ask for appears
LONGEST_STORY = 1100  # characters: what the bundled model's context holds beside a question


@dataclass(frozen=True)
class Order:
    """What is asked for, and a story that has it."""

    words: tuple[str, ...]
    story: str

    @property
    def question(self) -> str:
        """The instruction as a user types it."""
        return f"Write a story with the words: {', '.join(self.words)}."

    def to_json(self) -> str:
        """One line in the form of OpenAI's messages."""
        messages = [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.story}]
        return json.dumps({"messages": messages}, ensure_ascii=False)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; names and beginnings of sentences, which are capitalized, are left out."""
    return [word for word in re.findall(r"(?<![\w'])[a-z]+(?![\w'])", text) if len(word) >= SHORTEST_WORD]


def shortened(story: str) -> str:
    """The story up to the end of a sentence near LONGEST_STORY characters."""
    story = re.sub(r"\s+", " ", story).strip()
    if len(story) <= LONGEST_STORY:
        return story
    end = max(story.rfind(mark, 0, LONGEST_STORY) for mark in (". ", "! ", "? ", '." ', '!" '))
    return story[: end + 1] if end > 0 else story[:LONGEST_STORY]


def telling_words(stories: Sequence[str]) -> dict[str, list[str]]:
    """What each story is about: words that it repeats and few others have, as they come. Stories with too few are left out."""
    counted = {story: Counter(words_of(story)) for story in stories}
    n_stories = Counter(word for words in counted.values() for word in words)
    most = max(FEWEST_STORIES, LARGEST_SHARE * len(stories))
    found = {
        story: [word for word, n in words.items() if n > 1 and FEWEST_STORIES <= n_stories[word] <= most]
        for story, words in counted.items()
    }
    return {story: words for story, words in found.items() if len(words) >= N_WORDS}


def order_of(story: str, words: Sequence[str], random: Random) -> Order:
    """An order for a story by some of its words."""
    return Order(tuple(words[i] for i in sorted(random.sample(range(len(words)), N_WORDS))), story)


def make(texts: Sequence[str], out: Path, held_out: Path, n_held_out: int, n_per_story: int, seed: int) -> None:
    """Write the instructions to learn from, and those to measure with, one of each story that is held out."""
    random = Random(seed)
    words = telling_words(list(dict.fromkeys(shortened(document.text) for document in documents(find_sources(texts)))))
    if len(words) <= n_held_out:
        raise SystemExit(f"stories: found {len(words)} with words to ask for, expected more than the {n_held_out} to hold out")
    stories = list(words)
    random.shuffle(stories)
    for path, chosen, n in ((held_out, stories[:n_held_out], 1), (out, stories[n_held_out:], n_per_story)):
        orders = [order_of(story, words[story], random) for story in chosen for _ in range(n)]
        random.shuffle(orders)
        with atomic_file(path) as file:
            file.write("".join(f"{order.to_json()}\n" for order in orders).encode())
        print(f"{path}: {len(orders):,} instructions of {len(chosen):,} stories")


def read_questions(path: Path) -> list[tuple[str, list[str]]]:
    """The questions of a file that `make` wrote, with the words that each asks for."""
    questions = [json.loads(line)["messages"][0]["content"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [(question, re.findall(r"[a-z]+", question.partition(":")[2])) for question in questions]


def n_present(words: Iterable[str], story: str) -> int:
    """How many of the words stand in a story, also with an ending such as -s or -ed."""
    return sum(bool(re.search(rf"\b{word}(s|es|d|ed|ing)?\b", story, re.IGNORECASE)) for word in words)


def tell(model: LanguageModel, question: str, seed: int) -> str:
    """What a model answers; one that was not taught to goes on with the question as with a story."""
    talk = Conversation(model, Sampling(temperature=0.7, top_p=0.9, seed=seed), n_tokens=256)
    try:
        return "".join(talk.ask(question))
    finally:
        talk.close()


def measure(model_path: str, adapter: str | None, questions_path: Path, n: int, n_shown: int) -> None:
    """Print the share of the words that came, and some of the stories."""
    came, asked, whole = 0, 0, 0
    questions = read_questions(questions_path)[:n]
    with load(model_path, adapter=adapter) as model:
        for seed, (question, words) in enumerate(questions, 1):
            story = tell(model, question, seed)
            present = n_present(words, story)
            came, asked, whole = came + present, asked + len(words), whole + (present == len(words))
            if seed <= n_shown:
                print(f"> {question}\n{story.strip()}\n")
    print(
        f"{model_path}: {came} of {asked} words came ({came / asked:.0%}), all of them in {whole} of {len(questions)} stories"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make")
    maker.add_argument("texts", nargs="+")
    maker.add_argument("--out", type=Path, required=True)
    maker.add_argument("--held-out", type=Path, required=True)
    maker.add_argument("--n-held-out", type=int, default=100)
    maker.add_argument("--per-story", type=int, default=3, help="instructions of each story, with other words each")
    maker.add_argument("--seed", type=int, default=1)
    measurer = verbs.add_parser("measure")
    measurer.add_argument("model")
    measurer.add_argument("questions", type=Path)
    measurer.add_argument("--adapter")
    measurer.add_argument("-n", type=int, default=100)
    measurer.add_argument("--show", type=int, default=2)
    options = parser.parse_args()
    if options.verb == "make":
        make(options.texts, options.out, options.held_out, options.n_held_out, options.per_story, options.seed)
    else:
        measure(options.model, options.adapter, options.questions, options.n, options.show)


if __name__ == "__main__":
    main()
