#!/bin/bash
# book/lint.sh: what mdbook does not check. Prints every finding as file:line.
#   - Rust and console blocks are one include each: nothing is pasted
#   - what is included exists, the anchor too
#   - relative links lead somewhere
#   - every transcript is shown somewhere
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
finding() {
    echo "$1" >&2
    found=1
}

# FILE:LINE of every code block of these languages that is not one include.
pasted=$(awk '
    /^```(rust|console)/ { block = FILENAME ":" FNR; lines = 0; other = 0; next }
    /^```/ { if (block && (other || lines != 1)) print block; block = ""; next }
    block { lines++; if ($0 !~ /^\{\{#include [^}]+\}\}$/) other = 1 }
' book/src/*.md)
for place in $pasted; do finding "$place: a rust or console block that is not one {{#include}}"; done

while IFS=: read -r file line include; do
    path=$(dirname "$file")/${include%%:*}
    anchor=
    case $include in *:*) anchor=${include#*:} ;; esac
    if [ ! -f "$path" ]; then
        finding "$file:$line: there is no $path to include"
    elif [ -n "$anchor" ] && ! grep -q "ANCHOR: $anchor\$" "$path"; then
        finding "$file:$line: there is no anchor $anchor in $path"
    fi
done < <(grep -no '{{#include [^}]*}}' book/src/*.md | sed 's/{{#include \(.*\)}}/\1/')

# [text](target): not those to the web, nor to a place on the same page.
while IFS=: read -r file line target; do
    case $file:$target in
        *: | *:http:* | *:https:* | *:mailto:*) continue ;;
        # The built book is elsewhere, and has no files but its own.
        book/src/*:../*) finding "$file:$line: a link out of the book: $target" ;;
    esac
    [ -e "$(dirname "$file")/$target" ] || finding "$file:$line: a link to $target, which is not there"
done < <(grep -noE '\]\([^)# ]+[^)]*\)' README.md book/src/*.md days/*/README.md vm/README.md | sed -E 's/\]\(([^)#]*)(#[^)]*)?\)/\1/')

for transcript in tests/transcripts/*; do
    grep -qF "${transcript}}}" book/src/*.md || finding "$transcript:1: no chapter shows this transcript"
done
exit $found
