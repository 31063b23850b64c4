# Sourced: builds crates with their tests, and runs the tests in the guest.
# shellcheck shell=bash
#
#   new_jobs
#   add_crate day3 "$repo" 3
#   add_run green day3
#   add_run red starter3 'not yet implemented: day 3, ' '' TINY_DOCKER_STAGE=3:0:99
#   run_jobs OUTDIR
#
# With boot_ahead before the first add_crate the guest boots while it is built.
#
# A run is tests of the crate that was added last, and what is expected of them:
# green, all pass; red, all fail and say REASON.

vm=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=days/days.sh
. "$vm/../days/days.sh"

new_jobs() {
    stage=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-jobs.XXXXXX")
    # How many crates there will be: whoever knows says so.
    expected=
    # The guests that run; and the disk of one that was booted ahead, and waits.
    running=() ahead=''
    # Two guests at a time: the tests run one after the other, so each keeps one
    # processor busy. But one, where their golden files must come together.
    guests=2
    [ -z "${TINY_DOCKER_UPDATE:-}" ] || guests=1
    trap end_guests EXIT
    mkdir -p "$stage/crates"
    # A line for each test: CRATE PROGRAM TEST EXPECT JOB REASON VARIABLE, tabs between.
    : >"$stage/tests"
    "$vm/setup.sh"
    "$vm/build-image.sh"
}

# All that new_jobs began, whatever became of it.
end_guests() {
    local guest
    for guest in "${running[@]}"; do kill -- -"$guest" 2>/dev/null || true; done
    rm -rf "$stage"
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
    crate_added=$name
    [ -z "$expected" ] || count=" ($(($(find "$stage/crates" -mindepth 1 -maxdepth 1 | wc -l) + 1)) of $expected)"
    # Where it is shown while it goes on, it is said only when it is done.
    [ -t 2 ] || echo "vm: building $name$count" >&2
    mkdir -p "$dir/tests" "$dir/data"
    build_tests "$crate" "$day" "$wanted" >"$stage/built" || return 1
    target=$(dirname "$(dirname "$(head -n 1 "$stage/built" | cut -d' ' -f2)")")
    case $target in /*) ;; *) target=$crate/$target ;; esac
    program=$target/tiny-docker
    # A copy, for the next day's build will overwrite it; without what only a debugger
    # reads, half the size.
    strip -o "$dir/program" "$program"
    while read -r test path; do
        case $path in /*) ;; *) path=$crate/$path ;; esac
        strip -o "$dir/tests/$test" "$path"
    done <"$stage/built"
    cp -R "$crate/tests/snapshots" "$crate/tests/transcripts" "$dir/data/"
    printf '%s=%q\n' crate "$crate" program "$program" >"$dir/places"
    [ ! -t 2 ] || printf 'vm: %s is built%s: %d s\n' "$name" "$count" $((SECONDS - began)) >&2
}

# FILTER is words for the test programs: beginnings of names, --exact, --skip.
# VARIABLE=VALUE is in the environment of the tests.
add_run() { # green|red JOB [REASON] [FILTER] [VARIABLE=VALUE]
    local program
    for program in "$stage/crates/$crate_added"/tests/*; do
        # shellcheck disable=SC2086  # $4 is words
        "$program" --list --include-ignored ${4:-} 2>/dev/null | sed -n 's/: test$//p' |
            awk -v OFS='\t' -v crate="$crate_added" -v program="${program##*/}" -v expect="$1" -v job="$2" \
                -v reason="${3:--}" -v variable="${5:--}" '{ print crate, program, $0, expect, job, reason, variable }'
    done >"$stage/added"
    [ -s "$stage/added" ] || {
        echo "vm: $2 has no test" >&2
        return 1
    }
    cat "$stage/added" >>"$stage/tests"
}

# Boots the one guest that the jobs to come will have. It waits for its payload.
boot_ahead() { # OUTDIR
    guests=1
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

boot() { # PAYLOAD.tar OUTDIR
    # A group of its own, so that all of a guest can be ended: its script, and QEMU.
    set -m
    # Emulated, all days take minutes. A guest that is ended before it had anything to
    # do, since cargo had, need not say so.
    (VM_TIMEOUT=${VM_TIMEOUT:-10800} "$vm/run.sh" "$1" "$2" 2> >(grep --line-buffered -v 'terminating on signal' >&2) | whole_failures) &
    running+=($!)
    set +m
    # Again, for a pipe's part is a shell of its own, and inherits no trap.
    trap end_guests EXIT
    trap 'exit 130' INT TERM
}

run_jobs() { # OUTDIR
    local number ended=0
    deal_tests
    for number in $(seq "$guests"); do [ ! -s "$stage/tests.$number" ] || prepare_guest "$number"; done
    rm -rf "$stage/crates"
    if [ -n "$ahead" ]; then
        hand_over "$stage/guest1.tar" || return
    else
        echo "vm: booting" >&2
        for number in "$stage"/guest*.tar; do boot "$number" "$1"; done
    fi
    for number in "${running[@]}"; do wait "$number" || ended=$?; done
    return $ended
}

# The same, and how far it is.
run_jobs_with_progress() { # OUTDIR
    mkdir -p "$repo/target"
    run_jobs "$1" | live_awk -v tests="$stage/tests" -v seconds="$repo/target/test-seconds" \
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
        / \.\.\. FAILED/ { block = $0; failed = 1; next }
        { say($0) }
        END { if (failed) say(block) }'
}

# Gives each test to the guest that has least to do so far, the longest first: $stage/tests
# becomes tests.1 and tests.2, each in the order of the whole. How long a test takes is
# what it took here last; or, the first time, what its name says.
deal_tests() {
    awk -F '\t' -v OFS='\t' -v known="$repo/target/test-seconds" '
        BEGIN { while ((getline <known) > 0) seconds[$1, $2] = $3 + 0.1 }
        {
            guess = $4 == "red" ? 0.5 : $3 ~ /^task[0-9]+_long_|^transcripts/ ? 12 : 1
            print ($5, $3) in seconds ? seconds[$5, $3] : guess, NR, $0
        }' "$stage/tests" | sort -k 1,1rn |
        awk -F '\t' -v guests="$guests" '{
            least = 1
            for (guest = 2; guest <= guests; guest++) if (load[guest] < load[least]) least = guest
            load[least] += $1
            print least "\t" $0
        }' | sort -t "$(printf '\t')" -k 3,3n >"$stage/dealt"
    local number
    for number in $(seq "$guests"); do
        awk -v guest="$number" '$1 == guest' "$stage/dealt" | cut -f 4- >"$stage/tests.$number"
    done
}

prepare_guest() { # NUMBER: makes $stage/guestNUMBER.tar
    local dir=$stage/guest$1 crate program
    mkdir -p "$dir/payload/crates"
    install -m 755 "$vm/guest-jobs" "$dir/payload/run"
    cp "$stage/tests.$1" "$dir/payload/tests"
    # Of each crate the test programs that this guest has tests of.
    cut -f 1,2 "$stage/tests.$1" | sort -u | while read -r crate program; do
        mkdir -p "$dir/payload/crates/$crate/tests"
        cp -Rln "$stage/crates/$crate"/{program,places,data} "$dir/payload/crates/$crate/"
        ln "$stage/crates/$crate/tests/$program" "$dir/payload/crates/$crate/tests/"
    done
    {
        echo "export TEST_TIMEOUT=${TEST_TIMEOUT:-900} TINY_DOCKER_VM=1 TINY_DOCKER_ROOTFS=/rootfs CI=1 RUST_BACKTRACE=0"
        echo "export TINY_DOCKER_UPDATE=${TINY_DOCKER_UPDATE:-}"
        [ -z "${TINY_DOCKER_UPDATE:-}" ] || echo "unset CI; export INSTA_UPDATE=always"
    } >"$dir/payload/env"
    # The guest's / gets this mode, and mktemp's would shut out all but root.
    chmod 755 "$dir" "$dir/payload"
    tar -C "$dir" -cf "$dir.tar" .
    rm -rf "$dir"
}
