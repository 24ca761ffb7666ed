"""Retention policies of the sandbox's InfluxDB 2, told apart by headers; those of 1.6.7 are in tests/servers."""

import json
from pathlib import Path

import requests

from tests.processes.test_source_verify import verify
from tests.support.iggy_servers import RunningIggy
from tests.support.influxdb_servers import running_influxdb
from tests.support.sources import FIRST_TIME, Source

INFLUXDB = 'version = "v2"\norg = "sandbox"\nbucket = "sandbox"\ntoken = "sandbox-token"'
TOKEN = {"Authorization": "Token sandbox-token"}


def test_points_of_each_policy_name_it(tmp_path: Path, iggy: RunningIggy, stream: str) -> None:
    with running_influxdb(flavour="v2") as server:
        requests.post(f"{server.url}/query?db=sandbox&chunked=true&epoch=ns", timeout=60, headers=TOKEN, data={
            "q": 'CREATE RETENTION POLICY "a year" ON "sandbox" DURATION 0s REPLICATION 1'}).raise_for_status()
        for policy, tags, value in (("autogen", "", "1"), ("a year", ",t=x", "2i")):
            answer = requests.post(f"{server.url}/write", params={"db": "sandbox", "rp": policy}, headers=TOKEN,
                                   data=f"m{tags} f={value} {FIRST_TIME}", timeout=60)
            assert answer.status_code == 204, answer.text
        with Source(tmp_path, iggy.address, server.url, INFLUXDB, stream, arguments=["--until-caught-up"],
                    source='retention_policies = ["*"]', start=False,
                    output='headers = { rp = "{retention_policy}" }') as run:
            assert run.ends() == 0, run.log()
            found = sorted(((str(message.user_headers()), json.loads(message.payload())) for message in run.messages()),
                           key=lambda one: one[0])
            # Also the tags that only a policy has which is not the default one.
            assert [(point["tags"], point["fields"]) for _, point in found] == [
                ({"t": "x"}, {"f": 2}), ({}, {"f": 1.0})]
            assert "a year" in found[0][0] and "autogen" in found[1][0]
            assert verify(run)[0] == 0
            # A point as the other policy has it, with another value.
            requests.post(f"{server.url}/write", params={"db": "sandbox", "rp": "a year"}, headers=TOKEN,
                          data=f"m f=2i {FIRST_TIME}", timeout=60).raise_for_status()
            code, compared = verify(run)
            assert (code, compared["database_points"], compared["iggy_points"], compared["missing"]) == (1, 3, 2, 1)
