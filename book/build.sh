#!/bin/bash
# book/build.sh [serve]: builds the book into book/book/, or serves it while it
# is written. Installs mdbook the first time: some minutes, once.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
# In book/bin a bundle brings it along.
export PATH=$PATH:$HOME/.cargo/bin:$here/bin
version=0.5.4

if ! mdbook --version 2>/dev/null | grep -q 'v0\.5\.'; then
    # shellcheck source=days/days.sh
    . "$here/../days/days.sh"
    echo "book: installing mdbook $version (about three minutes on two processors, once)" >&2
    # Static: a bundle takes it to machines with another C library.
    host=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS='-C target-feature=+crt-static' quietly "book: mdbook" \
        cargo --color never install mdbook --version "$version" --locked --target "$host"
fi
cd "$here"
if [ "${1:-}" = serve ]; then exec mdbook serve --open; fi
# mdbook only warns of what it cannot include.
said=$(mdbook build 2>&1) || { echo "$said" >&2; exit 1; }
if grep -qE 'WARN|ERROR' <<<"$said"; then
    echo "$said" >&2
    exit 1
fi
# And no page asks the network for anything.
if asks=$(grep -nE '<(script|link|img|iframe)[^>]*(src|href)="(https?:)?//|class="playground"' book/*.html); then
    echo "book: a page would ask the network:" >&2
    cut -c 1-200 <<<"$asks" >&2
    exit 1
fi
echo "book/book/index.html is built"
