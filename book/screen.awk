# Draws a transcript as a terminal, for the README:
#   LC_ALL=C awk -f book/screen.awk tests/transcripts/day9-readme.console >book/src/pictures/screen.svg

{
    # A long command goes on in the next line, as in a terminal.
    text = $0
    command = text ~ /^\$ /
    while (length(text) > 96) {
        cut = 96
        while (substr(text, cut, 1) != " ") cut--
        add(substr(text, 1, cut), command)
        text = "    " substr(text, cut + 1)
    }
    add(text, command)
}

END {
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 %d\" font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"14\">\n", 20 * count + 52
    printf "<rect width=\"860\" height=\"%d\" rx=\"10\" fill=\"#1b1f24\"/>\n", 20 * count + 52
    print "<circle cx=\"20\" cy=\"18\" r=\"6\" fill=\"#57606a\"/><circle cx=\"40\" cy=\"18\" r=\"6\" fill=\"#57606a\"/><circle cx=\"60\" cy=\"18\" r=\"6\" fill=\"#57606a\"/>"
    for (number = 1; number <= count; number++)
        printf "<text x=\"20\" y=\"%d\" xml:space=\"preserve\" fill=\"%s\">%s</text>\n", 36 + 20 * number, typed[number] ? "#79c0ff" : "#d0d7de", lines[number]
    print "</svg>"
}

function add(text, command) {
    gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
    lines[++count] = text
    typed[count] = command
}
