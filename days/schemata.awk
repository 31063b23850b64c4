# Makes of a source file one that has every variant of it inside: the starter's
# todo!()s, the bodies "for now", and the wrong solutions. Which of them a program
# is, the environment says when it runs (days/schemata.rs). So a day's exercise is
# proved with one build, and not with one for each variant. (Untch and others,
# "Mutation analysis using mutant schemata", 1993)
#
# awk -v day=7 -v for_now=FILE -f schemata.awk SOURCE [name=WRONG-SOURCE...]
#
# A wrong solution may change the bodies of functions, and nothing else. Bodies are
# told by their indentation: the sources are formatted by rustfmt.

BEGIN {
    FS = "\t"
    while (for_now != "" && (getline <for_now) > 0) code[$1] = $2
    source = ARGV[1]
    lines = parse(source, "", text)
    for (i = 2; i < ARGC; i++) {
        wrong = ARGV[i]; sub(/=.*/, "", wrong)
        file = substr(ARGV[i], length(wrong) + 2)
        parse(file, wrong, other)
        if (outside[wrong] != outside[""]) die(wrong ": changes more of " source " than the bodies of functions")
    }
    for (line = 1; line <= lines; line++) {
        print text[line]
        if (!(line in begins)) continue
        name = begins[line]
        count = 0
        for (i = 2; i < ARGC; i++) {
            wrong = ARGV[i]; sub(/=.*/, "", wrong)
            if (body[wrong, name] == body["", name]) continue
            if (!count++) print "match crate::fault::wrong().as_str() {"
            printf "\"%s\" => {\n%s}\n", wrong, with_stages(body[wrong, name])
        }
        if (count) print "_ => {"
        printf "%s", with_stages(body["", name])
        if (count) print "} }"
        line = ends[name] - 1
    }
    exit failed
}

function die(message) { print "schemata: " message >"/dev/stderr"; failed = 1; exit 1 }

# Reads FILE. What is in the body of a function goes to body[variant, name], all other
# lines, one after the other, to outside[variant]. Of the first file it keeps the lines.
function parse(file, variant, kept,    number, line, inside, header, indent, name, seen) {
    split("", seen)
    while ((getline line <file) > 0) {
        number++
        kept[number] = line
        if (inside) {
            if (line == indent "}") { inside = 0; if (variant == "") ends[name] = number }
            else { body[variant, name] = body[variant, name] line "\n"; continue }
        } else if (line ~ /^ *(pub(\([a-z]+\))? )?(const )?(unsafe )?fn [a-z_]+/) {
            match(line, /^ */); indent = substr(line, 1, RLENGTH)
            name = line; sub(/^.*fn /, "", name); sub(/[^a-z0-9_].*/, "", name)
            name = name "#" ++seen[name]
            header = 1
        }
        if (header && line ~ /[{]$/) { header = 0; inside = 1; if (variant == "") begins[number] = name }
        if (header && line ~ /[;}]$/) header = 0
        outside[variant] = outside[variant] line "\n"
    }
    close(file)
    return number
}

# BODY, in which each part that a learner writes is a todo!() or the code for now, if
# the stage says so.
function with_stages(body,    part, count, i, result, number, task, name) {
    count = split(body, part, "\n")
    for (i = 1; i < count; i++) {
        if (part[i] ~ /\/\/ ANCHOR: day[0-9]+_task[0-9]+_[a-z_]+_solution$/) {
            name = part[i]; sub(/.*\/\/ ANCHOR: day/, "", name); number = name + 0
            if (number < day) continue
            sub(/^[0-9]+_task/, "", name); task = name + 0
            sub(/^[0-9]+_/, "", name); sub(/_solution$/, "", name)
            result = result "match crate::fault::stage(" number ", " task ") {\n"
            if (number == day && name in code) result = result "crate::fault::Stage::Later => { " code[name] " }\n"
            else result = result "crate::fault::Stage::Later => todo!(\"day " number ", task " task ": " name "\"),\n"
            result = result "crate::fault::Stage::Open => todo!(\"day " number ", task " task ": " name "\"),\n"
            result = result "crate::fault::Stage::Done => {\n"
        } else if (part[i] ~ /\/\/ ANCHOR_END: day[0-9]+_task[0-9]+_[a-z_]+_solution$/) {
            number = part[i]; sub(/.*\/\/ ANCHOR_END: day/, "", number)
            if (number + 0 >= day) result = result "} }\n"
        } else result = result part[i] "\n"
    }
    return result
}
