# Sourced by check.sh and watch.sh, after lab.sh: how tests ended, said to the learner
# and remembered for `make progress`.
# shellcheck shell=bash
#
# day, task, now, lab, checked, memory and repo are theirs.
# shellcheck disable=SC2154

# Does what its arguments say, which prints what the guest's jobs print, and says in a
# person's words how they end. How each test ended is remembered.
report_on() { # FUNCTION
    local number ended=0 color='' notes
    # Not in $stage, which goes with the guests.
    notes=$(mktemp -d)
    # Not within $(...), where stdout is a pipe.
    [ ! -t 1 ] || color=1
    for number in $(seq "$day"); do tasks_of "$number" | sed "s/^/$number\t/"; done >"$notes/tasks"
    promises_of "$day" >"$notes/promises"
    # The guest says "no" of what only waits for a later task. So it is for report.awk to say,
    # but of other days, where nothing waits.
    { "$@" || [ -z "${brief:-}" ]; } | live_awk -v lab="$checked" -v tasks="$notes/tasks" -v results="$notes/results" \
        -v promises="$notes/promises" -v today="$day" -v task_asked="${task:-}" -v open_tasks="$(open_tasks "$day" "$checked")" \
        -v color="$color" -v brief="${brief:-}" -v red_first="${red_first:-}" -f "$repo/days/report.awk" || ended=$?
    # shellcheck disable=SC2034  # for watch.sh
    tests_told=$(wc -l <"$notes/results")
    while read -r number; do remember "$number" "$notes/results"; done < <(cut -d' ' -f1 "$notes/results" | sort -u)
    rm -r "$notes"
    return $ended
}

# What to do after a task whose tests are green.
say_next_task() { # DAY TASK check|watch
    local next
    next=$(tasks_of "$1" | awk -F '\t' -v task="$2" '$1 > task' | sort -n | head -n 1)
    if [ -n "$next" ]; then
        echo "Task $2 is there. Next: task $(sed 's/\t/: /; s/\t.*//' <<<"$next"). make $3 DAY=$1 TASK=${next%%[[:space:]]*}"
    elif [ -n "$(open_tasks "$1" "$checked")" ]; then
        echo "Task $2 is there. Still to be written: task $(open_tasks "$1" "$checked")."
    else
        echo "Task $2 is there. All of the day, with its long tests and the days before: make check DAY=$1"
    fi
}

# Each line is a test and how it ended last; the first, which source that was: $now.
remember() { # DAY RESULTS
    local known=$memory/day$1
    touch "$known"
    {
        echo "$now"
        awk -v day="$1" 'NR == FNR { if ($1 == day) ended[$2] = $3; next }
            FNR > 1 && !($1 in ended) { print }
            END { for (test in ended) print test, ended[test] }' "$2" "$known"
    } >"$known.new"
    mv "$known.new" "$known"
}
