"""Environment variables of settings: which are ours, which are Kubernetes' and Docker's, and which are mistakes."""

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping

from lensmith.core.text import is_quoted, stripped

PREFIX = "LENSMITH_"
OTHERS = frozenset(
    {
        "LENSMITH_CACHE", "LENSMITH_CONFIG", "LENSMITH_ERRORS", "LENSMITH_JWT_SECRET", "LENSMITH_REDIS_PASSWORD",
        "LENSMITH_REDIS_PASSWORD_FILE", "LENSMITH_RENDEZVOUS", "LENSMITH_TOKEN", "LENSMITH_VERSION",
    }
)  # fmt: skip
"""Variables that are no settings of a verb; the last one is what images are often told by."""

# A Kubernetes Service called `lensmith-serve` gives every later pod of its namespace LENSMITH_SERVE_PORT=tcp://… and
# more; so do links of Docker.
_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+\Z")
_DOCKER_LINK = re.compile(r"_(NAME=/\S+/\S+|ENV_\w+=.*)\Z", re.DOTALL)


def values(names: Iterable[str], verb: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The values of a verb's settings that the environment holds, without blanks and line ends around them.

    Args:
        names: the verb's settings.
        verb: name of the verb.
        environment: all variables; those that Kubernetes set for a service of such a name are left out.
    """
    found = {}
    for name in names:
        value = environment.get(variable := variable_of(verb, name))
        if value is not None and not _is_link(variable, value):
            found[name] = stripped(value)
    return found


def mistakes(known: Mapping[str, Collection[str]], verb: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like settings and are none, in words, with the nearest one; and settings in quotation marks.

    Args:
        known: verb → its settings.
        verb: the verb that runs; unknown settings of others are not its mistakes.
        environment: all variables.
    """
    own = {variable_of(verb, name) for name in known[verb]}
    everything = OTHERS | {variable_of(each, name) for each, names in known.items() for name in names}
    prefixes = {each: variable_of(each, "") for each in known}
    found = []
    for variable, value in sorted(environment.items()):
        form = variable.upper()
        if not form.startswith(PREFIX) or _is_link(variable, value) or _DOCKER_LINK.search(f"{variable}={value}"):
            continue
        if variable in everything:
            if variable in own and is_quoted(stripped(value)):
                found.append(f"{variable} is in quotation marks, which are part of its value here (leave them out)")
            continue
        name = form.removeprefix(PREFIX).lower()
        if name in known[verb]:
            found.append(f"{variable} is no setting, {variable_of(verb, name)} is")
            continue
        ours = form.startswith(prefixes[verb])
        if not ours and form not in OTHERS and any(form.startswith(prefix) for prefix in prefixes.values()):
            continue  # reported where that verb runs
        near = difflib.get_close_matches(form, own if ours else everything, n=1, cutoff=0.6 if ours else 0.85)
        if ours or near:
            found.append(f"{variable} is no setting" + (f", {near[0]} is" if near else ""))
    return found


def variable_of(verb: str, name: str) -> str:
    """The environment variable of a verb's setting."""
    return f"{PREFIX}{verb}_{name}".upper()


def _is_link(variable: str, value: str) -> bool:
    link = _LINK.search(variable)
    return link is not None and (link[1] != "PORT" or _LINK_VALUE.match(value) is not None)
