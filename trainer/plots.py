"""Plots of what retro-train and retro-eval write: plots.py OUT.svg curve.csv...    or    plots.py OUT.svg text.json
Needs matplotlib (deploy/local/setup.sh --bench)."""

import csv
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# Letters as text: as outlines they are most of a file.
matplotlib.rcParams.update({"svg.hashsalt": "retro", "svg.fonttype": "none", "figure.figsize": (7, 4), "axes.grid": True, "grid.alpha": 0.3})


def save(out):
    plt.legend()
    plt.tight_layout()
    plt.savefig(out, metadata={"Date": None})
    plt.close()


def training(out, curves):
    """Losses over tokens; curves: name -> path of a curve.csv."""
    for name, path in curves.items():
        rows = list(csv.DictReader(open(path)))
        plt.plot([int(row["tokens"]) / 1e6 for row in rows], [float(row["loss"]) for row in rows], label=f"{name}, training", alpha=0.5)
        for column, label in (("validation_loss_without_neighbours", "without neighbours"), ("validation_loss", "with neighbours")):
            points = [(int(row["tokens"]) / 1e6, float(row[column])) for row in rows if row[column]]
            if points:
                plt.plot(*zip(*points), marker="o", label=f"{name}, validation {label}")
    plt.xlabel("million tokens")
    plt.ylabel("nats a token")
    save(out)


def leakage(out, report):
    """Bits per byte over the chunks that share little with a neighbour, by k."""
    for run in report["runs"]:
        rows = [row for row in run["leakage"] if row["bytes"]]
        plt.errorbar([100 * row["shared_at_most"] for row in rows], [row["value"] for row in rows], marker="o", capsize=3,
                     yerr=[[row["value"] - row["low"] for row in rows], [row["high"] - row["value"] for row in rows]],
                     label=f"k = {run['k']}" if run["k"] else "no retrieval")
    plt.xlabel("chunks that share at most this much with a neighbour, %")
    plt.ylabel("bits per byte")
    save(out)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    if sys.argv[2].endswith(".json"):
        leakage(sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text()))
    else:
        training(sys.argv[1], {pathlib.Path(path).parent.name or path: path for path in sys.argv[2:]})
