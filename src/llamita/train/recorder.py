"""Recorder: everything that a run tells while it trains goes through here, to the logs, the boards and the screen.

The trainer calls it after each step, validation and sample; rank 0 has a Recorder, the other ranks a SilentRecorder. Nothing in
it can end a run: full disks and lost networks are warnings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from llamita.train.boards import TensorBoard, WeightsAndBiases
from llamita.train.live_line import Progress, open_line
from llamita.train.metrics import (
    METRICS,
    SAMPLES,
    Log,
    PreferenceRecord,
    SampleRecord,
    StartRecord,
    StepRecord,
    ValidationRecord,
    cut_after,
)


@dataclass(frozen=True)
class Audience:
    """Who listens besides metrics.jsonl and samples.jsonl."""

    tensorboard: bool = True
    wandb_project: str = ""  # "": nobody at wandb
    wandb_config: Mapping[str, Any] = field(default_factory=dict)  # what wandb shall show of the run: the recipe
    screen: TextIO | None = None  # None: stderr


class SilentRecorder:
    """A recorder that tells nobody, and the interface of those that do."""

    def step(self, record: StepRecord) -> None:
        """After each update."""

    def validation(self, record: ValidationRecord) -> None:
        """After each measurement on the validation text."""

    def preference(self, record: PreferenceRecord) -> None:
        """After a step or a measurement of a run that learns preferences."""

    def sample(self, step: int, prompt: str, text: str) -> None:
        """After a sample was written; text does not repeat the prompt."""

    def note(self, text: str) -> None:
        """A line of its own on the screen."""

    def sync(self) -> None:
        """Before a checkpoint gets its name: a log on the disk is never behind the checkpoint that goes on from it."""

    def close(self) -> None:
        """At the end, also after an error."""

    def __enter__(self) -> "SilentRecorder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Recorder(SilentRecorder):
    """Writes metrics.jsonl, samples.jsonl and the boards, and shows one live line."""

    def __init__(
        self,
        folder: Path,
        first_step: int,
        n_steps: int,
        flops_per_token: float,
        peak_flops: float | None,
        audience: Audience = Audience(),
    ) -> None:
        """Open or continue the logs of a run's folder.

        first_step: updates already done; what the logs say about later ones is taken out, those of first_step itself stay.
        peak_flops: of all devices together, for the share of it that is used (MFU); None where it is not known.
        Raises SettingError where wandb is wanted and cannot be had, ModelFileError or OSError where the logs cannot be opened.
        """
        self._line = open_line(audience.screen)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, SAMPLES):
            cut_after(folder / name, first_step)
        self._boards: list[TensorBoard | WeightsAndBiases] = []
        if audience.wandb_project:
            self._boards.append(WeightsAndBiases(audience.wandb_project, folder, audience.wandb_config, self.note))
        if audience.tensorboard and find_spec("tensorboard") is None:
            self.note("tensorboard: the package is missing, so there will be no charts of it; pip install tensorboard")
        elif audience.tensorboard:
            self._boards.append(TensorBoard(folder, first_step, self.note))
        self._n_steps = n_steps
        self._progress = Progress(first_step, n_steps, flops_per_token, peak_flops)
        self._metrics, self._samples = Log(folder / METRICS, self.note), Log(folder / SAMPLES, self.note)
        self._metrics.append(StartRecord(first_step))

    def step(self, record: StepRecord) -> None:
        """Log a step and redraw the live line."""
        self._metrics.append(record)
        self._line.show(self._progress.step(record, self._line.width), last=record.step >= self._n_steps)
        numbers = {
            "train/loss": record.loss,
            "train/learning_rate": record.learning_rate,
            "train/gradient_norm": record.gradient_norm,
            "speed/tokens_per_second": record.n_tokens / record.seconds if record.seconds else 0.0,
            "speed/data_share": record.data_seconds / record.seconds if record.seconds else 0.0,
        }
        for board in self._boards:
            board.numbers(record.step, numbers)

    def validation(self, record: ValidationRecord) -> None:
        """Log a measurement and print it on a line of its own."""
        self._metrics.append(record)
        self._line.say(self._progress.validation(record))
        numbers = {"validation/loss": record.loss, "validation/bits_per_byte": record.bits_per_byte}
        for board in self._boards:
            board.numbers(record.step, {name: number for name, number in numbers.items() if not math.isnan(number)})

    def preference(self, record: PreferenceRecord) -> None:
        """Log how answers are ranked; of the validation data it is printed on a line of its own."""
        self._metrics.append(record)
        line = self._progress.preference(record)
        if line:
            self._line.say(line)
        numbers = {"reward_accuracy": record.reward_accuracy, "reward_margin": record.reward_margin}
        for board in self._boards:
            board.numbers(record.step, {f"{record.what}/{name}": number for name, number in numbers.items()})

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Log a sample and print it, with control characters made visible."""
        self._samples.append(SampleRecord(step, prompt, text))
        shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in prompt + text)
        self._line.say(f"step {step:,}, sample: {shown}")
        for board in self._boards:
            board.text(step, "sample", prompt + text)

    def note(self, text: str) -> None:
        """Print a line above the live line."""
        self._line.say(text)

    def sync(self) -> None:
        """Put the logs on the disk itself."""
        self._metrics.sync()
        self._samples.sync()

    def close(self) -> None:
        """Write what is left and give the screen back. A second call does nothing."""
        if self._metrics.is_open:
            self._metrics.close()
            self._samples.close()
            for board in self._boards:
                board.close()
            self._line.close()
