# Sourced: builds crates for jobs in the guest, and runs the jobs there.
# shellcheck shell=bash
#
#   new_jobs
#   add_job green solution-day3 "$repo" 3
#   add_job red starter-day2 "$lab" 2 'not yet implemented: day 2' day2_namespaces
#   run_jobs OUTDIR
#
# A job is a crate built with the features of one day, and what is expected of
# its tests: green, all pass; red, all fail and say REASON.

vm=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=days/days.sh
. "$vm/../days/days.sh"

new_jobs() {
    stage=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-jobs.XXXXXX")
    trap 'rm -rf "$stage"' EXIT
    mkdir -p "$stage/root/payload/jobs"
    job_number=10
    "$vm/setup.sh"
    "$vm/build-image.sh"
}

# The built test programs of a crate, and the program itself: `name path` lines.
build_tests() { # CRATE DAY
    local log=$stage/build.log
    # Warnings are errors here: a day compiles clean, a starter too. Not by
    # RUSTFLAGS, which would replace those of .cargo/config.toml.
    (cd "$1" && cargo --color never test --no-run --features "day$2" 2>"$log") || {
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
    build_tests "$crate" "$day" >"$stage/built" || return 1
    target=$(dirname "$(dirname "$(head -n 1 "$stage/built" | cut -d' ' -f2)")")
    case $target in /*) ;; *) target=$crate/$target ;; esac
    program=$target/tiny-docker
    # A copy, for the next day's build will overwrite it.
    cp "$program" "$dir/program"
    while read -r test path; do
        case $path in /*) ;; *) path=$crate/$path ;; esac
        if [ -z "$wanted" ] || [[ " $wanted " == *" $test "* ]]; then cp "$path" "$dir/tests/$test"; fi
    done <"$stage/built"
    cp -R "$crate/tests/snapshots" "$crate/tests/transcripts" "$dir/data/"
    printf '%s=%q\n' crate "$crate" program "$program" expect "$expect" reason "$reason" filter "$filter" >"$dir/job"
}

run_jobs() { # OUTDIR
    local root=$stage/root
    install -m 755 "$vm/guest-jobs" "$root/payload/run"
    {
        echo "export TINY_DOCKER_VM=1 TINY_DOCKER_ROOTFS=/rootfs CI=1 RUST_BACKTRACE=0"
        echo "export TINY_DOCKER_UPDATE=${TINY_DOCKER_UPDATE:-}"
        [ -z "${TINY_DOCKER_UPDATE:-}" ] || echo "unset CI; export INSTA_UPDATE=always"
    } >"$root/payload/env"
    # The guest's / gets this mode, and mktemp's would shut out all but root.
    chmod 755 "$root" "$root/payload"
    tar -C "$root" -cf "$stage/payload.tar" .
    rm -rf "$root"
    echo "vm: booting" >&2
    # Emulated, all days take ten minutes and more.
    VM_TIMEOUT=${VM_TIMEOUT:-3600} "$vm/run.sh" "$stage/payload.tar" "$1"
}
