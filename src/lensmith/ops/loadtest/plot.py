"""Plot of a load test: latency over time, and by percentile."""

from pathlib import Path

import numpy as np

from lensmith.core.files import atomic_path
from lensmith.ops.loadtest.results import LoadTestResult, RequestTable

MAX_POINTS = 20_000


def draw_latencies(requests: RequestTable, found: LoadTestResult, path: Path) -> None:
    """Write a PNG with two plots.

    The axis of percentiles is logarithmic from its end, as in HdrHistogram's plots: 90 to 99 is as wide as 99 to 99.9.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    over_time, by_percentile = figure.subplots(1, 2)
    measured = requests.due_s >= 0
    counted = requests.counted
    step = max(1, int(counted.sum()) // MAX_POINTS)
    over_time.plot(requests.due_s[counted][::step], requests.latency_s[counted][::step] * 1e3, ",", label="answered")
    other = measured & ~counted
    if other.any():
        label = "refused or failed"
        over_time.plot(requests.due_s[other][::step], requests.latency_s[other][::step] * 1e3, ".", ms=2, label=label)
    over_time.set(xlabel="seconds", ylabel="latency, ms", title="over time", ylim=(0, None))
    curves = {"counted from when due": requests.latency_s}
    if found.mode == "open":
        curves["counted from when sent"] = requests.service_s
    for label, latencies in curves.items():
        values = np.sort(latencies[counted]) * 1e3
        if values.size:
            beyond = 1.0 - np.arange(values.size) / values.size
            by_percentile.plot(1.0 / beyond, values, label=label)
    by_percentile.set(xscale="log", xlabel="percentile", ylabel="latency, ms", title="by percentile", ylim=(0, None))
    ticks = [share for share in (0, 50, 90, 99, 99.9, 99.99) if share < 100 * (1 - 1 / max(2, int(counted.sum())))]
    by_percentile.set_xticks([1 / (1 - share / 100) for share in ticks], [f"{share:g}" for share in ticks])
    by_percentile.minorticks_off()
    for axes in (over_time, by_percentile):
        if found.slo_ms < axes.get_ylim()[1]:
            axes.axhline(found.slo_ms, color="0.6", ls=":", lw=1, label=f"{found.slo_ms:g} ms")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    load = (
        f"{found.offered_per_second:,.0f} a second offered" if found.offered_per_second else f"{found.clients} clients"
    )
    figure.suptitle(f"{found.url}: {load}, {found.ok_per_second:,.0f} a second answered with 2xx", fontsize=10)
    with atomic_path(path, sync=False) as partial:
        figure.savefig(partial, dpi=110)
