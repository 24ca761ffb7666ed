"""What is deployed beside the packages: the image, the Compose file and the chart agree with the project."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline import __version__
from pipeline.cli import main
from pipeline.commands.config import load_config
from pipeline.commands.dashboards import FILES, content_of

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "iggy-influxdb-pipeline"
ENVIRON = {"INFLUX_TOKEN": "token", "IGGY_PASSWORD": "password", "HTTP_TOKEN": "http-token"}


def read(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text())


def test_the_chart_has_the_projects_version_and_alerts() -> None:
    chart = read(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__
    assert (CHART / "files" / "alert-rules.yaml").read_bytes() == content_of("alert-rules.yaml")


def test_the_charts_own_configuration_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(read(CHART / "values.yaml")["config"])
    assert load_config(str(path), ENVIRON).iggy.consumer_group


def test_the_compose_files_configuration_is_valid(tmp_path: Path) -> None:
    compose = read(DEPLOY / "compose" / "compose.yaml")
    for name in compose["services"]["pipeline"]["secrets"]:
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "pipeline.toml"
    path.write_text((DEPLOY / "compose" / "pipeline.toml").read_text().replace("/run/secrets", str(tmp_path)))
    config = load_config(str(path), {})
    port = config.http.listen.rpartition(":")[2]
    assert read(DEPLOY / "compose" / "prometheus.yaml")["scrape_configs"][0]["static_configs"] == [
        {"targets": [f"pipeline:{port}"]}]


def test_what_the_compose_file_mounts_is_there_or_is_made_as_it_says() -> None:
    compose = read(DEPLOY / "compose" / "compose.yaml")
    assert set(compose["services"]) == {"iggy", "influxdb", "pipeline", "prometheus", "grafana"}
    made = {f"./monitoring/{name}" for name in FILES}
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert source in made or (DEPLOY / "compose" / source).is_file(), source
            else:
                assert source in compose["volumes"]
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_the_compose_files_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets.sh"
    script.write_bytes((DEPLOY / "compose" / "make-secrets.sh").read_bytes())
    subprocess.run(["sh", str(script)], check=True, timeout=60)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {f"./secrets/{name}" for name in made} == {
        secret["file"] for secret in read(DEPLOY / "compose" / "compose.yaml")["secrets"].values()}
    assert len(set(made.values())) == 5
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in made.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".env").read_text() == f"IGGY_PASSWORD={made['iggy-password']}\n"
    subprocess.run(["sh", str(script)], check=True, timeout=60)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_the_compose_file_runs_the_pipeline_without_rights_and_lets_it_drain() -> None:
    service = read(DEPLOY / "compose" / "compose.yaml")["services"]["pipeline"]
    assert service["image"].endswith(f":{__version__}")
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"] == "45s"


def test_the_image_is_made_in_two_stages_and_runs_as_nobody() -> None:
    lines = [line.strip() for line in (DEPLOY / "container" / "Dockerfile").read_text().splitlines()]
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert {"USER 65532:65532", 'ENTRYPOINT ["pipeline"]', "STOPSIGNAL SIGTERM",
            'CMD ["pipeline", "status", "-c", "/etc/pipeline/pipeline.toml"]',
            'RUN sh install.sh /source /opt/pipeline "$EXTRAS"'} <= set(lines)


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*/*.sh")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_scripts_can_be_read_by_a_posix_shell(script: Path) -> None:
    assert subprocess.run(["sh", "-n", str(script)], timeout=60).returncode == 0


def test_what_is_written_for_others_can_be_read_by_them(tmp_path: Path) -> None:
    """Prometheus and Grafana, as other users, read what `dashboards` has written; a command's own umask is private."""
    commands = {"a/monitoring": ["dashboards"], "b/man": ["man"], "c/units": ["install-service"]}
    mask = os.umask(0o077)
    try:
        for folder, command in commands.items():
            result = CliRunner().invoke(main, [*command, "--to", str(tmp_path / folder)])
            assert result.exit_code == 0, result.output
    finally:
        os.umask(mask)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
