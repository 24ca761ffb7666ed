#!/bin/sh
# Makes a Debian package of the pipeline, for the Debian and the CPython of the machine that it runs on:
#   apt-get install python3-venv
#   sh deploy/debian/build.sh . build            [EXTRAS, for example "[avro,protobuf]"]
# SOURCE is a checkout, a wheel or a source distribution. All dependencies are inside, in a virtual environment.
set -eu
source=$1 target=$2 extras=${3:-}
here=$(dirname "$0")
home=/usr/lib/iggy-influxdb-pipeline
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

PYTHON=/usr/bin/python3 sh "$here/../container/install.sh" "$source" "$root$home" "$extras"
python=$(readlink -f /usr/bin/python3 | sed 's|.*/||')
version=$("$root$home/bin/pipeline" --version | sed 's/.* //')

# Systemd's units, manual pages and completion are the project's own.
mkdir -p "$root/usr/bin" "$root/etc/pipeline" "$root/usr/share/bash-completion/completions" \
    "$root/usr/share/doc/iggy-influxdb-pipeline" "$root/DEBIAN"
# Where there is no systemd to ask, for Debian 12's and newer ones.
command -v systemctl >/dev/null && units= || units="--systemd-version 252"
# shellcheck disable=SC2086  # two words or none
"$root$home/bin/pipeline" install-service --to "$root/usr/lib/systemd/system" $units >/dev/null
"$root$home/bin/pipeline" man --to "$root/usr/share/man" >/dev/null
"$root$home/bin/pipeline" completion bash > "$root/usr/share/bash-completion/completions/pipeline"
find "$root/usr/share/man" -type f -exec gzip -n9 {} +
ln -s "../lib/iggy-influxdb-pipeline/bin/pipeline" "$root/usr/bin/pipeline"

# What was made with the folder of the build in it gets the folder of the installation.
grep -rlI --null "$root" "$root$home/bin" "$root$home/pyvenv.cfg" "$root/usr/lib/systemd" | xargs -0 sed -i "s|$root||g"
find "$root$home" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$root" -type d -exec chmod 755 {} +

cat > "$root/DEBIAN/control" <<CONTROL
Package: iggy-influxdb-pipeline
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: the pipeline's authors <noreply@localhost>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: $python, libc6 (>= 2.34)
Recommends: systemd (>= 247), libnss-systemd
Section: net
Priority: optional
Description: connector between Apache Iggy and InfluxDB
 Moves telemetry from Iggy to InfluxDB, and from InfluxDB to Iggy, at least once, with a process for each stage.
 .
 pipeline.service runs /etc/pipeline/pipeline.toml, and pipeline@NAME.service runs /etc/pipeline/NAME.toml.
CONTROL
cat > "$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    # Bytecode, so that starts are quick: the service may not write here.
    /usr/lib/iggy-influxdb-pipeline/bin/python -m compileall -q /usr/lib/iggy-influxdb-pipeline/lib || true
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # After an upgrade; nothing is started that did not run.
        systemctl try-restart pipeline.service 'pipeline@*.service'
    fi
fi
SCRIPT
cat > "$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop pipeline.service 'pipeline@*.service' || true
    systemctl disable pipeline.service pipeline@.service || true
fi
find /usr/lib/iggy-influxdb-pipeline -name __pycache__ -type d -prune -exec rm -rf {} +
SCRIPT
cat > "$root/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
SCRIPT
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
mkdir -p "$target"
dpkg-deb --root-owner-group --build "$root" "$target" >/dev/null
echo "$target/iggy-influxdb-pipeline_${version}_$(dpkg --print-architecture).deb"
