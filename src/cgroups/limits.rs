//! Day 7: limits, from what a person types to what the kernel's files take.
//!
//! What is typed is Docker's: 0 is no limit, for each of them. A number that the kernel
//! cannot keep is refused here, for there it would become another one.

use anyhow::{Context, bail};

use crate::error::Result;
use crate::files;

/// What is to be written into a cgroup's files: for each its name and its content.
pub type Limits = Vec<(&'static str, String)>;

/// Docker's: with less, a program does not even start.
const LEAST_MEMORY: u64 = 6 << 20;

/// The most processes that Linux can have (PID_MAX_LIMIT). pids.max takes no larger number.
const MOST_PROCESSES: i128 = 1 << 22;

// ANCHOR: size
/// A size as Docker takes it: a number, decimals too, and a unit of b, k, m, g, t
/// or p, each 1024 times the one before; `128m`, `128mb`, `128MiB` are the same.
pub fn parse_size(flag: &str, text: &str) -> Result<u64> {
    // ANCHOR: day7_task1_parse_size_solution
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let stem = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match stem {
        "" if !unit.starts_with('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => -1,
    };
    let number = digits.trim_end().parse::<f64>().ok().filter(|number| *number >= 0.0);
    let (Some(number), 0..) = (number, power) else {
        bail!("{flag} {text:?}: expected a size such as 128m: a number, and b, k, m or g");
    };
    // Rounded up: a tenth of a byte is a mistake, and 0 would be no limit.
    let bytes = (number * 1024f64.powi(power)).ceil();
    // A larger one would become u64::MAX here, and be no limit there.
    if bytes >= i64::MAX as f64 {
        bail!(
            "{flag} {text:?}: that is more than the kernel can count; expected less than 8192p, or 0 for no limit"
        );
    }
    Ok(bytes as u64)
    // ANCHOR_END: day7_task1_parse_size_solution
}
// ANCHOR_END: size

/// `--memory` as memory.max has it; `None`: no limit.
pub fn parse_memory(text: &str) -> Result<Option<u64>> {
    match parse_size("--memory", text)? {
        0 => Ok(None),
        1..LEAST_MEMORY => {
            bail!(
                "--memory {text}: too little for a program to start at all; expected at least 6m, or 0 for no limit"
            )
        }
        bytes => Ok(Some(bytes)),
    }
}

// ANCHOR: swap
/// `--memory-swap` as memory.swap.max has it; `None`: no limit. What is typed is memory
/// and swap together, of which `memory` is the limit of memory; the file is swap alone.
/// -1: any amount of swap. 0 is what it is without the flag.
pub fn parse_swap(text: &str, memory: Option<u64>) -> Result<Option<String>> {
    // ANCHOR: day7_task1_parse_swap_solution
    if text == "-1" {
        return Ok(memory.map(|_| "max".into()));
    }
    match (parse_size("--memory-swap", text)?, memory) {
        // Without this, what is over the limit would go to the swap, and the limit be none.
        (0, memory) => Ok(memory.map(|_| "0".into())),
        (_, None) => bail!(
            "--memory-swap {text}: that is memory and swap together, and needs --memory as well, such as --memory 128m"
        ),
        (sum, Some(memory)) => match sum.checked_sub(memory) {
            Some(swap) => Ok(Some(swap.to_string())),
            None => bail!(
                "--memory-swap {text}: memory and swap together are less than --memory alone; expected at least as much"
            ),
        },
    }
    // ANCHOR_END: day7_task1_parse_swap_solution
}
// ANCHOR_END: swap

// ANCHOR: cpus
/// `--cpus` as cpu.max has it: so many microseconds of processor time in each
/// period of 100,000. With several processors it may be more than the period.
/// `None`: no limit.
pub fn parse_cpus(text: &str) -> Result<Option<String>> {
    // ANCHOR: day7_task1_parse_cpus_solution
    const PERIOD: f64 = 100_000.0;
    let there = processors()?;
    match text.parse::<f64>() {
        Ok(0.0) => Ok(None),
        // The kernel refuses less than a hundredth: it switches no faster.
        Ok(cpus) if (0.01..=there as f64).contains(&cpus) => {
            Ok(Some(format!("{} {PERIOD}", (cpus * PERIOD).round())))
        }
        _ => bail!(
            "--cpus {text:?}: expected a number from 0.01 to {there}, the processors of this machine, or 0 for no limit"
        ),
    }
    // ANCHOR_END: day7_task1_parse_cpus_solution
}
// ANCHOR_END: cpus

// ANCHOR: processors
/// How many processors this machine runs on. Not `available_parallelism`: that is how many
/// *this process* may use, by its affinity and its cgroup, and both are whoever called us's.
/// (sched_setaffinity(2); kernel: admin-guide/cputopology, "online")
fn processors() -> Result<usize> {
    let place = "/sys/devices/system/cpu/online";
    let text = files::read(place).with_context(|| format!("read {place}"))?;
    count(&String::from_utf8_lossy(&text)).with_context(|| format!("{place} has no list of processors"))
}
// ANCHOR_END: processors

/// How many numbers are in a list such as `0-3,6`.
fn count(list: &str) -> Option<usize> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    });
    ranges.sum()
}

// ANCHOR: pids
/// `--pids-limit` as pids.max has it; `None`, for 0 and less: no limit.
pub fn parse_pids(text: &str) -> Result<Option<String>> {
    // ANCHOR: day7_task1_parse_pids_solution
    match text.parse::<i128>() {
        Ok(..=0) => Ok(None),
        Ok(number @ ..=MOST_PROCESSES) => Ok(Some(number.to_string())),
        Ok(_) => bail!(
            "--pids-limit {text}: that is more than Linux can have; expected at most {MOST_PROCESSES}, or -1 for any"
        ),
        Err(_) => bail!("--pids-limit {text:?}: expected a number of processes, such as 64, or -1 for any"),
    }
    // ANCHOR_END: day7_task1_parse_pids_solution
}
// ANCHOR_END: pids

#[cfg(test)]
mod tests {
    use super::{count, parse_cpus, parse_memory, parse_pids, parse_size, parse_swap};

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("0", 0),
            ("6291456", 6 << 20),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32kb", 32 << 10),
            ("128m", 128 << 20),
            ("128 m", 128 << 20),
            ("128MB", 128 << 20),
            ("128MiB", 128 << 20),
            ("1.5g", 3 << 29),
            ("2t", 2 << 40),
            ("8191p", 8191 << 50),
        ] {
            assert_eq!(parse_size("--memory", text).unwrap(), bytes, "{text}");
        }
        for text in ["", "m", "-1", "128x", "128mm", "128 bytes", "ib", "1ib", "1 2m", "nan", "inf"] {
            let error = parse_size("--memory", text).unwrap_err().to_string();
            assert!(error.contains("such as 128m"), "{error}");
        }
        for text in ["8192p", "18446744073709551616", "99999999999999999999g", "1e400", "1e400m"] {
            let error = parse_size("--memory", text).unwrap_err().to_string();
            assert!(error.contains("more than"), "{error}");
        }
    }

    #[test]
    fn no_memory_is_no_limit() {
        assert_eq!(parse_memory("6m").unwrap(), Some(6 << 20));
        for text in ["0", "0m", "0.0", "-0"] {
            assert_eq!(parse_memory(text).unwrap(), None, "{text}");
        }
        for text in ["1", "0.1b", "5m"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn swap_is_what_is_typed_without_the_memory() {
        let memory = Some(128 << 20);
        for (text, memory, expected) in [
            ("0", memory, Some("0")),
            ("128m", memory, Some("0")),
            ("192m", memory, Some("67108864")),
            ("-1", memory, Some("max")),
            ("0", None, None),
            ("-1", None, None),
        ] {
            assert_eq!(parse_swap(text, memory).unwrap().as_deref(), expected, "{text}");
        }
        for (text, memory) in [("64m", memory), ("-2", memory), ("128m", None)] {
            assert!(parse_swap(text, memory).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_a_share_of_each_period() {
        assert_eq!(parse_cpus("0.5").unwrap().as_deref(), Some("50000 100000"));
        assert_eq!(parse_cpus("1").unwrap().as_deref(), Some("100000 100000"));
        assert_eq!(parse_cpus("0").unwrap(), None);
        for text in ["", "-1", "0.001", "0.0000001", "40960", "half", "nan", "inf", "1e400"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        for (list, expected) in [("0\n", 1), ("0-3\n", 4), ("0-3,6,8-9", 7)] {
            assert_eq!(count(list), Some(expected), "{list}");
        }
        assert_eq!((count(""), count("3-1")), (None, None));
    }

    #[test]
    fn processes_are_as_many_as_linux_can_have() {
        assert_eq!(parse_pids("64").unwrap().as_deref(), Some("64"));
        assert_eq!(parse_pids("4194304").unwrap().as_deref(), Some("4194304"));
        for text in ["0", "-1", "-2"] {
            assert_eq!(parse_pids(text).unwrap(), None, "{text}");
        }
        for text in ["", "+", "many", "6.5", "4194305", "99999999999999999999"] {
            assert!(parse_pids(text).is_err(), "{text}");
        }
    }
}
