#!/bin/bash
# days/reset.sh DAY: lab/src as it was when DAY began. What is there now is kept
# in a branch of lab's git, also what was never committed.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
day=${1:-}

require_day "$day" reset
require_lab "$day"
# How it was: as the day before was done; or, on the first day of all, as it began.
before=$(day_before "$day")
if git -C "$lab" rev-parse --quiet --verify "refs/lab/day$before" >/dev/null; then
    from=refs/lab/day$before
    when="when day $before was done"
else
    from=$(git -C "$lab" rev-list --max-parents=0 HEAD)
    when="when you started"
    [ "$(git -C "$lab" log -1 --format=%s "$from")" = "The start of day $day" ] ||
        fail "nobody knows how lab/ was when day $day began: day $before was never green here." \
            "Finish it: make check DAY=$before. Or start afresh beside it: mv lab lab.old; make start DAY=$day"
fi

branch=before-reset-$(date +%Y%m%d-%H%M%S)
# Two resets in one second keep two branches.
while git -C "$lab" rev-parse --quiet --verify "refs/heads/$branch" >/dev/null; do branch=$branch-again; done
echo "lab/src goes back to how it was $when. What is there now is kept in the branch $branch;"
echo "to have it again: git -C lab restore --source=$branch -- src"
if [ "${YES:-}" != 1 ]; then
    [ -t 0 ] || fail "nothing was changed: nobody is here to ask; make reset DAY=$day YES=1 does not ask"
    read -rp "Go on? [y/N] " answer
    [ "$answer" = y ] || fail "nothing was changed"
fi
git -C "$lab" branch "$branch" "$(commit_of "$(tree_of_now)" "As it was before a reset of day $day")"
git -C "$lab" restore --source="$from" --worktree -- src
