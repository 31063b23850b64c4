#!/bin/bash
# days/mutants.sh <prove.log: the table of wrong solutions: what is wrong, which test
# caught it, and in what words. Fails if a message would help nobody.
set -euo pipefail
# shellcheck source=days/days.sh
. "$(dirname "$(readlink -f "$0")")/days.sh"

printf '| day | wrong solution | caught by | message |\n| --- | --- | --- | --- |\n'
count=0 mute=()
while read -r job test _ rest; do
    day=${job#wrong}
    day=${day%%-*}
    patch=${job#wrong*-}
    message=$(sed 's/ *([0-9.]* s).*$//; s/^red, as it must be:* *//' <<<"$rest")
    # An assertion that only quotes its own code, or nothing at all.
    case $message in
        "" | "assertion failed: "* | "called "*"unwrap()"*) mute+=("day $day, $patch: $message") ;;
    esac
    what=$(sed -n '2s/^# //p' "$repo"/days/day"$day"-*/wrong/"$patch.patch")
    message=${message//|/\\|}
    # shellcheck disable=SC2016  # the quotes are Markdown's
    printf '| %s | %s: %s | `%s` | `%s` |\n' "$day" "$patch" "$what" "$test" "${message//\`/\'}"
    count=$((count + 1))
done < <(sed 's|^ *[0-9]*/[0-9]*  ||' | grep '^wrong[0-9]*-.* \.\.\. red, as it must be' | sort -V)

patches=("$repo"/days/*/wrong/*.patch)
[ "$count" = ${#patches[@]} ] || {
    echo "mutants: $count of ${#patches[@]} wrong solutions were caught" >&2
    exit 1
}
printf '\n%d wrong solutions, each caught.\n' "$count"
[ ${#mute[@]} = 0 ] || {
    printf 'mutants: a message that helps nobody: %s\n' "${mute[@]}" >&2
    exit 1
}
