#!/usr/bin/env bash
# Updates the locked requirements for aarch64, with hashes: the .in files' packages and dependencies, except NumPy, which
# is JetPack's. Needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "$0")"

# lock JETPACK PYTHON NUMPY: NumPy as JetPack's Ubuntu has it, so that nothing is chosen that wants a newer one.
lock() {
    uv pip compile --quiet --generate-hashes --only-binary :all: --python-platform aarch64-manylinux_2_28 \
        --python-version "$2" --override <(echo "numpy==$3") --no-emit-package numpy --no-annotate \
        --custom-compile-command runtime/requirements/lock.sh --output-file "$1.txt" "$1.in"
}

lock jetpack6 3.10 1.21.5
lock jetpack7 3.12 1.26.4
