"""Fine-tuning side by side: the usual tutorial's loop, timm, transformers, Lightning, fastai, and lensmith.

    python bench/transfer.py [--task frozen|full] [--quick] [--epochs-measured 2] [--target 0.85] [--json]

Everybody gets the same pictures of clothes (squashed to 224 pixels, flipped at random in training), the same starting
weights, batches of 32 and the same number of epochs; the rest is as each one's documents advise (`contestants/`, a file
each). The peers (timm, transformers, Lightning, fastai) come with `pip install -c constraints.txt --group bench`; one
that is not installed is left out.

- frozen: EfficientNet-Lite0 with ImageNet weights, of which the head alone is trained. It measures the time until
  20 epochs, or what replaces them, are done, and until an accuracy is reached: the lowest that a peer ends with,
  less 0.003, unless `--target` gives another.
- full: all layers are trained, for few epochs; it measures training images a second, and whether the accuracy is the
  same. The network is ResNet-18 from one set of random weights, or another (`--full-model`), with ImageNet's weights
  where those are available without a hub, as for tf_efficientnet_lite0.

Each runs in a process of its own. The clock starts when that has imported its libraries; it covers the loaders, the
model, training and validation up to the end of the last epoch. Of lensmith it is the command from its start, imports
included, to the end of the last epoch; `seconds` and `with_bundle_vs_tutorial` count the written bundle, too. Curves
are by each one's own validation; `accuracy` is that of the final model, evaluated in the same way for all when the
clock has stopped (of lensmith: the bundle's). Images a second are those of the training part. Memory is the most held
by the process and its children, shared pages counted once; on a GPU only what is outside it.

With `--epochs-measured K` all but lensmith run K epochs, with a learning rate planned for K, and their time for all
epochs is extrapolated from that (`scaled`).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contestants.footprint import Footprint
from contestants.task import Clock, Task
from lensmith.core.machine import allowed_cores

NEEDS: Mapping[str, tuple[str, ...]] = {
    "tutorial": (),
    "timm": (),
    "transformers": ("transformers", "accelerate"),
    "lightning": ("lightning",),
    "fastai": ("fastai",),
    "lensmith": (),
}
"""Contestant → packages it needs beside lensmith's own."""

PEERS = ("timm", "transformers", "lightning", "fastai")
TASKS = ("frozen", "full")
FROZEN_MODEL = "tf_efficientnet_lite0"
MARGIN = 0.003


def child(name: str, given: str) -> None:
    """Let one contestant run in this process; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as lines:
        os.dup2(2, 1)
        task = Task.from_json(given)
        contestant = importlib.import_module(f"contestants.{name}")
        clock = Clock(lines)
        model = contestant.run(task, clock)
        clock.report(trained=True)
        evaluate = contestant.accuracy if name == "lensmith" else importlib.import_module("contestants.shared").accuracy
        clock.report(final_accuracy=evaluate(model, task))


def images(given: argparse.Namespace, train: int, val: int) -> Path:
    """Fashion-MNIST as a folder with `train/CLASS` and `val/CLASS`, made once."""
    folder = Path(given.out) / f"data-{train}-{val}-{given.seed}"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        sizes = ["--max-train", str(train), "--max-test", str(val), "--seed", str(given.seed)]
        command = [str(Path(sys.executable).with_name("lensmith")), "data", "fetch", "fashion-mnist", str(part), *sizes]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (part / "test").rename(part / "val")
        part.rename(folder)
    return folder


def prepared(given: argparse.Namespace, mode: str, model: str, classes: int) -> tuple[Path, dict[str, Any]]:
    """Folder of the starting weights; whether they are pretrained, and the device with the faster format."""
    into = Path(given.out) / f"weights-{mode}-{model}"
    asked = {"model": model, "classes": classes, "mode": mode, "seed": given.seed, "into": str(into)}
    asked |= {"batch_size": given.batch_size, "image_size": given.image_size}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import contestants.prepare as p; p.main()"
    command = [sys.executable, "-c", code, json.dumps(asked)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return into, json.loads(done.stdout)


def missing(name: str) -> list[str]:
    """Packages that a contestant needs and that are not installed."""
    return [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]


def run(name: str, task: Task, epochs: int) -> dict[str, Any]:
    """One contestant's figures, or the reason why it failed.

    Args:
        name: the contestant's name.
        task: the contestant's job.
        epochs: number of epochs to which the time is scaled.
    """
    if lacking := missing(name):
        return {"left_out": f"not installed: {', '.join(lacking)}"}
    out = Path(task.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    log = out / "log.txt"
    reports: list[dict[str, Any]] = []
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name, "--given", task.as_json()]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        Footprint(process.pid) as footprint,
    ):
        for line in process.stdout or ():
            reports.append(json.loads(line))
            if "trained" in reports[-1]:
                footprint.stop()
    if process.returncode or not any("accuracy" in line for line in reports):
        words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [
            "it printed nothing"
        ]
        return {"left_out": f"failed, see {log}: {words[-1].strip()}"}
    return {**figures(reports, task, epochs), "peak_memory_bytes": footprint.peak_bytes}


def figures(reports: list[dict[str, Any]], task: Task, epochs: int) -> dict[str, Any]:
    """A contestant's figures from the lines that it reported."""
    curve = [(line["seconds"], line["accuracy"]) for line in reports if "accuracy" in line]
    merged = {key: value for line in reports for key, value in line.items()}
    last = curve[-1][0]
    # The first epoch includes starting the loaders, so the later ones show what one more takes.
    each = (last - curve[0][0]) / (len(curve) - 1) if len(curve) > 1 else last
    found = {
        "seconds": merged.get("total_s", last + each * (epochs - task.epochs)),
        "accuracy": merged["final_accuracy"],
        "images_per_second": merged.get("images_per_second") or merged["images"] / max(1e-9, merged["training_s"]),
        "scaled": task.epochs != epochs,
        "epochs_run": len(curve),
        "curve": curve,
    }
    return found | ({"head_seconds": merged["head_s"]} if "head_s" in merged and task.frozen else {})


def compare(given: argparse.Namespace, mode: str) -> dict[str, Any]:
    """All contestants at one task, and the ratios."""
    frozen = mode == "frozen"
    model = FROZEN_MODEL if frozen else given.full_model
    epochs = given.epochs if frozen else given.full_epochs
    data = images(given, given.train if frozen else given.full_train, given.val)
    classes = tuple(sorted(folder.name for folder in (data / "train").iterdir()))
    weights, machine = prepared(given, mode, model, len(classes))
    found: dict[str, dict[str, Any]] = {}
    for name in given.only or NEEDS:
        measured = min(epochs, given.epochs_measured or epochs) if frozen and name != "lensmith" else epochs
        task = Task(
            data=str(data.resolve()),
            classes=classes,
            image_size=given.image_size,
            epochs=measured,
            batch_size=given.batch_size,
            model=model,
            weights=str(weights.resolve()),
            mode="frozen" if frozen else "full",
            seed=given.seed,
            out=str((Path(given.out) / mode / name).resolve()),
            **machine,
        )
        print(f"{mode}: {name} …", file=sys.stderr, flush=True)
        found[name] = run(name, task, epochs)
    return {"model": model, "epochs": epochs, **machine, **compared(found, mode, given.target), "contestants": found}


def compared(found: dict[str, dict[str, Any]], mode: str, target: float | None) -> dict[str, Any]:
    """Ratios between lensmith and the others; adds `seconds_to_target` to each one's figures."""
    there = {name: figure for name, figure in found.items() if "left_out" not in figure}
    peers = [figure for name, figure in there.items() if name in PEERS]
    if target is None and peers:
        target = min(peer["curve"][-1][1] for peer in peers) - MARGIN
    for figure in there.values():
        reached = (seconds for seconds, accuracy in figure["curve"] if target is not None and accuracy >= target)
        figure["seconds_to_target"] = next(reached, None)
    ours, tutorial = there.get("lensmith"), there.get("tutorial")

    def ratio(other: dict[str, Any] | None, key: str) -> float | None:
        """How many times as fast as the other lensmith is, by a time or by a speed."""
        if ours is None or other is None or not ours[key] or not other[key]:
            return None
        if key == "seconds":  # until training has ended, as for the others; none of them writes a bundle
            return float(other[key] / ours.get("head_seconds", ours[key]))
        return float(ours[key] / other[key] if key == "images_per_second" else other[key] / ours[key])

    def against_best(key: str) -> float | None:
        """The ratio to the best peer."""
        return min((one for peer in peers if (one := ratio(peer, key)) is not None), default=None)

    frozen = mode == "frozen"
    key = "seconds" if frozen else "images_per_second"
    best = max((peer["accuracy"] for peer in peers), default=None)
    return {
        "speedup_vs_tutorial": ratio(tutorial, key),
        "speedup_vs_best_peer": against_best(key),
        "with_bundle_vs_tutorial": tutorial["seconds"] / ours["seconds"] if frozen and ours and tutorial else None,
        "to_target_vs_tutorial": ratio(tutorial, "seconds_to_target"),
        "to_target_vs_best_peer": against_best("seconds_to_target"),
        "accuracy_difference_to_best_peer": ours["accuracy"] - best if ours and best is not None else None,
        "target": target,
    }


def show(mode: str, result: Mapping[str, Any]) -> None:
    """The table of one task."""
    print(f"\n{mode}: {result['model']}, {result['epochs']} epochs on {result['device']}", end="")
    print(f", bfloat16 {'is' if result['bf16'] else 'is not'} the faster format")
    print("way            seconds  accuracy  images/s  memory  to target")
    for name, figure in result["contestants"].items():
        if "left_out" in figure:
            print(f"{name:12}  left out: {figure['left_out']}")
            continue
        reached = figure["seconds_to_target"]
        print(
            f"{name:12}  {figure['seconds']:7.1f}{'*' if figure['scaled'] else ' '} {figure['accuracy']:8.4f}  "
            f"{figure['images_per_second']:8.1f}  {figure['peak_memory_bytes'] / 1e9:3.1f} GB  "
            + (f"{reached:7.1f} s" if reached is not None else "        –")
        )
    if any(figure.get("scaled") for figure in result["contestants"].values()):
        print("* extrapolated from fewer epochs")
    if "head_seconds" in (ours := result["contestants"].get("lensmith", {})):
        print(f"lensmith's head is trained after {ours['head_seconds']:.1f} s; the rest makes the bundle")
    for key, value in result.items():
        if isinstance(value, float):
            print(f"{key:32} {value:.4g}")


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Validation accuracy against wall-clock, a panel a task; dotted: on to the time in the table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(7 * len(results), 5), squeeze=False)
    for axis, (mode, result) in zip(axes[0], results.items(), strict=True):
        for name, contestant in result["contestants"].items():
            if "left_out" not in contestant:
                seconds, accuracies = zip(*contestant["curve"], strict=True)
                width = 2.5 if name == "lensmith" else 1.2
                (line,) = axis.plot(seconds, accuracies, marker="o", markersize=3 * width, linewidth=width, label=name)
                end = ((seconds[-1], contestant["seconds"]), (accuracies[-1],) * 2)
                axis.plot(*end, color=line.get_color(), linestyle=":", linewidth=width)
        if result["target"] is not None:
            axis.axhline(result["target"], color="grey", linestyle=":", linewidth=1, label="target")
        axis.set(title=f"{mode}: {result['model']}", xlabel="seconds", ylabel="validation accuracy")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=TASKS, help="one of the two; both by default")
    parser.add_argument("--only", nargs="+", choices=tuple(NEEDS), help="these contestants alone")
    parser.add_argument("--train", type=int, default=6000, help="training images, frozen")
    parser.add_argument("--full-train", type=int, default=6000, help="training images, full")
    parser.add_argument("--full-model", default="resnet18")
    parser.add_argument("--val", type=int, default=1000, help="validation images")
    parser.add_argument("--epochs", type=int, default=20, help="frozen")
    parser.add_argument("--full-epochs", type=int, default=2)
    parser.add_argument("--epochs-measured", type=int, help="frozen: all but lensmith run so many, scaled up")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--target", type=float, help="accuracy to reach")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer images and epochs: at most 20 minutes on two cores")
    parser.add_argument("--out", default="runs/transfer", help="folder for data, runs, logs and transfer.png")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--given", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.given)
        return
    if given.quick:
        given.train, given.full_train, given.val, given.epochs_measured, given.full_epochs = 1000, 192, 300, 2, 1

    Path(given.out).mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    results = {mode: compare(given, mode) for mode in ([given.task] if given.task else TASKS)}
    for mode, result in results.items():
        show(mode, result)
    picture = Path(given.out) / "transfer.png"
    plot(results, picture)
    print(f"\ncurves: {picture}")
    if given.json:
        first = results.get("frozen", {})
        headline = {key: first.get(key) for key in ("speedup_vs_tutorial", "speedup_vs_best_peer")}
        result = {"bench": "transfer", **results, **headline, "cores": allowed_cores(), "load_average": load}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
