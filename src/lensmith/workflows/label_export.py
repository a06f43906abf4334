"""Labels for a labelling tool, with a bundle's answers as pre-annotations."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lensmith.config import LabelExportSettings
from lensmith.data.label_export.collect import collect
from lensmith.data.label_export.export import LabelExport, export
from lensmith.data.label_export.marked_picture import Mark
from lensmith.inference.classifier import Classifier, load


def export_labels(settings: LabelExportSettings) -> LabelExport:
    """Write the labels of a manifest, of annotations or of a folder in another format.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: there are no images, or no known format.
        OutputError: the output folder is there already, or a class cannot be the name of a folder.
        SettingsError: predictions for a format that has no place for them.
    """
    given = collect(settings.data, settings.layout)
    if settings.predictions is None:
        return export(given, settings.format, settings.out)
    classifier = load(settings.predictions)

    def predict(paths: Sequence[Path]) -> Iterable[Mark | None]:
        return _marks(classifier, paths)

    return export(given, settings.format, settings.out, predict, classifier.bundle.labels)


def _marks(classifier: Classifier, paths: Sequence[Path]) -> Iterator[Mark | None]:
    manifest = classifier.bundle.manifest
    for prediction in classifier.stream(paths, 1):
        if prediction.label is None or prediction.confidence is None:
            yield None
        else:
            model = f"{manifest.name} {manifest.version}"
            yield Mark(prediction.label, score=round(prediction.confidence, 6), model=model)
