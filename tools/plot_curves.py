"""Write the plots of docs/training-guide.md and docs/stories.md.

python tools/plot_curves.py loss CURVES.json docs/optimizers.svg      from benchmarks/training_loss.py --out
python tools/plot_curves.py run RUN_FOLDER docs/stories.svg           from llamita train --out
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#808080"  # readable on white and on black


def new_plot(y_label: str) -> tuple[Figure, Axes]:
    """An empty plot without a background, in colours for light and dark pages."""
    plt.rcParams.update(
        {"text.color": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "svg.hashsalt": "0"}
    )
    figure, axes = plt.subplots(figsize=(7.5, 4))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(alpha=0.25)
    axes.set_xlabel("million tokens seen")
    axes.set_ylabel(y_label)
    return figure, axes


def plot_losses(source: Path, target: Path) -> None:
    """One line per run of benchmarks/training_loss.py; the beginning is cut off, where all fall alike."""
    figure, axes = new_plot("validation loss, nats per token")
    for name, curve in json.loads(source.read_text()).items():
        late = curve[len(curve) // 5 :]
        dashes = "--" if name.startswith("llama2.c") else "-"
        axes.plot([tokens / 1e6 for tokens, _ in late], [loss for _, loss in late], dashes, label=name)
    save(figure, axes, target)


def plot_run(folder: Path, target: Path) -> None:
    """Training loss, smoothed, and validation loss of a run."""
    figure, axes = new_plot("loss, nats per token")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "gradient_norm" in line]
    per_step, smooth, curve = steps[0]["n_tokens"], steps[0]["loss"], []
    for line in steps:
        smooth += 0.02 * (line["loss"] - smooth)
        curve.append(smooth)
    axes.plot([line["step"] * per_step / 1e6 for line in steps][50:], curve[50:], label="training, smoothed")
    checks = [line for line in lines if "bits_per_byte" in line]
    axes.plot([line["step"] * per_step / 1e6 for line in checks], [line["loss"] for line in checks], "o-", label="validation")
    save(figure, axes, target)


def save(figure: Figure, axes: Axes, target: Path) -> None:
    """Write the SVG, the same bytes for the same numbers."""
    axes.legend(frameon=False)
    figure.savefig(target, transparent=True, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    {"loss": plot_losses, "run": plot_run}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
