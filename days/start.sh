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
    "If you started on an earlier day, go on in it: the stubs of the later days are in there." \
    "To start afresh, move it away first:  mv lab lab.old"

new=$lab.new
rm -rf "$new"
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT
copy_crate "$new"
printf '/target/\n/.lab/\n/.vscode/\n/rust-analyzer.toml\n' >"$new/.gitignore"

make_workspace "$new"
write_sources "$new" -v day="$day"
# So that `make check DAY=1` works where the learner is.
cat >"$new/Makefile" <<'MAKEFILE'
# What you type here is done by the Makefile of the repository around lab/.
.DEFAULT_GOAL := help
%:
	@$(MAKE) --no-print-directory -C .. $@
Makefile: ;
MAKEFILE

git -C "$new" init --quiet --initial-branch=main
git -C "$new" add .
git -C "$new" -c user.name=lab -c user.email=lab@localhost commit --quiet --message "The start of day $day"
mv "$new" "$lab"
trap - EXIT
set_editors_day "$day"
[ -n "${2:-}" ] || {
    echo "lab/ is yours: a crate of its own. Open it in your editor as a folder of its own."
    echo "The make commands work here and in lab/. cargo works on the code only in lab/: here it has the solution."
    echo "The exercise: $(folder_of "$day" | sed "s|^$repo/||")/README.md. Then: make check DAY=$day"
}
