"""Presets: mappings by name, whose keys apply where a mapping has none of its own."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest

from pipeline.commands.config import load_config
from pipeline.commands.mapping_tests import run_case
from pipeline.config.presets import preset, preset_names, preset_text
from pipeline.config.schema import CaseConfig, Config
from pipeline.errors import ConfigError
from stages.mapping.encoder import BatchOrigin, Encoder

TOPIC = '[[topics]]\nstream = "telemetry"\ntopic = "sensors"\n'
REST = f'{TOPIC}[influxdb]\nbucket = "b"\nprecision = "ms"\n'
TIME = 1_700_000_000_000_000


def with_preset(folder: Path, name: str, more: str = "", rest: str = REST) -> Config:
    """A configuration that names a preset, with other keys of its mapping."""
    path = folder / "pipeline.toml"
    path.write_text(f'{rest}[mapping]\npreset = "{name}"\n{more}')
    return load_config(str(path), {})


def encoded(config: Config, *payloads: bytes | str) -> tuple[list[str], list[str]]:
    """Lines, and rejects as "reason: detail"."""
    encoder = Encoder(config.mapping, "ms", "telemetry", "sensors")
    found = encoder.encode([one.encode() if isinstance(one, str) else one for one in payloads],
                           BatchOrigin(timestamps=[TIME] * len(payloads), arrival=TIME))
    return found.body.decode().splitlines(), [f"{one.reason}: {one.detail}" for one in found.rejects]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_does_what_its_cases_say(name: str, tmp_path: Path) -> None:
    config = with_preset(tmp_path, name, '[influxdb]\nbucket = "b"', rest=TOPIC)
    assert preset(name)["tests"], "each preset has at least one case"
    for case in preset(name)["tests"]:
        assert run_case(config, msgspec.convert(case, CaseConfig)).differences == []
    assert preset_text(name).startswith("# "), "a preset says what it is for"


EXAMPLES = {"telegraf": "telegraf-json"} | {name: name for name in (
    "cloudevents", "aws-iot-shadow", "the-things-network", "zigbee2mqtt", "shelly", "tasmota")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_preset_of_an_example_is_what_the_example_says(name: str) -> None:
    path = Path(__file__).parents[2] / "configs" / "mapping" / f"{EXAMPLES[name]}.toml"
    example = tomllib.loads(path.read_text())
    assert (preset(name)["mapping"], preset(name)["tests"]) == (example["mapping"], example["tests"])


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_documented(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "presets.rst").read_text()
    assert f"``{name}``" in page


def test_own_keys_replace_those_of_a_preset_and_several_sinks_have_their_own(tmp_path: Path) -> None:
    config = with_preset(tmp_path, "senml", 'tag_renames = { _name = "device" }\nexclude_fields = []')
    lines, _ = encoded(config, '[{"bn":"d1","n":"t","u":"Cel","v":1,"t":1700000000}]')
    assert lines == ['sensors,device=d1 t=1,_units_t="Cel" 1700000000000']
    path = tmp_path / "several.toml"
    path.write_text("".join(f'[[sinks]]\nname = "{name}"\nconsumer = "{name}"\n[[sinks.topics]]\nstream = "s"\n'
                            f'topic = "t"\n[sinks.mapping]\npreset = "{name}"\n[sinks.influxdb]\nbucket = "b"\n'
                            for name in ("senml", "prometheus")))
    assert [sink.mapping.format for sink in load_config(str(path), {}).sinks] == ["senml", "prometheus"]


def test_what_belongs_to_a_value_that_is_replaced_is_replaced_with_it(tmp_path: Path) -> None:
    config = with_preset(tmp_path, "cloudevents", 'measurement_from = "topic"\ntimestamp_from = "iggy_timestamp"\n'
                                                  'exclude_fields = ["time", "type"]')
    lines, _ = encoded(config, '{"type":"t","source":"s","time":"2001-09-09T01:46:40Z","data":{"v":1}}')
    assert lines == ["sensors,source=s v=1 1700000000000"]
    config = with_preset(tmp_path, "prometheus", 'measurement_from = "static"\nmeasurement_name = "p"')
    assert encoded(config, answer("scalar", '[1700000000,"1"]'))[0] == ['p name="prometheus",value=1 1700000000000']


def test_a_preset_that_there_is_not_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        with_preset(tmp_path, "senmll")
    assert f'{tmp_path}/pipeline.toml:8: mapping.preset: "senmll" is not known; give one of ' in str(caught.value)
    assert "senml" in str(caught.value)


def test_presets_are_shipped_with_the_package() -> None:
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert "pipeline.config.presets = *.toml" in setup
    assert all(tomllib.loads(preset_text(name)).keys() == {"mapping", "tests"} for name in preset_names())


SENML: list[tuple[Any, list[str], str]] = [
    ('[{"n":"urn:dev:ow:10e2","u":"Cel","v":23.1}]', ["sensors urn:dev:ow:10e2=23.1 1700000000000"], ""),
    ('[{"bn":"d:","bt":1276020076.001,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},'
     '{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.30}]',
     ["sensors,dev=d: voltage=120.1 1276020076001", "sensors,dev=d: current=1.2 1276020071001",
      "sensors,dev=d: current=1.30 1276020072001"], ""),
    ('[{"bn":"d","bt":1700000001},{"v":1},{"bv":100,"v":1.5,"t":1},{"n":"x","s":5,"bs":0.5,"t":2},{"vs":"on","t":3},'
     '{"vd":"aGk","n":"data","t":3}]',
     ["sensors,dev=d value=1 1700000001000", "sensors,dev=d value=101.5 1700000002000",
      "sensors,dev=d x_sum=5.5 1700000003000", 'sensors,dev=d value="on",data="aGk" 1700000004000'], ""),
    ('[{"n":"a","v":1},{"n":"b","v":2,"t":-10},{"n":"c","v":3,"t":0}]',
     ["sensors a=1,c=3 1700000000000", "sensors b=2 1699999990000"], ""),
    ('[{"bn":"d","n":"a","v":1},{"bn":"e","n":"a","v":2},{"n":"a","v":3,"t":5}]',
     ["sensors,dev=d a=1 1700000000000", "sensors,dev=e a=2 1700000000000", "sensors,dev=e a=3 1700000005000"], ""),
    ('[{"n":"a","v":1},{"n":"b","v":"1"},{"n":"c","v":2,"vs":"x"},{"n":"d","x_":1,"v":1},7]',
     ["sensors a=1 1700000000000"],
     "not_senml: record 2: v: 1 is of another type (and 3 more in this message)"),
    ('[{"bver":11,"n":"a","v":1}]', [], "not_senml: record 1: bver: version 11 is not known"),
    ('{"n":"a","v":1}', ["sensors a=1 1700000000000"], ""), ("[]", [], "no_fields: the payload contains no object"),
    ("hello", [], "not_senml: it is neither a JSON array nor a CBOR array"),
    (cbor2.dumps([{-2: "dev1", 0: "temp", 2: 21.5}, {0: "on", 4: True}, {0: "x", 2: Decimal("1.50"), 6: -1}]),
     ["sensors,dev=dev1 temp=21.5,on=true 1700000000000", "sensors,dev=dev1 x=1.50 1699999999000"], ""),
    (cbor2.dumps([{0: "x", 2: 1}])[:-1], [],
     "not_senml: CBORDecodeEOF: premature end of stream (expected to read at least 1 byte..."),
    (cbor2.dumps({0: "x", 2: float("nan")}), [], "bad_field: x: NaN as a number: not a number that a field can hold"),
]


@pytest.mark.parametrize(("payload", "lines", "reject"), SENML)
def test_senml(payload: Any, lines: list[str], reject: str, tmp_path: Path) -> None:
    assert encoded(with_preset(tmp_path, "senml"), payload) == (lines, [reject] if reject else [])


def otlp(metric: str) -> str:
    """A request with one metric."""
    return ('{"resourceMetrics":[{"resource":{"attributes":[{"key":"host","value":{"stringValue":"h1"}},{"key":"n",'
            '"value":{"intValue":"7"}}]},"scopeMetrics":[{"metrics":[' + metric + "]}]}]}")


OTLP: list[tuple[str, list[str], str]] = [
    (otlp('{"name":"m","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{"attributes":[{"key":"n",'
          '"value":{"boolValue":true}},{"key":"list","value":{"arrayValue":{"values":[{"stringValue":"x"}]}}}],'
          '"timeUnixNano":"1700000000000000001","asDouble":1.50}]}}'),
     [r'm,host=h1,list={"values":[{"stringValue":"x"}]},n=true value=1.50 1700000000000'], ""),
    (otlp('{"name":"h","unit":"s","histogram":{"dataPoints":[{"timeUnixNano":1700000000000000000,"count":"3","sum":1.5,'
          '"min":0.1,"max":1.2,"bucketCounts":["1",2,"0"],"explicitBounds":[0.50,1]}]}}'),
     ["h,host=h1,n=7 count=3,sum=1.5,min=0.1,max=1.2,bucket_0.5=1,bucket_1=3,bucket_+Inf=3 1700000000000"], ""),
    (otlp('{"name":"s","summary":{"dataPoints":[{"timeUnixNano":"1700000000000000000","count":"2","sum":3,"quantileValues":'
          '[{"quantile":0.99,"value":2}]}]}},{"name":"e","exponentialHistogram":{"dataPoints":[{"timeUnixNano":'
          '"1700000000000000000","count":2,"sum":3,"scale":1,"zeroCount":1,"positive":{"bucketCounts":["1"]}}]}}'),
     ["s,host=h1,n=7 count=2,sum=3,quantile_0.99=2 1700000000000",
      "e,host=h1,n=7 count=2,sum=3,zero_count=1 1700000000000"],
     ""),
    (otlp('{"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"1700000000000000000","asDouble":"NaN"},{"timeUnixNano":'
          '"1700000000000000000","flags":1},{"timeUnixNano":"1700000000000000000","asInt":"5"},'
          '{"timeUnixNano":"1700000000000000000","asInt":"five"},5]}}'), ["g,host=h1,n=7 value=5 1700000000000"],
     "not_opentelemetry: g, point 4: 'five' is not an integer (and 1 more in this message)"),
    (otlp('{"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"1700000000000000000","asInt":"' + "9" * 30 + '"}]}}'),
     [f"g,host=h1,n=7 value={'9' * 30} 1700000000000"], ""),
    (otlp('{"name":"h","histogram":{"dataPoints":[{"timeUnixNano":"1","bucketCounts":["1"],"explicitBounds":[1]}]}}'),
     [],
     "not_opentelemetry: h, point 1: 1 bucketCounts for 1 explicitBounds"),
    ('{"resourceSpans":[]}', [],
     "not_opentelemetry: Object missing required field `resourceMetrics`"),
    (otlp('{"name":"m","gauge":{"dataPoints":[{"asInt":"5"}]}}'), [],
     "missing_timestamp: m, point 1: time: no value"),
]


@pytest.mark.parametrize(("payload", "lines", "reject"), OTLP)
def test_opentelemetry(payload: str, lines: list[str], reject: str, tmp_path: Path) -> None:
    assert encoded(with_preset(tmp_path, "opentelemetry"), payload) == (lines, [reject] if reject else [])


def answer(kind: str, result: str) -> str:
    """An answer of the query API."""
    return f'{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}'


PROMETHEUS: list[tuple[str, list[str], str]] = [
    (answer("vector", '[{"metric":{"__name__":"up","job":"a"},"value":[1700000000.781,"1"]},{"metric":{"job":"b"},'
                      '"value":[1700000000,"0.50"]}]'),
     ["up,job=a value=1 1700000000781", "prometheus,job=b value=0.50 1700000000000"], ""),
    (answer("matrix", '[{"metric":{"__name__":"up"},"values":[[1700000000,"1"],[1700000015,"NaN"],[1700000030,"+Inf"],'
                      '[1700000045,"2e3"]]}]'), ["up value=1 1700000000000", "up value=2E+3 1700000045000"], ""),
    (answer("scalar", '[1700000000.5,"-3"]'), ["prometheus value=-3 1700000000500"], ""),
    (answer("string", '[1700000000,"x"]'), ['prometheus value="x" 1700000000000'], ""),
    (answer("vector", '[{"metric":{"__name__":"h"},"histogram":[1700000000,{"count":"60","sum":"33.5","buckets":'
                      '[[1,"0","2","3"]]}]}]'), ["h count=60,sum=33.5 1700000000000"], ""),
    ('{"resultType":"scalar","result":[1700000000,"1"]}', ["prometheus value=1 1700000000000"], ""),
    (answer("vector", '[{"metric":{"__name__":"a"},"value":[1700000000,"one"]},{"metric":5},{"metric":{"__name__":"b"},'
                      '"value":[1700000000,"1"]}]'), ["b value=1 1700000000000"],
     "not_prometheus: series 1: 'one' is no value of a sample (and 1 more in this message)"),
    ('{"status":"error","errorType":"bad_data","error":"parse error"}', [],
     "not_prometheus: it is an error of Prometheus: parse error"),
    (answer("streams", "[]"), [], "not_prometheus: resultType 'streams' is not known"),
    (answer("vector", "[]"), [], ""),
]


@pytest.mark.parametrize(("payload", "lines", "reject"), PROMETHEUS)
def test_prometheus(payload: str, lines: list[str], reject: str, tmp_path: Path) -> None:
    assert encoded(with_preset(tmp_path, "prometheus"), payload) == (lines, [reject] if reject else [])
