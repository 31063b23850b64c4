# How far the tests are. In a log each result gets its number; on a terminal, what went
# well is one line that the next one replaces, and what failed stays. Says at the end
# how many passed.
#
# -v tests=FILE (jobs.sh' list of all, which grows) -v closed=FILE (there when it grows no
# more) -v seconds=FILE (how long each took here last; rewritten) -v tty=1

BEGIN {
    FS = "\t"
    while ((getline <seconds) > 0) last[$1 FS $2] = $3
    FS = " "
    "date +%s" | getline began; close("date +%s")
}

# The list, as far as it goes.
function read_tests(    line, part) {
    total = all = 0
    while ((getline line <tests) > 0) {
        split(line, part, "\t")
        total++
        known[part[5] "\t" part[3]] = 1
        all += weight(part[5] "\t" part[3])
    }
    close(tests)
    if (!complete) { complete = (getline line <closed) >= 0; close(closed) }
}

function weight(name) { return name in last ? last[name] + 0.1 : 1 }

# What remains, as long as it goes on as up to now.
function left(    now, rest) {
    "date +%s" | getline now; close("date +%s")
    if (now - began < 5 || ended == 0 || !complete) return ""
    rest = int((all - ended) * (now - began) / ended / 60 + 0.5)
    return rest ? ", about " rest " min left" : ", less than a minute left"
}

/ \.\.\. / && !/^    / {
    number++
    name = $1 "\t" $2
    if (!(name in known) || (!complete && number % 20 == 0)) read_tests()
    ended += weight(name)
    if (match($0, /\([0-9.]+ s\)$/)) took[name] = substr($0, RSTART + 1, RLENGTH - 4)
    good = $0 !~ / \.\.\. FAILED/
    if (good) passed++; else failed++
    if (tty) {
        if (!good) printf "\r\033[K%s\n", $0
        # Not with each: asking for the time takes a process.
        if (number % 5 == 1) rest = left()
        printf "\r\033[K%d of %d%s: %s %s", number, total, rest, $1, substr($2, 1, 40)
    } else printf "%4d/%d  %s%s\n", number, total, $0, number % 20 ? "" : left()
    fflush()
    next
}
# The guests' own summaries: the one at the end is of all.
/^(FAILED|UNSTEADY)  / { failures[++count] = $0; next }
/^[0-9]+ as expected, / || NF == 0 { next }
{ if (tty) printf "\r\033[K"; print; fflush() }

END {
    read_tests()
    if (tty) printf "\r\033[K"
    for (i = 1; i <= count; i++) print failures[i]
    for (name in took) last[name] = took[name]
    printf "" >seconds
    for (name in last) print name "\t" last[name] >seconds
    if (number != total) printf "%d of %d tests came to their end\n", number, total
    printf "%d passed, %d failed\n", passed, failed + total - number
    exit number != total || failed
}
