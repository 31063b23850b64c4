# Draws one `run` as --explain narrates it, out of the golden file of day 9: two
# columns, parent and child, time downwards. What one day does in one go is a box.
#   LC_ALL=C awk -f book/one-run.awk tests/snapshots/golden__explain_day9.snap >book/src/pictures/one-run.svg

/^\[day [0-9]+\] (parent|child) / {
    day = $2 + 0; who = $3
    call = $0
    sub(/^\[day [0-9]+\] (parent|child) */, "", call)
    sub(/ +# .*/, "", call)
    if (day " " who != last) { boxes++; box_day[boxes] = day; box_who[boxes] = who; last = day " " who }
    calls[boxes, ++count[boxes]] = short(call)
}

END {
    split("cli|namespaces|rootfs|metadata|logs|stop|cgroups|netns|net", name, "|")
    y = 58
    for (box = 1; box <= boxes; box++) {
        first[box] = y
        lines = count[box] > 4 ? 4 : count[box]
        y += 20 * lines + 22
    }
    height = y + 8
    printf "<svg viewBox=\"0 0 860 %d\" class=\"picture\" role=\"img\" aria-label=\"One run from start to end, as --explain narrates it: the parent prepares record, log, cgroup and network; clone3; it attaches the cable and releases the child; the child enters mounts, root, devices, cgroup, network, output and user, and becomes the command; the parent waits and cleans up.\">\n", height
    print "<defs><marker id=\"headrun\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"currentColor\"/></marker></defs>"
    print "<text x=\"20\" y=\"30\" class=\"name\">parent: the runtime</text><text x=\"440\" y=\"30\" class=\"name\">child: becomes the command</text>"
    for (box = 1; box <= boxes; box++) draw(box)
    print "</svg>"
}

function draw(box,    x, top, lines, line) {
    x = box_who[box] == "parent" ? 20 : 440
    top = first[box]
    lines = count[box] > 4 ? 4 : count[box]
    # The child begins where it is made, and goes on where the gate opens.
    if (calls[box, 1] ~ /^clone3/)
        printf "<path d=\"M420 %d H452 V%d\" class=\"wait\"/><text x=\"462\" y=\"%d\" class=\"note\">it waits at the gate</text>\n", top + 20, first[gate(box)] + 10, top + 26
    if (calls[box, 1] ~ /^write\(gate\)/)
        printf "<path d=\"M420 %d H452 V%d\" class=\"line\" marker-end=\"url(#headrun)\"/>\n", top + 16, first[box + 1] - 4
    printf "<rect x=\"%d\" y=\"%d\" width=\"400\" height=\"%d\" rx=\"6\" class=\"box\"/>", x, top, 20 * lines + 12
    printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" class=\"note\">day %d: %s</text>\n", x + 392, top + 20, box_day[box], name[box_day[box]]
    for (line = 1; line <= lines; line++) {
        if (line == 4 && count[box] > 4)
            printf "<text x=\"%d\" y=\"%d\" class=\"note\">… and %d more</text>\n", x + 12, top + 20 * line, count[box] - 3
        else
            printf "<text x=\"%d\" y=\"%d\" class=\"code\">%s</text>\n", x + 12, top + 20 * line, calls[box, line]
    }
}

# The box in which the child is released.
function gate(box) {
    while (calls[box, 1] !~ /^write\(gate\)/) box++
    return box
}

# As much of a call as its box has room for.
function short(call) {
    gsub(/"\/var\/lib\/tiny-docker\//, "\"…/", call)
    gsub(/\/sys\/fs\/cgroup\/tiny-docker-/, "…/tiny-docker-", call)
    gsub(/containers\/[0-9a-f]+\//, "ID/", call)
    sub(/"\/home\/learner\/rootfs", "\/home\/learner\/rootfs"/, "rootfs, rootfs", call)
    sub(/"\/home\/learner\/rootfs"/, "rootfs", call)
    gsub(/CLONE_NEW/, "NEW", call)
    if (length(call) > 31) call = substr(call, 1, 30) "…"
    gsub(/&/, "\\&amp;", call); gsub(/</, "\\&lt;", call); gsub(/>/, "\\&gt;", call)
    return call
}
