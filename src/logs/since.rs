//! Day 5: the times and numbers that `logs` is asked for, in the words that Docker takes.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// From when on to show: a point in time, or how long ago that was.
pub fn since(text: &str) -> std::result::Result<Timestamp, String> {
    let ago = || duration(text).and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    ago().or_else(|| date(text)).or_else(|| unix_time(text)).ok_or_else(|| {
        "expected a time such as 2026-11-23 or 2026-11-23T10:00:00 (local time, unless Z or +01:00 follows), \
         how long ago it was, such as 10m, 1h30m or 1.5h, or seconds since 1970"
            .into()
    })
}

/// How many lines to show, from the end; `None`: all of them.
pub fn lines(text: &str) -> std::result::Result<Option<usize>, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "all" => Ok(None),
        _ if !is_number => Err("expected a number of lines, or all".into()),
        // Fewer than none, says Docker, is all.
        _ if text.starts_with('-') => Ok(digits.parse::<u64>().is_ok_and(|lines| lines == 0).then_some(0)),
        // More than can be counted is all of them too.
        _ => Ok(digits.parse().ok()),
    }
}

/// A date, with a time if there is one, of the zone that follows it or of this machine's.
fn date(text: &str) -> Option<Timestamp> {
    // The first two dashes are the date's.
    let sign = text.get(10..)?.rfind(['+', '-']).map(|at| at + 10);
    let zone_begins = text.len() - usize::from(text.ends_with(['Z', 'z']));
    let (local, zone) = text.split_at(sign.unwrap_or(zone_begins));
    let local: DateTime = local.parse().ok()?;
    match zone {
        "" => Some(TimeZone::system().to_timestamp(local).ok()?),
        zone => format!("{local}{zone}").parse().ok(),
    }
}

/// Seconds since 1970, perhaps with a fraction.
fn unix_time(text: &str) -> Option<Timestamp> {
    let (number, rest) = number(text)?;
    if rest.is_empty() {
        Timestamp::from_nanosecond(number.checked_mul(1_000_000_000)? / NANO).ok()
    } else {
        None
    }
}

/// A duration as Go writes it: numbers, each with its unit, and a sign before them.
/// (pkg.go.dev/time, ParseDuration)
fn duration(text: &str) -> Option<SignedDuration> {
    let units =
        [("ns", 1), ("us", 1_000), ("µs", 1_000), ("μs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    let longer = [("m", 60_000_000_000), ("h", 3_600_000_000_000)];
    let mut nanoseconds = 0_i128;
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    loop {
        let (number, after) = number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let (_, unit) = units.iter().chain(&longer).find(|(unit, _)| *unit == name)?;
        nanoseconds = nanoseconds.checked_add(number.checked_mul(*unit)? / NANO)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let nanoseconds = i64::try_from(nanoseconds).ok()?;
    let duration = SignedDuration::from_nanos(nanoseconds);
    Some(if text.starts_with('-') { -duration } else { duration })
}

/// What [`number`] counts in.
const NANO: i128 = 1_000_000_000;

/// The decimal number that `text` begins with, in billionths, and what comes after it.
fn number(text: &str) -> Option<(i128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((whole.checked_mul(NANO)?.checked_add(fraction)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_gos() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        for (text, expected) in [
            ("10m", 600.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("1.5h30m", 7200.0),
            (".5s", 0.5),
            ("1h15m30.918s", 4530.918),
            ("300ms", 0.3),
            ("2us", 2e-6),
            ("2µs", 2e-6),
            ("-1h", -3600.0),
            ("+5m", 300.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "-", "10", "m", "m10", "1h30", "1..5h", "1.5.5h", ".h", "1 h", "1d", "99999999999h"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_is_local_if_no_zone_is_said() {
        let at = |text: &str| since(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let utc = |text: &str| text.parse::<Timestamp>().unwrap();
        for (text, expected) in [
            ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
            ("2026-11-23T10:00:00.5z", "2026-11-23T10:00:00.5Z"),
            ("2026-11-23T10:00:00+01:00", "2026-11-23T09:00:00Z"),
            ("2026-11-23T10:00-01:00", "2026-11-23T11:00:00Z"),
            ("2026-11-23T10Z", "2026-11-23T10:00:00Z"),
            ("2026-11-23Z", "2026-11-23T00:00:00Z"),
            ("2026-11-23+01:00", "2026-11-22T23:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("1700000000.5", "2023-11-14T22:13:20.5Z"),
            ("1700000000.000000001", "2023-11-14T22:13:20.000000001Z"),
            ("0", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(at(text), utc(expected), "{text}");
        }
        let local = |text: &str| TimeZone::system().to_timestamp(text.parse().unwrap()).unwrap();
        for text in ["2026-11-25", "2026-11-25T10", "2026-11-25T10:30", "2026-11-25T10:30:01.25"] {
            assert_eq!(at(text), local(text), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2026-11-25T25:00", "-5", "1e3", "ü", "2026-11-25T10:00ü"]
        {
            assert!(since(text).is_err(), "{text}");
        }
        assert!(since("99999999999999999999999999999999999999999").is_err());
    }

    #[test]
    fn fewer_lines_than_none_are_all() {
        for (text, expected) in [
            ("all", None),
            ("-1", None),
            ("-99", None),
            ("99999999999999999999999", None),
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+5", Some(5)),
            ("12", Some(12)),
        ] {
            assert_eq!(lines(text), Ok(expected), "{text}");
        }
        for text in ["", "-", "many", "1.5", "1k", "--1"] {
            assert!(lines(text).is_err(), "{text}");
        }
    }
}
