#!/bin/sh
# Make the virtual environment of this checkout, or bring it up to date. Quick when nothing has changed.
#
#     tools/venv.sh DIRECTORY EXTRA...
#
# The product is installed editable, with the optional parts EXTRA of pyproject.toml. PYTHON names the
# interpreter to use; without it the newest suitable one is taken.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: tools/venv.sh DIRECTORY EXTRA..." >&2
    exit 2
fi
checkout=$(cd "$(dirname "$0")/.." && pwd -P)
venv=$1
shift
extras=$(echo "$*" | tr ' ' ',')
state="$checkout $(cksum < "$checkout/pyproject.toml")"

works() { "$1" -c '' 2> /dev/null; }

# A stamp per extra says for which checkout and which pyproject.toml it was installed.
is_installed() {
    for extra in "$@"; do
        [ -f "$venv/.installed-$extra" ] && [ "$(cat "$venv/.installed-$extra")" = "$state" ] || return 1
    done
}

if works "$venv/bin/python" && is_installed "$@"; then
    exit 0
fi

suitable() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2> /dev/null
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        candidates=$PYTHON
    else
        candidates="python3.14 python3.13 python3.12 python3.11 python3.10 python3"
    fi
    without_venv=
    for candidate in $candidates; do
        if suitable "$candidate"; then
            if "$candidate" -c 'import ensurepip, venv' 2> /dev/null; then
                echo "$candidate"
                return
            fi
            without_venv=${without_venv:-$candidate}
        fi
    done
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "setup: $without_venv cannot make virtual environments; on Debian or Ubuntu:" >&2
        echo "setup:     sudo apt-get install python3-venv    (or python$version-venv)" >&2
    elif [ -n "${PYTHON:-}" ]; then
        echo "setup: PYTHON=$PYTHON is not a Python 3.10 to 3.14" >&2
    else
        echo "setup: no Python 3.10 to 3.14 found; on Debian or Ubuntu:" >&2
        echo "setup:     sudo apt-get install python3 python3-venv" >&2
    fi
    exit 1
}

# Scripts in an environment carry its path: one of ours that was moved, broken or half made is made again.
# One that somebody else has made is used as it is.
if [ -f "$venv/.made-for" ] && { [ "$(cat "$venv/.made-for")" != "$checkout" ] ||
    ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; }; then
    rm -rf "$venv"
fi
if [ ! -e "$venv" ]; then
    python=$(choose_python)
    echo "setup: virtual environment $venv with $("$python" --version)"
    mkdir -p "$venv"
    echo "$checkout" > "$venv/.made-for"
    "$python" -m venv "$venv"
elif ! works "$venv/bin/python"; then
    echo "setup: $venv is not a virtual environment that works; remove it, or choose another: make VENV=..." >&2
    exit 1
fi

echo "setup: installing the product and what it needs ($extras); the first time takes a minute or two"
"$venv/bin/python" -m pip --disable-pip-version-check install --progress-bar off \
    --editable "$checkout[$extras]"
for extra in "$@"; do
    echo "$state" > "$venv/.installed-$extra"
done
echo "setup: done"
