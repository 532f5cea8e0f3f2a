"""How fast and in how little memory `llamita export` writes, beside cp on the same disk.

    python benchmarks/export.py --folder DISK [--shape 7B] [--rounds 3] [--to safetensors:f16 gguf:f16 llama2c-v0:f32]

Makes a Hugging Face folder of random float16 weights in the shape, then in each round, each time from a cold page cache: copies
its weights with cp, exports them, and copies them again. All end when the bytes are on the disk (fsync). Speed is bytes written
a second; a ratio is that to the mean of the two copies around, as the speed of shared disks drifts; memory is the peak of the
whole process. Whatever was made is deleted at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from llamita.bench.subject import shape_model
from llamita.config import PRESETS
from llamita.formats import write_model

DEFAULT = ["safetensors:f16", "safetensors:bf16", "gguf:f16", "llama2c-v0:f32"]


def drop_cache(file: Path) -> None:
    """Take a file out of the page cache, so that it is read from the disk again."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def copy_seconds(source: Path, target: Path) -> float:
    """Seconds of cp until all is on the disk."""
    drop_cache(source)
    started = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def export(source: Path, target: Path, to: str, dtype: str) -> tuple[float, int, int]:
    """(seconds, bytes written, peak of memory in bytes) of one export in a process of its own."""
    drop_cache(source / "model.safetensors")
    verb = [sys.executable, "-m", "llamita", "export", str(source), str(target), "--to", to, "--dtype", dtype]
    seen = json.loads(
        subprocess.run([sys.executable, "-m", "llamita.bench.witness", *verb], capture_output=True, check=True).stdout
    )
    if seen["status"]:
        sys.exit(seen["stderr"])
    files = list(target.iterdir()) if target.is_dir() else [target]
    n_bytes = sum(file.stat().st_size for file in files)
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    return seen["whole_seconds"], n_bytes, seen["peak_bytes"]


def compare(folder: Path, shape: str, rounds: int, wanted: list[str]) -> None:
    """Measure all rounds and print a table."""
    source = folder / "source"
    write_model(shape_model(PRESETS[shape], "f16"), source, "safetensors")
    weights = source / "model.safetensors"
    size = weights.stat().st_size
    largest = PRESETS[shape].vocab_size * PRESETS[shape].width * 2
    print(f"{shape} float16, {size / 1e9:.2f} GB, largest tensor {largest / 1e6:.0f} MB", flush=True)
    speeds: dict[str, list[float]] = {name: [] for name in ("cp", *wanted)}
    ratios: dict[str, list[float]] = {name: [] for name in wanted}
    peaks: dict[str, int] = dict.fromkeys(wanted, 0)
    for _ in range(rounds):
        for name in wanted:
            before = size / copy_seconds(weights, folder / "copy")
            seconds, n_bytes, peak = export(source, folder / "target", *name.split(":"))
            copies = before, size / copy_seconds(weights, folder / "copy")
            speeds["cp"] += copies
            speeds[name].append(n_bytes / seconds)
            ratios[name].append(n_bytes / seconds / statistics.mean(copies))
            peaks[name] = max(peaks[name], peak)
            told = ", ".join(f"{speed / 1e6:.0f}" for speed in copies)
            print(f"{name}: {n_bytes / 1e9:.2f} GB in {seconds:.1f} s, cp {told} MB/s", file=sys.stderr, flush=True)
    print("| | MB/s | from - to | ratio to cp | peak memory |\n|---|---|---|---|---|")
    for name, values in speeds.items():
        row = f"| {name} | {statistics.median(values) / 1e6:,.0f} | {min(values) / 1e6:,.0f} - {max(values) / 1e6:,.0f} |"
        print(row if name == "cp" else f"{row} {statistics.median(ratios[name]):.2f} | {peaks[name] / 1e6:,.0f} MB |")


def main() -> None:
    """Parse the command line and measure in a folder that does not outlive it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to be measured; room for three to four copies")
    parser.add_argument("--shape", default="7B", choices=sorted(PRESETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--to", nargs="+", default=DEFAULT, metavar="FORMAT:DTYPE")
    wanted = parser.parse_args()
    with TemporaryDirectory(prefix="llamita-export-", dir=wanted.folder) as folder:
        compare(Path(folder), wanted.shape, wanted.rounds, wanted.to)


if __name__ == "__main__":
    main()
