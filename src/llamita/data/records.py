"""Files and data sets of records (JSON lines, JSON, CSV, Parquet, the Hugging Face hub), as the texts of one of their columns.

Each reader yields records one after the other, numbered from 1, and holds few of them. Who reads JSON lines may go on behind a
broken one. pyarrow and datasets are imported by those who need them. Knows nothing of plain text files.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

from llamita.data.text_files import open_bytes, open_text
from llamita.errors import DataError, one_line

FIELDS = ("text", "story", "content", "document", "article", "body")  # columns of text, the likeliest first
LONGEST_RECORD = 1 << 28  # bytes; a longer one is no record
_N_LOOKED_AT = 100  # records that tell which column holds the text
_CHUNK = 1 << 20
_CSV_END = "\ufdd0"  # a last line that no file has: within an open quote it becomes a part of the record before it

Record = tuple[int, object]
OnBroken = Callable[[int, DataError], None]  # is told of the number and of what is wrong; may raise it


def _stop(_: int, error: DataError) -> None:
    raise error


def read_records(name: str, kind: str, on_broken: OnBroken = _stop) -> Iterator[Record]:
    """All records of a source, whole, each with its number. on_broken is told of broken lines of JSON lines.

    Raises DataError, naming the record, for what is broken otherwise: nobody knows where the next one begins.
    """
    if kind == "jsonl":
        return _read_json_lines(name, on_broken)
    return _read_parquet(name, all_columns=True) if kind == "parquet" else iter(_READERS[kind](name))


def read_texts(name: str, kind: str, field: str, note: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    """The texts in one column of a source, each with the number of its record; note is told which column it is.

    field: the column, or "" for the likeliest. Records that are texts themselves need none; empty fields are left out.
    Raises DataError, naming the record, for a field that is missing or no text.
    """
    records = iter(_READERS[kind](name))
    first = list(islice(records, _N_LOOKED_AT))
    if not first:
        return
    column = field or _guess_field(name, [record for _, record in first])
    note(
        "each record is a document"
        if not column
        else f"the text is in {column!r}" + ("" if field else ", the likeliest column")
    )
    if kind == "parquet":  # all columns were opened for the guess
        first, records = [], iter(_read_parquet(name, [column]))
    for number, record in chain(first, records):
        text = record.get(column, _MISSING) if isinstance(record, dict) else record
        if text is None:
            continue
        if not isinstance(text, str):
            found = f"no field {column!r}" if text is _MISSING else f"{type(text).__name__} {str(text)[:40]}"
            raise DataError(one_line(f"{name}: record {number}: found {found}, expected a text{_columns(record)}"))
        yield number, text


_MISSING = object()


def _guess_field(name: str, records: Sequence[object]) -> str:
    """The likeliest column of text: one of FIELDS, else the one with most characters; "" where records are texts."""
    if all(isinstance(record, str) for record in records):
        return ""
    lengths: dict[str, int] = {}
    for record in records:
        for column, value in record.items() if isinstance(record, dict) else ():
            if isinstance(value, str) and isinstance(column, str):
                lengths[column] = lengths.get(column, 0) + len(value)
    if not lengths:
        raise DataError(one_line(f"{name}: record 1: found no column of text, expected one{_columns(records[0])}"))
    return next((field for field in FIELDS if field in lengths), max(lengths, key=lambda column: lengths[column]))


def _columns(record: object) -> str:
    """The columns of a record, for a message."""
    return f" (its columns: {', '.join(map(str, record))[:200]})" if isinstance(record, dict) else ""


def _read_json_lines(name: str, on_broken: OnBroken = _stop) -> Iterator[Record]:
    with open_bytes(name) as file:
        for number, line in _lines(file):
            try:
                if len(line) > LONGEST_RECORD:
                    raise ValueError(f"more than {LONGEST_RECORD:,} bytes in a line")
                if not line.isspace():
                    yield number, json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                place = f"{name}: line {number}, byte {error.start}"
                on_broken(number, DataError(one_line(f"{place}: found no UTF-8, expected it")))
            except (ValueError, RecursionError) as error:
                place = f"{name}: line {number}"
                on_broken(number, DataError(one_line(f"{place}: found broken JSON ({error}), expected a record")))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered; of one that is too long to be a record only the beginning, a byte too long."""
    number = 0
    while line := file.readline(LONGEST_RECORD + 1):
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        rest = line if len(line) > LONGEST_RECORD else b""
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(_CHUNK)


def _read_json(name: str) -> Iterator[Record]:
    """The items of one list, or values one after the other, without holding more than the one being read."""
    decode = json.JSONDecoder().raw_decode
    with open_text(name) as stream:
        buffer = stream.read(_CHUNK).lstrip()
        is_list = buffer.startswith("[")
        buffer = buffer.removeprefix("[")
        number, line, position, ended = 0, 1, 0, False
        while True:
            start = re.compile(r"[\s,]*").match(buffer, position).end()  # pyright: ignore[reportOptionalMemberAccess]
            if is_list and buffer[start : start + 1] == "]":
                return
            try:
                if start < len(buffer):
                    value, position = decode(buffer, start)
                    number += 1
                    yield number, value
                    continue
            except (ValueError, RecursionError) as error:
                if ended or len(buffer) - start > LONGEST_RECORD:
                    line += buffer.count("\n", 0, start)
                    place = f"{name}: record {number + 1}, from line {line}"
                    raise DataError(one_line(f"{place}: found broken JSON ({error}), expected a record")) from None
            if ended:
                if is_list:
                    raise DataError(one_line(f"{name}: found a list that does not end, expected ]; was a copy interrupted?"))
                return
            chunk = stream.read(max(_CHUNK, len(buffer) - start))  # twice as much each time, for a long record
            line += buffer.count("\n", 0, start)
            buffer, position, ended = buffer[start:] + chunk, 0, not chunk


def _read_csv(name: str) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_RECORD)  # a setting of the whole process; the default is shorter than a story may be
    with open_text(name, newline="") as stream:
        header = stream.readline()
        number, line = 1, 1
        try:
            rows = csv.reader(chain([header], stream, [_CSV_END]), delimiter=_delimiter_of(header))
            columns: list[str] = []
            for row in rows:
                if row == [_CSV_END]:
                    return
                if row and row[-1].endswith(_CSV_END):
                    raise csv.Error("a quote that nothing closes")
                if row and columns:
                    # as csv.DictReader has it: what is missing is None, what has no column stands under None
                    record: dict[str | None, Any] = dict.fromkeys(columns)
                    record.update(zip(columns, row, strict=False))
                    if len(row) > len(columns):
                        record[None] = row[len(columns) :]
                    yield number, record
                    number += 1
                columns, line = columns or row, rows.line_num + 1
        except csv.Error as error:
            place = f"{name}: record {number}, from line {line}"
            raise DataError(one_line(f"{place}: found broken CSV ({error}), expected a record")) from None


def _delimiter_of(header: str) -> str:
    """What stands between the columns: whatever makes most columns of their names, else a comma."""
    return max(",;\t|", key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _read_parquet(name: str, columns: Sequence[str] = (), all_columns: bool = False) -> Iterator[Record]:
    """The rows of a Parquet file, of some columns, of all that hold text or of all."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{name}: reading Parquet needs pyarrow: pip install 'llamita[data]'") from None
    try:
        with pyarrow.parquet.ParquetFile(name) as file:
            is_text = pyarrow.types.is_string, pyarrow.types.is_large_string
            texts = [column.name for column in file.schema_arrow if any(test(column.type) for test in is_text)]
            absent = set(columns) - set(texts)
            if not all_columns and (absent or not texts):
                raise DataError(one_line(f"{name}: found text in {texts}, expected it in {sorted(absent) or 'a column'}"))
            number = 0
            for batch in file.iter_batches(_N_LOOKED_AT, columns=None if all_columns else columns or texts):
                yield from enumerate(batch.to_pylist(), number + 1)
                number += len(batch)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(one_line(f"{name}: found {error}, expected a Parquet file")) from None


def _read_dataset(name: str) -> Iterator[Record]:
    """The rows of owner/name:split, streamed by the library datasets; the split is train where none is named."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(f"{name}: reading data sets needs datasets: pip install 'llamita[data]'") from None
    path, _, split = name.partition(":")
    rows: Any
    try:
        rows = load_dataset(path, split=split or "train", streaming=True)
        yield from enumerate(rows, 1)
    except Exception as error:  # the library lets through whatever its many parts raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            one_line(
                f"{name}: found no such file or folder, and the data set cannot be read: {reason}; is the network reachable?"
            )
        ) from None


_READERS: dict[str, Callable[[str], Iterator[Record]]] = {
    "jsonl": _read_json_lines,
    "json": _read_json,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
}
