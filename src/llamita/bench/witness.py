"""Watch one process: when its first byte comes, when it ends, and the most memory that it held. A process of its own.

    python -m llamita.bench.witness COMMAND ARGUMENT...      prints one line of JSON

What a parent learns of a child's memory begins with the parent's own, so a small parent must start it: this one imports
nothing but the standard library.
"""

import json
import subprocess
import sys
import time


def watch(command: list[str]) -> dict[str, float | int | str | None]:
    """Run a command, its output read to the end, and return what was seen; peak_bytes is None where systems do not say."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first_byte = process.stdout.read(1)
        first_byte_seconds = time.perf_counter() - started
        process.stdout.read()
        complaint = process.stderr.read()
    whole_seconds = time.perf_counter() - started
    return {
        "status": process.returncode,
        "first_byte_seconds": first_byte_seconds if first_byte else None,
        "whole_seconds": whole_seconds,
        "peak_bytes": peak_bytes_of_children(),
        "stderr": complaint.decode(errors="replace"),
    }


def peak_bytes_of_children() -> int | None:
    """The largest resident size of any child that has ended."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(watch(sys.argv[1:])))
