r"""Many points of every kind, as the lines that a source makes of them: equal lines are equal points, types included.

Names are sorted and floats are Python's shortest, as in `format = "line_protocol"`. In every tenth point but two the
measurement, the tags and the strings are what needs escapes; some values are at the end of their ranges; a tenth of the
times is before 1970; all count nanoseconds.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
import requests

FIRST_TIME = 1_700_000_000_000_000_000
#: Points of one write.
WRITE_POINTS = 10_000
#: The measurement that a tenth of the points are of, as line protocol and as it is.
ODD, ODD_NAME = r'odd\,\ "m=', 'odd, "m='
_TAGS = ("", r",a=1", r",a=1,b=x\ y", r",a=\,\=\ ,b=z", r",t\ \,\=\"k=v", ",a=ä,b=日本", r",a=c:\dir,b=\\n", ',a="q"',
         r",a=true,b=1i", r",a=x\y\ z", ",a=🜚", r",a='$$\ {x}")
_STRINGS = ('""', '" "', r'"q\"u\"o"', r'"\\"', r'"c:\\new\\"', '"two\nlines"', '"\t\r\n"', '"a,b=c d"', '"日本 ü 🜚"',
            '"true"', '"1i"', '"[-0,1]"', r'"\\\""')
_FLOATS = ("0.0", "-0.0", "1.0", "-1.0", "0.1", "1e-09", "5e-324", "1.7976931348623157e+308", "1e+16", "1e+300",
           "123456789012345.67", "0.30000000000000004", "-2.5", "9007199254740993.0".replace("3.0", "2.0"), "1e+21",
           "1e+22", "-123456.0")
_INTEGERS = ("0i", "-1i", "9007199254740993i", "-9007199254740993i", "9223372036854775807i", "-9223372036854775808i",
             "1i", "20i", "1000000000000000000i", "-7i", "4294967296i")


def lines(count: int) -> Iterator[str]:
    """The lines of points 0 to `count` - 1; no two of one series and time."""
    for number in range(count):
        turn, kind = divmod(number, 10)
        if kind < 7:
            tick, device = divmod(turn * 7 + kind, 40)
            yield (f"sensors,device=d{device:02},site=s{device % 3} count={number}i,note=\"n {number}\",ok="
                   f'{"true" if tick % 2 else "false"},temperature={tick % 300}.5,whole={tick}.0 '
                   f"{FIRST_TIME + tick * 97_000_000_013}")
        elif kind == 7:
            tick, series = divmod(turn, len(_TAGS))
            yield (f"{ODD}{_TAGS[series]} b={'true' if turn % 3 else 'false'},f={_FLOATS[turn % len(_FLOATS)]},"
                   f"i={_INTEGERS[turn % len(_INTEGERS)]},s\\ \\,\\={len(_TAGS)}={_STRINGS[turn % len(_STRINGS)]} "
                   f"{FIRST_TIME + tick * 61_000_000_007}")
        elif kind == 8:
            yield f"sparse,t={turn % 5} f{turn % 9}={turn}.25,i{turn % 4}={number}i {FIRST_TIME + turn}"
        else:
            yield f"old,t={turn % 7} i={-turn}i {-1_000_000_000_000_000 + turn // 7 * 173_000_000_011}"


def write(url: str, database: str, text: Iterable[str]) -> None:
    """Stores lines in an InfluxDB 1."""
    pieces = iter(text)
    with requests.Session() as session:
        while body := "\n".join(islice(pieces, WRITE_POINTS)):
            answer = session.post(f"{url}/write?db={database}", data=body.encode(), timeout=60)
            assert answer.status_code == 204, answer.text[:500]


def ask(url: str, query: str) -> None:
    """One InfluxQL statement."""
    answer = requests.post(f"{url}/query", data={"q": query}, timeout=60)
    answer.raise_for_status()
    assert "error" not in answer.text


def stored(url: str, database: str, measurement: str) -> set[bytes]:
    """All points. The server's MessagePack tells 1 from 1.0 and -0.0, but has tags in another order each time."""
    quoted = measurement.replace("\\", "\\\\").replace('"', '\\"')
    answer = requests.post(f"{url}/query", timeout=60, headers={"Accept": "application/x-msgpack"}, data={
        "db": database, "epoch": "ns", "q": f'SELECT * FROM "{quoted}" GROUP BY *'})
    answer.raise_for_status()
    (result,) = msgspec.msgpack.decode(answer.content)["results"]
    return {msgspec.msgpack.encode((sorted(series.get("tags", {}).items()), series["columns"], row))
            for series in result["series"] for row in series["values"]}


def check_databases(url: str, database: str, expected: str, count: int) -> None:
    """Both databases of an InfluxDB 1 have the same points, and so many. The first differences are shown, not all."""
    points = 0
    for name in ("sensors", ODD_NAME, "sparse", "old"):
        found, wanted = stored(url, database, name), stored(url, expected, name)
        differences = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
        assert differences == ([], []), f"{name}: missing, and not expected: {differences}"
        points += len(found)
    assert points == count
