"""`lensmith data doctor`: read a set with its corrections and groups, examine it, and write what was found."""

from dataclasses import replace

from lensmith.config import LabelDoctorSettings, TrainSettings
from lensmith.curation.doctor_files import prepare_folder, write_files
from lensmith.curation.label_doctor import LabelDoctorResult, examine
from lensmith.data.corrections import from_files
from lensmith.data.groups import with_groups
from lensmith.data.scan import scan


def diagnose(settings: LabelDoctorSettings) -> LabelDoctorResult:
    """Examine an image folder or CSV, and write the page and the lists into `settings.out`.

    Raises:
        DataError: a set that cannot be used, or is too small to be evaluated.
        ModelError: the backbone or its weights are not available.
        OutputError: the folder is in use, or holds lists that were edited.
    """
    out = prepare_folder(settings)
    correct = from_files(settings.exclude, settings.relabel)
    images = with_groups(correct(scan(settings.folder, layout=settings.layout)), settings.group)
    training = TrainSettings(
        data=settings.folder,
        model=settings.model,
        weights=settings.weights,
        image_size=settings.image_size,
        seed=settings.seed,
    )
    found = replace(examine(images, training), folder=settings.folder, out=out)
    write_files(found)
    return found
