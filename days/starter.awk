# Makes a starter of a source file: each body between
#     // ANCHOR: dayN_name_solution   and   // ANCHOR_END: dayN_name_solution
# becomes `todo!("day N: name")` if N is at least `day`. The markers, which are
# for the book, go in any case.

/\/\/ ANCHOR: day[0-9]+_[a-z_]+_solution$/ {
    name = $NF
    sub(/^day/, "", name)
    sub(/_solution$/, "", name)
    number = name + 0
    sub(/^[0-9]+_/, "", name)
    if (number >= day) {
        match($0, /^ */)
        printf "%stodo!(\"day %d: %s\")\n", substr($0, 1, RLENGTH), number, name
        skipping = 1
    }
    next
}
/\/\/ ANCHOR_END: day[0-9]+_[a-z_]+_solution$/ { skipping = 0; next }
/^ *\/\/ ANCHOR(_END)?: / { next }
!skipping
