"""The chart, rendered by the real `helm`, is what Kubernetes' schemas allow, and refuses what would go wrong.

`helm` is on PATH, or HELM names it; where there is none, these tests are left out.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.commands.config import load_config

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "iggy-influxdb-pipeline"
HELM = os.environ.get("HELM") or shutil.which("helm")
pytestmark = pytest.mark.skipif(not HELM, reason="there is no helm: give its path in HELM")
#: Kinds of operators, which Kubernetes' own schemas do not have.
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
EVERYTHING = ("serviceMonitor.enabled=true", "prometheusRule.enabled=true", "persistence.enabled=true", "replicas=3",
              "autoscaling.keda.enabled=true", "secret.values.INFLUX_TOKEN=secret-1",
              "secret.values.HTTP_TOKEN=secret-2", "http.tokenVariable=HTTP_TOKEN")


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs `helm`."""
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True, timeout=60)


def rendered(*values: str) -> dict[str, Any]:
    """kind -> the object that the chart makes of these values."""
    options = [part for value in values for part in ("--set", value)]
    run = helm("template", "telemetry", str(CHART), "--namespace", "data", *options)
    assert run.returncode == 0, run.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(run.stdout) if document}


@pytest.mark.parametrize("values", [(), EVERYTHING, ("autoscaling.hpa.enabled=true", "secret.existing=mine")],
                         ids=["default", "everything", "hpa"])
def test_every_object_is_valid(values: tuple[str, ...]) -> None:
    objects = rendered(*values)
    for kind, document in objects.items():
        if kind not in OF_OPERATORS:
            kubernetes_validate.validate(document, "1.31", strict=True)
    assert {"ConfigMap", "StatefulSet", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"
            } <= set(objects)
    if values == EVERYTHING:
        assert OF_OPERATORS | {"Secret"} <= set(objects)
        assert "replicas" not in objects["StatefulSet"]["spec"]
        assert objects["PrometheusRule"]["spec"]["groups"]


def test_the_configuration_in_the_config_map_is_valid(tmp_path: Path) -> None:
    text = rendered(*EVERYTHING)["ConfigMap"]["data"]["pipeline.toml"]
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    config = load_config(str(path), {"INFLUX_TOKEN": "token", "HTTP_TOKEN": "http-token"})
    assert config.http.listen == "0.0.0.0:17109"
    assert config.http.token == "http-token"
    assert "secret-" not in text


def test_a_pod_has_no_rights_and_time_to_drain() -> None:
    pod = rendered("config=[iggy]\nconsumer_group = \"g\"\n[pipeline]\ndrain_timeout_ms = 60_000")["StatefulSet"][
        "spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["terminationGracePeriodSeconds"] == 75
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert "kill -TERM 1" in container["lifecycle"]["preStop"]["exec"]["command"][-1]


@pytest.mark.parametrize(("values", "words"), [
    (["replicas=2", "config=[iggy]"], "needs consumer_group"),
    (["config=[http]\nlisten=\"\""], "leave [http] out"),
    (["autoscaling.hpa.enabled=true", "autoscaling.keda.enabled=true"], "not both"),
    (["http.tokenVariable=HTTP_TOKEN"], "needs secret.existing or secret.values"),
    (["replica=2"], "replica"),
    (["image.pullPolicy=Sometimes"], "pullPolicy"),
], ids=["replicas", "http", "autoscaling", "token", "unknown", "policy"])
def test_values_that_would_go_wrong_are_refused(values: list[str], words: str) -> None:
    options = [part for value in values for part in ("--set", value)]
    run = helm("template", "telemetry", str(CHART), *options)
    assert run.returncode != 0
    assert words in run.stderr
