#!/bin/bash
# vm/bundle-test.sh: makes a bundle, unpacks it elsewhere, and works with it where
# there is no network at all: in a network namespace of its own.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-bundle-test.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$here/bundle.sh" "$work/bundle.tar.gz"
tar -C "$work" -xzf "$work/bundle.tar.gz"
cat >"$work/try" <<'TRY'
set -euo pipefail
[ -z "$(ip route)" ] || { echo "bundle-test: there is a network here" >&2; exit 1; }
cd "$1/tiny-docker-bundle/tiny-docker-rs"
# As on a machine that has never fetched a crate.
export CARGO_HOME=$1/cargo-home CARGO_TERM_COLOR=never
# Whether all is there to be built is the question here, and not how fast the program is.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
make demo | tail -n 4
make start DAY=1
ended=0
make check DAY=1 TASK=1 >"$1/said" 2>&1 || ended=$?
[ $ended = 2 ] && grep -q 'still a todo!("day 1, task ' "$1/said" || { cat "$1/said"; exit 1; }
# The files that a learner of day 1 writes in.
mapfile -t solved < <(grep -l 'ANCHOR: day1_task' src/*.rs)
cp "${solved[@]}" lab/src/
make check DAY=1
make hint DAY=1 TASK=1
make progress
rm -rf book/book
# With no mdbook of this machine's.
env -i PATH=/usr/bin:/bin HOME="$1" make book
[ -s book/book/index.html ] && ! grep -rlE '(src|href)="https?://[^"]*\.(js|css|woff2?)"' book/book --include='*.html' | grep .
TRY
# A user namespace, where this is not root's shell: then even loopback is down.
[ "$(id -u)" = 0 ] && apart=(unshare --net) || apart=(unshare --user --map-current-user --net)
"${apart[@]}" bash "$work/try" "$work"
echo "bundle-test: demo, start, check, hint and the book work without a network"
