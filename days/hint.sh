#!/bin/bash
# days/hint.sh DAY TASK: one hint more for a task, each time.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
day=${1:-} task=${2:-}

require_day "$day" hint
tasks_of "$day" | cut -f 1 | grep -qx -e "$task" ||
    fail "which task? day $day has the tasks $(tasks_of "$day" | cut -f 1 | xargs), such as: make hint DAY=$day TASK=1"
require_lab "$day"

mapfile -t hints < <(awk -v heading="## Task $task" '
    /^## / { here = $0 == heading }
    here && /^[0-9]+\. / { sub(/^[0-9]+\. /, ""); print }
' "$(folder_of "$day")/hints.md")
[ ${#hints[@]} -gt 0 ] || fail "task $task of day $day needs no code, and has no hints."

mkdir -p "$memory"
shown=$(cat "$memory/hints-day$day-task$task" 2>/dev/null || echo 0)
if [ "$shown" -lt ${#hints[@]} ]; then
    shown=$((shown + 1))
    echo "$shown" >"$memory/hints-day$day-task$task"
else
    last=" This was the last. The answer: make solution DAY=$day"
fi
for ((number = 1; number <= shown; number++)); do
    printf '%d of %d: %s\n' "$number" ${#hints[@]} "${hints[number - 1]}" | fold -s -w 88 | sed '2,$s/^/        /'
done
[ -z "${last:-}" ] || printf '\n%s\n' "${last# }"
