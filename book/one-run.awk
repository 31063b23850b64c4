# Draws one `run` as --explain narrates it, from the golden file of day 9: two
# columns, parent and child, with time running down. What one day does in one go is
# a box. No call is cut off: a long one goes on in the next line.
#   LC_ALL=C awk -f book/one-run.awk tests/snapshots/golden__explain_day9.snap >book/src/pictures/one-run.svg

BEGIN { ROOM = 43; CALLS = 4 }

/^\[day [0-9]+\] (parent|child) / {
    day = $2 + 0; who = $3
    if (day " " who != last) { boxes++; box_day[boxes] = day; box_who[boxes] = who; last = day " " who }
    sub(/^\[day [0-9]+\] (parent|child) */, "")
    calls[boxes, ++count[boxes]] = $0
    by_hand = 0
    next
}
# What a shell does instead: not in the picture.
/^ +# / { by_hand = 1; next }
# A call that --explain has folded.
/^ / && count[boxes] && !by_hand { sub(/^ +/, " "); calls[boxes, count[boxes]] = calls[boxes, count[boxes]] $0 }

END {
    split("cli|namespaces|rootfs|metadata|logs|stop|cgroups|netns|net", name, "|")
    y = 46
    for (box = 1; box <= boxes; box++) {
        fill(box)
        top[box] = y
        y += height_of(box) + 12
    }
    printf "<svg viewBox=\"0 0 760 %d\" class=\"picture\" role=\"img\" aria-label=\"One run from start to end, as --explain narrates it: the parent prepares record, log, cgroup and network; clone3; it attaches the cable and releases the child; the child enters mounts, root, devices, cgroup, network, output and user, and becomes the command; the parent waits and cleans up.\">\n", y
    print "<defs><marker id=\"headrun\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"currentColor\"/></marker></defs>"
    print "<text x=\"10\" y=\"26\" class=\"name\">parent: the runtime</text><text x=\"390\" y=\"26\" class=\"name\">child: becomes the command</text>"
    for (box = 1; box <= boxes; box++) draw(box)
    print "</svg>"
}

# The lines of a box: its first calls, each folded to the width of the box.
function fill(box,    shown, call, words, word, n, line, first) {
    shown = count[box] > CALLS ? CALLS - 1 : count[box]
    for (call = 1; call <= shown; call++) {
        n = split(short(calls[box, call]), words, " ")
        line = words[1]; first = 1
        for (word = 2; word <= n + 1; word++) {
            if (word <= n && characters(line " " words[word]) <= (first ? ROOM : ROOM - 2)) {
                line = line " " words[word]
            } else {
                lines[box, ++filled[box]] = line
                indent[box, filled[box]] = first ? 0 : 16
                line = words[word]; first = 0
            }
        }
    }
    more[box] = count[box] - shown
}

function height_of(box) { return 20 * (1 + filled[box] + (more[box] > 0)) + 12 }

function draw(box,    x, line, y) {
    x = box_who[box] == "parent" ? 10 : 390
    # The child begins where it is made, and goes on where the gate opens.
    if (calls[box, 1] ~ /^clone3/)
        printf "<path d=\"M370 %d H402 V%d\" class=\"wait\"/><text x=\"412\" y=\"%d\" class=\"note\">it waits at the gate</text>\n", top[box] + 20, top[gate(box)] + 20, top[box] + 25
    if (calls[box, 1] ~ /^write\(gate\)/)
        printf "<path d=\"M370 %d H402 V%d\" class=\"line\" marker-end=\"url(#headrun)\"/>\n", top[box] + 20, top[box + 1] - 3
    printf "<rect x=\"%d\" y=\"%d\" width=\"360\" height=\"%d\" rx=\"6\" class=\"box\"/>", x, top[box], height_of(box)
    y = top[box] + 20
    printf "<text x=\"%d\" y=\"%d\" class=\"note new-text\">day %d: %s</text>\n", x + 12, y, box_day[box], name[box_day[box]]
    for (line = 1; line <= filled[box]; line++)
        printf "<text x=\"%d\" y=\"%d\" class=\"code\">%s</text>\n", x + 12 + indent[box, line], y += 20, escaped(lines[box, line])
    if (more[box] > 0)
        printf "<text x=\"%d\" y=\"%d\" class=\"note\">… and %d more</text>\n", x + 12, y + 20, more[box]
}

# The box in which the child is released.
function gate(box) {
    while (calls[box, 1] !~ /^write\(gate\)/) box++
    return box
}

# The same call with the long and always equal parts of its paths left out.
function short(call) {
    gsub(/"\/var\/lib\/tiny-docker\//, "\"…/", call)
    gsub(/"\/run\/tiny-docker\//, "\"…/", call)
    gsub(/\/sys\/fs\/cgroup\/tiny-docker-/, "…/tiny-docker-", call)
    gsub(/containers\/[0-9a-f]+/, "ID", call)
    gsub(/tiny-docker-[0-9a-f]+/, "tiny-docker-ID", call)
    gsub(/"\/home\/learner\/rootfs"/, "rootfs", call)
    # A list of flags may be folded anywhere.
    gsub(/ *[|] */, " | ", call)
    return call
}

# awk counts bytes here: "…" has three.
function characters(text) { gsub(/…/, ".", text); return length(text) }

function escaped(text) {
    gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
    return text
}
