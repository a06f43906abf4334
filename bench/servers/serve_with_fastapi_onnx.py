"""The source tutorials' server with ONNX Runtime in the place of TorchScript; all else as described there."""

import io
import os
import sys

import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from torchvision import transforms

app = FastAPI()
session = ort.InferenceSession(os.environ["BENCH_GRAPH"], providers=["CPUExecutionProvider"])
input_name = session.get_inputs()[0].name


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
    output = session.run(None, {input_name: transform(image).unsqueeze(0).numpy()})[0][0]
    class_id = int(output.argmax())
    return {"class_id": class_id, "confidence": float(output[class_id])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
