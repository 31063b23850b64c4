#!/bin/bash
# days/start.sh DAY [DIR]: makes DIR (lab/), the learner's own crate: the days
# before DAY complete, and every body that a learner writes from DAY on replaced
# by a todo!(). It is generated from src/, so it can never drift from it.
set -euo pipefail
# shellcheck source=days/days.sh
. "$(dirname "$(readlink -f "$0")")/days.sh"
day=${1:-}
lab=${2:-$repo/lab}

fail() {
    printf 'days/start.sh: %s\n' "$@" >&2
    exit 1
}

require_day "$day" start
[ ! -e "$lab" ] || fail "$lab is there already, and is yours: it is never overwritten." \
    "Whoever started on an earlier day goes on in it: the stubs of the later days are in there." \
    "To start afresh, move it away first:  mv lab lab.old"

new=$lab.new
rm -rf "$new"
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT
copy_crate "$new"
printf '/target/\n' >"$new/.gitignore"

# A workspace of its own. And what a stub does not use yet is no mistake.
printf '\n[workspace]\n' >>"$new/Cargo.toml"
sed -i 's/^\[lints\.rust\]$/&\nunused = { level = "allow", priority = -1 }/' "$new/Cargo.toml"

for file in "$new"/src/*.rs; do
    awk -v day="$day" -f "$repo/days/starter.awk" "$file" >"$file.new"
    mv "$file.new" "$file"
done

git -C "$new" init --quiet --initial-branch=main
git -C "$new" add .
git -C "$new" -c user.name=lab -c user.email=lab@localhost commit --quiet --message "The start of day $day"
mv "$new" "$lab"
trap - EXIT
