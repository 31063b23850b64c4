# Sourced by the scripts that work on lab/, the learner's crate.
# shellcheck shell=bash

# shellcheck source=days/days.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/days.sh"

lab=$repo/lab
# What we remember of the learner: hints that were shown, results. Not in his git.
# shellcheck disable=SC2034  # for those who source this
memory=$lab/.lab

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

require_lab() { # DAY
    [ -d "$lab/.git" ] || fail "there is no lab/ yet; make it first: make start DAY=$1"
}

# Without a task, all of the day is meant.
require_task() { # DAY [TASK]
    [ -z "$2" ] || tasks_of "$1" | cut -f 1 | grep -qx -e "$2" ||
        fail "there is no task $2; day $1 has the tasks $(tasks_of "$1" | cut -f 1 | xargs)"
}

# days/dayN-name, and the chapter's page.
folder_of() { echo "$repo"/days/day"$1"-*; }
chapter_of() { echo "book/src/$(basename "$(folder_of "$1")").md"; }

# A day's tasks as its exercise has them: NUMBER, title, the chapter's sections,
# with tabs between.
tasks_of() { # DAY
    awk -F ': ' -v OFS='\t' '
        /^## Task [0-9]+: / { number = $1; sub(/.* /, "", number); title = substr($0, length($1) + 3) }
        /^Chapter: / && number {
            sections = substr($0, 10)
            # [section](its place) becomes *section*.
            gsub(/\]\([^)]*\)/, "*", sections); gsub(/\[/, "*", sections)
            print number, title, sections; number = ""
        }
    ' "$(folder_of "$1")/README.md"
}

# What the exercise says to put in the place of a todo!() until its task has come:
# FUNCTION and code, with a tab between. From the table "| body | for now |".
for_now() { # DAY
    awk -F '(^| )[|]( |$)' -v OFS='\t' '
        /^[|] body [|] for now [|]$/ { inside = 1; next }
        !/^[|]/ { inside = 0 }
        inside && /`/ {
            code = $3; sub(/^`/, "", code); sub(/`.*/, "", code); gsub(/\\[|]/, "|", code)
            count = split($2, names, /, */)
            for (i = 1; i <= count; i++) { gsub(/`/, "", names[i]); print names[i], code }
        }
    ' "$(folder_of "$1")/README.md"
}

# The tests that the exercise says a task turns green: those that its line "Green: "
# names, up to a bracket. `taskK_…` means those of the task which no other line names.
green_after() { # DAY TASK
    awk -v task="$2" '
        FILENAME ~ /[.]rs$/ { if (match($0, /^fn task[a-z0-9_]+/)) test[++tests] = substr($0, 4, RLENGTH - 3); next }
        /^## / { current = $0; sub(/^## Task /, "", current); current += 0 }
        /^Green: / && current {
            sub(/\(.*/, "")
            while (match($0, /`task[a-z0-9_]+(…)?`/)) {
                word = substr($0, RSTART + 1, RLENGTH - 2)
                $0 = substr($0, RSTART + RLENGTH)
                if (sub(/…$/, "", word)) prefix[current] = prefix[current] " " word
                else named[word] = current
            }
        }
        END {
            for (i = 1; i <= tests; i++) {
                if (test[i] in named) { if (named[test[i]] == task) print test[i]; continue }
                count = split(prefix[task], words, " ")
                for (j = 1; j <= count; j++) if (index(test[i], words[j]) == 1) { print test[i]; break }
            }
        }' "$repo"/tests/day"$1"_*.rs "$(folder_of "$1")/README.md"
}

# Makes the crate DIR a workspace of its own, in which what a stub does not use yet is no
# mistake.
make_workspace() { # DIR
    printf '\n[workspace]\n' >>"$1/Cargo.toml"
    sed -i 's/^\[lints\.rust\]$/&\nunused = { level = "allow", priority = -1 }/' "$1/Cargo.toml"
}

# Gives the crate DIR a version of its own. Cargo tells the packages of one target folder
# apart by name and version, and not by their place: it would take one for the other.
set_version() { # DIR NAME
    sed -i "0,/^version = .*/s//version = \"0.0.0-$2\"/" "$1/Cargo.toml"
    sed -i "/^name = \"tiny-docker-rs\"\$/{n;s/.*/version = \"0.0.0-$2\"/}" "$1/Cargo.lock"
}

# Writes DIR/src: the repo's sources as starter.awk makes starters of them.
write_sources() { # DIR AWK-VARIABLES...
    local dir=$1 file
    shift
    while read -r file; do
        mkdir -p "$(dirname "$dir/$file")"
        awk "$@" -f "$repo/days/starter.awk" "$repo/$file" >"$dir/$file"
    done < <(cd "$repo" && find src -name '*.rs')
}

# One check at a time: two would build into one target folder, and remember in one memory.
# Says what it waits for. The lock goes with this process.
one_at_a_time() { # WHAT
    mkdir -p "$memory"
    exec {lab_lock}>>"$memory/lock"
    if ! flock --nonblock "$lab_lock"; then
        echo "waiting for another one that works on lab/: $(cat "$memory/lock"). Ctrl-C gives up." >&2
        flock "$lab_lock"
    fi
    printf '%s, since %(%H:%M)T\n' "$1" -1 >"$memory/lock"
}

another_may_go_on() { exec {lab_lock}>&-; }

# Puts TREE, one of git's, into $checked: what is tested stays as it was when the check
# began, whatever is saved meanwhile. Only what differs is written, so that cargo builds
# no more than it must.
checked=$memory/checked
check_out() { # TREE
    mkdir -p "$checked"
    # The version is ours, see below.
    rm -f "$checked/Cargo.toml" "$checked/Cargo.lock"
    GIT_INDEX_FILE=$memory/checked.index git -C "$checked" --git-dir="$lab/.git" --work-tree="$checked" read-tree --reset -u "$1"
    # Its own, for whoever calls cargo in lab/ uses the same target folder.
    set_version "$checked" checked
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$lab/target}
}

# The test, and the task that turns it green, of those that a task's line "Green: "
# promises: DAY, test, task, with tabs between.
promises_of() { # DAY
    local task
    while read -r task; do
        green_after "$1" "$task" | awk -v OFS='\t' -v day="$1" -v task="$task" '{ print day, $1, task }'
    done < <(tasks_of "$1" | cut -f 1)
}

# The tasks of DAY that have a todo!() left in DIR, also one in a comment: 2 3
open_tasks() { # DAY DIR
    grep -rhoE "todo!\(\"day $1, task [0-9]+" "$2/src" | grep -oE '[0-9]+$' | sort -un | xargs || true
}

# The learner's files as they are at this moment, as git's tree; its hash. Branch,
# index and files stay as they are.
tree_of_now() {
    local index
    index=$(mktemp)
    cp "$lab/.git/index" "$index"
    GIT_INDEX_FILE=$index git -C "$lab" add --all
    GIT_INDEX_FILE=$index git -C "$lab" write-tree
    rm "$index"
}

# A tree as a commit, on no branch; its hash.
commit_of() { # TREE MESSAGE
    git -C "$lab" -c user.name=lab -c user.email=lab@localhost commit-tree "$1" -p HEAD -m "$2"
}

# Which src/ a tree has: another hash as soon as one character changes.
source_id() { git -C "$lab" rev-parse "$1:src"; } # TREE

# Editors that use rust-analyzer see the code of this day, and not of day 1 alone.
set_editors_day() { # DAY
    mkdir -p "$lab/.vscode"
    echo "{ \"rust-analyzer.cargo.features\": [\"day$1\"] }" >"$lab/.vscode/settings.json"
    printf '[cargo]\nfeatures = ["day%s"]\n' "$1" >"$lab/rust-analyzer.toml"
}
