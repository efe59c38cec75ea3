"""Requests that nobody should send, for hostile.py."""

import base64
import json
import random
import select
import socket
import struct
import threading
import time
import zlib

REFUSED = {400, 403, 404, 405, 408, 409, 411, 413, 414, 415, 416, 422, 429, 431, 501, 505}
# Or closed without an answer, which is as good where the bytes make no sense.
CLOSED = REFUSED | {None}
TAKEN = {200}


def opened(port: int, head: bytes) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", port), timeout=30)
    stream.sendall(head)
    return stream


def raw(port: int, sent: bytes, patience: float) -> tuple[bytes, float]:
    """Sends these bytes; gives what comes until the connection is closed or one answer is whole, and after what time."""
    began, got = time.monotonic(), b""
    stream = socket.create_connection(("127.0.0.1", port), timeout=patience)
    try:
        at = 0
        while time.monotonic() - began < patience:
            readable, writable, _ = select.select([stream], [stream] if at < len(sent) else [], [], 1)
            if readable:
                piece = stream.recv(1 << 16)
                got += piece
                if not piece or is_whole(got):
                    break
            elif writable:
                at += stream.send(sent[at : at + (1 << 16)])
    except OSError:
        # Closed while we were still sending.
        pass
    finally:
        stream.close()
    return got, time.monotonic() - began


def is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(end) and len(body) >= int(line.split(b":")[1])
    return False


def status(answer: bytes) -> int | None:
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") and answer[9:12].isdigit() else None


def first_status(stream: socket.socket) -> int | None:
    try:
        return status(stream.recv(64))
    except OSError:
        return None


class Drips:
    """Connections that send a byte now and then."""

    def __init__(self, port: int, count: int, head: bytes, every: float, drop: bytes = b"a"):
        self.began, self.last_closed, self.every, self.drop = time.monotonic(), 0.0, every, drop
        self.open = {opened(port, head): b"" for _ in range(count)}
        self.answers: list[bytes] = []
        self.over = threading.Event()
        threading.Thread(target=self.drip, daemon=True).start()

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def drip(self):
        due = time.monotonic() + self.every
        while self.open and not self.over.wait(0.1):
            drop_now = self.drop and time.monotonic() > due
            due += self.every if drop_now else 0
            readable, _, _ = select.select(list(self.open), [], [], 0)
            for stream in list(self.open):
                try:
                    if stream in readable:
                        piece = stream.recv(4096)
                        self.open[stream] += piece
                        if not piece:
                            raise ConnectionError
                    elif drop_now:
                        stream.sendall(self.drop)
                except OSError:
                    self.answers.append(self.open.pop(stream))
                    self.last_closed = self.seconds()
                    stream.close()

    def statuses(self) -> list[int | None]:
        return sorted({status(answer) for answer in self.answers}, key=str)

    def close(self):
        self.over.set()
        for stream in self.open:
            stream.close()


def slow_bodies(server) -> dict[str, Drips]:
    head = (
        f"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        'Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"prompt": "'
    )
    part = head.replace("application/json", "multipart/form-data; boundary=x").replace('{"prompt": "', '--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n')
    return {
        "stalled": Drips(server.port, 10, head.encode(), every=1000, drop=b""),
        "dripping": Drips(server.port, 10, head.encode(), every=5),
        "a dripping form": Drips(server.port, 10, part.encode(), every=5),
    }


def all_of(server, patience: float, video: bytes):
    """Each attack as (name, the statuses that are right, the answer, the seconds that it took); `video` is an MP4."""
    head = f"Host: localhost\r\nConnection: close\r\nAuthorization: Bearer {server.token}\r\n"

    def send(line: str, headers: str = "", body: bytes = b"", with_length=True):
        length = f"Content-Length: {len(body)}\r\n" if body and with_length else ""
        return raw(server.port, f"{line} HTTP/1.1\r\n{head}{headers}{length}\r\n".encode("latin-1") + body, patience)

    def order(body: bytes, kind="application/json", line="POST /v1/videos"):
        return send(line, f"Content-Type: {kind}\r\n", body)

    for name, wanted, answer in [
        *paths(send),
        *strangers(server, patience),
        *broken_http(server, patience),
        *bodies(send, order),
        *fields(order),
        *forms(order),
        *files(order, video),
        *queries(send),
    ]:
        got, seconds = answer()
        yield name, wanted, got, seconds


def paths(send):
    nowhere = [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd", "//etc/passwd", "/etc/passwd",
        "/%2fetc%2fpasswd", "/..\\..\\etc\\passwd", "/..%5c..%5cetc%5cpasswd", "/%c0%ae%c0%ae/etc/passwd", "/index.html%00.js",
        "/%252e%252e/etc/passwd", "/docs/../../etc/passwd", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%2e%2e/%2e%2e/x", "/docs/%00",
        "/./queue.sqlite", "/v1/videos/..", "/v1/videos/..%2f..%2fqueue.sqlite", "/v1/videos/%2e%2e%2fqueue.sqlite/content",
        "/v1/videos/..%2f..%2f..%2fetc%2fpasswd/content", "/v1/videos/video_%00/content", "/v1/videos/%ff%fe", "/v1/videos/" + "a" * 20000,
        "/v1/videos/video_00000000000000000000000000000000/content?variant=../../queue.sqlite", "/v1/videos/%27%20OR%201=1--",
        "/v1/videos/%2fetc%2fpasswd/content", "/%", "/%zz", "/" + "a/" * 5000, "/src/lib.rs", "/.git/config", "/page/../index.html",
    ]
    for path in nowhere:
        yield f"path: {path[:60]}", REFUSED, lambda path=path: send(f"GET {path}")
    for path in ["/v1/videos/..%2f..%2fqueue.sqlite", "/v1/videos/%2e%2e", "/v1/videos/.", "/v1/videos/%2f"]:
        yield f"path, deleted: {path}", REFUSED, lambda path=path: send(f"DELETE {path}")
        yield f"path, cancelled: {path}", REFUSED, lambda path=path: send(f"POST {path}/cancel")
        yield f"path, events: {path}", REFUSED, lambda path=path: send(f"GET {path}/events")
    for method in ["PUT", "PATCH", "TRACE", "CONNECT", "OPTIONS", "BREW", "PROPFIND", "DELETE"]:
        yield f"method: {method}", REFUSED, lambda method=method: send(f"{method} /v1/videos")


def strangers(server, patience: float):
    """Other hosts and other pages, with the right token."""
    token = f"Authorization: Bearer {server.token}\r\n"
    body = b'{"prompt": "a"}'
    rest = f"{token}Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"

    def ask(headers: str, line="POST /v1/videos"):
        return raw(server.port, f"{line} HTTP/1.1\r\n{headers}{rest}\r\n".encode() + body, patience)

    hosts = ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", "localhost@evil.example", "", "a b"]
    for host in hosts:
        yield f"host: {host!r}", {400, 403}, lambda host=host: ask(f"Host: {host}\r\n")
    yield "host: none", {400, 403}, lambda: ask("")
    yield "host: two", {400, 403}, lambda: ask("Host: evil.example\r\nHost: localhost\r\n")
    yield "host: in the line", {400, 403}, lambda: ask("Host: localhost\r\n", "POST http://evil.example/v1/videos")
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:1", "file://", "x" * 5000]:
        yield f"origin: {origin[:40]}", {403}, lambda origin=origin: ask(f"Host: localhost\r\nOrigin: {origin}\r\n")
    for site in ["cross-site", "same-site", "whatever"]:
        yield f"site: {site}", {403}, lambda site=site: ask(f"Host: localhost\r\nSec-Fetch-Site: {site}\r\n")


def broken_http(server, patience: float):
    head = f"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
    get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    sent = {
        "length and chunks": head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "two lengths": head + b"Content-Length: 5\r\nContent-Length: 15\r\n\r\n" + b'{"prompt": "a"}',
        "negative length": head + b"Content-Length: -1\r\n\r\n",
        "length of letters": head + b"Content-Length: 1e3\r\n\r\n",
        "length beyond all": head + b"Content-Length: 99999999999999999999999999\r\n\r\n",
        "chunk beyond all": head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\na",
        "chunk of letters": head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\na",
        "unknown encoding": head + b"Transfer-Encoding: gzip\r\n\r\nabc",
        "long headers": get + b"X-Long: " + b"a" * 1_000_000 + b"\r\n\r\n",
        "many headers": get + b"".join(b"X-%d: a\r\n" % n for n in range(5000)) + b"\r\n",
        "header without colon": get + b"nothing\r\n\r\n",
        "header with NUL": get + b"X-Nul: a\0b\r\n\r\n",
        "long line": b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "nothing but ends": b"\r\n" * 70_000,
        "all bytes": bytes(range(256)) * 1000,
    }
    for name, data in sent.items():
        # What waits for more is closed when its time is over.
        yield f"http: {name}", CLOSED, lambda data=data: raw(server.port, data, patience)


def bodies(send, order):
    large = 17_000_000
    json_type = "Content-Type: application/json\r\n"
    form_type = "Content-Type: multipart/form-data; boundary=x\r\n"
    part = b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n\r\n'

    def chunked(data: bytes) -> bytes:
        pieces = [data[at : at + 60_000] for at in range(0, len(data), 60_000)]
        return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    for name, kind, start in [("JSON", json_type, b'{"prompt": "'), ("form", form_type, part)]:
        data = start + b"a" * large
        # As the server closes while much is still on its way, its answer may be lost.
        yield f"oversize: {name} that says so", {413, None}, lambda kind=kind, data=data: send("POST /v1/videos", kind, data)
        yield (f"oversize: {name} that only says so", {413},
               lambda kind=kind: send("POST /v1/videos", f"{kind}Content-Length: 17000000\r\n"))
        yield (f"oversize: {name} in chunks", {413, None},
               lambda kind=kind, data=data: send("POST /v1/videos", f"{kind}Transfer-Encoding: chunked\r\n", chunked(data), False))
    malformed = [
        b"{", b"nothing", b"[]", b'"a"', b"1", b"\xff\xfe{}", b'{"prompt": "a"', b'{"prompt": "a",}', b'{"prompt": "\xff"}', b"[" * 100_000,
        b'{"a":' * 50_000, b'{"prompt": NaN}', b'{"prompt": "\\ud800"}', b"{'prompt': 'a'}", b'{"prompt": "a"}{"prompt": "b"}', b"\0" * 1000,
        b"{}", b'{"prompt": null}',
    ]
    for data in malformed:
        yield f"json: {data[:20]!r}", {400}, lambda data=data: order(data)
    for kind in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "", "multipart/form-data", "multipart/mixed; boundary=x", "x" * 5000]:
        yield f"type: {kind[:40]!r}", {400, 415}, lambda kind=kind: order(b'{"prompt": "a"}', kind)
    yield "plan: a file", {400}, lambda: order(part + b"a\r\n--x--\r\n", "multipart/form-data; boundary=x", "POST /v1/plan")
    for size in ["10000x10000", "16384x16384", "2048x2048", "4000x4000", "16384x16"]:
        yield (f"plan: {size}", {200, 400}, lambda size=size: order(json.dumps({"size": size}).encode(), line="POST /v1/plan"))
        yield (f"huge: {size}", {400}, lambda size=size: order(json.dumps({"prompt": "a", "size": size}).encode()))
    for key in ["a" * 256, " ", "\xe9\xff"]:
        yield (f"key: {key[:10]!r}", {400},
               lambda key=key: send("POST /v1/videos", f"{json_type}Idempotency-Key: {key}\r\n", b'{"prompt": "a"}'))
    for token in ['{"token": "wrong"}', '{"token": 1}', "{}", '{"token": "%s"}' % ("a" * 100_000)]:
        yield f"session: {token[:20]}", {400, 401, 413}, lambda token=token: order(token.encode(), line="POST /session")


def fields(order):
    def sent(**more):
        # What JSON has no numbers for is written as JavaScript would.
        return lambda: order(json.dumps({"prompt": "a red ball", "num_inference_steps": 1, "num_frames": 9} | more).encode())

    bad = {
        "prompt": ["", " ", "a" * 8193, "a" * 3_000_000, "a\0b", 1, [], {}, True],
        "negative_prompt": ["a" * 8193, "\0", 5, []],
        "size": ["0x0", "-16x-16", "99999999999x16", "64x64x64", "64", "x", "64x", "6 4x64", "\u0661\u0666x16", "0x40", 64, "1e2x64", "16385x16"],
        "width": [-16, 0, 1, 60.5, 1e308, float("nan"), float("inf"), "NaN", "", "0x40", [64], {"a": 1}, True, 2**64, -(2**63), 16385],
        "height": [-1, "inf", "-0", "64px", 1e400, 17],
        "num_frames": [-1, 0, 100_001, 2**63, "9 ", "nan", 9.5, float("nan"), 1e30, 10],
        "seconds": [-1, 0, "NaN", "inf", "-inf", 1e308, float("nan"), "", "4s", 3601],
        "fps": [0, -1, "NaN", 1e9, float("inf"), "infinity"],
        "num_inference_steps": [0, -1, 1001, 2**70, 1.5, "NaN", "x"],
        "guidance_scale": [-1, "NaN", float("nan"), float("-inf"), 1e39, "1e999"],
        "seed": [-1, 2**53, 2**64, 1.5, "NaN", "seed"],
        "strength": [-0.1, 1.1, "NaN", float("nan")],
        "priority": [101, -101, 1e9, "high", 0.5],
        "model": ["", "../../etc", "sora-2", "a" * 300, "a\nb", "--help", 1, "http://localhost/x"],
        "preset": ["", "../x", "best", "--help", "a\0b", []],
        "lora": ["", "../../x", "%2e%2e", "a:1e999", "--help", "a\0"],
        "input_reference": ["", "x", "data:", "data:image/png;base64,", "data:image/png;base64,!!!!", "http://localhost/a.png", "file:///etc/passwd", {}, [],
                            {"image_url": "file:///etc/passwd"}, {"image_url": "data:image/png;base64,AAAA", "x": 1}, {"file_id": "a"}, 5],
        "video_reference": ["data:image/png;base64,AAAA", {"image_url": 1}],
        "no_such_field": [1, "a", None], "__proto__": [{}], "a" * 10_000: [1], "--output": ["x"], "runs": ["x"],
    }
    for field, values in bad.items():
        for value in values:
            yield f"field: {field[:20]} {str(value)[:30]!r}", {400, 413}, sent(**{field: value})
    taken = {
        "prompt": ["a" * 8192, "--output=x", "-h", "$(touch x)", "'; DROP TABLE jobs; --", "<script>alert(1)</script>", "a\r\nb\tc", "\u202e\U0001f600" * 100, "%s%n", "{{7*7}}"],
        "negative_prompt": ["--help", ""], "seed": [2**53 - 1, "7"], "priority": ["-100"],
    }
    for field, values in taken.items():
        for value in values:
            yield f"taken: {field} {str(value)[:30]!r}", TAKEN, sent(**{field: value})


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form of parts with these dispositions."""
    all_parts = (("name=\"prompt\"", b"a red ball"), ("name=\"num_inference_steps\"", b"2"), ("name=\"num_frames\"", b"9"), *parts)
    texts = [b"--x\r\nContent-Disposition: form-data; " + about.encode() + b"\r\n\r\n" + data + b"\r\n" for about, data in all_parts]
    return b"".join(texts) + b"--x--\r\n"


def forms(order):
    kind = "multipart/form-data; boundary=x"
    whole = form()
    sent = {
        "no end": whole[:-6], "cut": whole[: len(whole) // 2], "nothing": b"--x--\r\n", "no boundary in it": b"prompt=a", "empty part": b"--x\r\n\r\n\r\n--x--\r\n",
        "no name": form(("filename=\"a\"", b"a")), "name twice": form(("name=\"prompt\"", b"b")), "many parts": form(*[(f"name=\"seed{n}\"", b"1") for n in range(10_000)]),
        "part without headers": b"--x\r\nprompt\r\n--x--\r\n", "long part header": b"--x\r\nContent-Disposition: form-data; name=\"" + b"a" * 1_000_000,
        "many part headers": b"--x\r\n" + b"X-A: b\r\n" * 100_000, "not UTF-8": form(("name=\"negative_prompt\"", b"\xff\xfe")),
        "nested": form(("name=\"a\"\r\nContent-Type: multipart/mixed; boundary=y", b"--y--")), "NaN": form(("name=\"fps\"", b"NaN")), "infinite": form(("name=\"seconds\"", b"inf")),
        "a file as prompt": b'--x\r\nContent-Disposition: form-data; name="prompt"; filename="a"\r\n\r\n\xff\r\n--x--\r\n',
        "large field": form(("name=\"negative_prompt\"", b"a" * 10_000_000)),
    }
    for name, data in sent.items():
        yield f"form: {name}", {400, 413}, lambda data=data: order(data, kind)
    for boundary in ["", '""', "y", "x" * 100_000, "\"x", "x; boundary=y"]:
        refused = {400, 431} | ({200} if boundary == "x; boundary=y" else set())
        yield f"form: boundary {boundary[:20]!r}", refused, lambda boundary=boundary: order(whole, f"multipart/form-data; boundary={boundary}")


def png(width: int, height: int, depth=8, color=2, data: bytes | None = None) -> bytes:
    """A black PNG, with all of its pixels unless there is other data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    if data is None:
        row = bytes(1 + (width * depth * {0: 1, 2: 3}[color] + 7) // 8)
        squeezer = zlib.compressobj(9)
        data = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(width: int, height: int, count: int, pixels=False) -> bytes:
    """A GIF of so many frames: of one pixel each, or of all."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, *((width, height) if pixels else (1, 1)), 0)
    codes = lzw(width * height) if pixels else b"\x44\x01"
    blocks = b"".join(bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255))
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + (frame + b"\x02" + blocks + b"\0") * count + b"\x3b"


def lzw(pixels: int) -> bytes:
    """So many pixels of colour 0, in codes that grow as far as they can."""
    bits, used, out = 0, 0, bytearray()

    def put(code: int, width: int):
        nonlocal bits, used
        bits |= code << used
        used += width
        while used >= 8:
            out.append(bits & 255)
            bits >>= 8
            used -= 8

    put(4, 3)
    put(0, 3)
    left, width, following, length = pixels - 1, 3, 6, 2
    while left > 0:
        if following < 4096 and left >= length:
            # The code that this very step defines: one pixel more than the last.
            put(following, width)
            left -= length
            following += 1
            length += 1
            width += following >= 1 << width and width < 12
        elif following >= 4096 and left >= length - 1:
            put(4095, width)
            left -= length - 1
        else:
            put(0, width)
            left -= 1
            if following < 4096:
                following += 1
                width += following >= 1 << width and width < 12
    put(5, width)
    return bytes(out) + (bytes([bits]) if used else b"")


def mp4(*boxes: bytes) -> bytes:
    return box(b"ftyp", b"isom\0\0\0\0isommp41") + b"".join(boxes)


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", len(content) + 8 if size is None else size) + kind + content


def files(order, video: bytes):
    def upload(data: bytes, name="a.png", field="input_reference"):
        return lambda: order(form((f'name="{field}"; filename="{name}"', data)), "multipart/form-data; boundary=x")

    small, moves = png(64, 64), gif(64, 64, 12)
    many = (1 << 32) - 1
    tables = box(b"stsz", struct.pack(">III", 0, 0, many)) + box(b"stts", struct.pack(">IIII", 0, 1, many, many))
    track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", tables))))
    deep = b""
    for _ in range(20_000):
        deep = box(b"moov", deep)
    bad = {
        "PNG of 50000×50000 with all of its pixels": (png(50_000, 50_000, depth=1, color=0), "a.png"),
        "PNG of 2147483647×2147483647": (png(2**31 - 1, 2**31 - 1, data=zlib.compress(bytes(1000))), "a.png"),
        "PNG of 0×0": (png(0, 0, data=b""), "a.png"),
        "PNG whose data are too many": (png(16, 16, data=zlib.compress(bytes(100_000_000))), "a.png"),
        "PNG without data": (png(64, 64, data=b""), "a.png"),
        "half a PNG": (small[: len(small) // 2], "a.png"),
        "a text called PNG": (b"nothing", "a.png"),
        "a program": (b"\x7fELF" + bytes(1000), "a.mp4"),
        "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "a.svg"),
        "a playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a.mp4"),
        "an archive": (b"PK\x03\x04" + bytes(100), "a.zip"),
        "a JPEG of nothing": (b"\xff\xd8\xff\xe0" + bytes(100), "a.jpg"),
        "a JPEG of 65535×65535": (b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01" + bytes(1000), "a.jpg"),
        "a WebP of nothing": (b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff" + bytes(50), "a.webp"),
        "a WebP of 16384×16384": (b"RIFF\x40\0\0\0WEBPVP8L\x20\0\0\0\x2f\xff\xff\xff\x0f" + bytes(40), "a.webp"),
        "a GIF without frames": (gif(64, 64, 0), "a.gif"),
        "a GIF of 65535×65535": (gif(65_535, 65_535, 100), "a.gif"),
        "half a GIF": (moves[:20], "a.gif"),
        "an MP4 of nothing": (mp4(), "a.mp4"),
        "an MP4 with a box of no size": (mp4(box(b"moov", b"", 1)), "a.mp4"),
        "an MP4 with a box beyond its end": (mp4(box(b"moov", b"abc", many)), "a.mp4"),
        "an MP4 with endless tables": (mp4(box(b"moov", track)), "a.mp4"),
        "an MP4 of boxes in boxes": (mp4(deep), "a.mp4"),
        "a WebM of nothing": (b"\x1a\x45\xdf\xa3" + bytes(1000), "a.webm"),
        "an image for a model that takes none": (small, "a.png"),
    }
    for name, (data, file) in bad.items():
        yield f"file: {name}, {len(data)} bytes", {400, 413}, upload(data, file)
    url = lambda data: "data:image/png;base64," + base64.b64encode(data).decode()
    bomb = json.dumps({"prompt": "a", "input_reference": url(png(50_000, 50_000, depth=1, color=0))}).encode()
    yield "file: the same as a data: URL", {400}, lambda: order(bomb)
    yield "file: a picture as video_reference", {400}, upload(small, "a.mp4", "video_reference")
    two = form(('name="input_reference"; filename="a.gif"', moves), ('name="video_reference"; filename="a.gif"', moves))
    yield "file: two", {400}, lambda: order(two, "multipart/form-data; boundary=x")
    chance = random.Random(1)
    for number in range(60):
        damaged = bytearray(video)
        for _ in range(chance.choice([1, 3, 30])):
            damaged[chance.randrange(len(damaged))] = chance.choice([0, 255, chance.randrange(256)])
        yield f"file damaged: an MP4, {number}", TAKEN | {400}, upload(bytes(damaged), "a.mp4")
    for kind in [b"stsz", b"stts", b"stsc", b"stco", b"tkhd", b"mdhd", b"avcC", b"avc1"]:
        at = video.find(kind)
        for fill in [b"\xff", b"\0", b"\x7f"]:
            damaged = video[: at + 8] + fill * 16 + video[at + 24 :]
            yield f"file damaged: an MP4 whose {kind.decode()} is {fill!r}", TAKEN | {400}, upload(damaged, "a.mp4")
    yield "file taken: an MP4", TAKEN, upload(video, "a.mp4")
    # They can be used, and what they are called does not count.
    for name in ["a.png", "../../../a.gif", "/etc/cron.d/a", "a\\..\\b.gif", "a" * 5000, "%00", "video.mp4"]:
        yield f"file taken: a GIF called {name[:20]!r}", TAKEN, upload(moves, name)
    yield "file: a GIF of 100000 frames", TAKEN | REFUSED, upload(gif(64, 64, 100_000), "a.gif")
    yield "file: a GIF of 1500 frames of 2000×2000", TAKEN | REFUSED, upload(gif(2000, 2000, 1500, pixels=True), "a.gif")


def queries(send):
    bad = ["limit=0", "limit=-1", "limit=101", "limit=NaN", "limit=1e9", "limit=99999999999999999999", "limit=", "order=up", "status=dead", "after=", "x=1",
           "limit=1&limit=2", "after=%00", "after=..%2f", "after=" + "a" * 10_000, "%ff=1", "limit=%31%00"]
    for query in bad:
        yield f"query: {query[:30]}", {400, 404}, lambda query=query: send(f"GET /v1/videos?{query}")
    unknown = "/v1/videos/video_00000000000000000000000000000000"
    for path in ["", "/content", "/content?variant=gif", "/events"]:
        yield f"unknown: {path}", {404}, lambda path=path: send(f"GET {unknown}{path}")
    yield "unknown: variant", {400, 404}, lambda: send(f"GET {unknown}/content?variant=exe")
