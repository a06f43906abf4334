"""JSON bodies: validated requests and base64 images, read in a time that no client can stretch."""

import binascii
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lensmith.core.text import listed
from lensmith.serving.problems import ProblemError
from lensmith.serving.upload import ENVELOPE_BYTES, UploadLimits

MAX_NESTED = 50_000
"""Limit on lists, objects and members in a body: each costs far more than a number. 32 nested tensors have 21,000."""
MAX_NAMED = 3
"""Number of mistakes that an error names."""


class Strict(BaseModel):
    """Base of requests: numbers, texts and booleans are not converted; unknown members are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


Read = TypeVar("Read", bound=Strict)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer, which JSON may also write as 3.0."""


def json_limit(max_bytes: int) -> int:
    """Limit in bytes on a JSON body that holds one image of `max_bytes` as base64."""
    return 4 * (max_bytes + 2) // 3 + ENVELOPE_BYTES


def parse(model: type[Read], body: bytes, max_values: int) -> Read:
    """Parse and validate a JSON body.

    pydantic's parser took 10 ms for a tensor of 150,000 numbers, where the standard library's took 45.

    Args:
        model: pydantic model of the request.
        body: JSON in UTF-8.
        max_values: largest number of lists, objects and values in them; each takes memory and time, whatever its
            length.

    Raises:
        ProblemError: no JSON, not as expected, or too much of it.
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
        mistakes = [": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in found]
        raise ProblemError("invalid-request", f"{listed(mistakes, MAX_NAMED, '; ')}.") from None


def image_from_base64(text: str, limits: UploadLimits) -> bytes:
    """Decode an image that a JSON body holds as base64, without line breaks.

    Raises:
        ProblemError: no base64, too large, or of no format that is taken.
    """
    try:
        encoded = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ProblemError(
            "invalid-request",
            f"An image as base64 was expected, padded and without line breaks. This is none ({error}).",
        ) from None
    limits.require_fitting(encoded)
    return encoded


def body_of(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """OpenAPI entry of a JSON body."""
    return {"required": True, "description": description, "content": {"application/json": {"schema": schema}}}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of a model without references, to be put into another document."""
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
