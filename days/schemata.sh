#!/bin/bash
# days/schemata.sh DAY DIR: makes the crate DIR, in which every variant of DAY's code is
# one program: see schemata.awk.
set -euo pipefail
# shellcheck source=days/lab.sh
. "$(dirname "$(readlink -f "$0")")/lab.sh"
day=$1 dir=$2

mkdir -p "$dir"
copy_crate "$dir"
make_workspace "$dir"
set_version "$dir" "schemata$day"

work=$(mktemp -d "${TMPDIR:-/tmp}/tiny-docker-schemata.XXXXXX")
trap 'rm -rf "$work"' EXIT
for_now "$day" >"$work/for-now"
for patch in "$(folder_of "$day")"/wrong/*.patch; do
    name=$(basename "$patch" .patch)
    file=$(sed -n 's|^+++ b/||p' "$patch")
    [ "$(wc -l <<<"$file")" = 1 ] || fail "schemata: $patch changes more than one file"
    patch --quiet --output="$work/$name.rs" "$repo/$file" <"$patch"
    echo "$file $name=$work/$name.rs"
done >"$work/wrong"
while read -r file; do
    mapfile -t wrong < <(sed -n "s|^$file ||p" "$work/wrong")
    awk -v day="$day" -v for_now="$work/for-now" -f "$repo/days/schemata.awk" "$repo/$file" "${wrong[@]}" >"$dir/$file" ||
        fail "schemata: day $day, $file"
done < <(cd "$repo" && find src -name '*.rs')
cat "$repo/days/schemata.rs" >>"$dir/src/fault.rs"
# The environment says which variant it is, and the init gets another one.
init=$dir/src/stop/init.rs
sed -i 's/, &variables))$/, \&crate::fault::same_variant(variables.clone())))/' "$init"
grep -qF same_variant "$init" || fail "schemata: $init does not start the init as it did"
