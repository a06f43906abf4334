"""Jinja templates of a package, in which a missing variable is an error; pages of one file, which share their frame."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def template_environment(package: str, **options: Any) -> Environment:
    """The templates in a package's folder `templates`.

    Args:
        package: dotted name of the package.
        options: options of Jinja that differ from its own, as `block_start_string`.
    """
    defaults = {"loader": PackageLoader(package), "undefined": StrictUndefined, "trim_blocks": True}
    return Environment(**{**defaults, "lstrip_blocks": True, "keep_trailing_newline": True, **options})


def render_page(package: str, template: str, **names: Any) -> str:
    """A page of one file without scripts or requests, from a package's template, which extends page.html.j2.

    Templates can use parts.html.j2, and the filters `share`, `number` and `pixels`.

    Args:
        package: dotted name of the package.
        template: name of the template.
        names: variables of the template.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("lensmith.core")])
    environment = template_environment(package, loader=loader, autoescape=True)
    environment.filters.update(share=percent, number=_number, pixels=lambda value: f"{value:.1f}")
    return environment.get_template(template).render(**names)


def percent(value: float | None, digits: int = 1) -> str:
    """A share, 0..1, as text in per cent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
