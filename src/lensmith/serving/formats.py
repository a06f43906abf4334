"""Image formats of a service: those of its settings, what is installed, and what its model was trained on."""

from collections.abc import Iterable, Sequence

from lensmith.config import ServeSettings
from lensmith.errors import MissingPackageError
from lensmith.imaging.formats import FORMATS, HEIC_EXTRA, is_available, names


def formats_note(trained: Iterable[str], taken: Sequence[str]) -> str:
    """A sentence about formats that a model was trained on and the service does not take; empty where there are none.

    Args:
        trained: keys of the formats of the training images.
        taken: keys of the formats that the service takes.
    """
    trained = list(trained)
    missing = [key for key in trained if key not in taken]
    if not missing:
        return ""
    return (
        f"The model was trained on {names(trained)}; the service takes {names(taken)}. "
        f"--formats {','.join((*taken, *missing))} takes all of them."
    )


def require_decoders(settings: ServeSettings) -> None:
    """Refuse formats in the settings whose decoder is not installed.

    Raises:
        MissingPackageError: HEIC without its extra.
    """
    for key in settings.formats:
        if not is_available(FORMATS[key]):
            raise MissingPackageError(
                f"A decoder was expected for each of --formats {','.join(settings.formats)}.",
                f"That of {FORMATS[key].name} is not installed.",
                f"Install it with: pip install '{HEIC_EXTRA}'",
            )
