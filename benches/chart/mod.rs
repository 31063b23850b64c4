//! The chart of `make bench`: a bar for each contender, and tiny-docker's in parts.
// Each bench is a program of its own, and takes from here what it needs.
#![allow(dead_code)]

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Where a part of a run ends, in what --explain prints before each step.
const PARTS: [(&str, &str); 5] = [
    ("prepare", " clone3("),
    ("clone", " parent  "),
    ("attach", " write(gate)"),
    ("enter", " execve("),
    ("exec, run", " rmdir("),
];
const LAST_PART: &str = "clean up";

/// How long each part of a run takes, in ms: the medians of so many narrated runs.
/// To narrate takes time as well, so it is the shares that count.
pub fn parts(command: &mut Command, runs: usize) -> Vec<(&'static str, f64)> {
    let mut all: Vec<Vec<f64>> = vec![vec![]; PARTS.len() + 1];
    for _ in 0..runs {
        let start = Instant::now();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ends = vec![];
        for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
            if PARTS.get(ends.len()).is_some_and(|(_, mark)| line.contains(mark)) {
                ends.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        assert!(child.wait().unwrap().success());
        ends.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(ends.len(), all.len(), "the narration lacks one of {PARTS:?}");
        let mut before = 0.0;
        for (times, end) in all.iter_mut().zip(ends) {
            times.push(end - before);
            before = end;
        }
    }
    let names = PARTS.iter().map(|(name, _)| *name).chain([LAST_PART]);
    names.zip(all.into_iter().map(|times| super::turns::at(0.5, times))).collect()
}

/// The chart as SVG, for the book. `rows` are names and medians in ms; the bar of
/// `split` is in `parts`.
pub fn draw(rows: &[(&str, f64)], split: &str, parts: &[(&str, f64)], machine: &str) -> String {
    const LEFT: f64 = 110.0;
    let longest = rows.iter().map(|(_, time)| *time).fold(0.0, f64::max);
    let width = |time: f64| time / longest * 560.0;
    let height = 44 * rows.len() + 76;
    let mut svg = format!(
        "<svg viewBox=\"0 0 760 {height}\" class=\"picture\" role=\"img\" aria-label=\"Start to exit: {}\">\n",
        rows.iter().map(|(name, time)| format!("{name} {}", in_ms(*time))).collect::<Vec<_>>().join(", ")
    );
    // Writing to a String cannot fail.
    let mut add = |line: String| writeln!(svg, "{line}").unwrap();
    let sum: f64 = parts.iter().map(|(_, time)| time).sum();
    for (row, (name, time)) in rows.iter().enumerate() {
        let y = 12 + 44 * row;
        add(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"name\">{name}</text>",
            LEFT - 10.0,
            y + 19
        ));
        if *name == split {
            let mut x = LEFT;
            for (number, (_, part)) in parts.iter().enumerate() {
                let wide = width(part / sum * time);
                add(format!(
                    "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"28\" class=\"new\"/>"
                ));
                add(format!(
                    "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" class=\"note\">{}</text>",
                    x + wide / 2.0,
                    y + 19,
                    number + 1
                ));
                x += wide;
            }
        } else {
            add(format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"28\" class=\"box\"/>",
                width(*time)
            ));
        }
        let (x, time) = (LEFT + width(*time) + 8.0, in_ms(*time));
        add(format!("<text x=\"{x:.1}\" y=\"{}\">{time}</text>", y + 19));
    }
    let time = rows.iter().find(|(name, _)| *name == split).map_or(sum, |(_, time)| *time);
    let legend = parts.iter().enumerate();
    let legend =
        legend.map(|(number, (name, part))| format!("{} {name} {:.0} ms", number + 1, part / sum * time));
    let legend = legend.collect::<Vec<_>>().join(", ");
    let notes = [legend.as_str(), machine].into_iter().filter(|note| !note.is_empty());
    for (line, note) in notes.enumerate() {
        let y = 44 * rows.len() + 30 + 24 * line;
        add(format!("<text x=\"{LEFT}\" y=\"{y}\" class=\"note\">{note}</text>"));
    }
    svg + "</svg>\n"
}

fn in_ms(time: f64) -> String {
    if time < 20.0 { format!("{time:.1} ms") } else { format!("{time:.0} ms") }
}
