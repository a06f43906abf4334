"""The source tutorials' server, written anew from its description: FastAPI and TorchScript.

As described: transforms are built in each request, the image is decoded and the network run on the event loop, torch
uses every core, and the confidence is the largest logit.
"""

import io
import os
import sys

import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from torchvision import transforms

app = FastAPI()
model = torch.jit.load(os.environ["BENCH_TORCHSCRIPT"]).eval()


@app.post("/predict")
async def predict(file: UploadFile = File(...)):  # noqa: B008
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    image = Image.open(io.BytesIO(await file.read())).convert("RGB")
    with torch.no_grad():
        output = model(transform(image).unsqueeze(0))
    confidence, class_id = output.max(1)
    return {"class_id": class_id.item(), "confidence": confidence.item()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
