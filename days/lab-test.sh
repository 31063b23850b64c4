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
says 0 make progress -- "0 of 23 tests green, 23 red"

# A mistake, instead of a stub: what was expected, and where to read.
write_days_up_to 1
sed -i 's/container::run(container, &mut self.mechanisms())/&.map(|_| 0)/' lab/src/cli.rs
says 2 make check DAY=1 TASK=1 -- "✗ run passes the commands output and exit code on" \
    "expected the exit code 7" "it ran:    " "(lab/tests/day1_cli.rs:" \
    "Read: day 1, *A process is made by copying*" "make hint DAY=1 TASK=1"

# Task 1 alone, with what the exercise has for now in the place of the others: what waits
# for them is not red.
write_sources lab -v day=1
sed -i 's/todo!("day 1, task 1: execute")/container::run(Container::new(Plan::new(self.command.clone())), \&mut self.mechanisms())/
    s/todo!("day 1, task 1: not_yet")/bail!("{command} comes to life on day {day}: {why}")/' lab/src/cli.rs
while IFS=$'\t' read -r function code; do
    sed -i "s|todo!(\"day 1, task [0-9]*: $function\")|$code // &|" lab/src/*.rs
done < <(for_now 1)
says 0 make check DAY=1 TASK=1 -- "○ run passes the commands output and exit code on" "waits for task 2: find it, become it" \
    "1 of 6 tests are green; 5 wait for a later task" "Task 1 is there. Next: task 2: find it, become it. make check DAY=1 TASK=2"

# What is saved while a check is at work is not what it tests; and another one waits for it.
write_days_up_to 1
make check DAY=1 >"$work/first" 2>&1 </dev/null &
until grep -q 'vm: building' "$work/first"; do sleep 0.1; done
echo '// saved later' >>lab/src/lib.rs
says 0 make -C lab check DAY=1 TASK=1 -- "waiting for another one that works on lab/: make check DAY=1, since " "Task 1 is there"
wait $! || wrong "$(cat "$work/first")"
cp "$work/first" "$work/said"
for expected in "✓ " "Day 1 is done." "days/day2-namespaces/README.md"; do
    grep -qF -e "$expected" "$work/said" || wrong "make check DAY=1: does not say: $expected"
done
[ "$(git -C lab show refs/lab/day1:src/lib.rs | grep -c 'saved later')" = 0 ] || fail "day 1 is kept as it was not tested"
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
says 0 make reset DAY=2 YES=1 -- "when day 1 was done" "before-reset-"
grep -q 'todo!("day 2, task ' lab/src/namespaces/mod.rs || fail "a reset of day 2 leaves day 2"
kept=$(git -C lab branch --list 'before-reset-*' --format '%(refname:short)' | head -n 1)
says 0 git -C lab restore --source="$kept" src --
grep -q 'my own' lab/src/command.rs || fail "a reset loses what was not committed"
says 2 make reset DAY=5 YES=1 -- "day 4 was never green here"
echo "lab-test: the learner's way is as the book says"
