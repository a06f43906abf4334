"""Responses of the Open Inference Protocol: predictions → tensors → bytes."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic_core import to_json

from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.routes.open_inference_request import ParsedRequest, RequestedOutput
from lensmith.serving.routes.open_inference_schema import CLASS_ID, PROBABILITIES, InferResponse, OutputTensor

_LENGTH = struct.Struct("<I")


def write(
    asked: ParsedRequest, found: Sequence[TimedPrediction], model: LoadedModel, request_id: str
) -> tuple[bytes, int | None]:
    """Write a response: its body, and the length of its JSON part in bytes (None: all of it is JSON)."""
    outputs, raw = [], []
    for wanted in asked.outputs:
        datatype, values = _output(wanted, found)
        shape = list(values.shape)
        if wanted.binary:
            raw.append(_as_bytes(values))
            size = {"binary_data_size": len(raw[-1])}
            outputs.append(OutputTensor(name=wanted.name, datatype=datatype, shape=shape, parameters=size))
        else:
            outputs.append(OutputTensor(name=wanted.name, datatype=datatype, shape=shape, data=values.ravel().tolist()))
    content = InferResponse(
        model_name=model.name,
        model_version=model.version,
        id=request_id if asked.id is None else asked.id,
        outputs=outputs,
    )
    head = to_json(content, exclude_none=True)
    return (head + b"".join(raw), len(head)) if raw else (head, None)


def _output(wanted: RequestedOutput, found: Sequence[TimedPrediction]) -> tuple[str, np.ndarray[Any, np.dtype[Any]]]:
    """Datatype and values of an output: float32 (N, C), int64 (N,), or object (N,) or (N, classes) of texts."""
    predictions = [each.prediction for each in found]
    if wanted.classes:
        texts = [
            [f"{one.confidence:f}:{one.class_id}:{one.label}" for one in each.top[: wanted.classes]]
            for each in predictions
        ]
        return "BYTES", np.array(texts, dtype=object)
    if wanted.name == PROBABILITIES:
        return "FP32", np.stack([each.probabilities for each in predictions if each.probabilities is not None])
    if wanted.name == CLASS_ID:
        return "INT64", np.array([each.class_id for each in predictions], dtype=np.int64)
    return "BYTES", np.array([each.label for each in predictions], dtype=object)


def _as_bytes(values: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    encoded = [str(each).encode() for each in values.ravel()]
    return b"".join(_LENGTH.pack(len(each)) + each for each in encoded)
