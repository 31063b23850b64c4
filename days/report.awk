# What the guest prints, as a learner wants to read it: each test as the sentence of
# the specification that it is, under its task; of what fails, what was expected, and
# where to read on. Exits with 1 if anything failed.
#
# tasks: a file of DAY, TASK, title and the chapter's sections, with tabs between.
# brief: two days at a time, so each line says whose it is.
# red_first: what fails, then what is still a todo!(), and of what is green the number.
# promises: a file of DAY, test and the task that turns it green, with tabs between.
# today: the day that is checked; task_asked: its one task, if not all are; open_tasks:
# those of it in which a todo!() is left.

BEGIN {
    FS = "\t"
    while ((getline <tasks) > 0) { title[$1, $2] = $3; sections[$1, $2] = $4 }
    while ((getline <promises) > 0) promise[$1, $2] = $3
    opened = split(open_tasks, open, " ")
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
    if ($4 ~ /^ok,?$/) {
        good++
        if (!red_first) printf "  %s✓%s %s%s\n", green, plain, sentence, took
        print day, name, "ok" >results
    } else {
        failing = 1; count = 0; todo = ""
        timed_out = /still running/
    }
    fflush()
    next
}

# What the failed test said, indented by four.
failing && /^    / { said[++count] = substr($0, 5); next }
failing { end_of_failure() }

/^[0-9]+ as expected, / { came_to_the_end = 1 }

# Of a build that fails, or of a guest that does: as it is.
!/^FAILED/ && !/^[0-9]+ as expected/ && !/^day[0-9]+ / && NF { print }

END {
    end_of_failure()
    if (tests == 0) exit 1
    if (!came_to_the_end) {
        print "\nThe guest did not come to the end of the tests."
        exit 1
    }
    if (red_first) {
        if (shown != "") print ""
        for (i = 1; i <= places; i++)
            printf "○ %d wait%s for the todo!(\"%s\"): %s\n", waiting[place[i]], waiting[place[i]] == 1 ? "s" : "", place[i], place_of(place[i])
        for (i in waiting_for) printf "○ %d wait%s for task %d\n", waiting_for[i], waiting_for[i] == 1 ? "s" : "", i
        if (good) printf "%s✓%s green: %d test%s\n", green, plain, good, good == 1 ? "" : "s"
        exit failed + todos > 0
    }
    printf "\n%d of %d tests are green", good, tests
    if (failed) printf "; %d fail", failed
    if (todos) printf "; %d wait for a todo!()", todos
    if (later) printf "; %d wait for a later task", later
    print "."
    exit failed + todos + (task_asked == "" ? later : 0) > 0
}

# The task that the failing test waits for: a later one than it is named by, or than was
# asked for, in which a todo!() is left; 0: it does not wait.
function later_task(    wanted, after, i) {
    if (brief || day != today) return 0
    if (todo != "") {
        wanted = todo; sub(/^day [0-9]+, task /, "", wanted); wanted += 0
        return task_asked != "" && todo ~ "^day " day ", " && wanted > task_asked ? wanted : 0
    }
    wanted = promise[day, name]
    after = task_asked != "" ? task_asked : task
    if (wanted <= after) return 0
    for (i = 1; i <= opened; i++) if (open[i] > after && open[i] <= wanted) return wanted
    return 0
}

function end_of_failure(    i, inside, lines, line, leak, wanted) {
    if (!failing) return
    failing = 0
    for (i = 1; i <= count; i++)
        if (match(said[i], /not yet implemented: day [0-9]+, task [0-9]+: [a-z_]+/)) {
            todo = substr(said[i], RSTART + length("not yet implemented: "), RLENGTH - length("not yet implemented: "))
            break
        }
    wanted = later_task()
    print day, name, wanted ? "later" : "FAILED" >results
    if (wanted) {
        if (red_first) waiting_for[wanted]++
        else printf "  ○ %s\n      waits for task %d: %s\n", sentence, wanted, title[day, wanted]
        delete said
        later++
        return
    }
    if (todo != "") {
        if (red_first) { if (!waiting[todo]++) place[++places] = todo; }
        else printf "  ○ %s\n      still a todo!(\"%s\"): %s\n", sentence, todo, place_of(todo)
        delete said
        todos++
        return
    }
    failed++
    if (red_first && !brief) heading()
    printf "  %s✗ %s%s%s\n", red, sentence, plain, took
    if (timed_out) {
        print "      it hangs: the test was still running, and was ended"
    } else {
        # The panic's message is what was expected and what came.
        expected = was = part = where = about = leaks = ""
        for (i = 1; i <= count && lines < 40; i++) {
            line = said[i]
            gsub(/\033\[[0-9;]*m/, "", line)
            if (line ~ / panicked at /) {
                where = line; sub(/.* panicked at /, "lab/", where); sub(/:[0-9]+:?$/, "", where)
                inside = 1
                continue
            }
            if (line ~ /^note: run with/ || line ~ /^test result/ || line ~ /^failures:/) { inside = 0; continue }
            # What was left behind is for the end: the assertion says why.
            if (line ~ /^left behind/ || leak && line ~ /^  /) { leaks = leaks "      " line "\n"; leak = 1; continue }
            leak = 0
            if (!inside) continue
            line = in_plain_words(line)
            if (line == "-") continue
            print "      " line; lines++
        }
        printf "%s", leaks
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
    if (about == "said") return of_program(line)
    if (sub(/^Unexpected return code, failed var == /, "expected the exit code ", line)) { about = "code"; return line }
    if (sub(/^Unexpected failure\.$/, "it failed, and must not", line)) return line
    if (sub(/^Unexpected success$/, "it succeeded, and must not", line)) return line
    if (line ~ /^Unexpected std(out|err)/) about = substr(line, 12, 6)
    # assert_eq!(what came, what was expected, "in words")
    if (sub(/^assertion `left == right` failed: /, "", line)) return line
    if (sub(/^assertion `left == right` failed$/, "not what was expected", line)) return line
    if (sub(/^  left: /, "it was:    ", line) || sub(/^ right: /, "expected:  ", line)) return line
    if (sub(/^command=`/, "it ran:    ", line)) {
        sub(/`$/, "", line); gsub(/"[^"]*\/debug\/tiny-docker"/, "tiny-docker", line)
        failed_on = about; about = "said"; part = ""
        return line
    }
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

# What the program did, which assert_cmd adds to every failure: only what was not said yet.
function of_program(line,    name) {
    if (match(line, /^(code|stdout|stderr)=/)) {
        name = substr(line, 1, RLENGTH - 1)
        line = substr(line, RLENGTH + 1)
        part = name == failed_on || line == "\"\"" ? "skip" : name
        if (part == "skip") return "-"
        if (line == "```") return name ":"
        return name ": " unquoted(line)
    }
    if (part == "skip" || line == "```" || line == "") return "-"
    return "  " unquoted(line)
}

# "text\n" as text.
function unquoted(text) {
    if (text !~ /^".*"$/) return text
    text = substr(text, 2, length(text) - 2)
    sub(/\\n$/, "", text)
    gsub(/\\n/, "\n        ", text)
    gsub(/\\"/, "\"", text)
    return text
}

# FILE:LINE of a todo! in the learner's crate.
function place_of(todo,    command, found) {
    command = "cd '" lab "' && grep -rn 'todo!(\"" todo "\")' src | cut -d: -f1,2 | head -n 1"
    command | getline found
    close(command)
    return "lab/" found
}
