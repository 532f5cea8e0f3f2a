"""Chats to examples: files of chats, rendered by a template, in a folder that `llamita finetune` learns from.

Everything that could go wrong with chats or their template goes wrong here, before training starts. Reads through
chat_files.py, writes through example_files.py; examples.py opens the result.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from llamita.data.chat_files import Read, find_chat_files, read_chat_files
from llamita.data.chat_manifest import FORMAT, ChatManifest, read_chat_manifest, write_chat_manifest
from llamita.data.chat_options import ChatOptions
from llamita.data.chat_records import SYSTEM_ROLES, BadChatError, Chat, TooLongError
from llamita.data.encode import token_dtype
from llamita.data.example_files import Divided, Spool
from llamita.data.examples import open_chats
from llamita.data.manifest import MANIFEST_NAME
from llamita.data.progress import Progress
from llamita.data.sources import Source
from llamita.data.split import SIDES
from llamita.data.tokenizer_copy import EXTRA_NAMES, NAMES
from llamita.errors import ChatTemplateError, DataError, TokenizerError, one_line
from llamita.files import atomic_file
from llamita.formats.tokenizer_files import huggingface_files
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.answers import Example
from llamita.tokenizer.chat_template import ChatTemplate
from llamita.tokenizer.published_templates import jinja_of

_PARTS_NAME = ".parts"
# what prepare_chats leaves: what tells that a folder is one of ours, and all of it
_TELLING = re.compile(rf"{re.escape(MANIFEST_NAME)}|({'|'.join(SIDES)})\.\w+\.bin|{re.escape(_PARTS_NAME)}")
_OWN = re.compile("|".join([_TELLING.pattern, *map(re.escape, (*NAMES, *EXTRA_NAMES)), r"\.[\w.]+\.[0-9a-f]{8}\.part"]))
_SHOWN_BAD = _SHOWN_FILES = 10  # bad records, and files with their shapes, that are told one by one


@dataclass
class _Facts:
    """What is known only when all chats were read."""

    shapes: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    unfilled: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""
    n_read: int = 0
    n_cut: int = 0
    n_endless: int = 0  # examples whose answer does not end in a token that ends one


def prepare_chats(
    sources: Sequence[str | os.PathLike[str]],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    out: str | os.PathLike[str],
    options: ChatOptions,
    progress: Progress | None = None,
    validation: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Render the chats of files, folders and data sets into a folder of examples, and return it.

    validation: the same of chats to measure on; without any, a share of the others is. The folder gets the tokenizer and the
    template as well. One that is finished and was made from the same files, in the same way, is left as it is. Raises
    DataError for a folder that holds something else, for chats that cannot be read or rendered where options.on_bad is stop,
    for a template that cannot write a system message, and where nothing to learn is left.

    >>> open_chats(prepare_chats(["a.jsonl"], template, tokenizer, "chats", ChatOptions())).train.n_tokens  # doctest: +SKIP
    """
    progress, folder = progress or Progress(), Path(out)
    found, held = find_chat_files(sources), find_chat_files(validation) if validation else []
    files = huggingface_files(tokenizer, options.validate().context, jinja_of(template))
    recipe = _recipe(found, held, template, files, options)
    if _is_finished(folder, recipe):
        progress.say(f"{folder}: prepared already")
        return folder
    parts = folder / _PARTS_NAME
    shutil.rmtree(parts, ignore_errors=True)
    _make(parts)
    facts = _Facts()
    with Spool(parts, token_dtype(tokenizer.vocab_size), _bytes_of_ids(tokenizer)) as spool:
        renderer, n_held = _Renderer(template, options), 0
        if held:
            _render(held, renderer, spool, facts, progress)
            n_held = len(spool)
        _render(found, renderer, spool, facts, progress)
        divided = spool.divide(options.validation_share, n_held)
    _tell(facts, progress)
    if divided.split_lots:
        progress.say("validation: too few different first questions to keep any apart; the same stand on both sides")
    for name, content in files.items():
        with atomic_file(folder / name) as file:
            file.write(content)
    manifest = _manifest(template, tokenizer, next(name for name in NAMES if name in files), facts, divided, recipe)
    write_chat_manifest(manifest, folder)
    shutil.rmtree(parts, ignore_errors=True)
    for line in summary(manifest):
        progress.say(line)
    return folder


def _manifest(
    template: ChatTemplate, tokenizer: Tokenizer, tokenizer_name: str, facts: _Facts, divided: Divided, recipe: dict
) -> ChatManifest:
    return ChatManifest(
        kind=recipe["options"]["kind"],
        dtype=token_dtype(tokenizer.vocab_size).name,
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        tokenizer=tokenizer_name,
        template=template.source,
        train=divided.sides["train"],
        validation=divided.sides["validation"],
        n_read=facts.n_read,
        n_duplicates=divided.n_duplicates,
        n_cut=facts.n_cut,
        left_out=dict(facts.left_out),
        shapes=facts.shapes,
        recipe=recipe,
    )


def summary(manifest: ChatManifest) -> list[str]:
    """What a folder holds and what was left out, in lines for people."""
    unit, per_unit = ("pairs", 2) if manifest.kind == "pairs" else ("examples", 1)
    sides = [(manifest.train, "to learn"), (manifest.validation, "to measure on")]
    counts = [
        f"{side.n_examples // per_unit:,} {unit} {purpose} ({side.n_tokens:,} tokens, {side.n_counted:,} of them counted)"
        for side, purpose in sides
    ]
    lines = [", ".join(counts)]
    notes = [f"{n:,} {reason}" for reason, n in sorted(manifest.left_out.items())]
    if manifest.n_duplicates:
        notes.insert(0, f"{manifest.n_duplicates:,} duplicate{'s' * (manifest.n_duplicates > 1)}")
    if notes:
        lines.append(f"left out: {', '.join(notes)}")
    if manifest.n_cut:
        lines.append(f"{manifest.n_cut:,} cut at the end, as they are longer than the context")
    return lines


class _Renderer:
    """A template, and what it makes of chats within the context."""

    def __init__(self, template: ChatTemplate, options: ChatOptions) -> None:
        self._template, self.options = template, options
        self._refuses_system: str | None = None  # "" where it does not

    def units(self, read: Read, facts: _Facts) -> list[tuple[Example, ...]]:
        """The examples of a chat, or the two of a pair; raise BadChatError where there are none, DataError for the template."""
        for chat in read.chats:
            if any(message["role"] in SYSTEM_ROLES for message in chat.messages):
                self._check_system(read.place)
        try:
            rendered = [self._template.encode_answers(chat.messages, chat.learned, **chat.variables) for chat in read.chats]
        except (ChatTemplateError, TokenizerError) as error:
            raise BadChatError("refused by the template", str(error)) from None
        if self.options.kind == "pairs":
            units = [_pair(rendered)]
        else:
            units = [(example,) for examples in rendered for example in examples]
        return [self._fitted(unit, facts) for unit in units]

    def _fitted(self, unit: tuple[Example, ...], facts: _Facts) -> tuple[Example, ...]:
        """The examples within the context, the first token never counted; raise BadChatError where nothing to learn fits."""
        context = self.options.context
        n_longest = max(len(example.ids) for example in unit)
        if n_longest > context and self.options.too_long == "drop":
            raise TooLongError("longer than the context", f"found {n_longest} tokens, expected at most {context}, the context")
        fitted = []
        for ids, counted in unit:
            learned = [True] * len(ids) if self.options.mask == "all" else counted
            example = Example(ids[:context], [False, *learned[1:context]])
            if not any(counted[1:context]):
                found = f"found no answer among the first {min(len(ids), context)} of {len(ids)} tokens"
                raise TooLongError("no answer within the context", f"{found}, expected one")
            fitted.append(example)
            last = max(i for i, flag in enumerate(counted) if flag)
            facts.n_endless += not self._template.stop_texts and ids[last] not in self._template.stop_ids
        if self.options.kind == "pairs" and fitted[0].ids == fitted[1].ids:
            raise TooLongError("no answer within the context", f"found answers that differ only behind token {context}")
        facts.n_cut += n_longest > context
        return tuple(fitted)

    def _check_system(self, place: str) -> None:
        """Raise DataError unless the template can write a system message."""
        if self._refuses_system is None:
            self._refuses_system = refusal_of_system(self._template)
        if self._refuses_system:
            remedy = "fold it into the question that follows, or drop it: --system-messages fold, --system-messages drop"
            found = f"found a system message, which this chat template cannot write ({self._refuses_system})"
            raise DataError(one_line(f"{place}: {found}, expected none; {remedy}"))


def refusal_of_system(template: ChatTemplate) -> str:
    """Why a template cannot write a system message, "" where it can: it may refuse, or leave the text out."""
    text = "Answer in rhymes"
    try:
        rendered = template.render([{"role": "system", "content": text}, {"role": "user", "content": "Hello"}])
    except ChatTemplateError as error:
        return str(error)
    return "" if text in rendered else "it leaves the text out"


def _pair(rendered: Sequence[Sequence[Example]]) -> tuple[Example, ...]:
    """The chosen and the rejected example; raise BadChatError where they are no two answers to the same tokens."""
    if any(len(examples) != 1 for examples in rendered):
        raise BadChatError("refused by the template", "found an answer that the template writes in two ways, expected one")
    chosen, rejected = (examples[0] for examples in rendered)
    prompts = [example.ids[: example.counted.index(True)] if any(example.counted) else [] for example in (chosen, rejected)]
    if not prompts[0] or prompts[0] != prompts[1]:
        raise BadChatError("two prompts", "found two prompts, expected the same tokens before both answers")
    return chosen, rejected


def _render(sources: Sequence[Source], renderer: "_Renderer", spool: Spool, facts: _Facts, progress: Progress) -> None:
    """Render every chat into the spool, and note what was left out."""
    options = renderer.options

    def on_bad(error: BadChatError) -> None:
        if options.on_bad == "stop" and not isinstance(error, TooLongError):
            raise DataError(f"{error}; mend it, or go on without such lines: --on-bad skip")
        facts.left_out[error.reason] += 1
        facts.first_bad = facts.first_bad or str(error)
        n_bad = facts.left_out.total()
        if n_bad <= _SHOWN_BAD:
            progress.say(f"{error}: left out" + ("; further ones are only counted" if n_bad == _SHOWN_BAD else ""))

    def note(source: Source, line: str) -> None:
        if line not in facts.shapes.values() or len(facts.shapes) < _SHOWN_FILES:
            progress.say(f"{source.name}: {line}")
        facts.shapes[source.name] = line

    n_left_out, n_read, n_kept = facts.left_out.total(), facts.n_read, len(spool)
    done_bytes, total_bytes = 0, sum(source.n_text_bytes for source in sources)
    for read in read_chat_files(sources, options, on_bad, note):
        facts.n_read += 1
        try:
            for unit in renderer.units(read, facts):
                spool.add(unit, _lot(read.chats[0], options.seed))
        except BadChatError as error:
            on_bad(type(error)(error.reason, one_line(f"{read.place}: {error}")))
        facts.unfilled.update({name for chat in read.chats for name in chat.unfilled})
        done_bytes += sum(chat.n_characters for chat in read.chats)
        progress.update(min(done_bytes, total_bytes), total_bytes)
    progress.update(total_bytes, total_bytes)
    if facts.n_read == n_read and facts.left_out.total() == n_left_out:
        raise DataError(one_line(f"{', '.join(source.name for source in sources[:3])}: found no chats, expected some"))
    if len(spool) == n_kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in facts.left_out.items())
        raise DataError(one_line(f"chats: found none to learn from ({reasons}), expected some; the first: {facts.first_bad}"))


def _tell(facts: _Facts, progress: Progress) -> None:
    """Say what is no mistake and yet may not be meant so."""
    if facts.n_endless:
        reason = "end in no token that ends an answer in this vocabulary; the model will not learn to stop there"
        progress.say(f"{facts.n_endless:,} examples {reason}")
    for name, n_chats in sorted(facts.unfilled.items()):
        progress.say(f"{{{{{name}}}}} stands in {n_chats:,} chats and stays as it is; fill it with --set {name}=TEXT")


def _lot(chat: Chat, seed: int) -> str:
    """What decides on which side a chat goes: all before its first answer, so that one question stands on one side."""
    answered = next(index for index, message in enumerate(chat.messages) if message["role"] == "assistant")
    return "\0".join([str(seed), *(message.get("content", "") for message in chat.messages[:answered] or chat.messages)])


def _bytes_of_ids(tokenizer: Tokenizer) -> np.ndarray:
    return np.array([len(tokenizer.piece_bytes(token_id)) for token_id in range(tokenizer.vocab_size)])


def _recipe(
    sources: Sequence[Source], held: Sequence[Source], template: ChatTemplate, files: dict[str, bytes], options: ChatOptions
) -> dict:
    """Everything that the content of the folder follows from, as JSON has it."""
    return {
        "tokenizer": _digest(files),
        "template": template.source,
        "options": asdict(options),
        "sources": [asdict(source) for source in sources],
        "validation": [asdict(source) for source in held],
    }


def empty_of_chats(folder: Path) -> None:
    """Remove what `prepare_chats` has left in a folder; raise DataError, and remove nothing, where anything else lies there.

    Only tokens or their manifest tell that the folder is ours: somebody may keep a tokenizer, or all text, under that name.
    """
    found = list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    others = [path.name for path in found if not _OWN.fullmatch(path.name)]
    if (folder / MANIFEST_NAME).exists() and FORMAT.encode() not in (folder / MANIFEST_NAME).read_bytes():
        others.append(MANIFEST_NAME)
    if others or (found and not any(_TELLING.fullmatch(path.name) for path in found)):
        name = others[0] if others else found[0].name
        raise DataError(one_line(f"{folder}: found {name}, expected nothing of yours there: the chats' tokens come there"))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def digest_of_tokenizer(tokenizer: Tokenizer, template: ChatTemplate, context: int) -> str:
    """SHA-256 of the tokenizer that a folder of examples gets, as its recipe has it."""
    return _digest(huggingface_files(tokenizer, context, jinja_of(template)))


def _digest(files: dict[str, bytes]) -> str:
    return sha256(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()


def _is_finished(folder: Path, recipe: dict) -> bool:
    """Whether a folder holds what this recipe gives; raise DataError for another's."""
    if not (folder / MANIFEST_NAME).exists():
        return False
    if read_chat_manifest(folder).recipe != recipe:
        reason = "found examples of other chats, another tokenizer or other settings, expected an unused folder"
        raise DataError(one_line(f"{folder}: {reason}; name another one or remove it"))
    open_chats(folder)
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(one_line(f"{folder.parent}: found {error.strerror}, expected a folder where you may write")) from None
