"""Requests of the Open Inference Protocol: bytes → encoded images or tensors, validated before anything is computed."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.problems import ProblemError
from lensmith.serving.routes.json_body import image_from_base64, json_limit, parse
from lensmith.serving.routes.open_inference_schema import (
    CLASS_ID,
    LABEL,
    PROBABILITIES,
    ImageInput,
    InferRequest,
    TensorInput,
)
from lensmith.serving.upload import UploadLimits, too_large

MAX_VALUES = 1_000_000
"""Largest number of values in a JSON part: six tensors of 3 × 224 × 224. More are sent in binary."""
LENGTH = struct.Struct("<I")
"""Length of an element of BYTES, before it."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A requested output.

    Attributes:
        name: the output's name.
        binary: whether it is sent behind the JSON part.
        classes: number of likeliest classes to send as text in the place of the tensor; 0: send the tensor.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A validated inference request.

    Attributes:
        images: encoded bytes, or float32 (3, S, S), normalised, of each image.
        outputs: requested outputs, in the order of the response.
        id: the client's own request ID; None: it sent none.
    """

    images: Sequence[bytes | Tensor]
    outputs: tuple[RequestedOutput, ...]
    id: str | None

    @property
    def top_k(self) -> int:
        """Number of classes to rank."""
        return max([1, *(each.classes for each in self.outputs)])


def read(
    body: bytes, json_bytes: int | None, model: LoadedModel, max_images: int, limits: UploadLimits
) -> ParsedRequest:
    """Read and validate an inference request, as far as possible before an image is decoded.

    Args:
        body: the unchanged body.
        json_bytes: length of the JSON part before the binary one, in bytes; None: all of it is JSON.
        model: the model, which determines the shape of tensors.
        max_images: largest number of images.
        limits: limits on each encoded image.

    Raises:
        ProblemError: the request is invalid, or an image is too large or of no format that is taken.
    """
    json_bytes = len(body) if json_bytes is None else json_bytes
    if json_bytes > len(body):
        raise _wrong(f"Inference-Header-Content-Length says {json_bytes} bytes of JSON; the body has {len(body)}")
    limit = json_limit(limits.max_bytes)
    if json_bytes > limit:
        raise too_large(limit, json_bytes, "A JSON part")
    request = parse(InferRequest, body[:json_bytes], MAX_VALUES)
    (given,) = request.inputs
    raw = _binary(given, body, json_bytes)
    if given.shape[0] > max_images:
        raise _wrong(f"at most {max_images} images; the shape is {given.shape}")
    if isinstance(given, ImageInput):
        return ParsedRequest(_images(given, raw, limits), _outputs(request), request.id)
    return ParsedRequest(list(_tensor(given, raw, model.input_shape)), _outputs(request), request.id)


def _binary(given: ImageInput | TensorInput, body: bytes, start: int) -> memoryview | None:
    """The binary part behind the JSON part; None where the data is in the JSON."""
    size = given.parameters and given.parameters.binary_data_size
    if (size is None) == (given.data is None):
        raise _wrong(f"{given.name}: either `data` or the parameter `binary_data_size`")
    if len(body) - start != (size or 0):
        raise _wrong(f"{size or 0} bytes behind the JSON part, by its parameters; there are {len(body) - start}")
    return None if size is None else memoryview(body)[start:]


def _images(given: ImageInput, raw: memoryview | None, limits: UploadLimits) -> list[bytes]:
    if given.shape[1:] not in ([], [1]):
        raise _wrong(f"images of shape [N] or [N, 1]; it is {given.shape}")
    elements: Sequence[str | bytes]
    if raw is None:
        assert given.data is not None
        elements = list(chain.from_iterable([each] if isinstance(each, str) else each for each in given.data))
    else:
        elements = _split(raw, given.shape[0])
    if len(elements) != given.shape[0]:
        raise _wrong(f"{given.shape[0]} images by the shape; there are {len(elements)}")
    in_base64 = raw is None or (given.parameters is not None and given.parameters.content_type == "base64")
    images = []
    for number, element in enumerate(elements):
        try:
            if in_base64:
                text = element if isinstance(element, str) else element.decode("ascii", "replace")
                images.append(image_from_base64(text, limits))
            else:
                assert isinstance(element, bytes)
                limits.require_fitting(element)
                images.append(element)
        except ProblemError as problem:
            raise of_image(number, problem) from None
    return images


def of_image(number: int, problem: ProblemError) -> ProblemError:
    """The problem of one image as that of its request, since the protocol has one error for all images."""
    return ProblemError(problem.kind, f"Image {number}: {problem.detail}", problem.headers)


def _split(raw: memoryview, count: int) -> list[bytes]:
    """Split BYTES: each element follows its length in four bytes, little-endian; at most `count + 1` are read."""
    elements: list[bytes] = []
    at = 0
    while at < len(raw) and len(elements) <= count:
        end = at + LENGTH.size
        length = LENGTH.unpack_from(raw, at)[0] if end <= len(raw) else len(raw)
        if end + length > len(raw):
            raise _wrong("whole elements, each behind its length in 4 bytes; the last one is cut")
        elements.append(bytes(raw[end : end + length]))
        at = end + length
    return elements


def _tensor(given: TensorInput, raw: memoryview | None, input_shape: tuple[int, ...]) -> Tensor:
    """The tensor of a request: float32 (N, 3, S, S), finite, copied from the body."""
    shape = tuple(given.shape)
    if shape[1:] != input_shape:
        raise _wrong(f"a tensor of shape [N, {', '.join(map(str, input_shape))}]; it is {given.shape}")
    if raw is None:
        array = _numbers(given, shape)
    else:
        if len(raw) != 4 * math.prod(shape):
            raise _wrong(f"{4 * math.prod(shape)} bytes for {given.shape} of FP32; there are {len(raw)}")
        array = np.frombuffer(raw, "<f4")
    with np.errstate(over="ignore", invalid="ignore"):
        tensor: Tensor = array.astype(np.float32).reshape(shape)
    if not np.isfinite(tensor).all():
        raise _wrong("finite numbers; some are not, or are too large for FP32")
    return tensor


def _numbers(given: TensorInput, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        array = np.asarray(given.data)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise _wrong("numbers as data, nested as the shape says or not at all")
    if array.shape not in (shape, (math.prod(shape),)):
        raise _wrong(f"{math.prod(shape)} numbers for the shape {given.shape}; those that came have {array.shape}")
    return array


def _outputs(request: InferRequest) -> tuple[RequestedOutput, ...]:
    binary = bool(request.parameters and request.parameters.binary_data_output)
    if not request.outputs:
        return tuple(RequestedOutput(name, binary) for name in (PROBABILITIES, CLASS_ID, LABEL))
    wanted = []
    for each in request.outputs:
        own = each.parameters.binary_data if each.parameters else None
        classes = (each.parameters and each.parameters.classification) or 0
        if classes and each.name != PROBABILITIES:
            raise _wrong(f"`classification` with {PROBABILITIES}; it is with {each.name}")
        wanted.append(RequestedOutput(each.name, binary if own is None else own, classes))
    return tuple(wanted)


def _wrong(expected: str) -> ProblemError:
    return ProblemError("invalid-request", f"Expected: {expected}.")
