# What the guest prints, as a learner wants to read it: each test as the sentence of
# the specification that it is, under its task; of what fails, what was expected, and
# where to read on. Exits with 1 if anything failed.
#
# tasks: a file of DAY, TASK, title and the chapter's sections, with tabs between.
# brief: two days at a time, so each line says whose it is.
# red_first: what fails, then what is still a todo!(), and of what is green the number.

BEGIN {
    FS = "\t"
    while ((getline <tasks) > 0) { title[$1, $2] = $3; sections[$1, $2] = $4 }
    FS = " "
    printf "" >results
    if (color) { green = "\033[32m"; red = "\033[31m"; bold = "\033[1m"; plain = "\033[0m" }
}

{ sub(/\r$/, "") }

# day7                         task4_who_was_killed_is_told_apart ... ok (4 s)
/^day[0-9]+ +task[0-9]+_.* \.\.\. / {
    end_of_failure()
    day = substr($1, 4)
    name = $2
    task = name; sub(/^task/, "", task); sub(/_.*/, "", task)
    sentence = name; sub(/^task[0-9]+_(long_)?/, "", sentence); gsub(/_/, " ", sentence)
    if (brief) {
        sentence = "day " day ", task " task ": " sentence
    } else if (!red_first) {
        heading()
    }
    tests++
    took = match($0, /\([0-9.]+ s\)$/) && substr($0, RSTART + 1) + 0 >= 3 ? " " substr($0, RSTART) : ""
    if ($4 == "ok") {
        if (!red_first) printf "  %s✓%s %s%s\n", green, plain, sentence, took
        print day, name, "ok" >results
    } else {
        failing = 1; failed++; count = 0; todo = ""
        timed_out = /still running/
        print day, name, "FAILED" >results
    }
    fflush()
    next
}

# What the failed test said, indented by four.
failing && /^    / { said[++count] = substr($0, 5); next }
failing { end_of_failure() }

# Of a build that fails, or of a guest that does: as it is.
!/^FAILED/ && !/^[0-9]+ as expected/ && !/^day[0-9]+ / && NF { print }

END {
    end_of_failure()
    if (tests == 0) exit 1
    if (red_first) {
        if (shown != "") print ""
        for (i = 1; i <= places; i++)
            printf "○ %d wait%s for the todo!(\"%s\"): %s\n", waiting[place[i]], waiting[place[i]] == 1 ? "s" : "", place[i], place_of(place[i])
        if (tests > failed) printf "%s✓%s green: %d test%s\n", green, plain, tests - failed, tests - failed == 1 ? "" : "s"
        if (failed > todos) exit 1
        exit todos > 0
    }
    printf "\n%d of %d tests are green; %d fail, %d wait for a todo!().\n", tests - failed, tests, failed - todos, todos
    exit failed > 0
}

function end_of_failure(    i, inside, lines, line) {
    if (!failing) return
    failing = 0
    for (i = 1; i <= count; i++)
        if (match(said[i], /not yet implemented: day [0-9]+, task [0-9]+: [a-z_]+/)) {
            todo = substr(said[i], RSTART + length("not yet implemented: "), RLENGTH - length("not yet implemented: "))
            break
        }
    if (todo != "") {
        if (red_first) { if (!waiting[todo]++) place[++places] = todo; }
        else printf "  ○ %s\n      still a todo!(\"%s\"): %s\n", sentence, todo, place_of(todo)
        delete said
        todos++
        return
    }
    if (red_first && !brief) heading()
    printf "  %s✗ %s%s%s\n", red, sentence, plain, took
    if (timed_out) {
        print "      it hangs: the test was still running, and was ended"
    } else {
        # The panic's message is what was expected and what came.
        expected = was = part = where = ""
        for (i = 1; i <= count && lines < 40; i++) {
            line = said[i]
            gsub(/\033\[[0-9;]*m/, "", line)
            if (line ~ / panicked at /) {
                where = line; sub(/.* panicked at /, "lab/", where); sub(/:[0-9]+:?$/, "", where)
                inside = 1
                continue
            }
            if (line ~ /^note: run with/ || line ~ /^test result/ || line ~ /^failures:/) { inside = 0; continue }
            line = in_plain_words(line)
            if (line == "-") continue
            if (inside || line ~ /^left behind/) { print "      " line; lines++; inside = 1 }
        }
        if (expected != "" && expected == was)
            print "      (They differ only in the end of a line, or in colours.)"
        if (where != "") printf "      (%s%s%s)\n", bold, where, plain
    }
    if ((day, task) in title)
        printf "      Read: day %d, %s. Stuck? make hint DAY=%d TASK=%d\n", day, sections[day, task], day, task
    delete said
    fflush()
}

# Of the task, before its first test.
function heading() {
    if (day SUBSEP task == shown) return
    printf "\n%sDay %d, task %d: %s%s\n", bold, day, task, title[day, task], plain
    shown = day SUBSEP task
}

# The words of assert_cmd and predicates, as a person says them. "-": nothing new.
function in_plain_words(line) {
    if (sub(/^Unexpected return code, failed var == /, "expected the exit code ", line)) return line
    if (sub(/^Unexpected failure\.$/, "it failed, and must not", line)) return line
    if (sub(/^Unexpected success$/, "it succeeded, and must not", line)) return line
    if (sub(/^Unexpected stdout, failed /, "stdout is not as it must be: ", line) ||
        sub(/^Unexpected stderr, failed /, "stderr is not as it must be: ", line)) {
        sub(/: diff original var$/, "", line)
        gsub(/var\./, "", line)
        return line
    }
    if (sub(/^(├──|└──) original: /, "", line)) { part = "expected"; expected = line; return "expected:  " line }
    if (line ~ /^(├──|└──) diff: /) { part = "skip"; return "-" }
    if (sub(/^(├──|└──) var( as str)?: /, "", line)) {
        # Once as a value, once as text.
        if (part == "was") { part = "skip"; return "-" }
        part = "was"
        was = line
        return "and it was: " line
    }
    if (sub(/^(├──|└──) var\./, "", line)) { part = "skip"; return "not so:    " line }
    if (part != "" && (line ~ /^│/ || line ~ /^    /)) {
        if (part == "skip") return "-"
        sub(/^(│  |   )/, "", line)
        if (part == "expected") expected = expected "\n" line
        else was = was "\n" line
        return "          " line
    }
    part = ""
    return line
}

# FILE:LINE of a todo! in the learner's crate.
function place_of(todo,    command, found) {
    command = "cd '" lab "' && grep -rn 'todo!(\"" todo "\")' src | cut -d: -f1,2 | head -n 1"
    command | getline found
    close(command)
    return "lab/" found
}
