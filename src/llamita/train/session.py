"""A whole run, from the user's texts to a finished folder: vocabulary, shards, plan, training, report; or a run resumed.

    OUT/  config.json, model.safetensors, tokenizer files   the best model so far, in Hugging Face's layout
          recipe.toml, run.json                             what was trained, where, on what
          metrics.jsonl, samples.jsonl, tensorboard/        how it went
          checkpoints/                                      where it can go on
          vocabulary/, data/                                made from the texts, where no tokenizer or shards were given

This file puts the stages together in order. Each stage is also a verb of its own.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from llamita.config import ModelConfig
from llamita.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from llamita.data.prepare import DEFAULTS, PrepareOptions, prepare
from llamita.data.shards import Dataset, open_dataset
from llamita.data.sources import find_sources
from llamita.data.tokenizer_copy import find_tokenizer
from llamita.data.vocabulary import learn_vocabulary
from llamita.errors import SettingError, VocabularySizeError
from llamita.files import atomic_file, sha256_of
from llamita.train import checkpoint
from llamita.train.arithmetic import flops_per_token
from llamita.train.checkpoint import RunState
from llamita.train.company import Company
from llamita.train.config import Recipe, TrainConfig, read_recipe, write_recipe
from llamita.train.machine import describe_machine, find_machine, peak_flops
from llamita.train.measure import plan_and_measure
from llamita.train.recorder import Audience, Recorder, SilentRecorder
from llamita.train.run_folder import RECIPE_FILE, RUN_FILE
from llamita.train.sizing import DataFacts, Dial, choose_vocab_size
from llamita.train.trainer import CHECKPOINTS, Tell, Trainer, run_state
from llamita.train.world import World, open_world

MOST_NAMED = 3  # files in a message
NO_DIAL = Dial()
VOCABULARY, DATA = "vocabulary", "data"
# What may change when a run is resumed, because no number that is trained or logged depends on it.
CHANGEABLE = frozenset(f"training.{name}" for name in ("save_every", "keep", "sample_every", "on_nonfinite"))


@dataclass(frozen=True)
class Wish:
    """What the user asked for. texts: files, folders, data sets, or one folder of shards; none where a run is resumed."""

    out: Path
    texts: tuple[str, ...] = ()
    resume: bool = False
    dial: Dial = NO_DIAL
    recipe: Path | None = None  # a recipe.toml to follow instead of a plan
    overrides: Mapping[str, Any] = field(default_factory=dict)  # fields of ModelConfig and TrainConfig by name
    tokenizer: str | None = None  # else one is learned from the texts
    prepare: PrepareOptions = DEFAULTS
    device: str = "auto"
    n_threads: int | None = None
    parallel: str = "ddp"
    tensorboard: bool = True
    wandb_project: str = ""


def run(wish: Wish, company: Company, tell: Tell | None = None) -> int | None:
    """Train, or go on training, until the recipe's last step or a signal, whose number is returned.

    tell: how a sample is told from a model in the making. Under torchrun every process calls this. Raises LlamitaError for
    anything that the user should change, before time was spent where that can be known.
    """
    with open_world(wish.device, wish.n_threads, wish.parallel) as world:
        if not world.is_first:
            company, tell = Company(), None
        with _alone_in(wish.out) if world.is_first else _nothing():
            if world.is_first:
                set_up(wish, world, company)
            world.wait()
            signal_number = _train(wish, world, company, tell)
            if signal_number is None:
                company.finished(wish.out)
            else:
                company.stopped(wish.out)
            return signal_number


def set_up(wish: Wish, world: World, company: Company) -> None:
    """Leave a recipe and run.json in the run's folder, and shards where run.json says; the first rank's work."""
    started = (wish.out / RUN_FILE).exists() and (wish.out / RECIPE_FILE).exists()
    if started and not wish.resume:
        raise SettingError(f"{wish.out}: found a run there; go on with it by --resume, or name another folder with --out")
    if started:
        check_same_wish(wish)
        return
    if not wish.texts:
        missing = "no run to resume there" if wish.resume else "no text to train on"
        raise SettingError(f"{wish.out}: found {missing}; name files, folders or a data set of text")
    if wish.recipe is not None:
        with_overrides(read_recipe(wish.recipe), wish.overrides)  # a mistake in it shall not cost the time to read the text
    dataset = open_dataset(make_dataset(wish, world, company))
    recipe = choose_recipe(wish, dataset, world, company)
    write_recipe(recipe, wish.out / RECIPE_FILE)
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "texts": list(wish.texts),
        "data": str(dataset.folder.resolve()),
        "dial": asdict(wish.dial),
        "device": str(world.device),
        "n_threads": torch.get_num_threads(),
        "n_ranks": world.n_ranks,
        "command": sys.argv[1:],
        "fingerprint": dataset.fingerprint,
    }
    with atomic_file(wish.out / RUN_FILE) as file:
        file.write(json.dumps(facts | describe_machine(), indent=1, ensure_ascii=False).encode())


def make_dataset(wish: Wish, world: World, company: Company) -> Path:
    """Return the folder of shards that the texts stand for: the one named, or one made here, with a vocabulary if need be."""
    if len(wish.texts) == 1 and (Path(wish.texts[0]) / MANIFEST_NAME).is_file():
        return Path(wish.texts[0])
    tokenizer = wish.tokenizer or wish.out / VOCABULARY
    if not wish.tokenizer and not (wish.out / VOCABULARY / "tokenizer.json").exists():  # it is written last
        _learn_vocabulary(wish, world, company)
    prepare(wish.texts, tokenizer, wish.out / DATA, wish.prepare, company)
    return wish.out / DATA


def _learn_vocabulary(wish: Wish, world: World, company: Company) -> None:
    """Learn as many pieces as the user said, or as suit text and machine, but no more than the text allows."""
    n_bytes = sum(source.n_text_bytes for source in find_sources(wish.texts))
    size = wish.overrides.get("vocab_size")
    if size is not None:
        learn_vocabulary(wish.texts, size, wish.out / VOCABULARY, wish.prepare.read, company)
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
    return recipe.validate()


def with_overrides(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe with some of its numbers replaced, by field name."""
    tables = recipe.to_dict()
    for name, value in overrides.items():
        tables["model" if name in ModelConfig.__dataclass_fields__ else "training"][name] = value
    return Recipe.from_dict(tables)


def check_same_wish(wish: Wish) -> None:
    """Raise SettingError where a run is asked to go on with another text, tokenizer, shape or setting."""
    facts, recipe = read_run(wish.out), read_recipe(wish.out / RECIPE_FILE)
    manifest = read_manifest(Path(facts["data"]))
    found = [f"{name}: then {then}, now {now}" for name, then, now in _changes(wish, facts, recipe, manifest) if then != now]
    if found:
        raise SettingError(f"{wish.out}: found other settings than the run began with: {'; '.join(found)}; expected the same")


def _changes(wish: Wish, facts: dict[str, Any], recipe: Recipe, manifest: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Name, value then and value now of everything that the wish says and resuming may not change."""
    if wish.texts and not (Path(wish.texts[0]) / MANIFEST_NAME).is_file():
        then = {source["name"]: source["n_bytes"] for source in manifest.recipe.sources}
        now = {source.name: source.n_bytes for source in find_sources(wish.texts)}
        for name in sorted({name for name, _ in then.items() ^ now.items()})[:MOST_NAMED]:
            yield f"bytes of {name}", then.get(name, "absent"), now.get(name, "absent")
    elif wish.texts:
        yield "shards", facts["fingerprint"], open_dataset(wish.texts[0]).fingerprint
    if wish.tokenizer:
        now = sha256_of(find_tokenizer(wish.tokenizer))
        yield "tokenizer (sha256)", manifest.recipe.tokenizer_sha256[:12], now[:12]
    if wish.dial != NO_DIAL:
        yield "plan", facts["dial"], asdict(wish.dial)
    if wish.recipe is not None:
        yield from _fields(recipe, with_overrides(read_recipe(wish.recipe), wish.overrides))
    else:
        yield from _fields(recipe, with_overrides(recipe, wish.overrides))


def _fields(then: Recipe, now: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """The fields of two recipes side by side, without those that may change."""
    new = now.to_dict()
    for table, values in then.to_dict().items():
        for name, value in values.items():
            if f"{table}.{name}" not in CHANGEABLE:
                yield name, value, new[table][name]


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run's folder; raises SettingError where it is none."""
    try:
        return json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{folder / RUN_FILE}: found no record of a run ({error})") from None


def dataset_folder(folder: Path) -> Path:
    """The folder of shards that the run in a folder trains on."""
    return Path(read_run(folder)["data"])


def _train(wish: Wish, world: World, company: Company, tell: Tell | None) -> int | None:
    """The part that all ranks do together."""
    dataset = open_dataset(dataset_folder(wish.out))
    changes = {name: wish.overrides[name] for name in TrainConfig.__dataclass_fields__ if name in wish.overrides}
    recipe = with_overrides(read_recipe(wish.out / RECIPE_FILE), changes)
    start = checkpoint.newest(wish.out / CHECKPOINTS, company.say)
    world.wait()  # nobody removes a checkpoint that another rank still looks at
    if start is not None:
        check_same_run(start[1], run_state(recipe, dataset, world, 0), company)
    first_step = start[1].step if start else 0
    if world.is_first:
        checkpoint.remove_leftovers(wish.out / CHECKPOINTS)
    company.training_begins()
    with _recorder(wish, world, recipe, first_step) as recorder:
        if start is not None:
            recorder.note(f"going on after step {first_step:,} of {recipe.training.n_steps:,}")
        return Trainer(recipe, dataset, wish.out, world, recorder, start, tell).run()


def check_same_run(then: RunState, now: RunState, company: Company) -> None:
    """Raise SettingError where data or recipe are not those of the checkpoint; tell where only the machine is another."""
    found = checkpoint.differences(then, now, CHANGEABLE)
    if found:
        raise SettingError(f"checkpoint of step {then.step}: found another run: {'; '.join(found)}; expected the same")
    for line in checkpoint.environment_differences(then, now):
        company.say(f"{line}: the same samples in the same order, but sums may differ in their last bits")


def _recorder(wish: Wish, world: World, recipe: Recipe, first_step: int) -> Recorder | SilentRecorder:
    if not world.is_first:
        return SilentRecorder()
    machine = find_machine(world.device.type, world.n_ranks)
    peak = peak_flops(machine.name, recipe.training.dtype)
    audience = Audience(wish.tensorboard, wish.wandb_project, recipe.to_dict())
    return Recorder(
        wish.out, first_step, recipe.training.n_steps, flops_per_token(recipe.model), peak and peak * world.n_ranks, audience
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it for as long as the block lasts, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise SettingError(
            f"{folder}: found another run at work there; wait for it, or name another folder with --out"
        ) from None
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(str(folder)):
            raise
        raise SettingError(f"{folder}: {error.strerror}; expected a folder where you may write") from None


@contextmanager
def _nothing() -> Iterator[None]:
    yield
