#!/bin/sh
# Installs other people's clients under build/clients, apart from malmoi's own environment: their pins are theirs.
#
#   tests/support/clients/install.sh node|python
set -eu
cd "$(dirname "$0")/../../.."
case $1 in
    node) npm install --silent --no-audit --no-fund --prefix build/clients openai@6.49.0 ;;
    python)
        python3 -m venv build/clients/python
        build/clients/python/bin/python -m pip install --quiet --disable-pip-version-check \
            langchain-openai==1.7.3 langchain-core==1.7.2 openai==3.54.0 ;;
    *) echo "error: $1: expected node or python" >&2; exit 2 ;;
esac
