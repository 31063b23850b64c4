#!/bin/bash
# days/watch.sh DAY [TASK]: the loop while somebody writes. A file of lab/ is saved, and
# the verdict comes: what `make check` says, but for the long tests, what fails first.
#
# A guest is kept ready, booted and idle. Each round gets one that no round had before
# it, so that nothing of a test that hung, or was abandoned, can be in the next one's
# way; when the verdict is there, the next guest boots while the learner reads.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
# shellcheck source=days/report.sh
. "$repo/days/report.sh"
# shellcheck source=vm/jobs.sh
. "$repo/vm/jobs.sh"
day=${1:-} task=${2:-}
export TEST_TIMEOUT=${TEST_TIMEOUT:-150}

require_day "$day" watch
require_lab "$day"
require_task "$day" "$task"
set_editors_day "$day"
mkdir -p "$memory"

# The guest, as a process group, and the build, if there are any.
guest='' builder=''
# waiting (for a save), building, built (for which a guest must be ready), testing.
phase=waiting
# The files as they were when we last looked, and what the round is about.
seen='' why='' now='' tree=''
# In a row, without having become ready; and in this round.
failed_boots=0 deaths=0
began=0 built=0 given=0
keys='' terminal=''
line=''
# shellcheck disable=SC2034  # for report_on
red_first=1

catch_signals() {
    trap end_everything EXIT
    trap 'exit 0' INT
    trap 'exit 129' HUP
    trap 'exit 143' TERM
}

end_everything() {
    trap '' INT HUP TERM
    end_build
    end_guest
    [ -z "$keys" ] || stty "$keys" || true
    rm -rf "$stage"
}

# Politely, for vm/run.sh has files to remove; and then not.
end_group() { # PID
    local tries=30
    kill -- -"$1" 2>/dev/null || true
    while kill -0 -- -"$1" 2>/dev/null && ((tries-- > 0)); do pause 0.1; done
    kill -KILL -- -"$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

end_build() {
    [ -z "$builder" ] || end_group "$builder"
    builder=''
}

end_guest() {
    [ -z "$guest" ] || end_group "$guest"
    guest='' running=()
}

# Without a process: a `sleep` would be one more to be ended.
pause() { read -rt "$1" -u "$never" || true; }

boot_guest() {
    rm -rf "$box"
    mkdir -p "$box/root/payload"
    install -m 755 "$vm/guest-watch" "$box/root/payload/run"
    # The guest's / gets this mode.
    chmod 755 "$box/root" "$box/root/payload"
    tar -C "$box/root" -cf "$box/disk" .
    truncate -s 4G "$box/disk"
    mkfifo "$box/line"
    [ -z "$line" ] || exec {line}<&-
    # Both ends, so that neither QEMU nor we wait for the other to open it.
    exec {line}<>"$box/line"
    # Should we be killed, nobody ends it; then it ends by itself, some day.
    VM_TIMEOUT=43200 VM_INPUT=$box/line boot "$box/disk" "$box/out" >"$box/log" 2>&1
    guest=${running[-1]}
    catch_signals
}

guest_is_ready() { grep -qx 'vm: ready' "$box/log"; }
guest_is_done() { grep -qE '^[0-9]+ as expected, ' "$box/log"; }

give_payload() {
    local size
    size=$(stat -c %s "$stage/jobs.tar")
    # Behind the guest's first payload, which is small.
    dd if="$stage/jobs.tar" of="$box/disk" bs=1M seek=1 conv=notrunc status=none
    echo "$(((size + 1048575) / 1048576)) 1" >&"$line"
}

build() {
    one_at_a_time "make watch DAY=$day${task:+ TASK=$task}"
    check_out "$tree"
    rm -rf "$stage"/{crates,tests,jobs.tar}
    mkdir "$stage/crates"
    add_crate "day$day" "$checked" "$day" "$(test_programs "$day" "$day")" &&
        add_run green "day$day" "" "${task:+task${task}_ }--skip _long_" &&
        prepare_guest
}

# The files that a verdict depends on, each with all that a save can change: its time,
# its size, and, where a file is replaced by another, the time when that was done. We
# look again and again: inotifywait is not on every machine, and says nothing of shared
# folders. Not what editors write beside them.
files() {
    (cd "$lab" && find src tests Cargo.toml -type f ! -name '.*' \
        \( -name '*.rs' -o -name Cargo.toml -o -path 'tests/*/*' \) ! -name '*~' ! -name '*.new' \
        -printf '%p\t%T@\t%C@\t%s\n' 2>/dev/null | sort) || true
}

# Has anything been saved? If several files are, such as by git, they are one save.
was_saved() {
    local is before='' changed count
    is=$(files)
    [ "$is" != "$seen" ] || return 1
    until [ "$is" = "$before" ]; do
        before=$is
        pause 0.1
        is=$(files)
    done
    changed=$(comm -3 <(echo "$seen") <(echo "$is") | sed 's/^\t//')
    [ -n "$changed" ] || return 1
    seen=$is
    count=$(cut -f 1 <<<"$changed" | sort -u | wc -l)
    why="$(cut -f 1 <<<"$changed" | head -n 1) saved"
    [ "$count" = 1 ] || why="${why% saved} and $((count - 1)) more saved"
}

begin_round() {
    end_build
    # A guest that has this round's payload already is of no use any more.
    if [ "$phase" = testing ]; then
        end_guest
        boot_guest
    fi
    deaths=0
    tree=$(tree_of_now)
    # shellcheck disable=SC2034  # for report_on
    now=$(source_id "$tree") || now=unknown
    began=${EPOCHREALTIME//[^0-9]/}
    phase=building
    status "$why: building"
    set -m
    # Appended, for it may be emptied meanwhile.
    : >"$stage/said"
    build >>"$stage/said" 2>&1 </dev/null &
    builder=$!
    set +m
}

build_has_ended() {
    local ended=0
    wait "$builder" || ended=$?
    builder=''
    built=${EPOCHREALTIME//[^0-9]/}
    if [ $ended = 0 ]; then
        phase=built
        return
    fi
    clear_screen
    grep -vE '^ +(Compiling|Blocking|Finished|Updating|Locking|Downloading|Downloaded) |^vm: building ' "$stage/said" || true
    say_verdict "does not compile" "$(seconds "$began" "$built") s"
}

begin_tests() {
    given=${EPOCHREALTIME//[^0-9]/}
    phase=testing
    status "$why: built in $(seconds "$began" "$built") s, testing"
    give_payload
}

tests_have_ended() {
    local ended=0 verdict=green took
    took="built in $(seconds "$began" "$built") s, tested in $(seconds "$given" "${EPOCHREALTIME//[^0-9]/}") s"
    # Waiting for the guest is worth a word only if it could be noticed.
    [ $((given - built)) -lt 300000 ] || took=${took/,/, $(seconds "$built" "$given") s until the guest had booted,}
    clear_screen
    report_on sed '0,/^vm: ready$/d' "$box/log" || ended=$?
    # It is no sign any more that a guest is ready.
    : >"$box/log"
    [ $ended = 0 ] || verdict=red
    [ "$tests_told" != 0 ] || verdict="no quick test is left to run; all of them: make check DAY=$day"
    say_verdict "$verdict" "$took"
    # Its work is done, and the next one's begins.
    end_guest
    boot_guest
}

# A guest that ended before it had anything to say. Its round is repeated, but not forever:
# what is tested may be what ends it.
guest_has_died() {
    wait "$guest" 2>/dev/null || true
    if ! guest_is_ready; then failed_boots=$((failed_boots + 1)); else failed_boots=0; fi
    if [ $failed_boots -ge 3 ]; then
        cat "$box/log" >&2
        fail "the guest ended three times before it was ready; above is what it said"
    fi
    status "the guest has died; it is booted anew"
    end_guest
    if [ "$phase" = testing ]; then
        phase=built deaths=$((deaths + 1))
        if [ $deaths -ge 2 ]; then
            clear_screen
            tail -n 20 "$box/log"
            say_verdict "red: the guest dies of these tests" "tried twice"
        fi
    fi
    boot_guest
}

seconds() { # FROM TO, in microseconds
    local tenths=$((($2 - $1 + 50000) / 100000))
    echo "$((tenths / 10)).$((tenths % 10))"
}

clear_screen() {
    # What was there goes, and what was before it: the top is where one looks.
    if [ -n "$terminal" ]; then printf '\033[H\033[2J\033[3J'; else echo; fi
}

# On a terminal each takes the place of the one before.
status() { # TEXT
    if [ -n "$terminal" ]; then printf '\r\033[K%(%H:%M:%S)T  %s ' -1 "$1"; else printf '%(%H:%M:%S)T  %s\n' -1 "$1"; fi
}

say_verdict() { # VERDICT TIMES
    phase=waiting
    printf '\n%(%H:%M:%S)T  %s: %s (%s)\n' -1 "$why" "$1" "$2"
    [ "$1" != green ] || say_what_next
    if [ -n "$keys" ]; then
        echo "waiting for a save; q ends, r runs again"
    else
        echo "waiting for a save; Ctrl-C ends"
    fi
}

say_what_next() {
    if [ -n "$task" ]; then
        say_next_task "$day" "$task" watch
    else
        echo "All of the day, with its long tests and the days before: make check DAY=$day"
    fi
}

# Waits a moment, for a key too where there is a keyboard.
next_key() { # SECONDS
    local key='' ended=0
    if [ -z "$keys" ]; then
        pause "$1"
        return
    fi
    read -rsn 1 -t "$1" key || ended=$?
    # Not the end of the time, but the end of the keyboard.
    if [ $ended = 1 ]; then
        keys=''
    elif [ $ended = 0 ]; then
        case $key in
            q | Q) exit 0 ;;
            r | R | '')
                why="asked for"
                begin_round
                ;;
        esac
    fi
}

new_jobs
box=$stage/guest
# Whoever leaves temporary files when ended, such as rustc, leaves them there.
export TMPDIR=$stage
mkfifo "$stage/never"
exec {never}<>"$stage/never"
catch_signals
[ ! -t 1 ] || terminal=1
if [ -t 0 ]; then
    keys=$(stty -g)
    stty -echo -icanon
fi
# Here, where it is seen: with emulation all is slower.
"$vm/accel.sh" >/dev/null

seen=$(files)
why=started
boot_guest
begin_round
while true; do
    [ -d "$lab/src" ] || fail "there is no lab/ any more"
    if was_saved; then begin_round; fi
    # What has ended is no group any more.
    if [ -n "$guest" ] && ! kill -0 "$guest" 2>/dev/null && ! { [ "$phase" = testing ] && guest_is_done; }; then guest_has_died; fi
    case $phase in
        building)
            if ! kill -0 "$builder" 2>/dev/null; then
                build_has_ended
            elif grep -q '^waiting for another' "$stage/said"; then
                status "$why: $(sed -n '/^waiting for/{s/ Ctrl-C.*//p;q}' "$stage/said")"
                : >"$stage/said"
            fi
            ;;
        built) if guest_is_ready; then begin_tests; fi ;;
        testing) if guest_is_done; then tests_have_ended; fi ;;
    esac
    if [ "$phase" = waiting ]; then next_key 0.2; else next_key 0.1; fi
done
