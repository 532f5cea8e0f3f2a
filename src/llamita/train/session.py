"""A whole run, from the user's texts to a finished folder: vocabulary, shards, plan, training, report; or a run resumed.

    OUT/  config.json, model.safetensors, tokenizer files   the best model so far, in Hugging Face's layout
          recipe.toml, run.json                             what was trained, where, on what
          metrics.jsonl, samples.jsonl, tensorboard/        how it went
          checkpoints/                                      where it can go on
          vocabulary/, data/                                made from the texts, where no tokenizer or shards were given

This file puts the stages together in order. Each stage is also a verb of its own.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from llamita.config import PRESETS
from llamita.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from llamita.data.out_folder import check_no_model
from llamita.data.prepare import PrepareOptions, prepare
from llamita.data.shards import Dataset, check_shards, open_dataset
from llamita.data.sources import ReadOptions, find_sources
from llamita.data.tokenizer_copy import find_tokenizer
from llamita.data.vocabulary import learn_vocabulary
from llamita.errors import SettingError, VocabularySizeError
from llamita.files import sha256_of
from llamita.train.arithmetic import flops_per_token, sequences_of_rank
from llamita.train.asked import changed_fields, changed_files, check_same, check_training, differences
from llamita.train.company import Company
from llamita.train.config import Recipe, TrainConfig, check_heads, read_recipe, with_overrides, write_recipe
from llamita.train.machine import describe_machine, find_machine
from llamita.train.measure import plan_and_measure
from llamita.train.pretraining import Pretraining
from llamita.train.run_folder import RECIPE_FILE, RUN_FILE, change_run, data_entry, read_run, write_run
from llamita.train.running import run_together, train_task
from llamita.train.sizing import DataFacts, Dial, choose_vocab_size
from llamita.train.trainer import Tell
from llamita.train.world import World

NO_DIAL = Dial()
VOCABULARY, DATA = "vocabulary", "data"


@dataclass(frozen=True)
class Wish:
    """What the user asked for. texts: files, folders, data sets, or one folder of shards; none where a run is resumed.

    In overrides and reading stands only what was said, since a run that goes on is compared with it.
    """

    out: Path
    texts: tuple[str, ...] = ()
    resume: bool = False
    dial: Dial = NO_DIAL
    recipe: Path | None = None  # a recipe.toml to follow instead of a plan
    overrides: Mapping[str, Any] = field(default_factory=dict)  # fields of ModelConfig and TrainConfig by name
    tokenizer: str | None = None  # else one is learned from the texts
    validation: tuple[str, ...] = ()  # text that validates; without any, a part of the others does
    reading: Mapping[str, str] = field(default_factory=dict)  # fields of ReadOptions by name
    device: str = "auto"
    n_threads: int | None = None
    parallel: str = "ddp"
    tensorboard: bool = True
    wandb_project: str = ""

    @property
    def prepare(self) -> PrepareOptions:
        """How the texts become tokens."""
        return PrepareOptions(ReadOptions(**self.reading), self.validation)

    @property
    def shards(self) -> Path | None:
        """The folder of shards that stands in place of texts; None where it does not."""
        folder = Path(self.texts[0]) if len(self.texts) == 1 else None
        return folder if folder is not None and (folder / MANIFEST_NAME).is_file() else None


def run(wish: Wish, company: Company, tell: Tell | None = None) -> int | None:
    """Train, or go on training, until the recipe's last step or a signal, whose number is returned.

    tell: how a sample is told from a model in the making. Under torchrun every process calls this. Raises LlamitaError for
    anything that the user should change, before time was spent where that can be known.
    """
    return run_together(
        wish,
        company,
        lambda world, company: set_up(wish, world, company),
        lambda world, company: _train(wish, world, company, tell),
    )


def set_up(wish: Wish, world: World, company: Company) -> None:
    """Leave a recipe and run.json in the run's folder, and shards where run.json says; the first rank's work."""
    started = (wish.out / RUN_FILE).exists() and (wish.out / RECIPE_FILE).exists()
    if started and not wish.resume:
        raise SettingError(f"{wish.out}: found a run there; go on with it by --resume, or name another folder with --out")
    if started:
        data = check_same_wish(wish)
        check_shards(open_dataset(data))
        change_run(wish.out, {"data": data_entry(data, wish.out)})
        return
    check_no_model(wish.out)
    if not wish.texts:
        missing = "no run to resume there" if wish.resume else "no text to train on"
        raise SettingError(f"{wish.out}: found {missing}; name files, folders or a data set of text")
    dataset = open_dataset(make_dataset(wish, world, company))
    recipe = choose_recipe(wish, dataset, world, company)
    write_recipe(recipe, wish.out / RECIPE_FILE)
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "texts": list(wish.texts),
        "data": data_entry(dataset.folder, wish.out),
        "dial": asdict(wish.dial),
        "device": str(world.device),
        "n_threads": torch.get_num_threads(),
        "n_ranks": world.n_ranks,
        "command": sys.argv[1:],
        "fingerprint": dataset.fingerprint,
    }
    write_run(facts | describe_machine(), wish.out / RUN_FILE)


def check_numbers(wish: Wish, n_ranks: int) -> None:
    """Raise ModelError or SettingError for a mistake in recipe or flags that shall not cost the time to read the text."""
    if wish.recipe is not None:
        sequences_of_rank(with_overrides(read_recipe(wish.recipe), wish.overrides).training, n_ranks)
        return
    check_training(wish.overrides, n_ranks)
    published = {"width": PRESETS[wish.dial.preset].width} if wish.dial.preset in PRESETS else {}
    given = published | dict(wish.overrides)
    if "width" in given and "n_heads" in given:
        check_heads(given["width"], given["n_heads"])


def make_dataset(wish: Wish, world: World, company: Company) -> Path:
    """Return the folder of shards that the texts stand for: the one named, or one made here, with a vocabulary if need be."""
    check_numbers(wish, world.n_ranks)
    if wish.shards is not None:
        if found := differences(_changes_of_text(wish, read_manifest(wish.shards))):
            raise SettingError(f"{wish.shards}: found tokens that were made otherwise: {found}; leave it out, or name the text")
        return wish.shards
    tokenizer = wish.tokenizer or wish.out / VOCABULARY
    if not wish.tokenizer and not (wish.out / VOCABULARY / "tokenizer.json").exists():  # it is written last
        _learn_vocabulary(wish, world, company)
    prepare(wish.texts, tokenizer, wish.out / DATA, wish.prepare, company)
    return wish.out / DATA


def _learn_vocabulary(wish: Wish, world: World, company: Company) -> None:
    """Learn as many pieces as the user or the recipe said, or as suit text and machine, but no more than the text allows."""
    n_bytes = sum(source.n_text_bytes for source in find_sources(wish.texts))
    size = wish.overrides.get("vocab_size")
    if size is None and wish.recipe is not None:
        size = read_recipe(wish.recipe).model.vocab_size
    if size is not None:
        try:
            learn_vocabulary(wish.texts, size, wish.out / VOCABULARY, wish.prepare.read, company)
        except VocabularySizeError as error:
            raise SettingError(f"{error}; take --vocab-size {error.possible}") from None
        return
    size = choose_vocab_size(n_bytes, wish.dial, find_machine(world.device.type, world.n_ranks))
    try:
        learn_vocabulary(wish.texts, size, wish.out / VOCABULARY, wish.prepare.read, company)
    except VocabularySizeError as error:
        company.say(f"{error}; taking {error.possible}")
        learn_vocabulary(wish.texts, error.possible, wish.out / VOCABULARY, wish.prepare.read, company)


def choose_recipe(wish: Wish, dataset: Dataset, world: World, company: Company) -> Recipe:
    """Follow the recipe that the user named, or plan one for the text and this machine."""
    manifest = dataset.manifest
    if (wish.overrides.get("context") or 0) >= manifest.train.n_tokens:
        raise SettingError(
            f"context: found {wish.overrides['context']}, expected fewer than the {manifest.train.n_tokens} tokens of the text"
        )
    if wish.recipe is not None:
        recipe = with_overrides(read_recipe(wish.recipe), wish.overrides)
    else:
        data = DataFacts(manifest.train.n_tokens, manifest.train.n_bytes, manifest.vocab_size)
        machine = find_machine(world.device.type, world.n_ranks)
        overrides = {"vocab_size": manifest.vocab_size, **wish.overrides}
        plan = plan_and_measure(wish.dial, data, machine, overrides, world.device, company.say)
        company.planned(plan)
        recipe = plan.recipe
    if recipe.model.vocab_size != manifest.vocab_size:
        raise SettingError(
            f"vocab_size: found {recipe.model.vocab_size}, but the tokenizer of the shards has {manifest.vocab_size} tokens"
        )
    sequences_of_rank(recipe.training, world.n_ranks)
    return recipe.validate()


def check_same_wish(wish: Wish) -> Path:
    """The folder of shards to go on with: the one that the user names, else the run's own.

    Raises SettingError where a run is asked to go on with another text, tokenizer, shape or setting.
    """
    facts, recipe = read_run(wish.out), read_recipe(wish.out / RECIPE_FILE)
    data = wish.shards or Path(facts["data"])
    if not (data / MANIFEST_NAME).exists():
        raise SettingError(f"{data}: found no {MANIFEST_NAME}, expected the run's tokens; name the folder that has them now")
    check_same(wish.out, _changes(wish, facts, recipe, read_manifest(data)))
    return data


def _changes(wish: Wish, facts: dict[str, Any], recipe: Recipe, manifest: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Name, value then and value now of everything that the wish says and resuming may not change."""
    if wish.shards is not None:
        yield "shards", facts["fingerprint"], manifest.fingerprint
    elif wish.texts:
        yield from changed_files(manifest.recipe.sources, find_sources(wish.texts))
    yield from _changes_of_text(wish, manifest)
    if wish.dial != NO_DIAL:
        yield "plan", facts["dial"], asdict(wish.dial)
    if wish.recipe is not None:
        yield from changed_fields(recipe, with_overrides(read_recipe(wish.recipe), wish.overrides))
    else:
        yield from changed_fields(recipe, with_overrides(recipe, wish.overrides))


def _changes_of_text(wish: Wish, manifest: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """The same of what the tokens follow from, besides the text to learn."""
    if wish.validation:
        yield from changed_files(manifest.recipe.validation_sources, find_sources(wish.validation))
    for name, value in wish.reading.items():
        yield name, getattr(manifest.recipe, name) or "none", value or "none"
    if wish.tokenizer:
        now = sha256_of(find_tokenizer(wish.tokenizer))
        yield "tokenizer (sha256)", manifest.recipe.tokenizer_sha256[:12], now[:12]


def dataset_folder(folder: Path) -> Path:
    """The folder of shards that the run in a folder trains on."""
    return Path(read_run(folder)["data"])


def _train(wish: Wish, world: World, company: Company, tell: Tell | None) -> int | None:
    """The part that all ranks do together."""
    dataset = open_dataset(dataset_folder(wish.out))
    changes = {name: wish.overrides[name] for name in TrainConfig.__dataclass_fields__ if name in wish.overrides}
    recipe = with_overrides(read_recipe(wish.out / RECIPE_FILE), changes)
    return train_task(Pretraining(recipe, dataset), wish, world, company, tell, flops_per_token(recipe.model))
