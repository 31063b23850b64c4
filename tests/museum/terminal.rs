//! What is typed at your terminal, and not by you. (TIOCSTI(2const))

use crate::attack::{NO_NETWORK, Outcome, PYTHON, program, run_on};
use crate::common::{AtTerminal, DAY, World, binary, rootfs};
use crate::exhibit;

/// Types a line at whatever may be a terminal; at the first that lets it.
const TYPES: &str = r#"
import fcntl, termios
for place in ["/proc/self/fd/0", "/dev/tty", "/dev/console"]:
    try:
        terminal = os.open(place, os.O_RDWR | os.O_NOCTTY)
        for key in b"evil\n":
            fcntl.ioctl(terminal, termios.TIOCSTI, bytes([key]))
        sys.exit(0)
    except OSError as error:
        print("refused: " + errno.errorcode[error.errno], file=sys.stderr)
sys.exit(3)
"#;

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_tiocsti() {
    exhibit("tiocsti", types_at_the_callers);
}

#[test]
#[ignore = "privileged: make vm-test"]
fn exhibit_tiocsti_with_t() {
    let t: &[&str] = if DAY >= 5 { &["-t"] } else { &[] };
    exhibit("tiocsti_with_t", |world, flags| types_at_the_callers(world, &[t, flags].concat()));
}

/// A shell at a terminal runs the container, and then reads its next line.
fn types_at_the_callers(_: &World, flags: &[&str]) -> Outcome {
    let (rootfs, flags, program) = (rootfs("debian"), [NO_NETWORK, flags].concat(), program(TYPES));
    let command = [&PYTHON[..], &["-c", &program]].concat();
    let script =
        r#""$0" "$@"; echo "it has ended with $?"; read -r -t 1 line; echo "typed: $line."; echo the end"#;
    let words = ["-c", script, binary().to_str().unwrap()];
    let words = [&words[..], &run_on(&rootfs, &flags, &command)].concat();
    let mut terminal = AtTerminal::start_program("bash", words);
    terminal.shows("the end");
    terminal.ended();
    let screen = terminal.screen();
    if screen.contains("typed: evil.") {
        return Outcome { cell: "works".into(), said: screen };
    }
    if screen.contains("it has ended with 0") {
        return Outcome { cell: "fails: the terminal is its own".into(), said: screen };
    }
    Outcome::of_words(screen)
}
