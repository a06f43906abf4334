"""`lensmith token`."""

import sys
from typing import Any

from lensmith import api
from lensmith.cli.options import Output, command_for
from lensmith.config import TokenSettings


def token(given: dict[str, Any]) -> Output:
    """Make a token with which SUBJECT may call the service, and print it on standard output, alone.

    Signed with a secret (HS256; the service gets the same file as --jwt-secret-file), or with a private key (RS256,
    ES256; the service gets the public one as --jwt-key-file). Nothing is stored: a token can be revoked before it
    expires only by changing the secret or key.

    Example: `lensmith token robot --secret-file secret > robot.token`
    """
    made = api.token(**given)
    if made.new_secret:
        print(f"lensmith: a new secret is in {made.new_secret}; only you may read it.", file=sys.stderr)
    yield made
    print(made.text, flush=True)
    what = f"{made.subject} may {' and '.join(made.scopes)} until {made.expires:%Y-%m-%d %H:%M} UTC ({made.algorithm})"
    print(f"lensmith: {what}", file=sys.stderr)


command = command_for(TokenSettings, token)
