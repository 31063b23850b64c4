# Sourced by every script that needs to know where the repo is and which days
# there are.
# shellcheck shell=bash

repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
export PATH=$PATH:$HOME/.cargo/bin

# The days that exist, from the features of Cargo.toml: 1 2 3 ...
all_days() { sed -n 's/^day\([0-9]*\)-.*/\1/p' "$repo/Cargo.toml" | sort -n; }

newest_day() { all_days | tail -n 1; }

# The days beside DAY that have an exercise; nothing, if there is none. (Day 10 has none.)
day_before() { all_days | awk -v day="$1" '$1 < day { before = $1 } END { if (before) print before }'; } # DAY
day_after() { all_days | awk -v day="$1" '$1 > day && !found { print; found = 1 }'; }                   # DAY

# Ends the script unless its argument is a day that exists.
require_day() { # DAY MAKE-TARGET
    if ! all_days | grep -qx -e "$1"; then
        echo "which day? expected DAY=1 to DAY=$(newest_day), such as: make $2 DAY=1" >&2
        exit 1
    fi
}

# The sources that are built for DAY: the heart, and the folders up to that day's.
sources_up_to() { # DAY DIR
    echo "$2"/src/*.rs
    awk -v day="$1" -v src="$2/src/" '
        /^#\[cfg\(feature = "day/ { number = $0; sub(/.*"day/, "", number); number += 0 }
        /^pub mod / && number && number <= day { sub(/;/, "", $3); print src $3 }
        /^pub mod / { number = 0 }' "$repo/src/lib.rs"
}

# The test programs of the days FIRST to LAST: day1_cli day2_namespaces ...
test_programs() { # FIRST LAST
    local day
    for ((day = $1; day <= $2; day++)); do basename --suffix=.rs "$repo"/tests/day"$day"_*.rs; done
}

# The test programs that are compared with what is written down of DAY: what people read, and which
# ways out of a container there are: on day 3, and on all days from there on with LONG=1, or where
# that is to be written anew. (The newest day has every program.)
programs_of_every_day() { # DAY
    echo golden
    if [ "$1" = 3 ] || { [ "$1" -gt 3 ] && [ -n "${LONG:-}${TINY_DOCKER_UPDATE:-}" ]; }; then echo museum; fi
}

# On a terminal shows what comes, each line in the place of the one before, and nothing at
# the end; in a log nothing.
in_place() { # TITLE
    if [ -t 2 ]; then
        live_awk -v title="$1" -v columns="$(tput cols 2>/dev/null || echo 80)" '
            { gsub(/\033\[[0-9;]*m|\r/, ""); printf "\r\033[K%s", substr(title ": " $0, 1, columns - 1) >"/dev/stderr" }
            END { printf "\r\033[K" >"/dev/stderr" }'
    else
        cat >/dev/null
    fi
}

# Runs a build, whose words are shown in_place; all of them if it fails.
quietly() { # TITLE COMMAND...
    local title=$1 log ended=0
    shift
    log=$(mktemp)
    "$@" 2>&1 | tee "$log" | in_place "$title" || ended=$?
    [ $ended = 0 ] || cat "$log" >&2
    rm "$log"
    return $ended
}

# awk, which says each line when it comes. Debian's, mawk, else waits for many.
# Not `| grep -q`, which ends before all is written: with pipefail that is a "no" now and then.
live_awk() {
    case $(awk -W version 2>&1 </dev/null) in
        mawk*) awk -W interactive "$@" ;;
        *) awk "$@" ;;
    esac
}

# All of the repo that a learner works with, in DIR, to be tried out there.
copy_repo() { # DIR
    mkdir -p "$1/vm" "$1/book/src"
    copy_crate "$1"
    cp -R "$repo"/{Makefile,days} "$1/"
    find "$repo/vm" -maxdepth 1 -type f -exec cp {} "$1/vm/" \;
    # Built when it is missing, and used by both.
    "$repo/vm/build-image.sh"
    ln -s "$repo/vm/image" "$1/vm/image"
    cp "$repo"/book/src/*.md "$1/book/src/"
}

# What of the repo makes a crate of its own.
copy_crate() { # DIR
    cp -R "$repo"/{Cargo.toml,Cargo.lock,.cargo,clippy.toml,rustfmt.toml,src,tests,benches} "$1/"
    # The crate's manifest names it, and cargo wants it there.
    install -D "$repo/book/manual.rs" "$1/book/manual.rs"
    # A script that the tests bring along.
    install -D "$repo/days/day9-net/broken.sh" "$1/days/day9-net/broken.sh"
}
