#!/bin/bash
# days/start.sh DAY [DIR]: makes DIR (lab/), the learner's own crate: the
# days before DAY complete, and every body that a learner writes from DAY on replaced
# by a todo!(). It is generated from src/, so it can never drift from it.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
day=${1:-}
lab=${2:-$lab}

require_day "$day" start
[ ! -e "$lab" ] || fail "$lab is there already, and is yours: it is never overwritten." \
    "Whoever started on an earlier day goes on in it: the stubs of the later days are in there." \
    "To start afresh, move it away first:  mv lab lab.old"

new=$lab.new
rm -rf "$new"
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT
copy_crate "$new"
printf '/target/\n/.lab/\n/.vscode/\n/rust-analyzer.toml\n' >"$new/.gitignore"

make_workspace "$new"
write_sources "$new" -v day="$day"

git -C "$new" init --quiet --initial-branch=main
git -C "$new" add .
git -C "$new" -c user.name=lab -c user.email=lab@localhost commit --quiet --message "The start of day $day"
mv "$new" "$lab"
trap - EXIT
set_editors_day "$day"
[ -n "${2:-}" ] || {
    echo "lab/ is yours: a crate of its own, which an editor opens as a folder of its own."
    echo "The exercise: $(folder_of "$day" | sed "s|^$repo/||")/README.md. Then: make check DAY=$day"
}
