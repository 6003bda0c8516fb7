#!/bin/sh
# Installs malmoi, editable, with exact versions, into a virtual environment that it creates.
#
#   deploy/install/install.sh VENV EXTRAS      e.g. install.sh .venv train,quant,dev
#
# PYTHON names the interpreter (3.11 or later); PLATFORM is cpu or gpu, found out where not given.
# Why it is done in these steps: docs/decisions/0001-one-cpu-environment.md
set -eu
venv=$1
extras=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
if [ -z "${PLATFORM:-}" ]; then
    if [ -e /proc/driver/nvidia/version ]; then PLATFORM=gpu; else PLATFORM=cpu; fi
fi

say() { echo "install: $*" >&2; }
fail() { say "$*"; exit 2; }

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "expected Python 3.11 or later, found $("$python" --version 2>&1); name another with PYTHON=..."
case ",$extras," in *,quant,*)  # GPTQModel needs pypcre, which is compiled here
    command -v "${CC:-cc}" >/dev/null || fail "expected a C compiler, found none; Debian: apt-get install gcc python3-dev"
    "$python" -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' \
        || fail "expected Python's headers (Python.h), found none; Debian: apt-get install python3-dev" ;;
esac
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check "$@"; }

constraints="$here/constraints-$PLATFORM.txt"
set -- --constraint "$constraints"
if [ "$PLATFORM" = cpu ]; then
    set -- "$@" --find-links "$root/build/stubs"  # on a GPU they would be taken for vLLM itself
    "$python" "$here/stub_wheels.py" "$root/build/stubs"
    torch=$(sed -n 's/^torch==\([^+]*\).*/\1/p' "$constraints")
    if ! "$venv/bin/python" -c "import importlib.metadata as m; assert m.version('torch') == '$torch+cpu'" 2>/dev/null; then
        say "torch $torch, CPU build"
        # First from the index that pip is set up with; elsewhere uv knows PyTorch's own CPU index.
        pip install "torch==$torch+cpu" 2>/dev/null || {
            pip install "$(grep '^uv==' "$constraints")"
            "$venv/bin/uv" pip install --python "$venv/bin/python" --torch-backend cpu "torch==$torch"
        }
    fi
fi
say "malmoi[$PLATFORM,$extras] and what it needs; the first time this takes about two minutes"
pip install "$@" --editable "$root[$PLATFORM,$extras]" \
    || fail "pip could not install it; its message stands above"
pip check || fail "the installed versions do not fit each other; remove $venv and try again"
