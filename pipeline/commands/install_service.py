"""`pipeline install-service`: the units of systemd that run pipelines, hardened."""

import os
import re
import shutil
import subprocess  # nosec B404  # asks systemd for its version
import sys
from pathlib import Path
from typing import Final

import click

from pipeline.errors import PipelineError
from pipeline.files import describe, write_for_all
from pipeline.options import Command
from pipeline.printable import printable

#: The first version of systemd with Type=notify-reload. Source: its NEWS, 253.
NOTIFY_RELOAD_VERSION: Final = 253
#: Credentials that both units load, and what they are for: token_file = "${CREDENTIALS_DIRECTORY}/influx-token".
CREDENTIALS: Final = ("influx-token", "iggy-password", "iggy-token")
_UNIT: Final = """\
# Runs {what}. Made by: pipeline install-service
# Own settings belong into a drop-in: systemctl edit {name}
[Unit]
Description=Iggy to InfluxDB pipeline{instance_words}
Wants=network-online.target
After=network-online.target

[Service]
{type_lines}
ExecStart={command} start -c {config}
Restart=on-failure
RestartSec=5
# The configuration is wrong: starting again does not help.
RestartPreventExitStatus=2
# No sign of life for this long means that no work goes on any more.
WatchdogSec=60
TimeoutStartSec=120
# Longer than the time that a stop may take (pipeline.drain_timeout_ms, 30 s).
TimeoutStopSec=45
KillMode=mixed

# A user that exists only while a pipeline runs. All units share it, so that two pipelines on the same topics are found.
DynamicUser=yes
User=pipeline
# /var/lib/{state}: for state files and dead-letter files, e.g. state_file = "/var/lib/{state}/telemetry.json".
StateDirectory={state}
StateDirectoryMode=0700
# /run/{state}: sockets.
RuntimeDirectory={state}
RuntimeDirectoryMode=0700
WorkingDirectory=/var/lib/{state}
Environment=TMPDIR=/run/{state} HOME=/var/lib/{state}
# Secrets: root keeps them in files with mode 0600, and the pipeline reads copies of its own, e.g.
# token_file = "${{CREDENTIALS_DIRECTORY}}/influx-token". A file that is missing is no error unless it is used.
{credentials}

LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


#: Paths that mean themselves in a unit.
_PATH: Final = re.compile(r"/[A-Za-z0-9/._-]*")


@click.command(cls=Command, short_help="Writes the systemd units that run pipelines")
@click.option("--to", required=True, metavar="FOLDER", help="Made if it is missing; /etc/systemd/system for the units "
              "of a machine.")
@click.option("--config", default="/etc/pipeline", metavar="FOLDER", help="Where configurations are; by default "
              "/etc/pipeline.")
@click.option("--systemd-version", type=click.IntRange(240, 999), help="Of the machine that runs it; by default the "
              "one that is installed here.")
@click.option("--force", is_flag=True, help="Replace units that differ.")
def install_service(to: str, config: str, systemd_version: int | None, force: bool) -> None:
    """Writes two systemd units: pipeline.service and pipeline@.service.

    pipeline.service runs pipeline.toml of the configurations' folder, and pipeline@NAME.service runs NAME.toml there.
    """
    if not _PATH.fullmatch(config):
        raise click.BadParameter(f"{config}: give an absolute path of letters, digits and / . _ -",
                                 param_hint="--config")
    folder = Path(to)
    version = systemd_version or installed_version() or NOTIFY_RELOAD_VERSION
    command = _command()
    for name, text in units(command, config, version).items():
        _write(folder / name, text, force)
    click.echo(printable(f"{folder / 'pipeline.service'}: runs {config}/pipeline.toml"))
    click.echo(printable(f"{folder / 'pipeline@.service'}: runs {config}/NAME.toml as pipeline@NAME"))
    click.echo("Next: systemctl daemon-reload && systemctl enable --now pipeline")


def units(command: str, config: str, version: int) -> dict[str, str]:
    """The units by file name, for this version of systemd. `command` starts the pipeline's command line."""
    return {"pipeline.service": _unit(command, f"{config}/pipeline.toml", "pipeline", version),
            "pipeline@.service": _unit(command, f"{config}/%i.toml", "pipeline-%i", version)}


def _unit(command: str, config: str, state: str, version: int) -> str:
    is_template = "%i" in state
    reload = "Type=notify-reload" if version >= NOTIFY_RELOAD_VERSION else \
        ("# Instead of Type=notify-reload, which systemd has from 253 on.\n"
         "Type=notify\nExecReload=/bin/kill -HUP $MAINPID")
    credentials = "\n".join(f"LoadCredential={name}:/etc/pipeline/{name}\nSetCredential={name}:\\n"
                            for name in CREDENTIALS)
    return _UNIT.format(what=f"the pipeline of {config}", name="pipeline@NAME" if is_template else "pipeline",
                        instance_words=" %i" if is_template else "", type_lines=reload, command=command, config=config,
                        state=state, credentials=credentials)


def installed_version() -> int:
    """Version of the systemd of this machine; 0 if there is none."""
    path = shutil.which("systemctl") or shutil.which("systemd-analyze")
    if path is None:
        return 0
    try:
        found = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)  # nosec B603  # no input
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"systemd (\d+)", found.stdout)
    return int(match[1]) if match else 0


def _command() -> str:
    """What starts the pipeline's command line: the script beside this Python, or the module."""
    script = Path(sys.executable).parent / "pipeline"
    words = [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "pipeline"]
    return " ".join(_escaped(word) for word in words)


def _escaped(word: str) -> str:
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{word}"' if re.search(r"[\s\"';]", word) else word


def _write(path: Path, text: str, force: bool) -> None:
    try:
        if path.exists() and not force and path.read_text(encoding="utf-8") != text:
            raise PipelineError(f"{path} exists and differs; give --force to replace it, and keep own settings in a "
                                "drop-in (systemctl edit)")
        write_for_all(path, text.encode())
    except OSError as error:
        raise PipelineError(describe(error, error.filename or path)) from None
