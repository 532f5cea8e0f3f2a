"""A whole run of fine-tuning, from a model and files of chats to a finished folder; or a run resumed. session.py's counterpart.

    OUT/  model or adapter, tokenizer files             the best so far, as `llamita chat` opens it
          recipe.toml, run.json                         what was trained, where, on what
          metrics.jsonl, samples.jsonl, tensorboard/    how it went
          checkpoints/                                  where it can go on
          data/                                         the chats, rendered
          reference.safetensors, reference.json         of preferences: how likely each answer was before

This file puts the stages together in order.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from llamita.data.chat_files import find_chat_files, kind_of
from llamita.data.chat_manifest import read_chat_manifest
from llamita.data.chat_options import ChatOptions
from llamita.data.chats import digest_of_tokenizer, empty_of_chats, prepare_chats
from llamita.data.examples import ChatData, open_chats
from llamita.data.split import SIDES
from llamita.errors import SettingError
from llamita.formats import read_model
from llamita.formats.file_names import ADAPTER_CONFIG_NAME, CONFIG_NAME
from llamita.model import Model
from llamita.train.asked import changed_fields, changed_files, check_same, check_training
from llamita.train.base import Base, digest_of, is_inside, open_base
from llamita.train.config import Recipe, TrainConfig, read_recipe, with_overrides, write_recipe
from llamita.train.finetune_company import FinetuneCompany
from llamita.train.finetune_plan import (
    DEFAULT_EPOCHS,
    ChatFacts,
    FinetunePlan,
    flops_of_token,
    plan_finetuning,
)
from llamita.train.finetuning import Finetuning, rows_of
from llamita.train.machine import describe_machine, find_machine
from llamita.train.preferences import PER_PAIR
from llamita.train.reference import Reference, make_reference, read_reference, write_reference
from llamita.train.rows import unit_lengths
from llamita.train.run_folder import RECIPE_FILE, RUN_FILE, change_run, data_entry, read_run, write_run
from llamita.train.running import alone_in, run_together, train_task
from llamita.train.world import World, open_world

DATA = "data"
TellAnswers = Callable[[Model, Base, ChatData], list[tuple[str, str]]]  # prompts and what the model answers


@dataclass(frozen=True)
class FinetuneWish:
    """What the user asked for. model and chats may be left out where a run is resumed.

    In options, epochs and overrides stands only what was said, since a run that goes on is compared with it.
    """

    out: Path
    model: Path | None = None
    model_name: str = ""  # as the user wrote it
    chats: tuple[str, ...] = ()
    resume: bool = False
    validation: tuple[str, ...] = ()  # chats to measure on; without any, a share of the others is
    template: str = ""  # a name or a source of Jinja; "" for the model's own
    tokenizer: str | None = None
    kind: str = ""  # chats, or pairs to learn preferences from; "" looks into the files
    options: Mapping[str, Any] = field(default_factory=dict)  # fields of ChatOptions by name, but for kind, context and seed
    context: int = 0  # tokens of a chat at most; 0: what the model sees at once
    epochs: float | None = None  # else DEFAULT_EPOCHS
    overrides: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainConfig and FinetuneConfig by name
    device: str = "auto"
    n_threads: int | None = None
    parallel: str = "ddp"
    tensorboard: bool = True
    wandb_project: str = ""


def run_finetuning(wish: FinetuneWish, company: FinetuneCompany, tell: TellAnswers | None = None) -> int | None:
    """Fine-tune, or go on with it, until the recipe's last step or a signal, whose number is returned.

    tell: how answers are told from a model in the making. Under torchrun every process calls this. Raises LlamitaError for
    anything that the user should change, before time was spent where that can be known.
    """
    return run_together(
        wish,
        company,
        lambda world, _: set_up(wish, world, company),
        lambda world, _: _train(wish, world, company if world.is_first else FinetuneCompany(), tell),
    )


def rehearse(wish: FinetuneWish, company: FinetuneCompany) -> FinetunePlan:
    """Render the chats and plan as run_finetuning would, tell the company, and train nothing; raises what that would raise."""
    with open_world(wish.device, wish.n_threads, wish.parallel) as world, alone_in(wish.out):
        if _is_started(wish.out):
            raise SettingError(f"{wish.out}: found a run there; name another folder with --out")
        return prepare_run(wish, world, company)[2]


def set_up(wish: FinetuneWish, world: World, company: FinetuneCompany) -> None:
    """Leave a recipe, run.json and rendered chats in the run's folder; the first rank's work."""
    if _is_started(wish.out) and not wish.resume:
        raise SettingError(f"{wish.out}: found a run there; go on with it by --resume, or name another folder with --out")
    if _is_started(wish.out):
        check_same_wish(wish)
        change_run(wish.out, _places(wish))
        return
    base, data, plan = prepare_run(wish, world, company)
    write_recipe(plan.recipe, wish.out / RECIPE_FILE)
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "tokenizer": None,
        **_places(wish),
        "model_sha256": digest_of(base.model),
        "template": base.template.source,
        "new_tokens": base.n_new,
        "parameters_trained": plan.n_trained,
        "chats": list(wish.chats),
        "validation": list(wish.validation),
        "data": data_entry(data.folder, wish.out),
        "fingerprint": data.fingerprint,
        "examples": {side: getattr(data, side).n_examples for side in SIDES},
        "tokens": {side: getattr(data, side).n_tokens for side in SIDES},
        "tokens_learned": {side: getattr(data, side).n_counted for side in SIDES},
        "epochs": _epochs(wish),
        "device": str(world.device),
        "n_threads": torch.get_num_threads(),
        "n_ranks": world.n_ranks,
        "command": sys.argv[1:],
    }
    write_run(facts | describe_machine(), wish.out / RUN_FILE)


def _places(wish: FinetuneWish) -> dict[str, str]:
    """What run.json says of where the model and its tokenizer lie, as far as the user names them."""
    model = {} if wish.model is None else {"model": str(wish.model.resolve()), "model_name": wish.model_name}
    return model | ({"tokenizer": str(Path(wish.tokenizer).resolve())} if wish.tokenizer else {})


def _epochs(wish: FinetuneWish) -> float:
    return DEFAULT_EPOCHS if wish.epochs is None else wish.epochs


def prepare_run(wish: FinetuneWish, world: World, company: FinetuneCompany) -> tuple[Base, ChatData, FinetunePlan]:
    """Read the model, render the chats and plan."""
    if wish.model is None or not wish.chats:
        missing = "no run to resume there" if wish.resume else "no model" if wish.model is None else "no chats to learn from"
        raise SettingError(f"{wish.out}: found {missing}; name a model and files of chats")
    check_training(wish.overrides, world.n_ranks)
    usual = ChatOptions(seed=wish.overrides.get("seed", ChatOptions.seed), **wish.options).validate()
    base = open_base(wish.model, wish.model_name, wish.template, wish.tokenizer)
    _check_folder(wish.out, base)
    context = base.model.config.context
    if wish.context > context:
        raise SettingError(f"context: found {wish.context}, expected at most {context}, which {wish.model_name} sees at once")
    kind = wish.kind or kind_of(find_chat_files(wish.chats), usual)
    options = replace(usual, kind=kind, context=wish.context or context)
    folder = wish.out / DATA
    empty_of_chats(folder)  # of a run that did not get as far as its first step
    data = open_chats(prepare_chats(wish.chats, base.template, base.tokenizer, folder, options, company, wish.validation))
    company.prepared(data, base)
    objective, per_unit = ("preferences", PER_PAIR) if kind == "pairs" else ("answers", 1)
    facts = ChatFacts(unit_lengths(data.train, per_unit), data.validation.n_tokens, objective)
    machine = find_machine(world.device.type, world.n_ranks)
    plan = plan_finetuning(base.begun.config, base.n_new, facts, _epochs(wish), machine, wish.overrides)
    company.planned_finetuning(plan, base)
    return base, data, plan


def _check_folder(out: Path, base: Base) -> None:
    """Raise SettingError where the run's folder holds another model, which would be overwritten."""
    found = [name for name in (CONFIG_NAME, ADAPTER_CONFIG_NAME) if (out / name).exists()]
    if found or is_inside(out, base.model):
        raise SettingError(f"{out}: found a model there ({found[0] if found else base.name}); name another folder with --out")


def _is_started(out: Path) -> bool:
    return (out / RUN_FILE).exists() and (out / RECIPE_FILE).exists()


def check_same_wish(wish: FinetuneWish) -> None:
    """Raise SettingError where a run is asked to go on with another model, other chats, template or setting."""
    facts, recipe = read_facts(wish.out), read_recipe(wish.out / RECIPE_FILE)
    check_same(wish.out, _changes(wish, facts, recipe))


def _changes(wish: FinetuneWish, facts: dict[str, Any], recipe: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Name, value then and value now of everything that the wish says and resuming may not change."""
    known = read_chat_manifest(Path(facts["data"])).recipe
    path, tokenizer = wish.model or Path(facts["model"]), wish.tokenizer or facts["tokenizer"]
    if wish.model is None and not path.exists():
        raise SettingError(f"{path}: found nothing, expected the model that the run began with; name the place that it has now")
    sha256 = digest_of(read_model(path, tokenizer))
    yield "model (sha256)", facts["model_sha256"][:12], sha256[:12]
    has_moved = any(facts[name] != place for name, place in _places(wish).items() if name != "model_name")
    if has_moved and sha256 == facts["model_sha256"]:
        base = open_base(path, wish.model_name, facts["template"], tokenizer)
        now = digest_of_tokenizer(base.tokenizer, base.template, known["options"]["context"])
        yield "tokenizer (sha256)", known["tokenizer"][:12], now[:12]
    for key, names in (("sources", wish.chats), ("validation", wish.validation)):
        if names:
            yield from changed_files(known.get(key, ()), find_chat_files(names))
    if wish.template:
        yield "template", facts["template"], wish.template
    chosen = {"kind": wish.kind, "context": wish.context}
    given = dict(wish.options) | {name: value for name, value in chosen.items() if value}
    yield from ((name, known["options"][name], value) for name, value in given.items())
    if wish.epochs is not None:
        yield "epochs", facts["epochs"], wish.epochs
    yield from changed_fields(recipe, with_overrides(recipe, wish.overrides))


def read_facts(folder: Path) -> dict[str, Any]:
    """run.json of a folder in which chats are learned; raises SettingError where it is none."""
    facts = read_run(folder)
    if "model_sha256" not in facts:
        raise SettingError(f"{folder}: found a run of `llamita train`, expected one of `llamita finetune`")
    return facts


def _train(wish: FinetuneWish, world: World, company: FinetuneCompany, tell: TellAnswers | None) -> int | None:
    """The part that all ranks do together."""
    facts = read_facts(wish.out)
    data = open_chats(facts["data"])
    changes = {name: wish.overrides[name] for name in TrainConfig.__dataclass_fields__ if name in wish.overrides}
    recipe = with_overrides(read_recipe(wish.out / RECIPE_FILE), changes)
    base = open_base(facts["model"], facts["model_name"], facts["template"], facts["tokenizer"])
    base = replace(base, sha256=facts["model_sha256"])
    is_preference = recipe.finetuning is not None and recipe.finetuning.objective == "preferences"
    reference = find_reference(recipe, data, base, wish.out, world, company) if is_preference else None
    task = Finetuning(recipe, data, base, reference)
    told = None if tell is None else lambda model: tell(model, base, data)
    return train_task(task, wish, world, company, told, flops_of_token(recipe))


def find_reference(recipe: Recipe, data: ChatData, base: Base, out: Path, world: World, company: FinetuneCompany) -> Reference:
    """How likely every answer was to the model before training: read from the run's folder, or made there by all ranks."""
    belongs_to = {"data": data.fingerprint, "model": base.sha256}
    found = read_reference(out, belongs_to)
    if not world.any(found is None):
        assert found is not None
        return found
    network = Finetuning(recipe, data, base).build()
    world.spread(network, network.layers)
    rows = {side: rows_of(recipe, getattr(data, side)) for side in SIDES}
    training = recipe.training
    with company.counting("reference", sum(side.n_rows(1) for side in rows.values())) as advance:
        made = {
            side: make_reference(network, of_side, training.batch, training.dtype, world, lambda n: advance(n * world.n_ranks))
            for side, of_side in rows.items()
        }
    if world.is_first:
        write_reference(made, out, belongs_to)
    world.wait()
    return made
