# Sourced: builds crates for jobs in the guest, and runs the jobs there.
# shellcheck shell=bash
#
#   new_jobs
#   add_job green solution-day3 "$repo" 3
#   add_job red starter-day2 "$lab" 2 'not yet implemented: day 2' day2_namespaces
#   run_jobs OUTDIR
#
# With boot_ahead before the first add_job the guest boots while they are built.
#
# A job is a crate built with the features of one day, and what is expected of
# its tests: green, all pass; red, all fail and say REASON.

vm=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=days/days.sh
. "$vm/../days/days.sh"

new_jobs() {
    stage=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-jobs.XXXXXX")
    # The guests that run; and the disk of one that was booted ahead, and waits.
    running=() ahead=''
    # Two guests at a time: the tests run one after the other, so each keeps one
    # processor busy. But one, where their golden files must come together.
    guests=2
    [ -z "${TINY_DOCKER_UPDATE:-}" ] || guests=1
    trap end_guests EXIT
    mkdir -p "$stage/root/payload/jobs"
    job_number=100
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
    (cd "$1" && cargo --color never test --no-run --features "day$2" "${only[@]}" 2>"$log") || {
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

add_job() { # green|red NAME CRATE DAY [REASON] [TEST-PROGRAMS] [FILTER]
    local expect=$1 name=$2 crate=$3 day=$4 reason=${5:-} wanted=${6:-} filter=${7:-} target program path
    local dir=$stage/root/payload/jobs/$((job_number++))-$name
    echo "vm: building $name (day $day)" >&2
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
    printf '%s=%q\n' crate "$crate" program "$program" expect "$expect" reason "$reason" filter "$filter" >"$dir/job"
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
    dd if="$1" of="$ahead" bs=512 skip=1 seek=1 conv=notrunc status=none &&
        dd if="$1" of="$ahead" bs=512 count=1 conv=notrunc status=none
}

boot() { # PAYLOAD.tar OUTDIR
    # A group of its own, so that all of a guest can be ended: its script, and QEMU.
    set -m
    # Emulated, all days take half an hour and more. One that is ended before it had
    # anything to do, since cargo had, need not say so.
    (VM_TIMEOUT=${VM_TIMEOUT:-3600} "$vm/run.sh" "$1" "$2" 2> >(grep --line-buffered -v 'terminating on signal' >&2) | whole_failures) &
    running+=($!)
    set +m
    # Again, for a pipe's part is a shell of its own, and inherits no trap.
    trap end_guests EXIT
    trap 'exit 130' INT TERM
}

run_jobs() { # OUTDIR
    local guest ended=0
    deal_jobs
    for guest in "$stage"/guest*; do prepare_guest "$guest"; done
    rm -rf "$stage/root"
    if [ -n "$ahead" ]; then
        hand_over "$stage/guest1.tar" || return
    else
        echo "vm: booting" >&2
        for guest in "$stage"/guest*.tar; do boot "$guest" "$1"; done
    fi
    for guest in "${running[@]}"; do wait "$guest" || ended=$?; done
    return $ended
}

# Keeps what a failed test said together: two guests write at the same time.
whole_failures() {
    live_awk '
        { sub(/\r$/, "") }
        failed && /^    / { block = block "\n" $0; next }
        failed { print block; failed = 0 }
        / \.\.\. FAILED/ { block = $0; failed = 1; next }
        { print; fflush() }
        END { if (failed) print block }'
}

# Gives each job to the guest that has least to do so far, the longest jobs first.
deal_jobs() {
    local guest least load=() count job
    for guest in $(seq "$guests"); do
        mkdir -p "$stage/guest$guest/payload/jobs"
        load[guest]=0
    done
    for job in "$stage"/root/payload/jobs/*; do
        # How long it takes: by how many test programs it has, or as a filter says, one.
        if grep -q "^filter=''" "$job/job"; then count=$(find "$job/tests" -type f | wc -l); else count=1; fi
        echo "$count $job"
    done | sort -rn >"$stage/by-length"
    while read -r count job; do
        least=1
        for guest in $(seq "$guests"); do
            if [ "${load[guest]}" -lt "${load[least]}" ]; then least=$guest; fi
        done
        load[least]=$((load[least] + count))
        mv "$job" "$stage/guest$least/payload/jobs/"
    done <"$stage/by-length"
    # With fewer jobs than guests, some have none.
    for guest in $(seq "$guests"); do rmdir "$stage/guest$guest/payload/jobs" 2>/dev/null && rm -r "$stage/guest$guest"; done
    return 0
}

prepare_guest() { # DIR: makes DIR.tar of it
    install -m 755 "$vm/guest-jobs" "$1/payload/run"
    {
        echo "export TEST_TIMEOUT=${TEST_TIMEOUT:-300} TINY_DOCKER_VM=1 TINY_DOCKER_ROOTFS=/rootfs CI=1 RUST_BACKTRACE=0"
        echo "export TINY_DOCKER_UPDATE=${TINY_DOCKER_UPDATE:-}"
        [ -z "${TINY_DOCKER_UPDATE:-}" ] || echo "unset CI; export INSTA_UPDATE=always"
    } >"$1/payload/env"
    # The guest's / gets this mode, and mktemp's would shut out all but root.
    chmod 755 "$1" "$1/payload"
    tar -C "$1" -cf "$1.tar" .
    rm -rf "$1"
}
