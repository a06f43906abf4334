"""`lensmith evaluate`."""

from typing import Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import number, print_line, print_notes, print_table
from lensmith.config import EvaluateSettings

WORST_CLASSES = 10


def evaluate(given: dict[str, Any]) -> Output:
    """Evaluate a bundle on labelled images, with the engine that serves.

    Classes are matched by name. The numbers go to `evaluation.json` and, with pictures, to `report.html`.
    """
    made = api.evaluate(**given)
    yield made
    metrics = made.metrics
    low, high = metrics.accuracy_interval
    print_line((made.bundle, "bold"), f"  {made.headline}, {made.engine} {made.precision}")
    rows = [
        ("accuracy", f"{metrics.accuracy:.4f}", f"95 % interval {low:.4f} to {high:.4f}"),
        (f"top-{metrics.top_k} accuracy", f"{metrics.top_k_accuracy:.4f}", ""),
        ("balanced accuracy", f"{metrics.balanced_accuracy:.4f}", ""),
        ("F1 macro", f"{metrics.f1_macro:.4f}", f"weighted by images {metrics.f1_weighted:.4f}"),
        ("log loss", f"{metrics.log_loss:.4f}", f"calibration error {metrics.calibration.error:.4f}"),
        ("one image", f"{made.latency_ms:.1f} ms", f"{made.images_per_second:,.0f} images a second"),
    ]
    if made.abstention and made.answered:
        coverage, threshold = f"{made.answered.coverage:.4f}", f"confidence {made.abstention.threshold:.4f} and above"
        rows.append(("answers given", coverage, threshold))
        rows.append(("correct of those", number(made.answered.precision), f"{made.abstention.wanted:g} was wanted"))
    print_table("", ("measure", "value", ""), rows)
    scored = zip(made.labels, metrics.per_class, strict=True)
    present = [(label, scores) for label, scores in scored if scores.support]
    worst = sorted(present, key=lambda pair: pair[1].f1 or 0.0)[:WORST_CLASSES]
    print_table(
        f"F1 of the worst {len(worst)} classes" if len(worst) < len(present) else "F1 by class, the worst first",
        ("class", "F1", "precision", "recall", "images"),
        [(label, number(s.f1), number(s.precision), number(s.recall), s.support) for label, s in worst],
    )
    print_notes(made.notes)
    if made.absent:
        print_line(f"{len(made.absent)} of the bundle's {len(made.labels)} classes have no image here.")
    for path, reason in made.unreadable:
        print_line(f"left out: {path}: {reason}")
    print_line("report: ", (str(made.report), "bold"))


command = command_for(EvaluateSettings, evaluate)
