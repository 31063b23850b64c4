//! The table: which way out works on which day.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use crate::attack::Outcome;

/// All cells: a row for each exhibit, a column for each day.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/museum.md");
/// The same in few columns, as the book shows it first.
const SUMMARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/museum-summary.md");

/// The exhibits, in the order of their rows, and the headings that the book has for them.
const EXHIBITS: [(&str, &str); 20] = [
    ("release_agent", "The release_agent"),
    ("core_pattern", "The core_pattern"),
    ("sysrq", "The magic key"),
    ("disk", "The disk"),
    ("shocker", "The shocker"),
    ("module", "A module"),
    ("ptrace", "Another process"),
    ("bpf", "A program in the kernel"),
    ("userfaultfd", "A page fault that waits"),
    ("keyrings", "The keys"),
    ("raw_socket", "A neighbour's name"),
    ("tiocsti", "Your keyboard"),
    ("tiocsti_with_t", "Your keyboard, with -t"),
    ("cve_2019_5736", "CVE-2019-5736"),
    ("cve_2019_19921", "CVE-2019-19921"),
    ("cve_2021_30465", "CVE-2021-30465"),
    ("cve_2024_21626", "CVE-2024-21626"),
    ("cve_2025_31133", "CVE-2025-31133"),
    ("cve_2025_52565", "CVE-2025-52565"),
    ("cve_2025_52881", "CVE-2025-52881"),
];

/// The columns: days, and what can be asked for on the newest ones.
const DAYS: [&str; 14] = ["3", "4", "5", "6", "7", "8", "9", "11", "12", "13", "14", "15", "16", "17"];
pub const PRIVILEGED: &str = "`--privileged`";
/// From day 17 on.
pub const NOBODY: &str = "`--userns auto --cap-add ALL`";

/// What the table says of an exhibit in a column.
type Cells = BTreeMap<(String, String), String>;

/// Compares what came of an exhibit with the table; or writes it there, if it is to be written anew.
#[track_caller]
pub fn compare(exhibit: &str, outcomes: &[(String, Outcome)]) {
    assert!(EXHIBITS.iter().any(|(name, _)| *name == exhibit), "the table has no row for {exhibit}");
    let mut cells = read();
    let key = |column: &String| (exhibit.to_string(), column.clone());
    if is_to_be_written() {
        cells.extend(outcomes.iter().map(|(column, outcome)| (key(column), outcome.cell.clone())));
        fs::write(SUMMARY, summary(&cells)).unwrap();
        return fs::write(FILE, text(&cells)).unwrap();
    }
    let mut differences = String::new();
    for (column, Outcome { cell, said }) in outcomes {
        let expected = cells.get(&key(column)).map_or("nothing", String::as_str);
        if cell != expected {
            writeln!(differences, "day {column}: {cell:?}, and the table has {expected:?}; {said}").unwrap();
        }
    }
    assert!(
        differences.is_empty(),
        "{exhibit} is not as in tests/snapshots/museum.md (make vm-test UPDATE=1 writes it anew): {differences}"
    );
}

fn is_to_be_written() -> bool {
    std::env::var_os("TINY_DOCKER_UPDATE").is_some_and(|value| !value.is_empty())
}

/// The table as the file has it.
fn read() -> Cells {
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let mut cells = Cells::new();
    for line in text.lines().skip(2) {
        let mut fields = line.trim_matches('|').split('|').map(str::trim);
        let title = fields.next().unwrap_or_default();
        let Some((name, _)) = EXHIBITS.iter().find(|(_, heading)| title == link(heading)) else { continue };
        for (column, cell) in columns().zip(fields).filter(|(_, cell)| !cell.is_empty()) {
            cells.insert((name.to_string(), column.to_string()), cell.to_string());
        }
    }
    cells
}

fn columns() -> impl Iterator<Item = &'static str> {
    DAYS.into_iter().chain([PRIVILEGED, NOBODY])
}

/// The table as it is written.
fn text(cells: &Cells) -> String {
    let mut text = String::from("| way out |");
    columns().for_each(|column| write!(text, " {column} |").unwrap());
    writeln!(text, "\n|{}", " --- |".repeat(1 + columns().count())).unwrap();
    for (name, heading) in EXHIBITS {
        write!(text, "| {} |", link(heading)).unwrap();
        columns().for_each(|column| write!(text, " {} |", cell(cells, name, column)).unwrap());
        text.push('\n');
    }
    text
}

fn cell<'a>(cells: &'a Cells, exhibit: &str, column: &str) -> &'a str {
    cells.get(&(exhibit.to_string(), column.to_string())).map_or("", String::as_str)
}

/// On which days each way out works, from which day on it fails, and how it does now.
fn summary(cells: &Cells) -> String {
    let mut text = format!(
        "| way out | works on days | fails from day | by | {PRIVILEGED} | {NOBODY} |\n|{}\n",
        " --- |".repeat(6)
    );
    for (name, heading) in EXHIBITS {
        let days = DAYS.map(|day| cell(cells, name, day));
        let now = days[DAYS.len() - 1].strip_prefix("fails: ").unwrap_or("");
        let (works, from) = (works_on(&days), fails_from(&days));
        writeln!(
            text,
            "| {} | {works} | {from} | {now} | {} | {} |",
            link(heading),
            cell(cells, name, PRIVILEGED),
            cell(cells, name, NOBODY)
        )
        .unwrap();
    }
    text
}

/// `3–14`, or `3, 4`; nothing if it never does.
fn works_on(cells: &[&str; DAYS.len()]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for at in (0..DAYS.len()).filter(|at| cells[*at] == "works") {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == at => *last = at,
            _ => runs.push((at, at)),
        }
    }
    let in_words = |(first, last): &(usize, usize)| match last - first {
        0 => DAYS[*first].to_string(),
        _ => format!("{}–{}", DAYS[*first], DAYS[*last]),
    };
    runs.iter().map(in_words).collect::<Vec<_>>().join(", ")
}

/// The first of the days from which on it never works again.
fn fails_from(cells: &[&str; DAYS.len()]) -> &'static str {
    match cells.iter().rposition(|cell| !cell.starts_with("fails")) {
        None => DAYS[0],
        Some(last) => DAYS.get(last + 1).copied().unwrap_or("not yet"),
    }
}

/// To the section of the page that tells of it, as mdbook names that.
fn link(heading: &str) -> String {
    let id: String = heading
        .to_lowercase()
        .chars()
        .filter_map(|one| match one {
            ' ' => Some('-'),
            one => (one.is_alphanumeric() || "_-".contains(one)).then_some(one),
        })
        .collect();
    format!("[{heading}](#{id})")
}

#[test]
fn the_table_is_whole_and_as_it_would_be_written() {
    if is_to_be_written() {
        // Other days may not have had their turn.
        return;
    }
    let cells = read();
    for (file, text) in [(FILE, text(&cells)), (SUMMARY, summary(&cells))] {
        assert_eq!(fs::read_to_string(file).unwrap(), text, "make vm-test UPDATE=1 writes it anew");
    }
    for (name, _) in EXHIBITS {
        for column in columns() {
            let there = cells.contains_key(&(name.to_string(), column.to_string()));
            assert!(there, "nobody has tried {name} on day {column}");
        }
    }
}
