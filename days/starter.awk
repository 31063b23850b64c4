# Makes a starter of a source file: each body between
#     // ANCHOR: dayN_taskK_function_solution   and   // ANCHOR_END: dayN_taskK_function_solution
# becomes `todo!("day N, task K: function")`, if N is later than `day`; or if it is that
# day, and K later than `solved`. The markers, which are for the book, go in any case.
# With `for_now`, a file of FUNCTION and code, the tasks after `open` get that instead.

BEGIN {
    FS = "\t"
    while (for_now != "" && (getline <for_now) > 0) code[$1] = $2
    FS = " "
}

/\/\/ ANCHOR: day[0-9]+_task[0-9]+_[a-z_]+_solution$/ {
    name = $NF
    sub(/^day/, "", name); number = name + 0
    sub(/^[0-9]+_task/, "", name); task = name + 0
    sub(/^[0-9]+_/, "", name)
    sub(/_solution$/, "", name)
    if (number > day || (number == day && task > solved)) {
        body = "todo!(\"day " number ", task " task ": " name "\")"
        if (number == day && task > open && name in code) body = code[name]
        match($0, /^ */)
        printf "%s%s\n", substr($0, 1, RLENGTH), body
        skipping = 1
    }
    next
}
/\/\/ ANCHOR_END: day[0-9]+_task[0-9]+_[a-z_]+_solution$/ { skipping = 0; next }
/^ *\/\/ ANCHOR(_END)?: / { next }
!skipping
