#!/bin/bash
# days/lab-test.sh: goes the learner's way once, in a copy of this repo: start, red,
# hint, green, reset, and all that must be refused. Part of `make prove`.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-lab.XXXXXX")
trap 'rm -rf "$work"' EXIT
copy=$work/repo
copy_repo "$copy"
# What was built of other crates need not be built again.
set_version "$copy" lab-test
export CARGO_TARGET_DIR=$repo/target
# As a learner has it.
unset CARGO_INCREMENTAL
cd "$copy"

# Runs a command, which must end with CODE, and say all that is expected of it.
says() { # CODE COMMAND... -- EXPECTED...
    local code=$1 ended=0 command=()
    shift
    while [ "$1" != -- ]; do
        command+=("$1")
        shift
    done
    shift
    "${command[@]}" >"$work/said" 2>&1 </dev/null || ended=$?
    [ "$ended" = "$code" ] || wrong "${command[*]}: ended with $ended, and not with $code"
    for expected in "$@"; do
        grep -qF -e "$expected" "$work/said" || wrong "${command[*]}: does not say: $expected"
    done
    echo "ok: ${command[*]}"
}

wrong() {
    cat "$work/said" >&2
    fail "$@"
}

# All bodies of the days up to DAY, as a learner might have written them.
write_days_up_to() { # DAY
    write_sources lab -v day=$(($1 + 1))
}

says 2 make check DAY=1 -- "there is no lab/ yet" "make start DAY=1"
says 2 make start DAY=77 -- "which day?" "DAY=1"
says 0 make start DAY=1 -- "days/day1-cli/README.md" "make check DAY=1"
says 2 make start DAY=2 -- "never overwritten"
says 2 make hint DAY=1 TASK=9 -- "which task?" "1 2 3"
says 0 make hint DAY=1 TASK=2 -- "1 of "
says 0 make hint DAY=1 TASK=2 -- "1 of " "2 of "
says 0 make solution DAY=1 -- "+++ solution/src/command.rs" '-    todo!("day 1, task '
says 0 make progress -- "not yet"

says 2 make check DAY=1 -- "Day 1, task 1: dispatch" 'still a todo!("day 1, task 1: ' "lab/src/cli.rs:" "wait for a todo!()"
says 0 make progress -- "0 of 15 tests green, 15 red"

# A mistake, instead of a stub: what was expected, and where to read.
write_days_up_to 1
sed -i 's/container::run(container, &mut self.mechanisms())/&.map(|_| 0)/' lab/src/cli.rs
says 2 make check DAY=1 TASK=1 -- "✗ run passes the commands output and exit code on" \
    "expected the exit code 7" "(lab/tests/day1_cli.rs:" \
    "Read: day 1, *A process is made by copying*" "make hint DAY=1 TASK=1"
write_days_up_to 1
says 0 make check DAY=1 TASK=1 -- "Task 1 is there"
says 0 make progress -- "  day1  cli                0         6 of 15 tests green, 9 red"
says 0 make check DAY=1 -- "✓ " "Day 1 is done." "days/day2-namespaces/README.md"
says 0 make progress -- "✓ day1  cli" "day2"

# Day 2 with a day 1 of one's own.
echo '// my own' >>lab/src/command.rs
says 2 make check DAY=2 TASK=1 -- 'still a todo!("day 2, task 1: '
says 0 make progress -- "✓ day1" "0 of "
write_days_up_to 2
echo '// my own' >>lab/src/command.rs
says 2 make reset DAY=2 -- "nobody is here to ask" "YES=1"
grep -q 'my own' lab/src/command.rs || fail "a reset that was refused has changed something"
says 0 make reset DAY=2 YES=1 -- "when day 1 was done" "before-reset-"
grep -q 'todo!("day 2, task ' lab/src/namespaces/mod.rs || fail "a reset of day 2 leaves day 2"
kept=$(git -C lab branch --list 'before-reset-*' --format '%(refname:short)')
says 0 git -C lab restore --source="$kept" src --
grep -q 'my own' lab/src/command.rs || fail "a reset loses what was not committed"
says 2 make reset DAY=5 YES=1 -- "day 4 was never green here"
echo "lab-test: the learner's way is as the book says"
