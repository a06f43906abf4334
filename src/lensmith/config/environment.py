"""Environment variables of settings: which are ours, which are Kubernetes' and Docker's, and which are mistakes."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping

PREFIX = "LENSMITH_"
OTHERS = frozenset(
    {
        "LENSMITH_CACHE", "LENSMITH_CONFIG", "LENSMITH_ERRORS", "LENSMITH_JWT_SECRET", "LENSMITH_REDIS_PASSWORD",
        "LENSMITH_REDIS_PASSWORD_FILE", "LENSMITH_RENDEZVOUS", "LENSMITH_TOKEN",
    }
)  # fmt: skip
"""Variables that are no settings of a verb."""

# A Kubernetes Service called `lensmith-serve` gives every later pod of its namespace LENSMITH_SERVE_PORT=tcp://… and
# more; so do links of Docker.
_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z")
_DOCKER_LINK = re.compile(r"_(NAME|ENV_\w+)\Z")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+\Z")


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
            found[name] = value.strip()
    return found


def mistakes(known: Mapping[str, Iterable[str]], verb: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Variables that look like settings and are none, in words, with the nearest one.

    Args:
        known: verb → its settings.
        verb: the verb that runs; unknown settings of others are not its mistakes.
        environment: all variables.
    """
    own = {variable_of(verb, name) for name in known[verb]}
    everything = OTHERS | {variable_of(each, name) for each, names in known.items() for name in names}
    prefixes = {each: variable_of(each, "") for each in known}
    found = []
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        if variable in everything or _DOCKER_LINK.search(variable) or _is_link(variable, environment[variable]):
            continue
        ours = variable.startswith(prefixes[verb])
        if not ours and any(variable.startswith(prefix) for prefix in prefixes.values()):
            continue  # reported where that verb runs
        near = difflib.get_close_matches(variable, own if ours else everything, n=1, cutoff=0.6 if ours else 0.85)
        if ours or near:
            found.append(f"{variable} is no setting" + (f", {near[0]} is" if near else ""))
    return found


def variable_of(verb: str, name: str) -> str:
    """The environment variable of a verb's setting."""
    return f"{PREFIX}{verb}_{name}".upper()


def _is_link(variable: str, value: str) -> bool:
    link = _LINK.search(variable)
    return link is not None and (link[1] != "PORT" or _LINK_VALUE.match(value) is not None)
