"""What comes as a zip is a bundle, or nothing of it is written."""

import random
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith.bundle import archive
from lensmith.bundle.format import GRAPH, MANIFEST, Bundle
from lensmith.errors import BundleError, LensmithError, OutputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder of unpacked bundles; it need not be there."""
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


@pytest.fixture
def packed(colour_bundle: Bundle, tmp_path: Path) -> Path:
    return colour_bundle.pack(tmp_path / "colours.zip")


def put(packed: Path, name: str, content: bytes = b"x", **fields: object) -> None:
    """Add an entry with any name, and with `fields` in its ZipInfo."""
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    for field, value in fields.items():
        setattr(entry, field, value)
    with zipfile.ZipFile(packed, "a") as zipped:
        zipped.writestr(entry, content)


def forge_size(packed: Path, name: str, size: int) -> None:
    """Write another unpacked size of an entry into the table of contents."""
    content = bytearray(packed.read_bytes())
    entry = content.index(b"PK\x01\x02", content.rindex(name.encode()) - 46)
    struct.pack_into("<I", content, entry + 24, size)
    packed.write_bytes(content)


@pytest.fixture
def refused(cache: Path, tmp_path: Path) -> Callable[[Path], str]:
    """`refused(packed)`: the message of loading a zip, after which nothing is left in the cache or beside it."""

    def load(packed: Path) -> str:
        before = {*tmp_path.rglob("*"), cache, cache.parent}
        with pytest.raises(BundleError) as error:
            Bundle.load(packed)
        assert {*tmp_path.rglob("*")} <= before
        assert "\n" not in str(error.value)
        return str(error.value)

    return load


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "problem", "fields"),
    [
        ("../evil", "leads out of the folder", {}),
        ("sub/../../evil", "leads out of the folder", {}),
        ("/tmp/evil", "is an absolute path", {}),
        ("//server/share/evil", "is an absolute path", {}),
        ("C:evil", "is an absolute path", {}),
        ("..\\evil", "has a backslash in it", {}),
        ("x" * 201, "is longer than 200 bytes", {}),
        ("é" * 101, "is longer than 200 bytes", {}),
        ("model.onnx", "is there twice", {}),
        ("./model.onnx", "is there twice", {}),
        ("model.onnx/part", "lies below a file", {}),
        ("link", "is a link", {"external_attr": (stat.S_IFLNK | 0o777) << 16}),
        ("pipe", "is neither a file nor a folder", {"external_attr": (stat.S_IFIFO | 0o777) << 16}),
        ("folder", "is neither a file nor a folder", {"external_attr": (stat.S_IFDIR | 0o777) << 16}),
        ("bomb", "is neither stored nor deflated", {"compress_type": zipfile.ZIP_LZMA}),
    ],
)
def test_an_entry_that_no_bundle_has_is_refused_and_named(
    packed: Path, refused: Callable[[Path], str], name: str, problem: str, fields: dict[str, object]
) -> None:
    put(packed, name, **fields)
    assert f"Its entry {name[:200]!r} {problem}." in refused(packed)


@pytest.mark.parametrize("name", ["innocent\0evil", "\0evil"])
def test_a_name_cut_short_by_a_null_byte_is_refused(packed: Path, refused: Callable[[Path], str], name: str) -> None:
    put(packed, name.replace("\0", "_"))
    packed.write_bytes(packed.read_bytes().replace(name.replace("\0", "_").encode(), name.encode()))
    assert repr(name) in refused(packed)


def test_an_encrypted_entry_is_refused(packed: Path, refused: Callable[[Path], str]) -> None:
    put(packed, "secret")
    content = bytearray(packed.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    packed.write_bytes(content)
    assert "'secret' is encrypted" in refused(packed)


def test_too_many_entries_are_refused(packed: Path, refused: Callable[[Path], str]) -> None:
    with zipfile.ZipFile(packed, "a") as zipped:
        for number in range(archive.MAX_ENTRIES):
            zipped.writestr(f"{number}", b"")
    assert "1,003 entries" in refused(packed)


def test_a_bomb_is_refused_by_its_table_of_contents(
    packed: Path, refused: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "RATIO_FROM_BYTES", 1 << 20)
    put(packed, "zeros", bytes(2 << 20), compress_type=zipfile.ZIP_DEFLATED)
    assert "times its size" in refused(packed)


def test_more_than_a_disk_s_worth_is_refused_however_large_the_zip(
    packed: Path, refused: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_RATIO", 10**9)
    for number in range(9):
        put(packed, f"large{number}")
        forge_size(packed, f"large{number}", 0xFFFFFFF0)
    assert "38.7 GB" in refused(packed)


def test_an_entry_with_a_forged_size_is_cut_off_and_refused(packed: Path, refused: Callable[[Path], str]) -> None:
    put(packed, "liar", bytes(1 << 20), compress_type=zipfile.ZIP_DEFLATED)
    forge_size(packed, "liar", 10)
    assert "Bad CRC-32 for file 'liar'" in refused(packed)


def test_a_disk_without_room_is_named_and_one_that_fills_up_meanwhile_holds_nothing(
    packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(OSError, match="No space left"):
        Bundle.load(packed)
    usage = shutil.disk_usage(packed.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="LENSMITH_CACHE"):
        Bundle.load(packed)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["run/bundle/bundle.json"], "no bundle.json"),
        (["a/bundle.json", "b/bundle.json"], "2 of them"),
        (["bundle.json"], "schema 99"),
    ],
)
def test_a_zip_of_something_else_leaves_nothing(
    tmp_path: Path, refused: Callable[[Path], str], names: list[str], problem: str
) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        for name in names:
            zipped.writestr(name, '{"schema_version": 99}')
    assert problem in refused(tmp_path / "other.zip")


@pytest.mark.parametrize("damage", [lambda whole: b"PK no zip", lambda whole: whole[:200] + b"?" + whole[201:]])
def test_a_damaged_zip_is_refused_and_leaves_nothing(
    packed: Path, refused: Callable[[Path], str], damage: Callable[[bytes], bytes]
) -> None:
    packed.write_bytes(damage(packed.read_bytes()))
    assert "colours.zip" in refused(packed)


def test_a_zip_is_unpacked_once_and_anew_after_a_damaged_copy_was_refused(packed: Path, cache: Path) -> None:
    first = Bundle.load(packed).path
    (first / "witness").touch()
    assert Bundle.load(packed).path == first
    assert (first / "witness").exists()
    (first / GRAPH).write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.onnx has changed"):
        Bundle.load(packed)
    assert Bundle.load(packed).path == first
    assert list(cache.iterdir()) == [first]


def test_what_a_file_manager_puts_beside_the_folder_is_left_out(copy: Path, cache: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "mac"), "zip", copy.parent, copy.name))
    put(packed, "__MACOSX/copy/._bundle.json")
    put(packed, ".DS_Store")
    assert {file.name for file in Bundle.load(packed).path.iterdir()} == {"bundle.json", "golden.npz", "model.onnx"}


def test_two_processes_that_unpack_at_once_do_not_disturb_each_other(
    packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, unpack = cache / "target", zipfile.ZipFile.extractall

    def after_another(zipped: zipfile.ZipFile, *args: object) -> None:
        monkeypatch.undo()
        archive.unpack(packed, target, MANIFEST)
        assert (target / MANIFEST).is_file()
        unpack(zipped, *args)

    monkeypatch.setattr(zipfile.ZipFile, "extractall", after_another)
    archive.unpack(packed, target, MANIFEST)
    assert (target / MANIFEST).is_file()
    assert list(cache.iterdir()) == [target]


def test_a_zip_damaged_anywhere_is_refused_or_read_rightly(colour_bundle: Bundle, packed: Path, cache: Path) -> None:
    whole, chance = packed.read_bytes(), random.Random(0)
    contents = whole.index(b"PK\x01\x02")
    outcomes = set()
    for number in range(150):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 3)):  # two of three in the table of contents, which has the fields
            first = contents if number % 3 else 0
            content[chance.randrange(first, len(content))] = chance.randrange(256)
        packed.write_bytes(content)
        try:
            loaded = Bundle.load(packed)
        except LensmithError:
            outcomes.add("refused")
        else:
            assert loaded.manifest == colour_bundle.manifest
            outcomes.add("read")
    assert outcomes == {"refused", "read"}
    assert all((folder / MANIFEST).is_file() for folder in cache.iterdir())


def test_a_pack_that_fails_leaves_an_older_one_as_it_was(copy: Path, packed: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(FileNotFoundError):
        archive.pack(copy, ["model.onnx", "missing"], packed)
    assert packed.read_bytes() == before
    assert [file.name for file in packed.parent.glob("colours*")] == ["colours.zip"]
