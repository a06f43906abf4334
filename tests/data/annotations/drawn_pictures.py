"""The small drawn set behind the committed annotation files: each picture tells its number by its pixels."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

CLASSES = ("cat", "dog", "Käfer 虫")
WIDTH, HEIGHT = 48, 32


class Picture(NamedTuple):
    """A picture of the set.

    Attributes:
        name: path below the folder of its subset, with its ending.
        labels: its labels; none where it is unlabelled.
        subsets: subsets that hold it.
        is_turned: whether it is stored on its side, with the EXIF orientation that makes it upright.
    """

    name: str
    labels: tuple[str, ...]
    subsets: tuple[str, ...] = ("train",)
    is_turned: bool = False


PICTURES = (
    Picture("one/a b.jpg", ("cat",)),
    Picture("two/a b.jpg", ("dog",)),
    Picture("one/grün.jpg", ("Käfer 虫",)),
    Picture("one/中文.png", ("cat",)),
    Picture("turned.jpg", ("dog",), is_turned=True),
    Picture("blank.jpg", ()),
    Picture("both.jpg", ("cat", "dog")),
    Picture("gone.jpg", ("cat",)),
    Picture("shared.jpg", ("dog",), ("train", "test")),
    Picture("deep/er/three.v2.jpg", ("Käfer 虫",), ("test",)),
    Picture("t1.jpg", ("cat",), ("test",)),
    Picture("t2.png", ("dog",), ("test",)),
    Picture("one/nothing.jpg", (), ("test",)),
)
GONE = 7
"""Number of the picture that is deleted after the export."""
TWO_LABELS = 6
"""Number of the picture with two labels."""

BOXES: dict[int, tuple[tuple[str, tuple[int, int, int, int]], ...]] = {
    0: (("cat", (4, 6, 20, 10)),),
    1: (("dog", (0, 0, 48, 32)), ("cat", (30, 8, 12, 16))),
    2: (("Käfer 虫", (10, 10, 8, 8)),),
    3: (("cat", (1, 1, 46, 30)),),
    4: (("dog", (2, 4, 10, 12)),),
    7: (("cat", (5, 5, 10, 10)),),
    8: (("dog", (3, 3, 30, 20)),),
    9: (("Käfer 虫", (20, 10, 10, 20)), ("Käfer 虫", (0, 0, 10, 10))),
    10: (("cat", (8, 8, 8, 8)),),
    11: (("dog", (16, 4, 24, 24)),),
}
"""Number of a picture → label and box (left, top, width, height in pixels of the upright picture) of each object."""


def draw(number: int, file: Path) -> None:
    """Draw a picture: WIDTH × HEIGHT pixels when upright, of one grey value that tells its number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (WIDTH, HEIGHT), (10 + 15 * number,) * 3)
    if PICTURES[number].is_turned:
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90° clockwise to be upright
        picture.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    else:
        picture.save(file)


def number_of(file: Path) -> int:
    """The number of the picture in a file."""
    with Image.open(file) as picture:
        value = picture.convert("L").getpixel((0, 0))
    assert isinstance(value, int)
    return round((value - 10) / 15)
