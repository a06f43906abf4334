"""JSON bodies: read into a model, and images within them, in a time that whoever sends them cannot stretch."""

from __future__ import annotations

import binascii
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lensmith.serving.problems import ProblemError
from lensmith.serving.upload import ENVELOPE_BYTES, require_image

MAX_NESTED = 50_000
"""Lists, objects and members of objects in a body: each costs far more than a number. 32 nested tensors have 21,000."""
MOST_NAMED = 3
"""Mistakes that an answer names."""


class Strict(BaseModel):
    """Base of what is read: a number is no text and no truth value; members that nobody knows are passed over."""

    model_config = ConfigDict(strict=True, frozen=True)


Read = TypeVar("Read", bound=Strict)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer, which JSON may write as 3.0."""


def json_limit(max_bytes: int) -> int:
    """Bytes of a JSON body that holds one image of `max_bytes` as base64."""
    return 4 * (max_bytes + 2) // 3 + ENVELOPE_BYTES


def parse(model: type[Read], body: bytes, max_values: int) -> Read:
    """A JSON body as `model`.

    pydantic's parser took 10 ms for a tensor of 150,000 numbers, where the standard library's took 45.

    Args:
        model: what is expected.
        body: UTF-8.
        max_values: lists, objects and what is in them; each takes memory and time, whatever its length.

    Raises:
        ProblemError: no JSON, something else than expected, or too much of it.
    """
    nested = sum(map(body.count, (b"{", b"[", b":")))
    if nested > MAX_NESTED or nested + body.count(b",") > max_values:
        raise ProblemError(
            "invalid-request",
            f"At most {max_values:,} values, and {MAX_NESTED:,} lists, objects and members of objects, were expected "
            "in a JSON body.",
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        named = [": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in found]
        more = f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        raise ProblemError("invalid-request", f"{'; '.join(named[:MOST_NAMED])}{more}.") from None


def image_from_base64(text: str, max_bytes: int) -> bytes:
    """An encoded image that a JSON body holds as base64, without line breaks.

    Raises:
        ProblemError: no base64, too large, or neither JPEG nor PNG.
    """
    try:
        encoded = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ProblemError(
            "invalid-request",
            f"An image as base64 was expected, padded and without line breaks. This is none ({error}).",
        ) from None
    require_fitting(encoded, max_bytes)
    return encoded


def require_fitting(encoded: bytes, max_bytes: int) -> None:
    """Refuse an image that is too large, or none by its first bytes.

    Raises:
        ProblemError: as said.
    """
    if len(encoded) > max_bytes:
        raise ProblemError(
            "too-large", f"An image of at most {max_bytes:,} bytes was expected. This one has {len(encoded):,}."
        )
    require_image(encoded)


def body_of(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A JSON body's entry in the OpenAPI document."""
    return {"required": True, "description": description, "content": {"application/json": {"schema": schema}}}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema without references, as it stands inside of another document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return inlined(definitions[part["$ref"].rpartition("/")[2]])
            return {name: inlined(each) for name, each in part.items() if name != "discriminator"}
        return [inlined(each) for each in part] if isinstance(part, list) else part

    result: dict[str, Any] = inlined(schema)
    return result
