"""The engines of a bundle as a table for people, as `lensmith export` and `lensmith bundle show` print it."""

from lensmith.bundle.format import EngineRecord, Manifest
from lensmith.cli.output import number, print_line, print_table


def print_engines(manifest: Manifest) -> None:
    """One row a record, in the order of preference; what was not measured is a dash."""
    rows = [_row(record) for record in manifest.engines]
    if manifest.teacher:
        record = EngineRecord.model_validate(manifest.teacher["engine"])
        rows.append((*_row(record)[:-1], f"the teacher, {manifest.teacher['model']}"))
    columns = ("", "engine", "accuracy", "drop", "ms", "images/s", "MB", "memory MB", "load s", "why")
    print_table("", columns, rows)
    print_line("→ selected, * none is better in all; drop in percentage points against the run")


def _row(record: EngineRecord) -> tuple[str, ...]:
    return (
        "→" if record.chosen else "*" if record.pareto else "",
        record.name,
        number(record.accuracy),
        number(record.drop, "+.2f"),
        number(record.latency_ms, ".1f"),
        number(record.images_per_second, ".0f"),
        number(record.bytes and record.bytes / 1e6, ".1f"),
        number(record.memory_bytes and record.memory_bytes / 1e6, ".0f"),
        number(record.load_s, ".1f"),
        record.why + (f"; {len(record.kept)} layers kept in fp32" if record.kept else ""),
    )
