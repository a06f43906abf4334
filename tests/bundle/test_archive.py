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


@pytest.fixture
def copy(colour_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colour_bundle.path, tmp_path / "copy"))


def put(packed: Path, name: str, content: bytes = b"x", change: Callable[[zipfile.ZipInfo], object] = id) -> None:
    """Add an entry as it stands, whatever its name, and `change` what the table of contents says of it."""
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    change(entry)
    with zipfile.ZipFile(packed, "a") as zipped:
        zipped.writestr(entry, content)


def as_kind(kind: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = (kind | 0o777) << 16

    return change


def refused(packed: Path, cache: Path, root: Path) -> str:
    """The error of loading; asserts that nothing was written, in the cache or beside it."""
    before = sorted(root.rglob("*"))
    with pytest.raises(BundleError) as error:
        Bundle.load(packed)
    left = [path for path in sorted(root.rglob("*")) if path not in before]
    assert [path for path in left if path not in (cache, cache.parent)] == []
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../evil", "leads out of the folder"),
        ("sub/../../evil", "leads out of the folder"),
        ("..", "leads out of the folder"),
        ("/tmp/evil", "is an absolute path"),
        ("//server/share/evil", "is an absolute path"),
        ("C:evil", "is an absolute path"),
        ("c:/evil", "is an absolute path"),
        ("..\\evil", "has a backslash in it"),
        ("sub\\evil", "has a backslash in it"),
        ("x" * 201, "is longer than 200 bytes"),
        ("é" * 101, "is longer than 200 bytes"),
    ],
)
def test_a_name_that_could_lie_elsewhere_is_refused_and_named(
    packed: Path, cache: Path, tmp_path: Path, name: str, problem: str
) -> None:
    put(packed, name)
    assert f"Its entry {name[:200]!r} {problem}." in refused(packed, cache, tmp_path)


@pytest.mark.parametrize("name", ["innocent\0evil", "\0evil"])
def test_a_name_cut_short_by_a_null_byte_is_refused(packed: Path, cache: Path, tmp_path: Path, name: str) -> None:
    put(packed, name.replace("\0", "_"))
    packed.write_bytes(packed.read_bytes().replace(name.replace("\0", "_").encode(), name.encode()))
    assert f"{name!r} is no file name" in refused(packed, cache, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["model.onnx", "./model.onnx", ".//model.onnx"])
def test_an_entry_that_is_there_twice_is_refused(packed: Path, cache: Path, tmp_path: Path, name: str) -> None:
    put(packed, name)
    assert f"{name!r} is there twice" in refused(packed, cache, tmp_path)


def test_an_entry_below_a_file_is_refused(packed: Path, cache: Path, tmp_path: Path) -> None:
    put(packed, "model.onnx/part")
    assert "'model.onnx/part' lies below a file" in refused(packed, cache, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("link", stat.S_IFLNK, "is a link"),
        ("pipe", stat.S_IFIFO, "is neither a file nor a folder"),
        ("device", stat.S_IFBLK, "is neither a file nor a folder"),
        ("folder", stat.S_IFDIR, "is neither a file nor a folder"),
    ],
)
def test_an_entry_that_is_no_file_is_refused(
    packed: Path, cache: Path, tmp_path: Path, name: str, kind: int, problem: str
) -> None:
    put(packed, name, b"/etc/passwd", as_kind(kind))
    assert f"{name!r} {problem}" in refused(packed, cache, tmp_path)


def test_an_encrypted_entry_is_refused(packed: Path, cache: Path, tmp_path: Path) -> None:
    put(packed, "secret")
    content = bytearray(packed.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 8] |= 1
    packed.write_bytes(content)
    assert "'secret' is encrypted" in refused(packed, cache, tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_entry_whose_unpacking_cannot_be_bounded_is_refused(
    packed: Path, cache: Path, tmp_path: Path, method: int
) -> None:
    put(packed, "bomb", bytes(1000), lambda entry: setattr(entry, "compress_type", method))
    assert "'bomb' is neither stored nor deflated" in refused(packed, cache, tmp_path)


def test_too_many_entries_are_refused(packed: Path, cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed, "a") as zipped:
        for number in range(archive.MAX_ENTRIES):
            zipped.writestr(f"{number}", b"")
    assert "It has 1,003 entries, and 1,000 are allowed" in refused(packed, cache, tmp_path)


def say_size(packed: Path, name: str, size: int) -> None:
    """Let the table of contents say that an entry has so many bytes unpacked."""
    content = bytearray(packed.read_bytes())
    entry = content.index(b"PK\x01\x02", content.rindex(name.encode()) - 46)
    struct.pack_into("<I", content, entry + 24, size)
    packed.write_bytes(content)


def test_a_bomb_is_refused_by_its_table_of_contents(packed: Path, cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as zipped, zipped.open("zeros", "w") as entry:
        for _ in range(257):
            entry.write(bytes(1 << 20))
    assert packed.stat().st_size < 2 << 20
    said = refused(packed, cache, tmp_path)
    assert "times its size (0.3 GB), and 20 times are allowed" in said


def test_more_than_a_disk_s_worth_is_refused_however_large_the_zip(
    packed: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_RATIO", 10**9)
    for number in range(9):
        put(packed, f"large{number}")
        say_size(packed, f"large{number}", 0xFFFFFFF0)
    assert "Unpacked it has 38.7 GB, and 34.4 are allowed" in refused(packed, cache, tmp_path)


def test_an_entry_that_is_larger_than_it_says_is_cut_off_and_refused(packed: Path, cache: Path, tmp_path: Path) -> None:
    put(packed, "liar", bytes(1 << 20), lambda entry: setattr(entry, "compress_type", zipfile.ZIP_DEFLATED))
    say_size(packed, "liar", 10)
    assert "It cannot be unpacked (Bad CRC-32 for file 'liar')" in refused(packed, cache, tmp_path)


def test_a_disk_without_room_is_named_and_nothing_is_written(
    packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(packed.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="LENSMITH_CACHE"):
        Bundle.load(packed)
    assert list(cache.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    packed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(OSError, match="No space left"):
        Bundle.load(packed)
    assert list(cache.iterdir()) == []


def test_a_file_that_is_no_zip_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(b"PK no zip")
    assert "File is not a zip file" in refused(tmp_path / "bundle.zip", cache, tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.onnx"], "holds no bundle.json"),
        (["run/bundle/bundle.json"], "holds no bundle.json"),
        (["a/bundle.json", "b/bundle.json"], "holds 2 of them"),
    ],
)
def test_a_zip_of_something_else_is_not_unpacked(cache: Path, tmp_path: Path, names: list[str], said: str) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zipped:
        for name in names:
            zipped.writestr(name, "{}")
    assert said in refused(tmp_path / "other.zip", cache, tmp_path)


def test_a_zip_whose_bundle_is_refused_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "future.zip", "w") as zipped:
        zipped.writestr(MANIFEST, '{"schema_version": 99}')
    assert "schema 99" in refused(tmp_path / "future.zip", cache, tmp_path)


def test_an_unpacked_bundle_that_was_damaged_is_refused_once_and_then_unpacked_anew(packed: Path) -> None:
    graph = Bundle.load(packed).path / GRAPH
    graph.write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.onnx has changed"):
        Bundle.load(packed)
    assert Bundle.load(packed).path / GRAPH == graph


def test_what_a_file_manager_puts_beside_the_folder_is_left_out(copy: Path, cache: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "mac"), "zip", copy.parent, copy.name))
    put(packed, "__MACOSX/copy/._bundle.json")
    put(packed, ".DS_Store")
    assert {file.name for file in Bundle.load(packed).path.iterdir()} == {"bundle.json", "golden.npz", "model.onnx"}


def test_a_zip_is_unpacked_once(packed: Path, cache: Path) -> None:
    first = Bundle.load(packed).path
    (first / "witness").touch()
    assert Bundle.load(packed).path == first
    assert (first / "witness").exists()
    assert list(cache.iterdir()) == [first]


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
    for number in range(300):
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
