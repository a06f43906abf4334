"""`lensmith export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lensmith import api
from lensmith.cli.engines import print_engines
from lensmith.cli.options import Output, command_for
from lensmith.cli.output import print_line, print_table
from lensmith.config import ExportSettings

if TYPE_CHECKING:
    from lensmith.exporting.export import ExportResult

SHOWN_CHANGES = 12


def export(given: dict[str, Any]) -> Output:
    """Turn a run into a bundle, with the engine that is fastest on this machine.

    The best epoch becomes an ONNX graph. Engines and precisions (int8 quantization among them) predict validation
    images as the service would, and are compared with PyTorch image by image; of those within `--max-accuracy-drop`
    the fastest is selected. `--retune BUNDLE` measures a bundle's engines again on the machine that will serve.
    """
    if "retune" not in given:
        exported = api.export(**given)
        yield exported
        _print_exported(exported)
        return
    settings = ExportSettings.resolve(given)  # refuses what makes no sense with --retune
    made = api.retune(given["retune"], max_accuracy_drop=settings.max_accuracy_drop)
    yield made
    print_line((str(made.bundle), "bold"))
    print_engines(made.manifest)
    now = made.manifest.engines[0].name
    print_line(f"  {now} serves, " + ("as before" if now == made.before else f"in the place of {made.before}"))


def _print_exported(made: ExportResult) -> None:
    manifest, parity = made.manifest, made.parity
    print_line((str(made.bundle), "bold"))
    print_engines(manifest)
    selected = manifest.engines[0].name
    print_line(
        f"  {selected} agrees with PyTorch on {parity.agreement:.2%} of {parity.images:,} images; "
        f"the largest difference of a probability is {parity.largest_difference:.2g}"
    )
    calibration = manifest.calibration
    print_line(
        f"  temperature {calibration['temperature']:.3f}: calibration error {calibration['error_before']:.4f} before, "
        f"{calibration['error_after']:.4f} after"
    )
    if abstention := manifest.abstention:
        print_line(
            f"  abstains below a confidence of {abstention.threshold:.3f}: "
            f"answers {abstention.coverage:.1%} of the images, {abstention.precision:.1%} of them correctly"
            + (abstention.doubt and f"; {abstention.doubt}")
        )
    for each in made.formats:
        print_line(f"  {each.format}: ", (str(each.path), "bold"), f"  {each.note}")
    if parity.disagreements:
        rows = [(d.path, d.torch, d.graph, f"{d.margin:.4f}") for d in parity.disagreements[:SHOWN_CHANGES]]
        more = len(parity.disagreements) - len(rows)
        print_table("Images with another answer", ("image", "PyTorch", selected, "margin"), rows)
        if more:
            print_line(f"… and {more:,} more; the report shows them with their pictures.")


command = command_for(ExportSettings, export, optional=("run",))
