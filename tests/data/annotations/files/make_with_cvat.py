"""Write the annotation files `cvat-*` beside this script with the writer of CVAT 2.42 itself, without its server.

    python make_with_cvat.py CVAT        where CVAT is a checkout of CVAT's source

The functions `create_xml_dumper` and `dump_as_cvat_annotation` of CVAT's `dataset_manager/formats/cvat.py` are taken
from there and called with the data that its server would give them: a project with subsets, a task with a subset, and
two consensus replicas of a job by two annotators. Pictures are not committed.
"""

import ast
import json
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from fixtures.annotated_pictures import BOXES, CLASSES, HEIGHT, PICTURES, WIDTH  # noqa: E402

Frame = SimpleNamespace
Labels = Callable[[int], tuple[str, ...]]


class Data:
    """What CVAT's writer asks of a task or a job."""

    def __init__(self, kind: str, frames: list[Frame], subset: str = "default", assignee: str = "") -> None:
        labels = [
            ("label", OrderedDict(name=name, color="#ffffff", type="any", attributes=[])) for name in CLASSES
        ]  # fmt: skip
        person = OrderedDict(username=assignee, email=f"{assignee}@example.com") if assignee else ""
        segment = OrderedDict(id="3", start="0", stop=str(len(frames) - 1), url="http://localhost:8080/api/jobs/3")
        about = OrderedDict(
            id="3", size=str(len(frames)), mode="annotation", overlap="0", bugtracker="",
            created="2026-11-30 08:00:00.000000+00:00", updated="2026-11-30 08:30:00.000000+00:00",
            subset=subset, start_frame="0", stop_frame=str(len(frames) - 1), frame_filter="",
            segments=[("segment", segment)], owner=OrderedDict(username="admin", email="admin@example.com"),
            assignee=person, labels=labels,
        )  # fmt: skip
        self.frames, self.meta = frames, OrderedDict([(kind, about), ("dumped", "2026-11-30 09:00:00.000000+00:00")])

    def group_by_frame(self, include_empty: bool) -> Iterable[Frame]:
        return self.frames


class Project(Data):
    """What CVAT's writer asks of a project, whose images have subsets."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__("project", frames)
        about = self.meta["project"]
        subsets = list(dict.fromkeys(frame.subset for frame in frames))
        self.meta["project"] = OrderedDict(
            id="1", name="photos", bugtracker="", created=about["created"], updated=about["updated"],
            tasks=[("task", OrderedDict({**about, "subset": subset}, assignee="")) for subset in subsets],
            subsets="\n".join(subsets), owner=about["owner"], assignee="", labels=about["labels"],
        )  # fmt: skip
        for _, task in self.meta["project"]["tasks"]:
            del task["labels"]


class Extractor:
    """Stands for the two classes of CVAT that copy a frame's data before it is written."""

    @staticmethod
    def copy_frame_data_with_replaced_lazy_lists(frame: Frame) -> Frame:
        return frame


def writer(source: Path) -> tuple[Callable[..., Any], Callable[..., None]]:
    """CVAT's own functions, compiled from its source."""
    file = source / "cvat/apps/dataset_manager/formats/cvat.py"
    names = ("pairwise", "create_xml_dumper", "dump_as_cvat_annotation")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    space: dict[str, Any] = {
        "OrderedDict": OrderedDict, "ProjectData": Project, "CVATProjectDataExtractor": Extractor,
        "CvatTaskOrJobDataExtractor": Extractor,
    }  # fmt: skip
    exec(compile(tree, str(file), "exec"), space)
    return space["create_xml_dumper"], space["dump_as_cvat_annotation"]


def frames(subsets: Iterable[str], labels: Labels | None) -> list[Frame]:
    """Frames of the pictures of some subsets: with labels, or else with boxes."""
    found = []
    for number, picture in enumerate(PICTURES):
        for subset in picture.subsets:
            if subset in subsets:
                tags = [
                    SimpleNamespace(label=label, source="manual", group=0, attributes=[])
                    for label in (labels(number) if labels else ())
                ]  # fmt: skip
                shapes = [] if labels else [box(*each) for each in BOXES.get(number, ())]
                found.append(
                    Frame(
                        frame=len(found), name=picture.name, subset=subset, task_id=1 + (subset == "test"),
                        width=WIDTH, height=HEIGHT, labeled_shapes=shapes, tags=tags,
                    )
                )  # fmt: skip
    return found


def box(label: str, edges: tuple[int, int, int, int]) -> SimpleNamespace:
    """A rectangle as CVAT has it."""
    x, y, width, height = edges
    return SimpleNamespace(
        label=label, source="manual", type="rectangle", occluded=False, points=[x, y, x + width, y + height],
        rotation=0, z_order=0, group=0, attributes=[],
    )  # fmt: skip


def main() -> None:
    """Write each export as CVAT lays it out: `annotations.xml` and `images/[SUBSET/]NAME`."""
    create, dump = writer(Path(sys.argv[1]))

    def ben(number: int) -> tuple[str, ...]:
        """Labels of one who takes every other cat for a dog."""
        labels = PICTURES[number].labels
        return ("dog",) if labels == ("cat",) and number % 2 else labels

    def anna(number: int) -> tuple[str, ...]:
        return PICTURES[number].labels

    project = {"labels-cvat_project": anna, "boxes-cvat_project": None}
    for name, labels in project.items():
        write(create, dump, HERE / name / "annotations.xml", Project(frames(("train", "test"), labels)))
        places = {
            f"images/{subset}/{picture.name}": number
            for number, picture in enumerate(PICTURES) for subset in picture.subsets
        }  # fmt: skip
        write_places(HERE / name, places)
    task = HERE / "cvat-task"
    write(create, dump, task / "annotations.xml", Data("task", frames(("test",), anna), subset="Test"))
    places = {f"images/{each.name}": number for number, each in enumerate(PICTURES) if "test" in each.subsets}
    write_places(task, places)
    replicas = HERE / "cvat-replicas"
    for number, (person, labels) in enumerate((("anna", anna), ("ben", ben)), 3):
        data = Data("job", frames(("train", "test"), labels), assignee=person)
        data.frames = list({frame.name: frame for frame in data.frames}.values())
        write(create, dump, replicas / f"job_{number}.xml", data)
    write_places(replicas, {f"images/{each.name}": number for number, each in enumerate(PICTURES)})


def write(create: Callable[..., Any], dump: Callable[..., None], file: Path, data: Data) -> None:
    if file.name == "annotations.xml":
        shutil.rmtree(file.parent, ignore_errors=True)
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as stream:
        dumper = create(stream)
        dumper.open_document()
        dump(dumper, data)
        dumper.close_document()


def write_places(folder: Path, places: dict[str, int]) -> None:
    text = json.dumps(places, indent=1, ensure_ascii=False)
    (folder / "pictures.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
