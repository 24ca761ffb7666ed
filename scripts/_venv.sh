# Sourced by the scripts beside it: makes .venv at the checkout's root with the project in it.
# Argument 1: the extras to install, e.g. "[test]"; what "[test]" needs is pinned, with hashes, in tests/requirements.lock.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=
for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "$0: CPython 3.11 or newer is needed and was not found" >&2
    exit 1
fi

may_install() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Argument 1: a file of pinned packages, uv among them, which installs in a third of pip's time. pip where uv cannot.
install_locked() {
    local uv
    uv=$(mktemp)
    sed -n '/^uv==/,/[^\\]$/p' "$1" > "$uv"
    .venv/bin/python -m pip install -q --require-hashes --no-deps -r "$uv"
    rm "$uv"
    .venv/bin/uv pip install -q --python .venv/bin/python --compile-bytecode --require-hashes -r "$1" ||
        .venv/bin/python -m pip install -q --require-hashes -r "$1"
}

stamp=.venv/installed-$(cat setup.cfg pipeline/__init__.py scripts/_venv.sh tests/requirements.lock | cksum | cut -d' ' -f1)$1
if [ ! -e "$stamp" ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if may_install && command -v apt-get >/dev/null; then
            echo "$0: installing python3-venv"
            as_root apt-get update -qq && as_root apt-get install -y -qq python3-venv >/dev/null
        else
            echo "$0: this Python has no venv; install it (Debian: apt-get install python3-venv)" >&2
            exit 1
        fi
    fi
    echo "$0: installing into .venv (once)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    if [ "$1" = "[test]" ]; then
        install_locked tests/requirements.lock
        .venv/bin/python -m pip install -q --no-deps -e .
    else
        .venv/bin/python -m pip install -q -e ".$1"
    fi
    touch "$stamp"
fi
