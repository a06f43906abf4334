"""Jinja templates of a package, in which a missing variable is an error."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment(package: str, *, html: bool = False, **marks: Any) -> Environment:
    """The templates in a package's folder `templates`.

    Args:
        package: dotted name of the package.
        html: whether values are escaped for HTML; text, scripts and configuration files need none.
        marks: Jinja's marks that differ from its own, as `block_start_string`.
    """
    return Environment(
        loader=PackageLoader(package), autoescape=html, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, **marks,
    )  # fmt: skip
