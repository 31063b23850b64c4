//! Day 14: when a container that has ended is started again, and how long that waits: the rules,
//! without anything that waits or starts.

use std::time::Duration;

use crate::plan::Restart;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// Whoever has run for so long does not end because it cannot begin.
const STEADY: Duration = Duration::from_secs(10);

// ANCHOR: parse
/// The policy that `text` names: no, on-failure\[:N], always or unless-stopped.
pub fn parse(text: &str) -> std::result::Result<Restart, String> {
    // ANCHOR: day14_task3_parse_solution
    let (name, times) = match text.split_once(':') {
        Some((name, times)) => (name, Some(times)),
        None => (text, None),
    };
    let policy = match name {
        "no" => Restart::No,
        "always" => Restart::Always,
        "unless-stopped" => Restart::UnlessStopped,
        "on-failure" => Restart::OnFailure(None),
        _ => return Err("expected no, on-failure, on-failure:3, always or unless-stopped".into()),
    };
    match (policy, times.map(str::parse::<u32>)) {
        (policy, None) => Ok(policy),
        // As Docker has it: so often as it happens.
        (Restart::OnFailure(_), Some(Ok(times))) => Ok(Restart::OnFailure(Some(times).filter(|n| *n > 0))),
        (Restart::OnFailure(_), Some(Err(_))) => {
            Err("after the colon, expected how often at most, such as on-failure:3".into())
        }
        (_, Some(_)) => Err(format!("only on-failure takes a number; expected {name} alone")),
    }
    // ANCHOR_END: day14_task3_parse_solution
}
// ANCHOR_END: parse

// ANCHOR: decide
/// Whether a container is started again that has ended with `exit_code`, and has been so
/// `restarts` times before. `by_person`: a person has ended it.
pub fn is_started_again(policy: Restart, exit_code: u8, restarts: u32, by_person: bool) -> bool {
    // ANCHOR: day14_task3_is_started_again_solution
    match policy {
        // What a person has stopped stays stopped, whatever the policy.
        _ if by_person => false,
        Restart::No => false,
        Restart::OnFailure(at_most) => exit_code != 0 && at_most.is_none_or(|times| restarts < times),
        // They differ only after a boot, when nobody has just ended anything.
        Restart::Always | Restart::UnlessStopped => true,
    }
    // ANCHOR_END: day14_task3_is_started_again_solution
}
// ANCHOR_END: decide

// ANCHOR: back_off
/// How long to wait before a container is started again that has run for `ran_for`. `before`: how
/// long the last wait was, if there was one.
///
/// A program that fails at once would otherwise be started hundreds of times a second, by each
/// container that has it; and one that waits for a database finds it a moment later.
pub fn back_off(before: Option<Duration>, ran_for: Duration) -> Duration {
    // ANCHOR: day14_task3_back_off_solution
    match before {
        Some(before) if ran_for < STEADY => (before * 2).min(LONGEST),
        _ => FIRST,
    }
    // ANCHOR_END: day14_task3_back_off_solution
}
// ANCHOR_END: back_off

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_doubled_up_to_a_minute_and_begins_anew_after_a_steady_run() {
        let (mut wait, mut waits) = (None, vec![]);
        for _ in 0..12 {
            wait = Some(back_off(wait, Duration::from_secs(9)));
            waits.extend(wait.map(|wait| wait.as_millis()));
        }
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000],
            "the waits"
        );
        assert_eq!(back_off(wait, STEADY), FIRST, "the wait after a run of 10 s");
    }

    #[test]
    fn a_policy_is_written_as_it_is_read() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            let read = parse(text).map(|policy| policy.to_string());
            assert_eq!(read.as_deref(), Ok(text), "{text}");
        }
        assert_eq!(parse("on-failure:0"), Ok(Restart::OnFailure(None)), "0: as often as it happens");
    }
}
