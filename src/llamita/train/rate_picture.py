"""The curve of a range test as a picture for a page or a talk. The numbers are range_test.py's."""

from pathlib import Path

from llamita.errors import SettingError
from llamita.files import atomic_file
from llamita.train.range_test import RangeTest

KINDS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Raise SettingError where a picture cannot be drawn under this name, before time was spent on its numbers."""
    if path.suffix.lower() not in KINDS:
        raise SettingError(f"{path}: found the ending {path.suffix or 'none'}, expected {', '.join(KINDS)}")
    if not path.absolute().parent.is_dir():
        raise SettingError(f"{path}: found no folder {path.absolute().parent}, expected one that is there")


def write_picture(test: RangeTest, title: str, path: Path) -> None:
    """Draw loss by learning rate, raw and smoothed, with the rates that it names."""
    from matplotlib.figure import Figure  # without pyplot, which keeps what it draws and looks for a screen

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(test.rates, test.losses, color="#a9bfe6", linewidth=1, label="of each update")
    axes.semilogx(test.rates[: len(test.smoothed)], test.smoothed, color="#2563c9", linewidth=2, label="smoothed")
    axes.axvline(test.suggested_rate, color="#c2570c", label=f"suggested: {test.suggested_rate:g}")
    axes.axvline(test.lowest_rate, color="#5d6879", linestyle=":", label=f"lowest: {test.lowest_rate:.2g}")
    if test.divergence_rate is not None:
        axes.axvline(test.divergence_rate, color="#a61b1b", linestyle="--", label=f"breaks out: {test.divergence_rate:.2g}")
    fall = test.smoothed[0] - min(test.smoothed)
    axes.set_ylim(min(test.smoothed) - 0.1 * fall, test.smoothed[0] + 0.4 * fall)
    axes.set(xlabel="learning rate", ylabel="loss, nats per token", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=150)
