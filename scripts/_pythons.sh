# Sourced by scripts: finds the CPythons that are at hand.

# Prints the path of a CPython, e.g. of 3.13: from PATH, or of pyenv. Returns 1 if there is none.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3; do
        # pyenv's stand-ins on PATH are there for versions that do not run.
        "$candidate" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null || continue
        command -v "$candidate"
        return
    done
    return 1
}
