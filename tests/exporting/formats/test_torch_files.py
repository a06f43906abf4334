"""Programs of PyTorch run where neither timm nor lensmith is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lensmith.exporting.formats.base import FormatExport, TrainedNetwork

ALONE = """
import sys, warnings
warnings.simplefilter("ignore")
for name in ("timm", "torchvision", "lensmith"):
    sys.modules[name] = None
import numpy as np, torch
pt2, torchscript, images, out = sys.argv[1:]
batch = torch.from_numpy(np.load(images))
with torch.no_grad():
    answers = [torch.export.load(pt2).module()(batch), torch.jit.load(torchscript)(batch)]
np.save(out, np.stack([answer.numpy() for answer in answers]))
"""


@pytest.mark.slow
def test_they_answer_without_the_code_that_made_them(
    written: dict[str, FormatExport], network: TrainedNetwork, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", network.images)
    files = [written["pt2"].path / "model.pt2", written["torchscript"].path / "model.pt", tmp_path / "images.npy"]
    out = tmp_path / "answers.npy"
    subprocess.run([sys.executable, "-c", ALONE, *map(str, files), str(out)], check=True)
    for logits in np.load(out):
        powers = np.exp(logits / network.temperature)
        answers = 0.97 * powers / powers.sum(axis=1, keepdims=True) + 0.01
        np.testing.assert_allclose(answers, network.expected, atol=1e-5)
