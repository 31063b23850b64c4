#!/bin/bash
# days/solution.sh DAY: the answer of a day: what is in the place of its stubs.
# Shown as a difference, and put nowhere.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
day=${1:-}

require_day "$day" solution
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for side in starter solution; do
    [ $side = starter ] && first=$day || first=$((day + 1))
    write_sources "$work/$side" -v day="$first"
done
cd "$work"
# 1: there are differences, as there must be.
git --no-pager diff --no-index --no-prefix "$([ -t 1 ] && echo --color=always || echo --color=never)" starter solution || [ $? = 1 ]
