# Sourced by check.sh and watch.sh, after lab.sh: how tests ended, said to the learner
# and remembered for `make progress`.
# shellcheck shell=bash
#
# day, now, lab, memory and repo are theirs.
# shellcheck disable=SC2154

# Does what its arguments say, which prints what the guest's jobs print, and says in a
# person's words how they end. How each test ended is remembered.
report_on() { # FUNCTION
    local number ended=0 color=''
    # Not within $(...), where stdout is a pipe.
    [ ! -t 1 ] || color=1
    for number in $(seq "$day"); do tasks_of "$number" | sed "s/^/$number\t/"; done >"$memory/tasks"
    "$@" | live_awk -v lab="$lab" -v tasks="$memory/tasks" -v results="$memory/new" \
        -v color="$color" -v brief="${brief:-}" -v red_first="${red_first:-}" -f "$repo/days/report.awk" || ended=$?
    while read -r number; do remember "$number"; done < <(cut -d' ' -f1 "$memory/new" | sort -u)
    return $ended
}

# Each line is a test and how it ended last; the first, which source that was: $now.
remember() { # DAY
    local known=$memory/day$1
    touch "$known"
    {
        echo "$now"
        awk -v day="$1" 'NR == FNR { if ($1 == day) ended[$2] = $3; next }
            FNR > 1 && !($1 in ended) { print }
            END { for (test in ended) print test, ended[test] }' "$memory/new" "$known"
    } >"$known.new"
    mv "$known.new" "$known"
}
