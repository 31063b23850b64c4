#!/bin/bash
# days/start.sh DAY [DIR [SOLVED OPEN]]: makes DIR (lab/), the learner's own crate: the
# days before DAY complete, and every body that a learner writes from DAY on replaced
# by a todo!(). It is generated from src/, so it can never drift from it.
# SOLVED, OPEN: as somebody has it who is on his way: DAY's tasks up to SOLVED complete,
# those up to OPEN a todo!(), the later ones with what the exercise has for them "for now".
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
day=${1:-}
lab=${2:-$lab}
solved=${3:-0} open=${4:-}

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

# A workspace of its own. And what a stub does not use yet is no mistake.
printf '\n[workspace]\n' >>"$new/Cargo.toml"
sed -i 's/^\[lints\.rust\]$/&\nunused = { level = "allow", priority = -1 }/' "$new/Cargo.toml"

[ -z "$open" ] || for_now "$day" >"$new/.for-now"
write_sources "$new" -v day="$day" -v solved="$solved" -v open="$open" -v for_now="${open:+$new/.for-now}"
rm -f "$new/.for-now"

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
