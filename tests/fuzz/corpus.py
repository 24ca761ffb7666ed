"""Messages, valid and nearly so, and mutations of them. The same seed gives the same messages."""

import random
from typing import Final

#: What producers send, in the spelling of several languages' JSON writers.
GOOD: Final = [message.encode() for message in (
    '{"site":"s1","a":1.5,"b":2,"ok":true,"ts":1700000000000}',
    '{"site": "s1", "a": 1.5, "b": 2, "ok": true, "ts": 1700000000001}',
    '{"site":"s2","a":-0.25,"b":0,"ok":false,"ts":1700000000002}',
    '{\n  "site": "s1",\n  "a": 1.5,\n  "ts": 1700000000003\n}\n',
    '{"site":"s1","data":{"temp":20.5,"deep":{"x":1}},"ts":1700000000004}',
    '{"site":"s1","text":"a b,c=d","note":"caf\u00e9 \u2028 \U0001f600","ts":1700000000005}',
    '{"site":"s1","text":"say \\"hi\\" \\\\ \\u00e9\\n","v":1e3,"ts":1700000000006}',
    '{"site":null,"a":null,"b":3,"list":[1,"x",{"y":2}],"ts":1700000000007}',
    '{"ts":1700000000008,"v":123456789012345678901234567890,"w":-0,"x":0.1e-7}',
    '{"a":1,"b":2}', '{"a":true,"b":"x"}', '{"v":""}', '{}',
)]
#: What is not JSON, or not an object, and what people believe to be JSON.
BAD: Final = [
    b'{"v"*1}', b'{"a":1 "b":2}', b'{"v";1,}', b'{"v"=1}', b"{'v':1}", b"{v:1}", b'{"v":1,}', b'{,"v":1}', b'{"v":1}}',
    b'{"v":1', b'{"v":}', b'{"v"}', b'{"v":01}', b'{"v":+1}', b'{"v":.5}', b'{"v":1.}', b'{"v":-}', b'{"v":1e}',
    b'{"v":0x1F}', b'{"v":1_000}', b'{"v":1,5}', b'{"v":--1}', b'{"v":1-2}', b'{"v":1.2.3}', b'{"v":1/2}',
    b'{"v":True}', b'{"v":None}', b'{"v":NULL}', b'{"v":NaN}', b'{"v":-NaN}', b'{"v":Infinity}', b'{"v":-Infinity}',
    b'{"v":nan}', b'{"v":undefined}', b'{NaN:1}', b'{"v":{NaN:1}}', b'{"v":"\x01"}', b'{"v":"\t"}', b'{"v":"\n"}',
    b'{"v":"\\q"}', b'{"v":"\\u12"}', b'{"v":"\\ud800"}', b'{"v":"\\udc00x"}', b'{"v":"\\u0000"}', b'{"v":"\xff"}',
    b'{"v":"\xed\xa0\x80"}', b'{"v":"\xc0\x80"}', b'{"a\xff":1}', b'{"v":1}\x00', b'\x00{"v":1}', b'\x0b{"v":1}',
    b'{"v":1}\x0c', b'\xef\xbb\xbf{"v":1}', b'{"v":1} // done', b'/* x */{"v":1}', b'{"v":1}{"v":2}',
    b'{"v":1},{"v":2}', b'{"v":1},\n{"v":2}', b'{"v":1}\n{"v":2}', b'[{"v":1}]', b'[{"v":1},{"v":2}]', b'[', b']',
    b'5', b'"x"', b"null", b"", b" ", b"\n", b'{"v":1,"v":2}', b'{"a":{"b":1},"a":{"c":2}}', b'{"a":{"b":1,"b":2}}',
    b'{"a.b":1,"a":{"b":2}}', b'{"a_b":1,"a":{"b":2}}', b'{"a":1,"a\\u0062":2}', b'{"a":1,"\\u0061":2}', b'{"":1}',
    b'{"a":{"":1}}', b'{"time":1}', b'{"\\u0000NaN":1}', b'{"v":"\\u0000NaN"}',
    b'{"v":' + b'{"a":' * 70 + b"1" + b"}" * 71, b'{"v":' + b"[" * 70 + b"]" * 70 + b"}", b'{"v":1e400}',
    b'{"v":-1e400}', b'{"v":1e-400}', b'{"v":' + b"9" * 400 + b"}", b'{"ts":-1,"v":1}',
    b'{"ts":"1700000000000","v":1}', b'{"ts":1700000000000.5,"v":1}', b'{"ts":9223372036855,"v":1}',
    b'{"ts":{},"v":1}', b'{"site":{"x":1},"v":1}', b'{"site":[],"v":1}', b'{"site":"a\\nb","v":1}',
    b'{"site":"a\\\\","v":1}',
]
#: Pieces that mutations put in.
TOKENS: Final = [
    b"{", b"}", b"[", b"]", b":", b",", b";", b"*", b"=", b'"', b"'", b"\\", b"/", b"-", b"+", b".", b"e5", b"E", b"0",
    b"00", b"9" * 25, b"1", b"1.5", b"-0", b"true", b"false", b"null", b"NaN", b"-NaN", b"Infinity", b"nan", b"tru",
    b"TRUE", b'""', b'"a"', b'"site"', b'"ts"', b'"a":1,', b',"b":2', b'{"a":1}', b"[1]", b" ", b"\t", b"\n", b"\r",
    b",\n", b"\x00", b"\x01", b"\x0b", b"\x1f", b"\x7f", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xa8",
    b"\xef\xbb\xbf", b"\xf0\x9f\x98\x80", b"\\n", b"\\u00e9", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\\x", b"//",
    b"1700000000000",
]


def mutated(message: bytes, random: random.Random, others: list[bytes]) -> bytes:
    """A message with one to four changes: bytes and pieces put in, left out, turned, repeated, or taken from others."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(message) + 1)
        to = min(len(message), at + random.choice((1, 1, 2, 4, 16)))
        match random.randrange(7):
            case 0:
                message = message[:at] + random.choice(TOKENS) + message[at:]
            case 1:
                message = message[:at] + message[to:]
            case 2:
                message = message[:at] + random.choice(TOKENS) + message[to:]
            case 3:
                message = message[:at] + message[at:to] * 2 + message[to:]
            case 4 if at < len(message):
                message = message[:at] + bytes((message[at] ^ (1 << random.randrange(8)),)) + message[at + 1:]
            case 5:
                other = random.choice(others)
                cut = random.randrange(len(other) + 1)
                message = message[:at] + other[cut:]
            case _:
                message = message[:at]
    return message


def batch(random: random.Random) -> list[bytes]:
    """Some messages as one batch: mostly of one spelling, or a mixture, with mutated ones among them."""
    size = random.choice((1, 2, 3, 8))
    if random.random() < 0.6:
        messages = [random.choice(GOOD)] * size
    else:
        messages = random.choices(GOOD + BAD, k=size)
    for index in range(size):
        if random.random() < 0.4:
            messages[index] = mutated(messages[index], random, GOOD + BAD)
    return messages
