#!/bin/bash
# book/build.sh [serve]: builds the book into book/book/, or serves it while it
# is written. Installs mdbook the first time: some minutes, once.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
export PATH=$PATH:$HOME/.cargo/bin
version=0.5.4

if ! mdbook --version 2>/dev/null | grep -q 'v0\.5\.'; then
    echo "book: installing mdbook $version (a few minutes, once)" >&2
    cargo install --quiet mdbook --version "$version" --locked
fi
cd "$here"
if [ "${1:-}" = serve ]; then exec mdbook serve --open; fi
# mdbook only warns of what it cannot include.
said=$(mdbook build 2>&1) || { echo "$said" >&2; exit 1; }
if grep -qE 'WARN|ERROR' <<<"$said"; then
    echo "$said" >&2
    exit 1
fi
echo "book/book/index.html is built"
