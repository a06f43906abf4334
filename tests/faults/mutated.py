"""Mutated images from a seed: broken, odd and hostile files, each with what is to be answered.

Run by itself, it puts them through the whole application in this process, or sends them to a service:

    python tests/faults/mutated.py BUNDLE --count 100000 --seed 0
    python tests/faults/mutated.py BUNDLE --count 3000 --url http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageOps

GREEN = (40, 190, 50)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and its steps."""
CHARSETS = ("utf-16", "utf-7", "rot13", "zip", "idna", "punycode", "unicode_escape", "undefined", "mbcs", "nonsense")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 50_000_000
SEVERAL = 20
"""Images that are asked once more in one form."""


@dataclass(frozen=True)
class Case:
    """One upload.

    Attributes:
        kind: what was done.
        body: the bytes.
        content_type: as it is sent.
        expected: statuses that are right.
        label: of the answer, where it is certain.
    """

    kind: str
    body: bytes
    content_type: str = "image/jpeg"
    expected: frozenset[int] = frozenset({200, 413, 415, 422})
    label: str | None = None


GOOD, BAD, NO_IMAGE, MAYBE = frozenset({200}), frozenset({422}), frozenset({415}), frozenset({200, 422})


# Files that are right


def picture(rng: np.random.Generator, size: tuple[int, int] = (48, 40)) -> Image.Image:
    noise = rng.normal(0, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(GREEN) + noise, 0, 255).astype(np.uint8))


def stored(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, interlace: int = 0, *before: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"".join(
        [SIGNATURE, chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows, 1)), chunk(b"IEND", b"")]
    )


def deep_png(rng: np.random.Generator, colour: int) -> bytes:
    """16 bits a channel: colour 2 is RGB, 6 RGBA."""
    pixels = np.asarray(picture(rng)).astype(">u2") * 257
    if colour == 6:
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 65535, dtype=">u2")])
    return png(48, 40, 16, colour, b"".join(b"\0" + row.tobytes() for row in pixels))


def interlaced_png(rng: np.random.Generator) -> bytes:
    pixels, rows = np.asarray(picture(rng)), b""
    for x, y, dx, dy in ADAM7:
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::dy, x::dx])
    return png(48, 40, 8, 2, rows, 1)


def ycck_jpeg(rng: np.random.Generator) -> bytes:
    """The pixels are stored as they come, and the Adobe marker then says that they are YCCK."""
    luma = np.asarray(ImageOps.invert(picture(rng)).convert("YCbCr"))  # Adobe stores CMYK inverted, and so does Pillow
    four = np.dstack([luma, np.full(luma.shape[:2], 255, dtype=np.uint8)])
    plain = stored(Image.fromarray(255 - four, "CMYK"), "JPEG", quality=95)
    at = plain.index(b"Adobe")
    return plain[: at + 11] + b"\x02" + plain[at + 12 :]


def good_files(rng: np.random.Generator) -> Iterator[Case]:
    base = picture(rng)
    for name, value in ("quality", 75), ("progressive", True), ("subsampling", 0), ("quality", 5), ("optimize", True):
        yield Case(f"jpeg {name} {value}", stored(base, "JPEG", **{name: value}), expected=GOOD, label="green")
    yield Case("restarted jpeg", stored(base, "JPEG", restart_marker_rows=1), expected=GOOD, label="green")
    yield Case("cmyk jpeg", stored(base.convert("CMYK"), "JPEG"), expected=GOOD, label="green")
    yield Case("ycck jpeg", ycck_jpeg(rng), expected=GOOD, label="green")
    yield Case("grey jpeg", stored(base.convert("L"), "JPEG"), expected=GOOD)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        for kind in ("JPEG", "PNG"):
            yield Case(f"exif {kind} {orientation}", stored(base, kind, exif=exif), expected=GOOD, label="green")
    yield Case("png", stored(base, "PNG"), expected=GOOD, label="green")
    yield Case("rgba png", stored(base.convert("RGBA"), "PNG"), expected=GOOD, label="green")
    yield Case("la png", stored(base.convert("LA"), "PNG"), expected=GOOD)
    yield Case("keyed png", stored(base, "PNG", transparency=(1, 2, 3)), expected=GOOD, label="green")
    quantized = base.quantize(16)
    yield Case("palette png", stored(quantized, "PNG"), expected=GOOD, label="green")
    yield Case("palette png, transparent", stored(quantized, "PNG", transparency=bytes([255, 200, 255])), expected=GOOD)
    for bits in (1, 2, 4):
        yield Case(f"{bits}-bit png", stored(base.quantize(2**bits), "PNG", bits=bits), expected=GOOD)
    yield Case("bilevel png", stored(base.convert("1"), "PNG"), expected=GOOD)
    grey = np.asarray(base.convert("L")).astype(np.uint16) * 257
    yield Case("16-bit grey png", stored(Image.fromarray(grey), "PNG"), expected=GOOD)
    yield Case("16-bit rgb png", deep_png(rng, 2), expected=GOOD, label="green")
    yield Case("16-bit rgba png", deep_png(rng, 6), expected=GOOD, label="green")
    yield Case("interlaced png", interlaced_png(rng), expected=GOOD, label="green")
    frames = [picture(rng) for _ in range(3)]
    yield Case("animated png", stored(base, "PNG", save_all=True, append_images=frames), expected=GOOD, label="green")
    for size in ((1, 1), (1, 3000), (3000, 1), (2, 700), (1200, 3)):
        for kind in ("JPEG", "PNG"):
            yield Case(f"{kind} {size}", stored(picture(rng, size), kind), expected=GOOD)
    jpeg, plain = stored(base, "JPEG"), stored(base, "PNG")
    yield Case("two jpegs in one", jpeg + jpeg, expected=GOOD, label="green")
    yield Case("png and zip in one", plain + b"PK\x03\x04" + bytes(500), expected=GOOD, label="green")
    yield Case("png and jpeg in one", plain + jpeg, expected=GOOD, label="green")
    yield Case("large icc", stored(base, "JPEG", icc_profile=rng.bytes(300_000)), expected=GOOD, label="green")
    text = chunk(b"tEXt", b"comment\0" + b"x" * 200_000)
    yield Case("long text", plain[:33] + text + plain[33:], expected=GOOD, label="green")


# Files that are wrong


def hostile_files(rng: np.random.Generator) -> Iterator[Case]:
    base = picture(rng)
    jpeg, plain = stored(base, "JPEG"), stored(base, "PNG")
    for kind in ("GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA", "PDF"):
        yield Case(f"a {kind}", stored(base, kind), expected=NO_IMAGE)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as pack:
        pack.writestr("image.jpg", jpeg)
    others = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "zip": archive.getvalue(),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "text": b"hello",
        "jpeg behind a blank": b" " + jpeg,
        "signature cut": SIGNATURE[:5],
    }
    for kind, body in others.items():
        yield Case(f"a {kind}", body, expected=NO_IMAGE)
    yield Case("nothing", b"", expected=BAD)
    for start in (b"\xff\xd8\xff", SIGNATURE, b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xda"):
        yield Case("a start alone", start, expected=BAD)
        yield Case("a start and noise", start + rng.bytes(int(rng.integers(1, 5000))), expected=BAD)
        yield Case("a start and a gif", start + stored(base, "GIF"), expected=BAD)
    most = 2**31 - 1
    for width, height in (60_000, 60_000), (most, most), (most, 1), (0, 0), (0, 40), (48, 0), (7100, 7100):
        yield Case("png of another size", png(width, height, 8, 2, bytes(100)), expected=BAD)
        at = jpeg.index(b"\xff\xc0") + 5
        size = struct.pack(">HH", min(height, 65535), min(width, 65535))
        if (width, height) != (7100, 7100):  # filled up with grey by some decoders: a refusal is as good
            yield Case("jpeg of another size", jpeg[:at] + size + jpeg[at + 4 :], expected=MAYBE)
    zeros = zlib.compress(bytes(30_000_000), 9)
    yield Case("zeros behind a small png", plain[:33] + chunk(b"IDAT", zeros) + chunk(b"IEND", b""), expected=MAYBE)
    for name, start in ((b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        yield Case("text that unpacks", plain[:33] + chunk(name, start + zeros) + plain[33:], expected=MAYBE)
    many = chunk(b"tEXt", b"k\0" + b"x" * 60_000) * 60
    yield Case("text without end", plain[:33] + many + plain[33:], expected=MAYBE)
    yield Case("many small chunks", plain[:33] + chunk(b"tEXt", b"k\0v") * 20_000 + plain[33:], expected=MAYBE)
    progressive = stored(picture(rng, (400, 400)), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield Case("scans without end", progressive[:-2] + last * 150 + b"\xff\xd9", expected=BAD)
    yield Case("many tables", jpeg[:2] + b"\xff\xdb\x00\x43\x00" + b"\x01" * 64 + jpeg[2:], expected=MAYBE)
    endless = b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\xff\xff\xff\x7f\0\0\0\0"
    for garbage in (b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", endless):
        segment = b"\xff\xe1" + struct.pack(">H", len(garbage) + 8) + b"Exif\0\0" + garbage
        yield Case("broken exif", jpeg[:2] + segment + jpeg[2:], expected=MAYBE)
        yield Case("broken exif", plain[:33] + chunk(b"eXIf", garbage) + plain[33:], expected=MAYBE)
    frames = [picture(rng) for _ in range(3)]
    animated = stored(base, "PNG", save_all=True, append_images=frames)
    at = animated.index(b"acTL")
    yield Case("frames without end", animated[:at] + b"acTL\xff\xff\xff\xff" + animated[at + 8 :], expected=MAYBE)


def large_files() -> Iterator[Case]:
    """As many pixels as are allowed, in few bytes; each takes seconds, so few are sent."""
    side = int(LARGEST**0.5)
    for mode in ("RGB", "RGBA", "I;16", "P"):
        yield Case(f"large {mode} png", stored(Image.new(mode, (side, side)), "PNG"), "image/png", GOOD)
    for options in ({}, {"progressive": True}):
        yield Case(f"large jpeg {options}", stored(Image.new("RGB", (side, side)), "JPEG", **options), expected=GOOD)


# Forms


def form_cases(rng: np.random.Generator, image: bytes) -> Iterator[Case]:
    typed = "multipart/form-data; boundary=B"
    end, any_4xx = b"--B--\r\n", Case.expected

    def part(body: bytes, name: bytes | None = b"file", filename: bytes | None = b"a.jpg", head: bytes = b"") -> bytes:
        named = b"" if name is None else b'Content-Disposition: form-data; name="%s"' % name
        named += b"" if filename is None else b'; filename="%s"' % filename
        return b"--B\r\n" + named + head + b"\r\n\r\n" + body + b"\r\n"

    yield Case("form", part(image) + end, typed, GOOD, "green")
    yield Case("form without end", part(image), typed, any_4xx)
    yield Case("form without boundary", part(image), "multipart/form-data", BAD)
    for odd in ("", '""', "B\x7f", "=", "B" * 5000, '"B', "B; boundary=C", "\xff", "%42"):
        yield Case("form of odd boundary", part(image) + end, f"multipart/form-data; boundary={odd}", any_4xx)
    yield Case("form of two files", part(image) * 2 + end, typed, BAD)
    yield Case("form of many fields", part(b"v", b"n", None) * 100 + end, typed, BAD)
    yield Case("form of a large field", part(b"v" * 100_000, b"n", None) + end, typed, BAD)
    yield Case("form with a huge head", part(image, head=b"\r\nX: " + b"y" * 100_000) + end, typed, any_4xx)
    yield Case("form with many heads", part(image, head=b"\r\nX: y" * 5000) + end, typed, any_4xx)
    yield Case("form without disposition", part(image, None, None, b"X: y") + end, typed, BAD)
    yield Case("form of text", part(image, filename=None) + end, typed, any_4xx)
    inner = part(image).replace(b"--B", b"--C")
    nested = part(inner, head=b"\r\nContent-Type: multipart/mixed; boundary=C")
    yield Case("form in a form", nested + end, typed, NO_IMAGE)
    yield Case("form of nothing", end, typed, BAD)
    yield Case("empty form", b"", typed, BAD)
    yield Case("form and more", part(image) + end + rng.bytes(1000), typed, any_4xx)
    # Names are decoded as the sender says: in codecs for other things, and to characters that are none.
    for charset in CHARSETS:
        for name in (b"n", b"\xff\xfe\x00", b"+2AA-", b"\\ud800", b"xn--\xff", b"a" * 70 + b"."):
            for body in (part(b"v", name, None), part(image, name)):
                yield Case("form of odd charset", body + end, f"{typed}; charset={charset}", BAD)
    yield Case("form of odd names", part(image, b"\xff\xfe", b"\xff") + end, typed, any_4xx)


# Mutations


def mutated(rng: np.random.Generator, body: bytes, other: bytes) -> bytes:
    out = bytearray(body)
    for _ in range(int(rng.integers(1, 4))):
        if not out:
            break
        at = int(rng.integers(len(out)))
        length = int(rng.integers(1, 1 + min(len(out) - at, 2 ** int(rng.integers(1, 12)))))
        match int(rng.integers(10)):
            case 0:
                del out[at:]
            case 1:
                out[at] ^= 1 << int(rng.integers(8))
            case 2:
                for each in rng.integers(len(out), size=int(rng.integers(1, 64))):
                    out[each] = int(rng.integers(256))
            case 3:
                out[at : at + length] = bytes([int(rng.choice([0, 255, 128, 127]))]) * length
            case 4:
                del out[at : at + length]
            case 5:
                out[at:at] = out[at : at + length]
            case 6:
                out[at:at] = rng.bytes(length)
            case 7:
                start = int(rng.integers(len(other)))
                out[at : at + length] = other[start : start + length]
            case 8:  # a number of two or four bytes at its limits
                size = int(rng.choice([2, 4]))
                number = int(rng.choice([0, 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1]))
                out[at : at + size] = number.to_bytes(size, "big")
            case _:  # near the start, where what matters stands
                out[min(at, int(rng.integers(64)))] = int(rng.integers(256))
    return bytes(out)


def mutated_png(rng: np.random.Generator, body: bytes) -> bytes:
    """Chunks changed, copied, left out and put elsewhere; their checksums are right, so that they are believed."""
    chunks, at = [], 8
    while at + 12 <= len(body):
        (length,) = struct.unpack_from(">I", body, at)
        chunks.append([body[at + 4 : at + 8], bytearray(body[at + 8 : at + 8 + length])])
        at += 12 + length
    for _ in range(int(rng.integers(1, 4))):
        which = int(rng.integers(len(chunks)))
        name, data = chunks[which]
        match int(rng.integers(6)):
            case 0 if data:
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
            case 1 if data:
                del data[int(rng.integers(len(data))) :]
            case 2:
                chunks.insert(int(rng.integers(len(chunks))), [name, bytearray(data)])
            case 3 if len(chunks) > 1:
                chunks.pop(which)
            case 4:
                chunks[which][0] = bytes(rng.choice(b"PLTE tRNS IDAT iCCP eXIf fdAT fcTL acTL IEND gAMA zTXt".split()))
            case _ if name == b"IHDR" and len(data) == 13:
                data[int(rng.integers(13))] = int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]))
            case _:
                data += rng.bytes(int(rng.integers(1, 300)))
    return SIGNATURE + b"".join(chunk(bytes(name), bytes(data)) for name, data in chunks)


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` cases; the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    yielded = 0
    while True:
        good = list(good_files(rng))
        forms = list(form_cases(rng, good[0].body))
        fixed = [*good, *hostile_files(rng), *forms]
        bases = [
            each for each in fixed if len(each.body) < 20_000 and each.expected != NO_IMAGE and "form" not in each.kind
        ]
        yield from fixed
        yielded += len(fixed)
        # A corpus lasts for some thousands: it is slower to make than mutations of it.
        for _ in range(5000):
            base = bases[int(rng.integers(len(bases)))]
            other = good[int(rng.integers(len(good)))]
            draw = rng.random()
            if draw < 0.05:
                form = forms[int(rng.integers(len(forms)))]
                yield Case("mutated form", mutated(rng, form.body, other.body), form.content_type)
            elif draw < 0.4 and base.body.startswith(SIGNATURE) and len(base.body) > 60:
                yield Case(f"chunks of {base.kind}", mutated_png(rng, base.body), "image/png")
            else:
                yield Case(f"mutated {base.kind}", mutated(rng, base.body, other.body))
            yielded += 1
            if yielded >= count:
                return


# Sending


def check(case: Case, status: int, answer: bytes) -> str | None:
    """What is wrong with an answer."""
    if status not in case.expected:
        return f"{case.kind}: {status} in the place of {sorted(case.expected)}: {answer[:300]!r}"
    if status == 200 and case.label and json.loads(answer)["label"] != case.label:
        return f"{case.kind}: {json.loads(answer)['label']} in the place of {case.label}"
    if status != 200 and json.loads(answer)["status"] != status:
        return f"{case.kind}: no envelope: {answer[:300]!r}"
    return None


async def ask(app: Any, case: Case, path: str = "/predict") -> tuple[int, bytes]:
    """Call the application as a server calls it, without a network."""
    body, answer, status = [case.body], b"", 0

    async def receive() -> dict[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        return await asyncio.Future()

    async def send(message: Any) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")

    headers = [(b"content-type", case.content_type.encode("latin-1"))]
    headers += [(b"content-length", str(len(case.body)).encode()), (b"host", b"127.0.0.1")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": "POST",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return status, answer


def together(sent: Sequence[Case]) -> Case:
    """Several images in one form."""
    boundary = b"7d1c5bd6f2e94b0f"
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' % boundary
    body = b"".join(head + case.body + b"\r\n" for case in sent) + b"--%s--\r\n" % boundary
    return Case("several", body, f"multipart/form-data; boundary={boundary.decode()}", GOOD)


def check_together(alone: Sequence[tuple[int, bytes]], status: int, answer: bytes) -> str | None:
    """Each image of a form is answered as it is alone, whatever its neighbours are."""
    if status != 200:
        return f"several: {status}: {answer[:300]!r}"
    for (status, one), item in zip(alone, json.loads(answer)["results"], strict=True):
        found = json.loads(one)
        same = found["status"] == item["problem"]["status"] if status != 200 else found["top"] == item["top"]
        if not same:
            return f"several: {item} in the place of {found}"
    return None


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """The most that this program held; getrusage tells that of the process that started it, where that is more."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1e3


async def directly(bundle: Path, found: Iterator[Case]) -> dict[str, Any]:
    from lensmith.config import ServeSettings
    from lensmith.serving.app import create_app
    from lensmith.serving.execution.model_manager import ModelManager

    # One image after another: there is no load that could be refused, and a busy machine is no fault.
    settings = ServeSettings(bundle=bundle, port=0, threads=1, batching="off", deadline_ms=600_000)
    app = create_app(ModelManager.load(settings), settings)
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    rss, slowest, slowest_kind = [], 0.0, ""
    alone: list[tuple[Case, tuple[int, bytes]]] = []
    started = time.perf_counter()
    async with app.router.lifespan_context(app):
        for number, case in enumerate(found):
            before = time.process_time()
            status, answer = await ask(app, case)
            took = time.process_time() - before
            if took > slowest:
                slowest, slowest_kind = took, case.kind
            statuses[status] += 1
            if fault := check(case, status, answer):
                faults.append(f"{number}: {fault}")
            if not case.content_type.startswith("multipart") and len(case.body) < 100_000:
                alone.append((case, (status, answer)))
            if len(alone) == SEVERAL:
                status, answer = await ask(app, together([each for each, _ in alone]), "/predict/batch")
                if fault := check_together([each for _, each in alone], status, answer):
                    faults.append(f"{number}: {fault}")
                alone = []
            if number % 1000 == 999:
                rss.append(rss_mb())
    return {
        "images": statuses.total(), "statuses": dict(statuses), "faults": faults[:20], "fault_count": len(faults),
        "seconds": time.perf_counter() - started, "slowest_cpu_s": slowest, "slowest": slowest_kind,
        "rss_mb": rss, "peak_mb": peak_mb(),
    }  # fmt: skip


def over_http(url: str, found: Iterator[Case]) -> dict[str, Any]:
    """One connection, made anew where the service closes it."""
    address = urlsplit(url)
    statuses: Counter[int] = Counter()
    faults = []
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    for number, case in enumerate(found):
        try:
            connection.request("POST", "/predict", case.body, {"Content-Type": case.content_type})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{number}: {case.kind}: {error!r}")
            connection.close()
            continue
        statuses[answer.status] += 1
        # What the server itself refuses, as a head that is no HTTP, it refuses in its own words.
        if answer.status != 400 and (fault := check(case, answer.status, body)):
            faults.append(f"{number}: {fault}")
    connection.close()
    return {"images": statuses.total(), "statuses": dict(statuses), "faults": faults[:20], "fault_count": len(faults)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url")
    parser.add_argument("--large", action="store_true", help="begin with pictures as large as are allowed")
    args = parser.parse_args()
    found = cases(args.seed, args.count)
    if args.large:
        found = (each for part in (large_files(), found) for each in part)
    figures = over_http(args.url, found) if args.url else asyncio.run(directly(args.bundle, found))
    print(json.dumps(figures))
    sys.exit(bool(figures["fault_count"]))


if __name__ == "__main__":
    main()
