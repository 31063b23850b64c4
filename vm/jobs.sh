# Sourced: builds crates with their tests, and runs the tests in the guest.
# shellcheck shell=bash
#
#   new_jobs
#   build() {
#       add_crate day3 "$repo" 3 && add_run green day3 &&
#           add_run red starter3 'not yet implemented: day 3, ' '' TINY_DOCKER_STAGE=3:0:99
#   }
#   run_while OUTDIR build
#
# The guests run what build has added, while it builds the next. For one crate alone there
# is run_jobs: one guest, which with boot_ahead before add_crate boots meanwhile.
#
# A run is tests of the crate that was added last, and what is expected of them:
# green, all pass; red, all fail and say REASON.

vm=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=days/days.sh
. "$vm/../days/days.sh"

new_jobs() {
    [ -z "${stage:-}" ] || rm -rf "$stage"
    stage=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-jobs.XXXXXX")
    # How many crates there will be: whoever knows says so.
    expected='' added=0
    # The guests that run; and the disk of one that was booted ahead, and waits.
    running=() ahead=''
    # Of run_while: what the guests have to do, their disk, how many MiB of it are in use.
    queue='' disk='' used=1 crate_added=''
    trap end_guests EXIT
    mkdir -p "$stage/crates"
    # A line for each test: CRATE PROGRAM TEST EXPECT JOB REASON VARIABLE, tabs between.
    : >"$stage/tests"
    "$vm/setup.sh"
    "$vm/build-image.sh"
}

# One guest more than there are processors, as far as memory goes: a test that waits for
# something leaves its processor to the others. But one, where their golden files must
# come together.
how_many_guests() {
    local memory guests=$(($(nproc) + 1))
    memory=$(awk '/^MemAvailable:/ { print int($2 / 1024 / 1024 / 2.5) }' /proc/meminfo)
    if [ "$guests" -gt 4 ]; then guests=4; fi
    if [ "$guests" -gt "$memory" ]; then guests=$memory; fi
    if [ "$guests" -lt 1 ] || [ -n "${TINY_DOCKER_UPDATE:-}" ]; then guests=1; fi
    echo "$guests"
}

# All that new_jobs began, whatever became of it.
end_guests() {
    local guest
    for guest in "${running[@]}"; do kill -- -"$guest" 2>/dev/null || true; done
    # A pipe's part is a shell of its own, and the stage is not its.
    [ "$BASHPID" != $$ ] || rm -rf "$stage"
}

# The built test programs of a crate, all or those that are named: `name path` lines.
# With them cargo builds the program itself.
build_tests() { # CRATE DAY [TEST-PROGRAMS]
    local log=$stage/build.log test only=()
    for test in ${3:-}; do only+=(--test "$test"); done
    # Warnings are errors here: a day compiles clean, a starter too. Not by
    # RUSTFLAGS, which would replace those of .cargo/config.toml.
    (cd "$1" && cargo --color never test --no-run --features "day$2" "${only[@]}" 2>&1 | tee "$log" | in_place "vm: building $crate_added$count") || {
        cat "$log" >&2
        echo "vm: the build of $1 for day $2 failed" >&2
        return 1
    }
    if grep -q '^warning' "$log"; then
        cat "$log" >&2
        echo "vm: the build of $1 for day $2 has warnings" >&2
        return 1
    fi
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$log" | while read -r path; do
        name=${path##*/}
        echo "${name%-*} $path"
    done
}

add_crate() { # NAME CRATE DAY [TEST-PROGRAMS]
    local name=$1 crate=$2 day=$3 wanted=${4:-} target program path began=$SECONDS
    local dir=$stage/crates/$name count=''
    hand_out || return
    crate_added=$name added=$((added + 1))
    [ -z "$expected" ] || count=" ($added of $expected)"
    # Where it is shown while it goes on, it is said only when it is done.
    [ -t 2 ] || echo "vm: building $name$count" >&2
    mkdir -p "$dir/tests" "$dir/data" || return
    build_tests "$crate" "$day" "$wanted" >"$stage/built" || return 1
    target=$(dirname "$(dirname "$(head -n 1 "$stage/built" | cut -d' ' -f2)")")
    case $target in /*) ;; *) target=$crate/$target ;; esac
    program=$target/tiny-docker
    # A copy, for the next day's build will overwrite it; without what only a debugger
    # reads, half the size.
    strip -o "$dir/program" "$program" || return
    # The second program, of day 18: where its tests look for it.
    [ "$day" -lt 18 ] || strip -o "$dir/tiny-runc" "$target/tiny-runc" || return
    while read -r test path; do
        case $path in /*) ;; *) path=$crate/$path ;; esac
        strip -o "$dir/tests/$test" "$path" || return
    done <"$stage/built"
    cp -R "$crate/tests/snapshots" "$crate/tests/transcripts" "$dir/data/" || return
    printf '%s=%q\n' crate "$crate" program "$program" >"$dir/places"
    [ ! -t 2 ] || printf 'vm: %s is built%s: %d s\n' "$name" "$count" $((SECONDS - began)) >&2
}

# FILTER is words for the test programs: beginnings of names, --exact, --skip.
# VARIABLE=VALUE is in the environment of the tests. PROGRAMS are words too; else all.
add_run() { # green|red JOB [REASON] [FILTER] [VARIABLE=VALUE] [PROGRAMS]
    local program
    # shellcheck disable=SC2086  # $4 and $6 are words
    for program in ${6:-$(ls "$stage/crates/$crate_added/tests")}; do
        program=$stage/crates/$crate_added/tests/$program
        "$program" --list --include-ignored ${4:-} 2>/dev/null | sed -n 's/: test$//p' |
            awk -v OFS='\t' -v crate="$crate_added" -v program="${program##*/}" -v expect="$1" -v job="$2" \
                -v reason="${3:--}" -v variable="${5:--}" '{ print crate, program, $0, expect, job, reason, variable }' || return
    done >"$stage/added"
    [ -s "$stage/added" ] || {
        echo "vm: $2 has no test" >&2
        return 1
    }
    cat "$stage/added" >>"$stage/tests"
}

# Boots the one guest that run_jobs will have. It waits for its payload.
boot_ahead() { # OUTDIR
    ahead=$stage/ahead.tar
    # As large as a payload can be; a file with a hole takes no room.
    truncate -s 4G "$ahead"
    boot "$ahead" "$1"
}

# Gives a guest that waits its payload. The first block comes last, and only if all
# others are there: by it the guest knows.
hand_over() { # PAYLOAD.tar
    dd if="$1" of="$ahead" bs=1M skip=512 seek=512 iflag=skip_bytes oflag=seek_bytes conv=notrunc status=none &&
        dd if="$1" of="$ahead" bs=512 count=1 conv=notrunc status=none
}

boot() { # PAYLOAD.tar OUTDIR [ANSWER...]: what reads what it says, and passes it on.
    local words=("${@:3}")
    [ $# -gt 2 ] || words=(cat)
    # A group of its own, so that all of a guest can be ended: its script, and QEMU.
    set -m
    # Emulated, all days take minutes. A guest that is ended before it had anything to
    # do, since cargo had, need not say so.
    (VM_TIMEOUT=${VM_TIMEOUT:-10800} "$vm/run.sh" "$1" "$2" 2> >(grep --line-buffered -v 'terminating on signal' >&2) |
        "${words[@]}" | whole_failures) &
    running+=($!)
    set +m
    # Again, for a pipe's part is a shell of its own, and inherits no trap.
    trap end_guests EXIT
    trap 'exit 130' INT TERM
}

# The tests of the one crate, in one guest.
run_jobs() { # OUTDIR
    prepare_guest
    rm -rf "$stage/crates"
    if [ -n "$ahead" ]; then
        hand_over "$stage/jobs.tar" || return
    else
        echo "vm: booting" >&2
        boot "$stage/jobs.tar" "$1"
    fi
    wait "${running[0]}"
}

# What COMMAND adds, in several guests, each of which asks for its next test when it has
# done one. They boot while the first crate is built, and test while the next one is.
# (COMMAND must end itself when something fails: nothing else does, within a condition.)
run_while() { # OUTDIR COMMAND...
    local number guest line ended=0 out=$1
    queue=$stage/queue disk=$stage/disk
    mkdir "$queue"
    payload_of_guest "$stage/jobs"
    tar -C "$stage/jobs" -cf "$disk" .
    # As large as all crates together can be; a file with a hole takes no room.
    truncate -s 64G "$disk"
    echo "vm: booting" >&2
    for number in $(seq "$(how_many_guests)"); do
        mkfifo "$stage/line$number"
        # Both ends, so that neither QEMU nor we wait for the other to open it.
        exec {line}<>"$stage/line$number"
        # Some begin with the longest, the others with the shortest: so not all wait at the
        # same time, and at the end none is left with a long one.
        VM_INPUT=$stage/line$number boot "$disk" "$out" answer "$line" $((number % 2))
    done
    { "${@:2}" && hand_out; } || return
    touch "$queue/closed"
    for guest in "${running[@]}"; do wait "$guest" || ended=$?; done
    return $ended
}

# The crate that was added last, and its tests, the longest first. How long a test takes is
# what it took here last; or, the first time, what its name says.
hand_out() {
    local size
    [ -n "$queue" ] && [ -d "$stage/crates/$crate_added/tests" ] || return 0
    tar -C "$stage" -cf "$stage/crate.tar" "crates/$crate_added" || return
    size=$((($(stat -c %s "$stage/crate.tar") + 1048575) / 1048576))
    dd if="$stage/crate.tar" of="$disk" bs=1M seek="$used" conv=notrunc status=none || return
    awk -F '\t' -v OFS='\t' -v known="$repo/target/test-seconds" -v crate="$crate_added" -v place="$used" -v size="$size" '
        BEGIN { while ((getline <known) > 0) seconds[$1, $2] = $3 }
        $1 == crate {
            guess = $4 == "red" ? 0.5 : $3 ~ /^task[0-9]+_long_|^transcripts/ ? 12 : 1
            print ($5, $3) in seconds ? seconds[$5, $3] : guess, $0, place, size
        }' "$stage/tests" | sort --stable -k 1,1rn | cut -f 2- >"$queue/new" || return
    mv "$queue/new" "$queue/$(printf %03d "$added")"
    used=$((used + size))
    rm -r "$stage/crate.tar" "$stage/crates/$crate_added"
}

# Passes on what a guest says; and where it asks, answers.
answer() { # FILE-DESCRIPTOR FROM-THE-TOP
    local said
    while IFS= read -r said; do
        if [ "$said" = "vm: next" ]; then next_test "$2" >&"$1"; else printf '%s\n' "$said"; fi
    done
}

# The next test that nobody has; or, when there will be no more, `end`.
next_test() { # FROM-THE-TOP
    until (
        flock 9
        for list in "$queue"/[0-9]*; do
            [ -s "$list" ] || continue
            if [ "$1" = 1 ]; then head -n 1 "$list" && sed -i 1d "$list"; else tail -n 1 "$list" && sed -i '$d' "$list"; fi
            exit
        done
        [ -e "$queue/closed" ] && echo end
    ) 9>>"$queue/lock"; do sleep 0.2; done
}

# The same, and how far it is.
run_while_with_progress() { # OUTDIR COMMAND...
    mkdir -p "$repo/target"
    run_while "$@" | live_awk -v tests="$stage/tests" -v closed="$stage/queue/closed" -v seconds="$repo/target/test-seconds" \
        -v tty="$([ -t 1 ] && echo 1)" -f "$vm/progress.awk"
}

# Keeps what a failed test said together: two guests write at the same time. In pieces of
# whole lines, none longer than what a pipe takes at once: in a longer one, a line of the
# other guest could end up in the middle of a line. (pipe(7), PIPE_BUF) By printf, for mawk
# writes the end of what it prints in a call of its own.
whole_failures() {
    live_awk '
        function say(text,    lines, count, line, piece) {
            count = split(text, lines, "\n")
            for (line = 1; line <= count; line++) {
                if (piece != "" && length(piece) + length(lines[line]) > 3000) { printf "%s", piece; fflush(); piece = "" }
                piece = piece lines[line] "\n"
            }
            printf "%s", piece
            fflush()
        }
        { sub(/\r$/, "") }
        failed && /^    / { block = block "\n" $0; next }
        failed { say(block); failed = 0 }
        / \.\.\. (FAILED|ok, at try)/ { block = $0; failed = 1; next }
        { say($0) }
        END { if (failed) say(block) }'
}

# Makes $stage/jobs.tar: the crate, and its tests.
prepare_guest() {
    local dir=$stage/jobs
    payload_of_guest "$dir"
    cp "$stage/tests" "$dir/payload/tests"
    cp -Rl "$stage/crates" "$dir/payload/crates"
    tar -C "$dir" -cf "$dir.tar" .
    rm -rf "$dir"
}

payload_of_guest() { # DIR
    mkdir -p "$1/payload"
    install -m 755 "$vm/guest-jobs" "$1/payload/run"
    {
        echo "export TEST_TIMEOUT=${TEST_TIMEOUT:-900} TEST_TRIES=${TEST_TRIES:-1} TINY_DOCKER_VM=1 TINY_DOCKER_ROOTFS=/rootfs CI=1 RUST_BACKTRACE=0"
        echo "export TINY_DOCKER_UPDATE=${TINY_DOCKER_UPDATE:-}"
        [ -z "${TINY_DOCKER_UPDATE:-}" ] || echo "unset CI; export INSTA_UPDATE=always"
    } >"$1/payload/env"
    # The guest's / gets this mode, and mktemp's would shut out all but root.
    chmod 755 "$1" "$1/payload"
}
