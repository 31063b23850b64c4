# Sourced by every script that needs to know where the repo is and which days
# there are.
# shellcheck shell=bash

repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
export PATH=$PATH:$HOME/.cargo/bin

# The days that exist, from the features of Cargo.toml: 1 2 3 ...
all_days() { sed -n 's/^day\([0-9]*\)-.*/\1/p' "$repo/Cargo.toml" | sort -n; }

newest_day() { all_days | tail -n 1; }

# Ends the script unless its argument is a day that exists.
require_day() { # DAY MAKE-TARGET
    if ! all_days | grep -qx -e "$1"; then
        echo "which day? expected DAY=1 to DAY=$(newest_day), such as: make $2 DAY=1" >&2
        exit 1
    fi
}
