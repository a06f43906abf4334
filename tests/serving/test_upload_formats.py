"""Formats of a service: what training took can be taken; what is not is refused by name, on every route."""

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fixtures.pictures import encoded
from lensmith.bundle.format import MANIFEST, Bundle
from lensmith.config import ServeSettings
from lensmith.config.values import ImageFormats
from lensmith.errors import MissingPackageError, SettingsError
from lensmith.feedback import storage
from lensmith.imaging.formats import FORMATS
from lensmith.serving.aws_lambda import LambdaHandler
from lensmith.serving.formats import formats_note, require_decoders
from lensmith.serving.problems import TYPE_PREFIX

PILLOW_SAVES = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "gif": "GIF",
                "avif": "AVIF", "jp2": "JPEG2000", "ppm": "PPM"}  # fmt: skip
ClientOf = Callable[..., TestClient]


def stored_as(key: str) -> bytes:
    return encoded(Image.new("RGB", (40, 30), (250, 5, 5)), PILLOW_SAVES[key])


def routes(image: bytes) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each way in which one image reaches a service, as path and arguments of a POST."""
    text = base64.b64encode(image).decode()
    of_triton = {"name": "image", "datatype": "BYTES", "shape": [1]}
    raw = json.dumps({"inputs": [{**of_triton, "parameters": {"binary_data_size": len(image) + 4}}]}).encode()
    binary = raw + len(image).to_bytes(4, "little") + image
    length = {"inference-header-content-length": str(len(raw))}
    return {
        "body": ("/predict", {"content": image}),
        "form": ("/predict", {"files": {"file": ("photo.jpg", image, "image/jpeg")}}),
        "batch": ("/predict/batch", {"files": [("file", image)]}),
        "open inference, base64": (INFER, {"json": {"inputs": [{**of_triton, "data": [text]}]}}),
        "open inference, binary": (
            INFER,
            {"content": binary, "headers": length},
        ),
        "sagemaker, body": ("/invocations", {"content": image, "headers": {"content-type": "application/x-image"}}),
        "sagemaker, json": ("/invocations", {"json": {"instances": [{"b64": text}]}}),
        "vertex": ("/vertex", {"json": {"instances": [{"image": {"b64": text}}]}}),
    }


INFER = "/v2/models/colours/infer"
ROUTES = list(routes(b""))


def problem_of(response: Any) -> dict[str, Any] | None:
    """The problem of a response, or that of its only image."""
    answer = response.json()
    if "type" in answer:
        return dict(answer)
    (only,) = answer.get("results") or answer.get("predictions") or [{}]
    return only.get("problem") if isinstance(only, dict) else None


@pytest.fixture(scope="module", autouse=True)
def _vertex() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIP_HEALTH_ROUTE", "/vertex-health")
        patch.setenv("AIP_PREDICT_ROUTE", "/vertex")
        yield


@pytest.fixture(scope="module")
def of_all_formats(client_of: ClientOf) -> Iterator[TestClient]:
    with client_of(formats=tuple(PILLOW_SAVES), max_bytes=40_000) as client:
        yield client


@pytest.fixture(scope="module")
def strict(client_of: ClientOf) -> Iterator[TestClient]:
    with client_of(max_bytes=40_000) as client:
        yield client


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("key", PILLOW_SAVES)
def test_every_route_takes_every_format_of_the_settings(of_all_formats: TestClient, route: str, key: str) -> None:
    path, request = routes(stored_as(key))[route]
    response = of_all_formats.post(path, **request)
    assert response.status_code == 200, response.text
    assert problem_of(response) is None
    assert "red" in response.text


@pytest.mark.parametrize("route", ROUTES)
def test_a_format_that_is_not_taken_is_named_with_the_setting(strict: TestClient, route: str) -> None:
    for key in ("webp", "tiff", "gif", "avif"):
        path, request = routes(stored_as(key))[route]
        found = problem_of(strict.post(path, **request))
        assert found is not None
        assert (found["status"], found["type"]) == (415, f"{TYPE_PREFIX}not-jpeg-or-png")
        for part in ("JPEG, PNG", f"it is {FORMATS[key].name}", f"--formats jpeg,png,{key}"):
            assert part in found["detail"]


@pytest.mark.parametrize("route", ROUTES)
def test_what_can_be_taken_by_no_setting_is_named_without_one(of_all_formats: TestClient, route: str) -> None:
    path, request = routes(b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n")[route]
    found = problem_of(of_all_formats.post(path, **request))
    assert found is not None
    assert found["status"] == 415
    assert "it is PostScript" in found["detail"]
    assert "--formats" not in found["detail"]


@pytest.mark.parametrize("route", ROUTES)
def test_an_image_of_too_many_bytes_is_refused_with_its_size_and_the_setting(strict: TestClient, route: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    image = encoded(Image.fromarray(noise))
    assert 40_000 < len(image) < 90_000
    path, request = routes(image)[route]
    found = problem_of(strict.post(path, **request))
    assert found is not None
    assert found["status"] == 413
    assert f"This one has {len(image):,}" in found["detail"]
    assert "--max-bytes" in found["detail"]


def test_lambda_takes_the_formats_of_its_settings(colour_bundle: Bundle) -> None:
    handler = LambdaHandler(colour_bundle.path, insecure=True, formats="jpeg,webp")
    try:
        for key, status in (("webp", 200), ("png", 415)):
            event = {
                "version": "2.0", "routeKey": "$default", "rawPath": "/predict", "rawQueryString": "", "headers": {},
                "requestContext": {"http": {"method": "POST", "path": "/predict", "sourceIp": "127.0.0.1"}},
                "body": base64.b64encode(stored_as(key)).decode(), "isBase64Encoded": True,
            }  # fmt: skip
            assert handler(event, None)["statusCode"] == status
    finally:
        handler.close()


def test_of_an_animated_gif_the_first_frame_is_classified(of_all_formats: TestClient) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 5, 5), (5, 5, 250))]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert of_all_formats.post("/predict", content=out.getvalue()).json()["label"] == "red"


def test_the_model_tells_which_formats_are_taken_and_trained_on(strict: TestClient) -> None:
    model = strict.get("/model").json()
    assert model["formats"] == ["jpeg", "png"]
    assert model["trained_formats"] == []
    assert model["shortest_px"] >= model["image_size"]
    body = strict.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert sorted(body) == ["image/jpeg", "image/png", "multipart/form-data"]


def test_the_formats_of_the_settings_are_those_that_are_read(colour_bundle: Bundle) -> None:
    names = get_args(get_args(get_args(ImageFormats)[0])[0])
    assert set(names) == set(FORMATS)

    def formats(given: Any) -> tuple[str, ...]:
        return ServeSettings.resolve({"bundle": colour_bundle.path, "formats": given}).formats

    assert formats("JPG, png,TIF,jpeg") == ("jpeg", "png", "tiff")
    assert formats(["webp"]) == ("webp",)
    for wrong in ("svg", "", "jpeg;png"):
        with pytest.raises(SettingsError, match="formats"):
            formats(wrong)
    with pytest.raises(SettingsError, match="max_bytes is larger than upload_memory"):
        ServeSettings.resolve({"bundle": colour_bundle.path, "max_bytes": 300_000_000})


def test_heic_without_its_extra_is_refused_at_the_start(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lensmith.serving.formats.is_available", lambda form: form.key != "heic")
    require_decoders(settings)
    with pytest.raises(MissingPackageError, match=r"lensmith\[heic\]"):
        require_decoders(settings.model_copy(update={"formats": ("jpeg", "heic")}))


def test_heic_is_answered_where_it_is_taken(client_of: ClientOf) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (250, 5, 5))).save(out)
    with client_of(formats=("jpeg", "heic")) as client:
        assert client.post("/predict", content=out.getvalue()).json()["label"] == "red"


def test_the_start_says_which_formats_of_the_training_are_not_taken() -> None:
    assert formats_note([], ("jpeg", "png")) == ""
    assert formats_note(["png", "jpeg"], ("jpeg", "png")) == ""
    note = formats_note(["jpeg", "webp", "heic"], ("jpeg", "png"))
    assert note.startswith("The model was trained on JPEG, WebP, HEIC; the service takes JPEG, PNG.")
    assert "--formats jpeg,png,webp,heic " in note


def test_a_stored_upload_has_the_suffix_of_its_content(client_of: ClientOf, tmp_path: Any) -> None:
    with client_of(formats=("webp", "tiff"), keep=tmp_path, keep_share=1.0) as client:
        for key in ("webp", "tiff"):
            assert client.post("/predict", content=stored_as(key)).status_code == 200
    found = sorted(each.image.suffix for each in storage.stored_uploads(tmp_path))
    assert found == [".tif", ".webp"]


@pytest.mark.slow
def test_the_second_line_of_the_start_names_the_setting(colour_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(colour_bundle.path, tmp_path / "bundle")
    manifest = colour_bundle.manifest.model_copy(update={"formats": {"jpeg": 5, "webp": 3}})
    (tmp_path / "bundle" / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "lensmith", "serve", str(tmp_path / "bundle"), "--port=0"]
    for flags in (["--workers=1"], ["--workers=2"]):
        with subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as service:
            try:
                assert service.stdout is not None
                assert service.stdout.readline().startswith("lensmith serving colours on http://127.0.0.1:")
                assert "--formats jpeg,png,webp takes all of them." in service.stdout.readline()
            finally:
                service.terminate()
