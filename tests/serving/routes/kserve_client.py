"""Asks the service at URL with KServe's own client, and prints what it got: `python kserve_client.py URL IMAGE`."""

import asyncio
import base64
import json
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str, image: bytes) -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        told = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, "colours"),
            "unknown_ready": await client.is_model_ready(url, "birds"),
        }
        text = base64.b64encode(image).decode()
        in_json = InferInput("image", [1], "BYTES", [text], {"content_type": "base64"})
        in_binary = InferInput("image", [1], "BYTES")
        in_binary.set_data_from_numpy(np.array([image], dtype=object))
        zeros = np.zeros((2, 3, 32, 32), np.float32)
        tensor, numbers = (InferInput("input", [2, 3, 32, 32], "FP32") for _ in range(2))
        tensor.set_data_from_numpy(zeros)
        numbers.set_data_from_numpy(zeros, binary_data=False)
        for name, each in (("json", in_json), ("binary", in_binary), ("tensor", tensor), ("numbers", numbers)):
            answer = await client.infer(url, InferRequest("colours", [each]), model_name="colours")
            told[name] = {
                "model": answer.model_name,
                "labels": [str(label) for label in answer.outputs[2].as_numpy()],
                "shape": list(answer.outputs[0].as_numpy().shape),
            }
        try:
            await client.infer(url, InferRequest("birds", [in_json]), model_name="birds")
        except httpx.HTTPStatusError as error:
            told["refused"] = error.response.json()["error"]
    print(json.dumps(told))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes()))
