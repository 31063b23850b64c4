#!/bin/bash
# book/lint.sh: what mdbook does not check. Prints every finding as file:line.
#   - Rust and console blocks are one include each: nothing is pasted
#   - what is included exists, the anchor too
#   - relative links lead somewhere
#   - every transcript is shown somewhere
#   - book/README.md lists every chapter
#   - an exercise has its title, folded answers, and each task its commands
#   - man pages are links, and no page runs code on a server
#   - the text of every picture can be read on a phone
#   - nothing is phrased as it would be in a translation
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
# Whatever may have a link in it.
pages=(README.md CONTRIBUTING.md book/README.md book/src/*.md days/*/README.md vm/README.md)
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
        # GitHub's page of the deployments: not a file, but next to the files' own.
        *:*/deployments/github-pages)
            [ "$(realpath -m "/OWNER/REPO/blob/BRANCH/$(dirname "$file")/$target")" = /OWNER/REPO/deployments/github-pages ] ||
                finding "$file:$line: $target does not lead to /OWNER/REPO/deployments on GitHub"
            continue
            ;;
        # The built book is elsewhere, and has no files but its own.
        book/src/*:../*) finding "$file:$line: a link out of the book: $target" ;;
    esac
    [ -e "$(dirname "$file")/$target" ] || finding "$file:$line: a link to $target, which is not there"
done < <(grep -noE '\]\([^)# ]+[^)]*\)' "${pages[@]}" | sed -E 's/\]\(([^)#]*)(#[^)]*)?\)/\1/')

# [text](page.md#section): a heading of that page, as mdbook names it.
# shellcheck disable=SC2046  # a page that is included: none, or one
# Headings, and the glossary's terms (the line before one that begins with ": ").
sections_of() {
    cat "$1" $(sed -n "s|^{{#include \(.*\.md\)}}|$(dirname "$1")/\1|p" "$1") |
        awk '/^##* / { sub(/^##* /, ""); print } /^: / { print before } { before = $0 }' |
        tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9_ -]//g; s/ /-/g'
}
while IFS=: read -r file line target; do
    page=$(dirname "$file")/${target%%#*}
    [ -n "${target%%#*}" ] || page=$file
    case $target in http*) continue ;; esac
    sections_of "$page" 2>/dev/null | grep -qxF -e "${target#*#}" || finding "$file:$line: there is no section #${target#*#} in $page"
done < <(grep -noE '\]\([^) ]*#[^)]+\)' "${pages[@]}" | sed -E 's/\]\(([^)]*)\)/\1/')

# Chapter: [a section](../../book/src/CHAPTER.md#a-section), [another](…) - of a task.
while IFS=: read -r file line _ sections; do
    while IFS='|' read -r section chapter; do
        [ -n "$chapter" ] || { finding "$file:$line: \"$section\" is not a link to a section of a chapter"; continue; }
        grep -qxF "### $section" "book/src/$chapter" || finding "$file:$line: book/src/$chapter has no section \"$section\""
    done < <(sed 's/), \[/)\n[/g; s/\*, \*/*\n*/g' <<<"$sections" |
        sed -E 's|^ *\[(.*)\]\(\.\./\.\./book/src/(.*\.md)#[^)]*\)\.?$|\1\|\2|')
done < <(grep -n '^Chapter: ' days/*/README.md)
# Each task has such a line; what a learner is told to read comes from there.
for exercise in days/*/README.md; do
    tasks=$(grep -c '^## Task ' "$exercise") || true
    [ "$(grep -c '^Chapter: ' "$exercise")" = "$tasks" ] || finding "$exercise:1: not each of its $tasks tasks has a line 'Chapter: *section*'"
done

# What an exercise and its chapter have in common: invariants stand in the chapter alone,
# questions in the exercise alone, each with its answer folded under it.
for exercise in days/*/README.md; do
    folder=$(basename "$(dirname "$exercise")")
    day=${folder%%-*}
    day=${day#day}
    [ "$(head -n 1 "$exercise")" = "# Day $day: exercises" ] || finding "$exercise:1: its title is not \"Day $day: exercises\""
    grep -qx '## Invariants' "book/src/$folder.md" || finding "book/src/$folder.md:1: no section \"Invariants\""
    while IFS=: read -r line section; do
        finding "$exercise:$line: \"$section\" belongs into the chapter alone"
    done < <(grep -nE '^## (Invariants|What passing does not prove)' "$exercise")
    while IFS=: read -r line question; do
        finding "$exercise:$line: a question without a folded answer: $question"
    done < <(awk '/^## / { inside = /^## Predict/ } inside && /^[0-9][.] / { print FNR ":" $0 }' "$exercise")
    while read -r task; do
        for command in check watch hint; do
            sed -n "/^## Task $task:/,/^## /p" "$exercise" | grep -F "make $command DAY=$day TASK=$task" >/dev/null ||
                finding "$exercise:$(grep -n "^## Task $task:" "$exercise" | cut -d : -f 1): task $task does not say make $command DAY=$day TASK=$task"
        done
    done < <(sed -n 's/^## Task \([0-9]*\):.*/\1/p' "$exercise")
done

# Whoever comes by GitHub finds every chapter in book/README.md, by its title.
while read -r title; do
    grep -qF -- "| $title |" book/README.md || finding "book/README.md:1: no line for the chapter \"$title\""
done < <(sed -nE 's/^(- )?\[(.*)\]\(.*/\2/p' book/src/SUMMARY.md)

# The pictures that scripts draw.
drawn() { # SCRIPT INPUT PICTURE
    LC_ALL=C awk -f "$1" "$2" | cmp -s - "$3" ||
        finding "$3:1: not what $2 says now; draw it anew: head of $1"
}
drawn book/screen.awk tests/transcripts/day9-readme.console book/src/pictures/screen.svg
drawn book/one-run.awk tests/snapshots/golden__explain_day9.snap book/src/pictures/one-run.svg

# A picture is shown in its own size, 760 wide, also on a phone. So its text is what it says.
for picture in book/src/pictures/*.svg; do
    small=$(grep -noE 'font-size(=|: *)"?([0-9]|1[01])(\.[0-9]+)?(px|"|;)' "$picture" | head -n 1) || true
    [ -z "$small" ] || finding "$picture:${small%%:*}: text smaller than 12 px: ${small#*:}"
    case $picture in */screen.svg) continue ;; esac
    grep -q 'viewBox="0 0 760 [0-9]*" class="picture"' "$picture" || finding "$picture:1: not drawn for a width of 760: viewBox=\"0 0 760 …\" class=\"picture\""
    name=$(basename "$picture")
    grep -qF "$name" book/src/*.md || finding "$picture:1: no page shows it"
done
while IFS=: read -r file line _; do
    finding "$file:$line: a rust block that mdbook would let run on a server: say rust,noplayground"
done < <(grep -nE '^```rust($|,)' book/src/*.md | grep -v noplayground)

# Prose: what stands in no code block, without its code spans.
prose() {
    awk '
        FNR == 1 { block = 0 }
        /^ *```/ { block = !block; next }
        !block { gsub(/`[^`]*`/, "`"); print FILENAME ":" FNR ":" $0 }
    ' "$@"
}
# clone(2): a link, [clone(2)] with its address at the end of the page.
man_page='(^|[^][a-z0-9_.(/])[a-z_][a-z0-9_.-]*\([1-8]\)($|[^]])'
while IFS=: read -r file line rest; do
    finding "$file:$line: a man page that is no link: $(grep -oE "$man_page" <<<"$rest" | head -n 1)"
done < <(prose book/src/*.md | grep -v '\]: http' | grep -E "$man_page")
# shellcheck disable=SC2016  # backticks of Markdown
while IFS=: read -r file line _; do
    finding "$file:$line: a man page as code, and no link"
done < <(grep -nE '`[a-z_][a-z0-9_.-]*\([1-8]\)`' book/src/*.md)
while IFS=: read -r file line page; do
    grep -qF "$page: https://" "$file" || finding "$file:$line: $page has no address at the end of the page"
done < <(grep -noE '\[[a-z_][a-z0-9_.-]*\([1-8]\)\]([^(]|$)' book/src/*.md | sed -E 's/\][^]]*$/]/')

# What gives away that a sentence was thought in another language; style: CONTRIBUTING.md.
foreign='\bfor ever\b|\bleav(e|es|ing) ([^ ]+ ){1,3}away\b|\bms .*in the middle\b|\bnobody looks([.,;:]| at\b| again\b)|it is they that|\bwho (comes|began|begins|starts|reads|is at|does not know|was stuck|is fast|has become)\b.*[,;] |\bfree of doubt\b|\bto the dot\b'
while IFS=: read -r file line rest; do
    finding "$file:$line: reads like a translation: $(grep -oiE -m 1 "$foreign" <<<"$rest" | head -n 1)"
done < <(prose README.md CONTRIBUTING.md book/README.md book/src/*.md days/*/README.md days/*/hints.md vm/README.md | grep -iE "$foreign"
    grep -rniE '//.*\bfor ever\b|//.*it is they that|//.*\bnobody looks[.,;:]|//.*leave .* away' src tests --include='*.rs' || true)

for transcript in tests/transcripts/*; do
    grep -qF "${transcript}}}" book/src/*.md || finding "$transcript:1: no chapter shows this transcript"
done
exit $found
