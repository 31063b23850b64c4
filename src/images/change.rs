//! Day 12: an instruction of a Dockerfile that changes an image's configuration.

use std::str::FromStr;

use anyhow::bail;

use crate::error::Result;
use crate::images::spec::Settings;

/// What `commit --change` takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    instruction: String,
    words: Vec<String>,
}

impl FromStr for Change {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Change> {
        let (instruction, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let (instruction, rest) = (instruction.to_uppercase(), rest.trim());
        let words = match instruction.as_str() {
            // A list in JSON; or else a line for a shell.
            "CMD" | "ENTRYPOINT" => match serde_json::from_str::<Vec<String>>(rest) {
                Ok(words) => words,
                Err(_) => vec!["/bin/sh".into(), "-c".into(), rest.into()],
            },
            "VOLUME" if rest.starts_with('[') => serde_json::from_str(rest)?,
            "ENV" | "LABEL" if !rest.contains('=') => match rest.split_once(char::is_whitespace) {
                Some((name, value)) => vec![format!("{name}={}", value.trim())],
                None => bail!("{text:?}: expected {instruction} NAME=VALUE"),
            },
            "ENV" | "LABEL" => words(rest),
            "EXPOSE" | "VOLUME" => rest.split_whitespace().map(String::from).collect(),
            "STOPSIGNAL" | "USER" | "WORKDIR" => vec![rest.into()],
            _ => bail!(
                "{text:?}: expected CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR, \
                 and what it is to be"
            ),
        };
        if rest.is_empty() {
            bail!("{text:?}: expected something after {instruction}");
        }
        Ok(Change { instruction, words })
    }
}

/// Words with spaces between them; those in quotes are one.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], String::new(), None);
    for char in text.chars() {
        match (quote, char) {
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            (None, ' ' | '\t') => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()))
            }
            _ => word.push(char),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, settings: &mut Settings) {
        let words = self.words.clone();
        let first = || words.first().cloned().unwrap_or_default();
        let pairs = || words.iter().map(|word| word.split_once('=').unwrap_or((word, "")));
        match self.instruction.as_str() {
            "CMD" => settings.cmd = words,
            "ENTRYPOINT" => settings.entrypoint = words,
            "STOPSIGNAL" => settings.stop_signal = first(),
            "USER" => settings.user = first(),
            "WORKDIR" => settings.working_dir = first(),
            "VOLUME" => settings.volumes.extend(words.into_iter().map(|path| (path, Default::default()))),
            "LABEL" => settings.labels.extend(pairs().map(|(name, value)| (name.into(), value.into()))),
            "EXPOSE" => settings.exposed_ports.extend(
                words
                    .into_iter()
                    .map(|port| (if port.contains('/') { port } else { port + "/tcp" }, Default::default())),
            ),
            _ => {
                for (name, value) in pairs() {
                    settings.env.retain(|old| old.split('=').next() != Some(name));
                    settings.env.push(format!("{name}={value}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Change;
    use crate::images::spec::Settings;

    #[test]
    fn instructions_change_what_they_are_about() {
        let mut settings = Settings { env: vec!["A=1".into(), "B=2".into()], ..Settings::default() };
        for text in [
            r#"CMD ["sh", "-c", "true"]"#,
            "entrypoint /bin/run it",
            "ENV A=3 C='x y'",
            "LABEL a b",
            "EXPOSE 80 53/udp",
            "WORKDIR /srv",
        ] {
            text.parse::<Change>().unwrap().apply(&mut settings);
        }
        assert_eq!(settings.cmd, ["sh", "-c", "true"]);
        assert_eq!(settings.entrypoint, ["/bin/sh", "-c", "/bin/run it"]);
        assert_eq!(settings.env, ["B=2", "A=3", "C=x y"]);
        assert_eq!(settings.labels["a"], "b");
        assert_eq!(settings.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(settings.working_dir, "/srv");
        for bad in ["", "RUN ls", "CMD", "ENV A", "USER"] {
            assert!(bad.parse::<Change>().is_err(), "{bad}");
        }
    }
}
