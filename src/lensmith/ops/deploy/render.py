"""Templates of configuration files, with the marks `[[ name ]]`, `[% if %]` and `[# comment #]`.

Braces and dollar signs would clash with the variables of nginx, systemd, compose, Prometheus and Grafana.
"""

import json
from functools import cache
from typing import Any

from jinja2 import Environment

from lensmith.core.templates import template_environment


def render(template: str, **names: Any) -> str:
    """Render a template below `templates/` with the values of its variables; a missing one is an error."""
    return _environment().get_template(template).render(**names).rstrip() + "\n"


@cache
def _environment() -> Environment:
    environment = template_environment(
        "lensmith.ops.deploy",
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
    environment.filters["quoted"] = lambda value: json.dumps(str(value))
    return environment
