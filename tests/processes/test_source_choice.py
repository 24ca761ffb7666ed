"""Sources that read only some points and fields, and change them. In InfluxQL, tests/servers asks the real server."""

from pathlib import Path

import pytest

from pipeline.testbed.sandbox.influxdb.answers import Flavour
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sinks import SandboxInflux
from tests.support.sources import FIRST_TIME, Source, write

V2 = 'bucket = "sandbox"\norg = "sandbox"\ntoken = "sandbox-token"'
LANGUAGES: dict[str, tuple[Flavour, str, str]] = {
    "v2 flux": ("v2", V2, 'language = "flux"'),
    "v3 sql": ("v3", 'database = "sandbox"\ntoken = "sandbox-token"', "")}
CHOICE = r"""
fields = ["f*", "count"]
exclude_fields = ["f_*"]
tag_values = { site = ["berlin", "q?*\"[x]/", ""] }
exclude_tag_values = { host = ["test*", "old", "", "100%"] }
types = { f = "string" }
[[sources.steps]]
do = "rename"
names = { "fields.count" = "fields.n" }
[[sources.steps]]
do = "drop"
when = "fields.n == 3"
"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_points_are_chosen_by_tags_and_fields_by_name(
        tmp_path: Path, iggy: RunningIggy, stream: str, language: str) -> None:
    flavour, table, more = LANGUAGES[language]
    with running_influxdb(flavour=flavour) as server:
        influxdb = SandboxInflux(server.url, flavour)
        write(influxdb, [
            rf"m,site=berlin,host=a f=1.5,f_x=2,count=1i,other=t {FIRST_TIME}",
            rf'm,site=qü\ "[x]/,host=a count=2i {FIRST_TIME}', rf"m,host=b count=4i {FIRST_TIME}",
            rf"m,site=paris,host=a count=5i {FIRST_TIME}", rf"m,site=berlin,host=test1 count=6i {FIRST_TIME}",
            rf"m,site=berlin,host=old count=7i {FIRST_TIME}", rf"m,site=berlin count=8i {FIRST_TIME}",
            rf"m,site=berlin,host=100% count=9i {FIRST_TIME}", rf"m,site=berlin,host=1000 count=10i {FIRST_TIME}",
            rf"m,site=berlin,host=a count=3i {FIRST_TIME + 1}", rf"m,site=berlin,host=a other=f {FIRST_TIME + 2}",
            f"without_site,host=a count=11i {FIRST_TIME}", f"without_host,site=berlin count=12i {FIRST_TIME}",
            f"nothing,host=a,site=berlin other=t {FIRST_TIME}"])
        with Source(tmp_path, iggy.address, server.url, table, stream, source=f"{more}\n{CHOICE}", start=False,
                    arguments=["--until-caught-up"]) as run:
            assert run.ends() == 0, run.log()
            found = {point["fields"]["n"]: point for point in run.points()}
            assert sorted(found) == [1, 2, 4, 10, 11]
            assert found[1] == {"measurement": "m", "tags": {"host": "a", "site": "berlin"},
                                "fields": {"f": "1.5", "n": 1}, "time": FIRST_TIME}
