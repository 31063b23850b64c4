# Sourced in the guest: steps, each a command with what it must print and its exit code, as a
# table; at its end how many were as expected.
# shellcheck shell=bash

passed=0 failed=()

# PATTERN is bash's for all that the command prints, stdout and stderr, with blanks for newlines.
# ONLY=NAME... tries these steps alone, with those whose name begins with a +: others need them.
step() { # NAME EXIT-CODE PATTERN COMMAND...
    local name=$1 code=$2 pattern=$3 said ended=0 began=$EPOCHREALTIME took
    shift 3
    [ -z "${ONLY:-}" ] || [[ $name == +* || " $ONLY " == *" $name "* ]] || return 0
    # To a file and not to a pipe: what a container holds open would be waited for.
    timeout -k 5 "${STEP_TIMEOUT:-120}" bash -c '"$@"' step "$@" >/tmp/said 2>&1 </dev/null || ended=$?
    name=${name#+}
    said=$(tr -d '\r\0' </tmp/said | tr '\n' ' ')
    said=${said% }
    took=$((${EPOCHREALTIME/[.,]/} - ${began/[.,]/}))
    printf -v took '%d.%d' $((took / 1000000)) $((took / 100000 % 10))
    # shellcheck disable=SC2053  # a pattern
    if [ "$ended" = "$code" ] && [[ $said == $pattern ]]; then
        passed=$((passed + 1))
        printf 'ok      %-24s %6s s\n' "$name" "$took"
    else
        failed+=("$name")
        printf 'FAILED  %-24s %6s s\n' "$name" "$took"
        printf '    command:  %s\n    expected: exit code %s, and: %s\n    was:      exit code %s, and:\n' "$*" "$code" "$pattern" "$ended"
        sed 's/^/        /' /tmp/said | head -n "${STEP_LINES:-20}"
    fi
}

# For steps: the command with a terminal, as a person has one. Whoever types there says nothing, and
# stays: script(1) would pass the end of its input on, as a character that may come before the command
# listens, or after.
on_a_terminal() {
    local said
    exec {said}<> <(:)
    script -qec "$(printf '%q ' "$@")" /dev/null <&"$said"
}
export -f on_a_terminal

summary() {
    [ ${#failed[@]} = 0 ] || printf '\nFAILED  %s' "${failed[@]}"
    printf '\n%d passed, %d failed\n' "$passed" "${#failed[@]}"
    # No step at all is no success either.
    [ ${#failed[@]} = 0 ] && [ "$passed" -gt 0 ]
}
