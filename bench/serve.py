"""Benchmark of the service against other servers: requests per second, latency, memory, start-up, physical limit.

    python bench/serve.py [--quick] [--only lensmith,litserve] [--seconds 20] [--out runs/bench-serve] [--json]

One network for all: a ResNet-18 with random weights at 224 px, int8 for ONNX Runtime (fp32 TorchScript and fp32 ONNX
for the tutorials' servers), and 16 photo-like JPEGs of 500 × 375 pixels. The servers run one after the other, the
client (`lensmith.bench`) on the same machine; `servers/contenders.py` defines how each is started and what it is sent.

Measured for each server, of 2xx answers only:

- closed loop with 1, 16 and 64 clients;
- open loop at 200 requests per second, latency from when a request was due;
- open loop at three times its best rate in the closed loop: the rate answered within 200 ms (goodput), as a share of
  that best, and the seconds until a single request is answered within 200 ms again;
- memory: the peak of all its processes together, shared pages counted once;
- start-up: from the start of the process to the first 200.

The physical limit is the number of cores divided by the CPU time of decoding, normalising and inference of one image,
in one thread of a process of its own with the same engine. It is measured before and after, and also with such a
process on every core at once, which is the fairer limit where cores share their units.

Peers are installed into environments of their own under the cache folder, at the versions of
`servers/requirements-NAME.txt`; a server that cannot be installed or does not start is left out, and reported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from lensmith.core.machine import allowed_cores, processor
from lensmith.inference.classifier import load
from lensmith.ops.loadtest.client import send_load
from lensmith.ops.loadtest.load_profile import LoadProfile
from lensmith.ops.loadtest.results import summarize
from servers.contenders import CONTENDERS, LENSMITH, TUTORIAL, Contender
from servers.environment import UnavailableError
from servers.limit import cpu_s
from servers.model import Model, make
from servers.running import Running, started

CLIENTS = (1, 16, 64)
RATE = 200.0
SLO_MS = 200.0
OVERLOAD = 3.0
TIMEOUT_S = 5.0


def loaded(running: Running, load: LoadProfile) -> dict[str, Any]:
    """Put a server under load, and wait until it answers again: it may still work on requests that timed out."""
    record = send_load(running.target, running.requests, load)
    found = summarize(record, load, running.target.url, SLO_MS).as_dict()
    return {**found, "recovered_s": running.recover()}


def tried(contender: Contender, model: Model, images: list[bytes], seconds: float, warmup: float) -> dict[str, Any]:
    """All measurements of one server."""
    with started(contender, model, images) as running:
        row: dict[str, Any] = {"name": contender.name, "startup_s": running.startup_s, "answers": running.answers}
        for clients in CLIENTS:
            load = LoadProfile(seconds, warmup, clients=clients, timeout_s=TIMEOUT_S)
            row[f"clients_{clients}"] = loaded(running, load)
        best = max(row[f"clients_{clients}"]["ok_per_second"] for clients in CLIENTS)
        row["capacity"] = best
        for name, offered, measured in (("at_200", RATE, 1.5 * seconds), ("at_3x", OVERLOAD * best, seconds)):
            load = LoadProfile(measured, warmup, clients=1024, rate=max(1.0, offered), timeout_s=TIMEOUT_S)
            row[name] = loaded(running, load)
        running.footprint.stop()
        row["memory_bytes"] = running.footprint.peak_bytes
    return row


def wrong(rows: list[dict[str, Any]], model: Model, images: list[bytes]) -> list[str]:
    """Names of servers whose answers differ from the bundle's; the tutorials' servers preprocess differently anyway."""
    classifier = load(model.bundle)
    right = [classifier.classify(encoded).top[0] for encoded in images]
    found = []
    for row in rows:
        pairs = zip(row["answers"], right, strict=True)
        same = all(a == b.class_id and abs(p - b.confidence) < 0.02 * b.confidence for (a, p), b in pairs)
        if not same and not row["name"].startswith("tutorial"):
            found.append(row["name"])
    return found


def limits(model: Model, seconds: float) -> tuple[float, float]:
    """CPU seconds per image, alone and with a process on every core."""
    return cpu_s(model.bundle, model.images, seconds), cpu_s(model.bundle, model.images, seconds, allowed_cores())


def summary(rows: list[dict[str, Any]], alone_s: list[float], together_s: list[float]) -> dict[str, Any]:
    """Ratios between servers, and to the physical limit; None where a measurement is missing."""
    at = {row["name"]: row for row in rows}

    def rate(name: str) -> float | None:
        return at[name]["clients_16"]["ok_per_second"] if name in at else None

    peers = {name: rate(name) for name in at if CONTENDERS[name].peer}
    best_peer = max(peers, key=lambda name: peers[name] or 0.0, default=None)
    own, ours = at.get(LENSMITH), rate(LENSMITH)
    limit = allowed_cores() / statistics.mean(alone_s)
    shared = allowed_cores() / statistics.mean(together_s)

    def over(one: float | None, other: float | None) -> float | None:
        return one / other if one and other else None

    latency = (own or {}).get("at_200", {}).get("latency_ms")
    return {
        "speedup_vs_tutorial": over(ours, rate(TUTORIAL)),
        "speedup_vs_best_peer": over(ours, peers.get(best_peer or "")),
        "best_peer": best_peer,
        "share_of_physical_limit": over(ours, limit),
        "share_of_limit_all_cores_busy": over(ours, shared),
        "p99_ms_at_200rps": latency and latency["p99"],
        "goodput_at_3x_share": own and over(own["at_3x"]["goodput_per_second"], own["capacity"]),
        "memory_bytes": own and own["memory_bytes"],
        "startup_s": own and own["startup_s"],
        "physical_limit": limit,
        "limit_all_cores_busy": shared,
        "cpu_ms_an_image": [round(1e3 * seconds, 3) for seconds in (*alone_s, *together_s)],
    }


def shown(rows: list[dict[str, Any]]) -> None:
    """Print a table of all servers."""
    head = f"{'':19}" + "".join(f"{f'{clients} clients':>17}" for clients in CLIENTS)
    print(head + f"{'at 200/s':>22}{'at 3×':>17}{'memory':>10}{'start':>8}")
    print(
        f"{'':19}"
        + f"{'2xx/s   p99':>17}" * 3
        + f"{'2xx/s  good/s   p99':>22}{'good share  back s':>17}{'MB':>10}{'s':>8}"
    )
    for row in rows:
        line = f"{row['name']:19}"
        for clients in CLIENTS:
            found = row[f"clients_{clients}"]
            line += f"{found['ok_per_second']:9.0f}{_p99(found):>8}"
        at = row["at_200"]
        line += f"{at['ok_per_second']:8.0f}{at['goodput_per_second']:7.0f}{_p99(at):>7}"
        over = row["at_3x"]
        line += f"{over['goodput_per_second'] / row['capacity']:8.2f}" if row["capacity"] else f"{'–':>8}"
        line += f"{over['recovered_s']:9.1f}"
        print(line + f"{row['memory_bytes'] / 1e6:10.0f}{row['startup_s']:8.1f}")


def _p99(found: dict[str, Any]) -> str:
    return f"{found['latency_ms']['p99']:.0f}" if found["latency_ms"] else "–"


def draw(rows: list[dict[str, Any]], limit: float, path: Path) -> None:
    """Draw requests per second by clients, and goodput at 200 per second and at three times the capacity, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 0.42 * len(rows) + 2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = [float(-number) for number in range(len(rows))]
    for number, clients in enumerate(CLIENTS):
        speeds = [row[f"clients_{clients}"]["ok_per_second"] for row in rows]
        left.barh([place - 0.26 * (number - 1) for place in places], speeds, 0.26, label=f"{clients} clients")
    left.axvline(limit, color="0.4", ls=":", label="limit of the machine")
    left.set(title="2xx answers a second, closed loop", xlabel="a second")
    for number, (part, label) in enumerate((("at_200", "200 a second offered"), ("at_3x", "3 × its best offered"))):
        good = [row[part]["goodput_per_second"] for row in rows]
        right.barh([place - 0.3 * (number - 0.5) for place in places], good, 0.3, label=label)
    right.set(title=f"answered within {SLO_MS:g} ms, open loop", xlabel="a second")
    left.set_yticks(places, [row["name"] for row in rows])
    for axes in (left, right):
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CONTENDERS), help=f"servers to measure, of {', '.join(CONTENDERS)}")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="duration of each closed loop; 1.5 times that at 200 per second"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench-serve"))
    parser.add_argument("--quick", action="store_true", help="8 seconds each: about twelve minutes in all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seconds = 8.0 if given.quick else given.seconds
    warmup = min(3.0, seconds / 4)
    names = given.only.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"no server {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    model = make(given.out.resolve() / "model")
    images = [file.read_bytes() for file in sorted(model.images.iterdir())]
    before = limits(model, min(5.0, seconds))
    rows, left_out = [], {}
    for name in names:
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            rows.append(tried(CONTENDERS[name], model, images, seconds, warmup))
        except UnavailableError as error:
            left_out[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
    after = limits(model, min(5.0, seconds))
    found = {
        "bench": "serve",
        **summary(rows, [before[0], after[0]], [before[1], after[1]]),
        "cores": allowed_cores(),
        "processor": processor(),
        "load_average": os.getloadavg()[0],
        "seconds": seconds,
        "left_out": left_out,
        "answer_otherwise": wrong(rows, model, images),
        "servers": rows,
    }
    (given.out / "serve.json").write_text(json.dumps(found, indent=1) + "\n")
    if rows:
        draw(rows, found["physical_limit"], given.out / "serve.png")
    if given.json:
        print(json.dumps(found))
        return
    shown(rows)
    for name, value in found.items():
        if name != "servers":
            print(f"{name:30} {f'{value:,.2f}' if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()
