"""The label doctor's page: one HTML file without scripts or requests, with its pictures inside as data URIs."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lensmith.core.templates import render_page
from lensmith.curation.findings import Outlier, Suspect
from lensmith.curation.label_doctor import LabelDoctorResult, describe_curve
from lensmith.curation.learning_curve import LearningCurve
from lensmith.curation.picture_quality import QualityFinding
from lensmith.data.value_ranges import decide_ranges
from lensmith.imaging.thumbnails import thumbnail_if_readable

FLAGGED, WORTH_A_LOOK, OUTLIERS, QUALITY = 120, 60, 24, 24
"""Pictures that a section shows at most; findings.json has all."""

NEEDS = 40
PLOT_WIDTH, PLOT_HEIGHT = 300, 200


def render(found: LabelDoctorResult) -> str:
    """The page as HTML text."""
    ranges = decide_ranges(found.image_set)
    root = found.image_set.root

    def figure(finding: Suspect | Outlier | QualityFinding, title: str) -> dict[str, Any]:
        return {
            **vars(finding),
            "picture": thumbnail_if_readable(root / finding.path, ranges),
            "title": f"{finding.path}: {title}",
        }

    def figures(suspects: Sequence[Suspect]) -> list[dict[str, Any]]:
        return [figure(each, f"labelled {each.label}, looks like {each.suggested}") for each in suspects]

    others = [suspect for suspect in found.suspects if not suspect.flagged]
    outliers = [figure(each, f"labelled {each.label}") for each in found.outliers[:OUTLIERS]]
    quality = [figure(each, each.reason) for each in found.quality[:QUALITY]]
    needs = () if found.curve is None else found.curve.needs[:NEEDS]
    return render_page(
        "lensmith.curation",
        "doctor.html.j2",
        found=found,
        flagged=figures(found.flagged[:FLAGGED]),
        others=figures(others[:WORTH_A_LOOK]),
        commands=_commands(found),
        counts={"flagged": len(found.flagged), "others": len(others)},
        outliers=outliers,
        quality=quality,
        kinds=Counter(finding.kind for finding in found.quality),
        needs=needs,
        sentences=[] if found.curve is None else describe_curve(found.curve),
        plot=None if found.curve is None else _plot(found.curve),
    )


def _commands(found: LabelDoctorResult) -> list[tuple[str, str]]:
    """Pairs of a next step in words and its command."""
    folder, suspects, relabel = (
        shlex.quote(str(path)) for path in (found.folder, f"{found.out}/suspects.csv", f"{found.out}/relabel.csv")
    )
    commands = []
    if found.suspects:
        commands.append(("Look at the suspects, and decide", f"lensmith review {suspects}"))
    if found.flagged:
        commands.append(("Or train without flagged images", f"lensmith train {folder} --exclude {suspects}"))
    if certain := sum(suspect.is_certain for suspect in found.suspects):
        what = f"Or use the {certain:,} suggestions that are nearly certain"
        commands.append((what, f"lensmith train {folder} --relabel {relabel}"))
    return commands


def _plot(curve: LearningCurve) -> dict[str, Any]:
    """Pixel positions of the learning curve in a plot of PLOT_WIDTH × PLOT_HEIGHT, and the ends of its axis."""
    low = min(point.low for point in curve.points)
    bottom = max(0.0, int(low * 20) / 20 - (0.05 if low * 20 % 1 < 0.2 else 0.0))
    most = curve.points[-1].images

    def x(images: float) -> float:
        return round(PLOT_WIDTH * images / most, 1)

    def y(share: float) -> float:
        return round(PLOT_HEIGHT * (1 - (share - bottom) / max(1e-9, 1 - bottom)), 1)

    points = [
        {"x": x(each.images), "y": y(each.balanced_accuracy), "low": y(each.low), "high": y(each.high), "point": each}
        for each in curve.points
    ]
    ticks = [{"y": y(bottom + step * (1 - bottom) / 4), "share": bottom + step * (1 - bottom) / 4} for step in range(5)]
    return {"points": points, "ticks": ticks, "line": " ".join(f"{each['x']},{each['y']}" for each in points)}
