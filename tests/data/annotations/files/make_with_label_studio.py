"""Exports of a real Label Studio (1.23): uploads with choices, boxes over local files, and two people's labels.

    LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=$PWD \
    LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN=true label-studio start --no-browser --user-token TOKEN
    python make_with_label_studio.py http://127.0.0.1:8080 TOKEN

Pictures are drawn into `./pictures`, and the exports written to `./label-studio`. Needs requests and Pillow.
"""

import sys
from pathlib import Path
from urllib.parse import quote

import requests
from PIL import Image, ImageDraw

SERVER, TOKEN = sys.argv[1:3]
PICTURES = Path("pictures")
OUT = Path("label-studio")
NAMES = (
    "100% wing.jpg", "a b.jpg", "b1.jpg", "d(1).jpg", "sub/same.png", "sub/u 2.jpg", "sub2/same.png", "u1.jpg",
    "über.jpg", "中文.jpg",
)  # fmt: skip
LABELS = ("cat", "dog", "bird", "鳥 & ü", "cat", "dog", "bird", "cat", None, "skip")


def call(method: str, path: str, **more: object) -> requests.Response:
    answer = requests.request(method, SERVER + path, headers={"Authorization": f"Token {TOKEN}"}, **more)
    answer.raise_for_status()
    return answer


def project(title: str, config: str) -> int:
    view = f'<View><Image name="image" value="$image"/>{config}</View>'
    return call("POST", "/api/projects/", json={"title": title, "label_config": view}).json()["id"]


def tasks_of(number: int) -> list[dict]:
    return call("GET", f"/api/tasks?project={number}&page_size=100&fields=all").json()["tasks"]


def export(number: int, name: str) -> None:
    for kind, file in (("JSON", f"{name}.json"), ("JSON_MIN", f"{name}-min.json"), ("CSV", f"{name}.csv")):
        answer = call("GET", f"/api/projects/{number}/export?exportType={kind}&download_all_tasks=true")
        (OUT / file).write_bytes(answer.content)


def choice(*labels: str, control: str = "choice") -> list[dict]:
    return [{"from_name": control, "to_name": "image", "type": "choices", "value": {"choices": list(labels)}}]


def box(label: str, x: float, y: float, width: float, height: float, rotation: float = 0) -> dict:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": [label]}
    return {
        "id": f"{label}{x}", "from_name": "label", "to_name": "image", "type": "rectanglelabels",
        "original_width": 64, "original_height": 48, "image_rotation": 0, "value": value,
    }  # fmt: skip


def uploads() -> None:
    values = "".join(f'<Choice value="{label}"/>' for label in ("cat", "dog", "bird", "鳥 &amp; ü"))
    number = project("choices", f'<Choices name="animal" toName="image">{values}</Choices>')
    for name in NAMES:
        with (PICTURES / name).open("rb") as stream:
            call("POST", f"/api/projects/{number}/import", files={"file": (Path(name).name, stream)})
    for task, label in zip(sorted(tasks_of(number), key=lambda each: each["id"]), LABELS, strict=True):
        body = {"result": [], "was_cancelled": True} if label == "skip" else {"result": choice(label, control="animal")}
        if label is not None:
            call("POST", f"/api/tasks/{task['id']}/annotations/", json=body)
    export(number, "choices")


def boxes() -> None:
    values = '<Label value="cat"/><Label value="dog"/>'
    number = project("boxes", f'<RectangleLabels name="label" toName="image">{values}</RectangleLabels>')
    storage = {"project": number, "path": str(PICTURES.resolve()), "use_blob_urls": True, "regex_filter": ".*"}
    store = call("POST", "/api/storages/localfiles", json=storage).json()["id"]
    call("POST", f"/api/storages/localfiles/{store}/sync")
    first, second, *_ = sorted(tasks_of(number), key=lambda each: each["data"]["image"])
    result = [box("cat", 10, 20, 30, 40), box("dog", 50, 50, 25, 25)]
    call("POST", f"/api/tasks/{first['id']}/annotations/", json={"result": result})
    call("POST", f"/api/tasks/{second['id']}/annotations/", json={"result": [box("cat", 50, 20, 30, 40, 90)]})
    export(number, "boxes")


def people() -> None:
    new = {"email": "bob@example.org", "username": "bob", "password": "secret123"}
    bob = call("POST", "/api/users/", json=new).json()["id"]
    ann = call("GET", "/api/current-user/whoami").json()["id"]
    values = '<Choice value="cat"/><Choice value="dog"/>'
    number = project("people", f'<Choices name="choice" toName="image" choice="multiple">{values}</Choices>')

    def task(name: str, labels: dict[int, list[str]], **more: object) -> dict:
        done = [{"completed_by": person, "result": choice(*given)} for person, given in labels.items()]
        return {"data": {"image": f"/data/local-files/?d={quote(f'pictures/{name}')}"}, "annotations": done, **more}

    predictions = [{"result": choice("cat"), "score": 0.9, "model_version": "m"}]
    tasks = [
        task("a b.jpg", {ann: ["cat"], bob: ["cat"]}),
        task("sub/same.png", {ann: ["cat"], bob: ["dog"]}),
        task("sub2/same.png", {ann: ["dog"], bob: ["dog"]}),
        task("中文.jpg", {ann: ["cat", "dog"]}),
        task("100% wing.jpg", {}, predictions=predictions),
    ]
    call("POST", f"/api/projects/{number}/import", json=tasks)
    export(number, "people")


OUT.mkdir(exist_ok=True)
for index, name in enumerate(NAMES):
    (PICTURES / name).parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (64, 48), (20 * index, 120, 90))
    ImageDraw.Draw(picture).ellipse((8, 8, 30 + index, 40), fill=(200, 20 * index, 60))
    picture.save(PICTURES / name)
uploads()
boxes()
people()
