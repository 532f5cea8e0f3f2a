"""Evaluation: tasks of lm-evaluation-harness, by name or of one's own, run with a model; its results come out as it makes them.

harness.py is the model that it asks. Whatever the harness raises at a task becomes one line here: it has many kinds of
exceptions for that. Writes no file. Needs lm_eval, which comes with the extra `eval`.
"""

import difflib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lm_eval import evaluator, simple_evaluate  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
from lm_eval.utils import handle_non_serializable, make_table  # pyright: ignore[reportMissingImports]

from llamita.errors import LlamitaError, SettingError, one_line
from llamita.judge.harness import HarnessModel

LONGEST_REASON = 600  # characters of what the harness or a data set's loader has to say
PYTHON_SEED, OTHER_SEED = 0, 1234  # the harness's own


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate, in the harness's own terms.

    tasks: names of tasks, groups and tags, also with * and ?, and files of tasks. include_path: a folder of tasks of one's own.
    num_fewshot: examples before each question, None: as the task says. limit: documents of each task, below 1 a share of them.
    gen_kwargs: what counts instead of a task's generation_kwargs. seed: None: the harness's own. allow_code: let tasks run what
    the model writes. log_samples: keep every request and reply in the results.
    """

    tasks: tuple[str, ...]
    include_path: Path | None = None
    num_fewshot: int | None = None
    limit: float | None = None
    apply_chat_template: bool = False
    system_instruction: str | None = None
    gen_kwargs: str | None = None
    seed: int | None = None
    allow_code: bool = False
    log_samples: bool = False

    def validate(self) -> "Evaluation":
        """Return the settings; raise SettingError at one that cannot be met, before minutes have gone by."""
        if not self.tasks:
            raise SettingError("tasks: found none, expected names, such as hellaswag,arc_easy")
        if self.include_path is not None and not self.include_path.is_dir():
            raise SettingError(f"include-path: found no folder {self.include_path}, expected one with tasks in it, NAME.yaml")
        if self.limit is not None and not self.limit > 0:
            raise SettingError(f"limit: found {self.limit:g}, expected a number of documents, or a share of them below 1")
        return self


@contextmanager
def _no_git() -> Iterator[None]:
    """Let the harness not ask git for the commit of the working directory, which is none of its own; git complains there."""
    ask, evaluator.get_git_commit_hash = evaluator.get_git_commit_hash, lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = ask


def evaluate(model: HarnessModel, settings: Evaluation) -> dict[str, Any]:
    """The harness's results, as its own command makes them. Raises SettingError for tasks that cannot be loaded or run.

    >>> evaluate(HarnessModel("stories"), Evaluation(("my_task",), Path("tasks")))["results"]  # doctest: +SKIP
    """
    manager, names = _find(settings.validate())
    seed = OTHER_SEED if settings.seed is None else settings.seed
    model.sampling_seed = (seed << 32) + 1  # pyright: ignore[reportAttributeAccessIssue]
    run_tasks = cast(Callable[..., dict[str, Any] | None], simple_evaluate)  # its decorators hide its parameters
    try:
        with redirect_stdout(sys.stderr), _no_git():  # it prints what it is about, and so do tasks
            results = run_tasks(
                model,
                tasks=names,
                task_manager=manager,
                num_fewshot=settings.num_fewshot,
                limit=settings.limit,
                log_samples=settings.log_samples,
                apply_chat_template=settings.apply_chat_template,
                fewshot_as_multiturn=settings.apply_chat_template,
                system_instruction=settings.system_instruction,
                gen_kwargs=settings.gen_kwargs,
                random_seed=PYTHON_SEED if settings.seed is None else seed,
                numpy_random_seed=seed,
                torch_random_seed=None,  # would import it
                fewshot_random_seed=seed,
                confirm_run_unsafe_code=settings.allow_code,
            )
    except LlamitaError:
        raise
    except Exception as error:
        if model.is_at_work:  # pyright: ignore[reportAttributeAccessIssue]
            raise  # a mistake of ours
        raise SettingError(f"tasks: the harness cannot run them: {_reason(error)}") from error
    assert results is not None
    return results


def as_json(results: dict[str, Any]) -> str:
    """Results as the harness writes them to its files."""
    return json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False)


def as_table(results: dict[str, Any]) -> str:
    """Results as the harness shows them: one table, and one of groups where there are any."""
    return make_table(results) + (make_table(results, "groups") if results.get("groups") else "")


def task_names(include_path: Path | None) -> list[tuple[str, str]]:
    """Every task, group and tag by name, with what it is."""
    manager = TaskManager(include_path=include_path)
    kinds = {"group": manager.all_groups, "tag": manager.all_tags, "task": manager.all_subtasks}
    return sorted((name, kind) for kind, names in kinds.items() for name in names)


class _Tasks(TaskManager):
    """The harness's tasks; one that cannot be loaded is a mistake of the user, told in one line."""

    def load(self, task_list: list[str]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}, "group_map": {}}
        for name in task_list:
            try:
                found: Any = super().load(name)
            except Exception as error:
                remedy = "check the task, its data set's name and the network, which tasks with files of their own do not need"
                raise SettingError(f"task {name}: cannot be loaded: {_reason(error)}; {remedy}") from error
            for kind, items in found.items():
                loaded[kind] |= items
        return loaded


def _find(settings: Evaluation) -> tuple[_Tasks, list[str]]:
    """Where the tasks are, and their names. The harness's own 15,000 take it long to list, so those of the user come first."""
    own = _Tasks(include_path=settings.include_path, include_defaults=False)
    names, unknown = _match(own, settings.tasks)
    if not unknown and not set(names) & set(own.all_groups):  # a group may hold tasks of the harness
        return own, names
    every = _Tasks(include_path=settings.include_path)
    names, unknown = _match(every, settings.tasks)
    if unknown:
        near = difflib.get_close_matches(unknown[0], every.all_tasks)
        remedy = f"perhaps {' or '.join(near)}" if near else "--tasks list names all"
        raise SettingError(f"tasks: found no {unknown[0]}, expected a name that the harness or --include-path has; {remedy}")
    return every, names


def _match(manager: TaskManager, wanted: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of tasks and files of tasks that are wanted, each once, and what is neither."""
    names: dict[str, None] = {}
    unknown = []
    for pattern in wanted:
        is_file = pattern.endswith((".yaml", ".yml")) and Path(pattern).is_file()
        found = [pattern] if is_file else manager.match_tasks([pattern])
        names |= dict.fromkeys(found)
        if not found:
            unknown.append(pattern)
    return list(names), unknown


def _reason(error: Exception) -> str:
    """What an exception says, with its name, in one line."""
    text = " ".join(str(error).split())
    return one_line(f"{type(error).__name__}: {text}"[:LONGEST_REASON])
