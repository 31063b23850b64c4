#!/bin/bash
# days/watch-test.sh: `make watch` from its start to its end, in a copy of this repo:
# what is saved is judged, whatever comes between, and in the end nothing is left. Part
# of `make prove`. It waits for lines, each until a deadline, and not for times.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-watch.XXXXXX")
log=$work/log
# By this in their environment all processes that it starts are found.
mark=TINY_DOCKER_WATCHED=$work
watch=''
trap '[ -z "$watch" ] || kill -TERM -- -"$watch" 2>/dev/null; sleep 1; rm -rf "$work"' EXIT
copy=$work/repo
copy_repo "$copy"
mkdir "$work/tmp"
# What was built of other crates need not be built again.
set_version "$copy" watch-test
export CARGO_TARGET_DIR=$repo/target
# As a learner has it.
unset CARGO_INCREMENTAL
cd "$copy"

wrong() {
    cat "$log" >&2
    fail "watch-test: $1"
}

# Until a command succeeds.
within_deadline() { # WHAT COMMAND...
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || wrong "not within 120 s: $what"
        [ -z "$watch" ] || kill -0 "$watch" 2>/dev/null || wrong "it ended, before: $what"
        sleep 0.1
    done
}

# What came since the last call of forget.
since() { tail -n +"$((from + 1))" "$log"; }
forget() { from=$(wc -l <"$log"); }
said() { since | grep -qF -e "$1"; }
verdict() { # TEXT...: the next one has all these.
    local text
    within_deadline "a verdict" said "waiting for a save"
    for text in "$@"; do said "$text" || wrong "the verdict does not say: $text"; done
    echo "ok: $1 $(since | sed -n 's/.*\((built in .*)\)$/\1/p' | tail -n 1)"
}

# As vim and others save: another file takes the place of the old one.
save() { # FILE-IN-lab/, from stdin
    cat >"lab/$1.new"
    mv "lab/$1.new" "lab/$1"
}

# All files of a src/, of which only those that differ are saved: at once, as an editor does that
# saves all. What differs is found out before, for on a busy machine that takes a while.
save_all() { # DIR
    local file changed=()
    while read -r file; do
        cmp -s "$1/$file" "lab/$file" || changed+=("$file")
    done < <(cd "$1" && find src -name '*.rs')
    for file in "${changed[@]}"; do save "$file" <"$1/$file"; done
}

marked() { grep -lzF -e "$mark" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3; }
nothing_is_left() { [ -z "$(marked)" ] && [ -z "$(ls -A "$work/tmp")" ]; }
qemu_of_watch() {
    local pid
    for pid in $(marked); do
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = qemu-system-x86 ]; then echo "$pid"; fi
    done
}

start_watch() { # DAY TASK
    : >"$log"
    from=0
    # A job of its own: a background process of a script would ignore Ctrl-C.
    set -m
    env "$mark" TMPDIR="$work/tmp" days/watch.sh "$@" >"$log" 2>&1 </dev/null &
    watch=$!
    set +m
}

end_watch() { # SIGNAL CODE
    local ended=0
    # As the terminal does: to all in the foreground.
    kill "-$1" -- -"$watch"
    wait "$watch" || ended=$?
    watch=''
    [ $ended = "$2" ] || wrong "ended by SIG$1 with $ended, and not with $2"
    nothing_is_left || wrong "after SIG$1 there is still: $(ls -A "$work/tmp") $(for pid in $(marked); do tr '\0' ' ' <"/proc/$pid/cmdline"; done)"
    echo "ok: ended by SIG$1, and nothing is left"
}

refused() { # EXPECTED DAY [TASK]
    local ended=0
    days/watch.sh "${@:2}" >"$log" 2>&1 </dev/null || ended=$?
    [ $ended = 1 ] || wrong "watch ${*:2}: ended with $ended"
    grep -qF -e "$1" "$log" || wrong "watch ${*:2}: does not say: $1"
    echo "ok: refused: $1"
}

refused "which day? expected DAY=1" ""
refused "there is no lab/ yet; make it first: make start DAY=1" 1
days/start.sh 1 >"$log"
refused "there is no task 7; day 1 has the tasks 1 2 3 4" 1 7
# All of the day: the tests of task 1 run through the later ones too.
write_sources "$work/solved" -v day=2

cp lab/src/cli.rs "$work/unsolved.rs"

start_watch 1 1
verdict "started: red" 'wait for the todo!("day 1, task 1: '
forget
within_deadline "the next guest is ready" grep -qsx 'vm: ready' "$work"/tmp/*/guest/log
saved_at=$EPOCHREALTIME
save_all "$work/solved"
verdict "green: 6 tests" "more saved: green" "Task 1 is there. Next: task 2: find it, become it. make watch DAY=1 TASK=2"
since_save=$((${EPOCHREALTIME//[^0-9]/} - ${saved_at//[^0-9]/}))
echo "    from the save to the verdict: $((since_save / 1000)) ms"
make progress >"$work/progress"
grep -q "6 of 23 tests green, 17 not run" "$work/progress" || wrong "make progress does not know: $(cat "$work/progress")"

forget
echo 'fn it_is_not_finished( {' | save src/main.rs
verdict "src/main.rs saved: does not compile" "unclosed delimiter"

# An old file comes back, with its old time.
forget
touch -d '1 hour ago' "$work/solved/src/main.rs"
mv "$work/solved/src/main.rs" lab/src/main.rs
verdict "src/main.rs saved: green"

# In the middle of the tests, another state; and of its build, the first again.
forget
echo '// a remark' >>lab/src/main.rs
within_deadline "tests begin" said "testing"
save src/cli.rs <"$work/unsolved.rs"
verdict "src/cli.rs saved: red" 'todo!("day 1, task 1: '
[ "$(since | grep -c '^waiting')" = 1 ] || wrong "what was abandoned has a verdict"
forget
echo '// one more' >>lab/src/main.rs
within_deadline "a build begins" said "src/main.rs saved: building"
save src/cli.rs <"$work/solved/src/cli.rs"
verdict "src/cli.rs saved: green"

# The guest is killed, while it tests.
forget
echo '// again' >>lab/src/main.rs
within_deadline "tests begin" said "testing"
# shellcheck disable=SC2046  # words
kill -KILL $(qemu_of_watch)
verdict "src/main.rs saved: green" "the guest has died"
end_watch INT 0

start_watch 1
within_deadline "a build begins" said "building"
end_watch TERM 143
start_watch 1
within_deadline "a guest is there" [ -n "$(sleep 0.1)$watch" ]
end_watch HUP 129
echo "watch-test: what is saved is judged"
