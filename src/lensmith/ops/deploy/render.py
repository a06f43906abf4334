"""Templates → text. Their marks are `[[ name ]]`, `[% if %]` and `[# comment #]`.

The usual braces and dollars are taken: nginx, systemd, compose, Prometheus and Grafana have variables of their own.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page(template: str, **names: Any) -> str:
    """Fill in a file of `templates/`.

    Args:
        template: its path there.
        names: what it speaks of; a name that it uses and that is missing is an error.
    """
    return _environment().get_template(template).render(**names).rstrip() + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(  # configurations, so nothing is to be escaped for HTML
        loader=PackageLoader("lensmith.ops.deploy"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
    environment.filters["quoted"] = lambda value: json.dumps(str(value))
    return environment
