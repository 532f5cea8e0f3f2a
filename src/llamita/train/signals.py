"""Ctrl-C and SIGTERM as a wish that the training loop grants at the end of a step, instead of an exception in its middle."""

import signal
import threading
from types import FrameType, TracebackType

WISHES = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


class StopWish:
    """While it is open, the first SIGINT or SIGTERM sets `signal_number`; the second ends the process as it always did."""

    signal_number: int | None = None

    def __enter__(self) -> "StopWish":
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._note) for number in WISHES} if in_main_thread else {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give_back()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal_number = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
