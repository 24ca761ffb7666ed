#!/bin/sh
# What the image's first stage does: installs the project into a virtual environment, which is all that the image takes.
# sh deploy/container/install.sh SOURCE TARGET [EXTRAS], for example "[avro,protobuf]". PYTHON: another interpreter.
set -eu
source=$1 target=$2 extras=${3:-}
"${PYTHON:-python3}" -m venv "$target"
"$target/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check "$source$extras"
# Nothing is installed later, and tests of libraries are not run there.
"$target/bin/python" -m pip uninstall --quiet --yes pip
rm -rf "$target"/lib/python3*/site-packages/setuptools*
find "$target" -type d \( -name tests -o -name test \) -path '*/site-packages/*' -prune -exec rm -rf {} +
"$target/bin/pipeline" --version
