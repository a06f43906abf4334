"""`lensmith bench`."""

from pathlib import Path
from typing import Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import print_line, print_table
from lensmith.config import BenchSettings


def bench(given: dict[str, Any]) -> Output:
    """Load-test a service: what it answers a second, and how long its callers wait.

    With a bundle the service is started here and stopped at the end. `--clients N`: each of N connections sends its
    next image when the last is answered. `--rate R`: images are due at R a second whatever the answers, and latency
    counts from when they were due; this is how real callers come. Ctrl-C reports what was measured so far.

    Load-test only what is yours.
    """
    found = api.bench(**given)
    yield found
    if found.offered_per_second is None:
        load = f"{found.clients} clients"
    else:
        load = f"{found.offered_per_second:,.1f} a second offered"
    print_line((found.url, "bold"), f"  {load}, {found.seconds:.1f} s measured, {found.requests:,} requests")
    answers = {"all": found.answered_per_second, "2xx": found.ok_per_second}
    answers[f"2xx within {found.slo_ms:g} ms"] = found.goodput_per_second
    print_table("", ("answers", "a second"), [(what, _number(rate)) for what, rate in answers.items()])
    columns = ("latency, ms", *(found.latency_ms or {}))
    rows = [("from when due", found.latency_ms)] if found.mode == "open" else []
    rows.append(("from when sent", found.from_sending_ms))
    print_table("", columns, [(what, *map(_number, values.values())) for what, values in rows if values])
    kinds = [*found.by_status.items(), ("no connection", found.connection_errors), ("timed out", found.timeouts)]
    print_line(", ".join(f"{kind}: {count:,}" for kind, count in kinds if count) or "no request ended")
    if found.refusal_p99_ms is not None:
        print_line(f"answers that were not 2xx took {_number(found.refusal_p99_ms)} ms (p99)")
    print_line(f"client: {found.client_cpu:.0%} of a core, its clock {_number(found.client_late_ms)} ms late (p99)")
    for warning in found.warnings:
        print_line((warning, "yellow"))
    if "out" in given:
        print_line("plot: ", (str(Path(given["out"]) / "bench.png"), "bold"))


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


command = command_for(BenchSettings, bench)
