# Makes a starter of a source file: each body between
#     // ANCHOR: dayN_taskK_function_solution   and   // ANCHOR_END: dayN_taskK_function_solution
# becomes `todo!("day N, task K: function")`, if N is `day` or later. The markers, which
# are for the book, go in any case.

/\/\/ ANCHOR: day[0-9]+_task[0-9]+_[a-z_]+_solution$/ {
    name = $NF
    sub(/^day/, "", name); number = name + 0
    sub(/^[0-9]+_task/, "", name); task = name + 0
    sub(/^[0-9]+_/, "", name)
    sub(/_solution$/, "", name)
    if (number >= day) {
        match($0, /^ */)
        printf "%stodo!(\"day %d, task %d: %s\")\n", substr($0, 1, RLENGTH), number, task, name
        skipping = 1
    }
    next
}
/\/\/ ANCHOR_END: day[0-9]+_task[0-9]+_[a-z_]+_solution$/ { skipping = 0; next }
/^ *\/\/ ANCHOR(_END)?: / { next }
!skipping
