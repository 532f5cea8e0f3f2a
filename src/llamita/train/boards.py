"""What a run reports to TensorBoard and to Weights & Biases, beside its own logs.

A board gets named numbers and texts at a step. Neither may end a run: what fails is one warning, and metrics.jsonl has it all.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llamita.errors import SettingError, one_line
from llamita.files import atomic_file

TENSORBOARD_FOLDER, WANDB_ID_FILE = "tensorboard", "wandb_id.txt"
RETRY_SECONDS = 30.0


class TensorBoard:
    """Event files, written at once and without a thread, so that a full disk shows here and nowhere else."""

    def __init__(self, folder: Path, first_step: int, warn: Callable[[str], None]) -> None:
        """Write into folder/tensorboard; events after first_step that an earlier process left are hidden."""
        self._folder, self._first_step, self._warn = folder / TENSORBOARD_FOLDER, first_step, warn
        self._file = None
        self._retry_at = 0.0  # on the monotonic clock

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Draw a point in the chart of each name."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=points))

    def text(self, step: int, name: str, text: str) -> None:
        """Show a text, as code so that nothing in it becomes markup."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.tensor_pb2 import TensorProto  # pyright: ignore[reportAttributeAccessIssue]

        indented = "".join(f"    {line}\n" for line in text.splitlines())
        tensor = TensorProto(dtype="DT_STRING", string_val=[indented.encode("utf-8", "replace")])
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, metadata=metadata, tensor=tensor)]))

    def close(self) -> None:
        """Close the event file."""
        if self._file:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, **event: Any) -> None:
        """Write one event. After a failure the file may end in a torn record, so the next try opens a new one."""
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._file is None:
                self._open()
            self._append(**event)
        except OSError as error:
            self.close()
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._warn(f"{self._folder}: {error.strerror or error}; charts of TensorBoard will have a gap")

    def _open(self) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names: two of the same second must not change places.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (self._folder / name).open("xb", buffering=0)
        self._append(file_version="brain.Event:2")
        if self._first_step:  # as SummaryWriter does with purge_step
            self._append(step=self._first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def _append(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._file).write(Event(wall_time=time.time(), **event).SerializeToString())


class WeightsAndBiases:
    """A run on wandb.ai, or under folder/wandb where WANDB_MODE=offline says so. A run that goes on is the same run there."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        """Raises SettingError where wandb is missing or does not let us in."""
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise SettingError("wandb: the package is missing; install it with: pip install 'llamita[wandb]'") from None
        self._warn = warn
        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")  # an offline run cannot be asked whether it exists
        try:
            self._run = wandb.init(
                project=project,
                dir=str(folder),
                name=folder.resolve().name,
                id=_run_id(folder),
                resume=None if offline else "allow",
                config=dict(config),
                settings=wandb.Settings(console="off", silent=True),
            )
            # A resumed run reports some steps again; a step of wandb's own could not go back.
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # wandb raises errors of many families
            raise SettingError(one_line(f"wandb: {error}; WANDB_MODE=offline needs no account and no network")) from None

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Draw a point in the chart of each name."""
        self._try(lambda: self._run.log({"step": step, **values}))

    def text(self, step: int, name: str, text: str) -> None:
        """Keep a text; wandb has no chart of texts but shows the last one."""
        self._try(lambda: self._run.log({"step": step, name: text}))

    def close(self) -> None:
        """Send what has not been sent."""
        self._try(self._run.finish)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # wandb raises errors of many families, and none of them is worth a run
            self._warn(one_line(f"wandb: {error}"))


def _run_id(folder: Path) -> str:
    """The name under which wandb knows this folder's run, made up once."""
    path = folder / WANDB_ID_FILE
    if not path.is_file():
        with atomic_file(path) as file:
            file.write(secrets.token_hex(8).encode())
    return path.read_text(encoding="ascii", errors="replace").strip()
