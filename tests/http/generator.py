"""Requests that are right, nearly right and wrong: parts put together at random, then mutated.

The same seed gives the same stream everywhere. Most streams are valid, so that what they say is
compared, and not only that they are refused.
"""

import random

# Of each part: what is good, and what is not, or is not to everybody.
METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE"], [b"get", b"X-Y", b"G(T", b""]
TARGETS = (
    [
        b"/",
        b"/a/b?c=d&e=%20",
        b"/%41%zz",
        b"/?",
        b"//x//",
        b"/a;b=c,d:e@f!$'()*+[]",
        b'/"<>\\^`{|}~',
        b"http://a/b?c",
    ],
    [
        b"http://a",
        b"https://A:80/",
        b"*",
        b"a",
        b"/a b",
        b"/a#b",
        b"/\xc3\xa9",
        b"/\x01",
        b"",
    ],
)
VERSIONS = (
    [b"HTTP/1.1"] * 5 + [b"HTTP/1.0"],
    [b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b""],
)
HOSTS = (
    [b"Host: a\r\n", b"host:a\r\n", b"HOST: \t a \t\r\n"],
    [
        b"",
        b"host:a:80\r\n",
        b"Host: [::1]:8080\r\n",
        b"Host:\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: a\r\nHost: a\r\n",
    ],
)
FIELDS = (
    [
        b"Accept: */*\r\n",
        b"X-A:  spaces \t around \r\n",
        b"X-Empty:\r\n",
        b'Cookie: a=b; c="d"\r\n',
        b"X-Text: caf\xc3\xa9\r\n",
        b"x_under: score\r\n",
        b"!#$%&'*+.^`|~: token\r\n",
        b"Connection: keep-alive\r\n",
        b"Expect: 100-continue\r\n",
        b"TE: trailers\r\n",
    ],
    [
        b"X : a\r\n",
        b" folded\r\n",
        b"X: a\r\n folded\r\n",
        b": a\r\n",
        b"X\r\n",
        b"X(: a\r\n",
        b"X: a\nY: b\r\n",
        b"X: a\rb\r\n",
        b"X: a\0b\r\n",
        b"X: a\x01b\r\n",
        b"X: a\x7fb\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
FRAMINGS = (
    [b"\r\n", b"Content-Length: 5\r\n\r\nhello", b"Content-Length: 005\r\n\r\nhello"],
    [
        b"Content-Length: +5\r\n\r\nhello",
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 99999999999999999999\r\n\r\nhello",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: identity\r\n\r\n",
    ],
)
CHUNKED = [b"Transfer-Encoding: chunked\r\n\r\n", b"transfer-encoding:\tCHUNKED \r\n\r\n"]
CHUNKS = (
    [
        b"5\r\nhello\r\n",
        b"1\r\n\n\r\n",
        b"00a\r\n0123456789\r\n",
        b"A\r\n0123456789\r\n",
        b"2;a\r\nhi\r\n",
        b'2;a=b;c="d\\""\r\nhi\r\n',
    ],
    [
        b"2 ; a = b\r\nhi\r\n",
        b"2 \r\nhi\r\n",
        b"2;\r\nhi\r\n",
        b"2;a b\r\nhi\r\n",
        b'2;a="\r\nhi\r\n',
        b"0x2\r\nhi\r\n",
        b"+2\r\nhi\r\n",
        b"2_0\r\nhi\r\n",
        b" 2\r\nhi\r\n",
        b"2\nhi\r\n",
        b"2\r\nhi\n",
        b"2\r\nhix\r\n",
        b"00000000000000002\r\nhi\r\n",
        b"\r\n",
    ],
)
LASTS = (
    [b"0\r\n\r\n", b"000\r\n\r\n", b"0;a=b\r\n\r\n", b"0\r\nA: b\r\n\r\n"],
    [
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nA: b\nC: d\r\n\r\n",
        b"0\n\r\n",
        b"0\r\n\n",
        b"",
    ],
)
BEFORE = [b""], [b"\r\n", b"\r\n\r\n", b"\n", b" "]
WORDS = (b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b":", b",", b";", b"%", b"\x80", b"\x7f", b'"')
BAD_SHARE = 0.06


def pick(rng: random.Random, part: tuple[list[bytes], list[bytes]]) -> bytes:
    """One of the good ones; seldom one of the others."""
    return rng.choice(part[rng.random() < BAD_SHARE])


def request(rng: random.Random) -> bytes:
    """One request, mostly valid."""
    line = b" ".join([pick(rng, METHODS), pick(rng, TARGETS), pick(rng, VERSIONS)])
    fields = [pick(rng, FIELDS) for _ in range(rng.randrange(4))]
    fields.insert(rng.randrange(len(fields) + 1), pick(rng, HOSTS))
    head = pick(rng, BEFORE) + line + b"\r\n" + b"".join(fields)
    if rng.random() < 0.3:
        chunks = [pick(rng, CHUNKS) for _ in range(rng.randrange(4))]
        return head + rng.choice(CHUNKED) + b"".join(chunks) + pick(rng, LASTS)
    return head + pick(rng, FRAMINGS)


def good_request(rng: random.Random) -> bytes:
    """One that nobody refuses, so that what comes behind it is looked at."""
    return rng.choice(
        [
            b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ]
    )


def mutate(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return data[:at] + rng.choice(WORDS) + data[at:]
    if kind == 1:
        return data[:at] + data[at + rng.randrange(1, 4) :]
    if kind == 2:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data[:at] + data[max(0, at - rng.randrange(1, 30)) :]


def stream(seed: int) -> bytes:
    """A stream of one to three requests; half of them are mutated. It ends in an empty line, which
    may stand before a request and ends a head that is cut off."""
    rng = random.Random(seed)
    data = b"".join(good_request(rng) for _ in range(rng.randrange(2)))
    data += request(rng)
    data += b"".join(good_request(rng) for _ in range(rng.randrange(2)))
    if rng.random() < 0.5:
        for _ in range(rng.randrange(1, 4)):
            data = mutate(rng, data)
    return data + b"\r\n"
