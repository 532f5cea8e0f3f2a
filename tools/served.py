"""A `llamita serve` of its own for a suite or a benchmark: started on a free port, waited for, ended."""

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

START_SECONDS = 120  # the first start on a machine compiles the engine


@contextmanager
def served(command: Sequence[str], *arguments: str) -> Iterator[str]:
    """Yield the URL of `COMMAND serve ARGUMENTS`, ready; command: how llamita is started."""
    with subprocess.Popen([*command, "serve", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            line = process.stderr.readline()
            if not (found := re.search(r"http://\S+?(?=;)", line)):
                raise SystemExit(f"the server did not start: {line}{process.stderr.read()}")
            wait_until_ready(found[0])
            yield found[0]
        finally:
            process.terminate()
            for line in process.stderr:
                print(line, end="")


def wait_until_ready(url: str) -> None:
    """Return when the server has loaded its model."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    raise SystemExit(f"{url} was not ready within {START_SECONDS} s")
