//! Day 14: the keys that leave a container without ending it, in Docker's words.

use std::str::FromStr;

/// The bytes that a terminal sends for these keys, and how many of them have come in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    come: usize,
}

/// Docker's: ctrl-p, ctrl-q.
impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys { keys: vec![16, 17], come: 0 }
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Letters, and what is typed with Ctrl, with commas in between: `ctrl-p,ctrl-q`, `a,ctrl-@`.
    fn from_str(text: &str) -> Result<DetachKeys, String> {
        let key = |word: &str| match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([key @ 0x21..=0x7e], _) => Some(*key),
            (_, Some([letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
            (_, Some([b'@'])) => Some(0),
            (_, Some([other @ b'['..=b'_'])) => Some(other - b'@'),
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.ok_or("expected keys with commas in between, such as ctrl-p,ctrl-q or ctrl-a,d")?;
        Ok(DetachKeys { keys, come: 0 })
    }
}

impl DetachKeys {
    // ANCHOR: filter
    /// What of `typed` is to be passed on, and whether the keys have come. What may be their
    /// beginning is kept back until it is known to be none.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        // ANCHOR: day14_task2_filter_solution
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            while self.come > 0 && *byte != self.keys[self.come] {
                // The first of them was no beginning. What came after it may still be one.
                passed.push(self.keys[0]);
                let rest = self.keys[1..self.come].to_vec();
                self.come = 0;
                for byte in rest {
                    self.take(byte, &mut passed);
                }
            }
            if self.take(*byte, &mut passed) {
                return (passed, true);
            }
        }
        (passed, false)
        // ANCHOR_END: day14_task2_filter_solution
    }
    // ANCHOR_END: filter

    /// Returns whether `byte` is the last of the keys.
    fn take(&mut self, byte: u8, passed: &mut Vec<u8>) -> bool {
        if byte != self.keys[self.come] {
            passed.push(byte);
            return false;
        }
        self.come += 1;
        let all = self.come == self.keys.len();
        if all {
            self.come = 0;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn keys_are_dockers() {
        let bytes = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.keys);
        for (text, expected) in
            [("ctrl-p,ctrl-q", &[16, 17][..]), ("a", b"a"), ("ctrl-@,ctrl-[,ctrl-_", &[0, 27, 31])]
        {
            assert_eq!(bytes(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(DetachKeys::default().keys, [16, 17], "without --detach-keys");
        for text in ["", "ctrl-", "ctrl-P", "ab", "a,,b", "ctrl-p,", "é"] {
            assert!(bytes(text).is_err(), "{text:?} is no list of keys");
        }
    }

    #[test]
    fn what_is_not_all_of_the_keys_is_passed_on() {
        for (keys, typed, passed, leaves) in [
            ("ctrl-p,ctrl-q", &b"ls\x10\x11rest"[..], &b"ls"[..], true),
            ("ctrl-p,ctrl-q", b"\x10\x10\x11", b"\x10", true),
            ("ctrl-p,ctrl-q", b"\x10x\x11", b"\x10x\x11", false),
            ("a,a,b", b"aaab", b"a", true),
            ("a,b,a,c", b"ababac", b"ab", true),
            ("x", b"abcx", b"abc", true),
        ] {
            // In one piece, and byte by byte.
            for size in [typed.len(), 1] {
                let mut state: DetachKeys = keys.parse().unwrap();
                let (mut all, mut left) = (Vec::new(), false);
                for piece in typed.chunks(size) {
                    if !left {
                        let (some, now) = state.filter(piece);
                        all.extend(some);
                        left = now;
                    }
                }
                assert_eq!((&all[..], left), (passed, leaves), "{keys}: {typed:?} in pieces of {size}");
            }
        }
    }
}
