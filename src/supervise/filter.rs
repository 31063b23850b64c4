//! Day 14: which events are to be shown.

use std::str::FromStr;

use super::seen::Event;

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    key: String,
    value: String,
}

const KEYS: [&str; 4] = ["container", "event", "image", "type"];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let expected = || "expected container=NAME, event=NAME, image=NAME or type=container".to_string();
        let (key, value) = text.split_once('=').ok_or_else(expected)?;
        if !KEYS.contains(&key) || value.is_empty() {
            return Err(expected());
        }
        Ok(Filter { key: key.into(), value: value.into() })
    }
}

impl Filter {
    /// Whether `event` is to be shown: of each key, one of the values matches.
    pub fn all_match(filters: &[Filter], event: &Event) -> bool {
        let of_key = |key: &str| filters.iter().filter(|filter| filter.key == key).collect::<Vec<_>>();
        KEYS.iter()
            .map(|key| of_key(key))
            .all(|of_key| of_key.is_empty() || of_key.iter().any(|filter| filter.matches(event)))
    }

    fn matches(&self, event: &Event) -> bool {
        let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
        let value = self.value.as_str();
        match self.key.as_str() {
            "container" => attribute("name") == Some(value) || event.id.starts_with(value),
            "image" => {
                let image = attribute("image").unwrap_or_default();
                image == value || image.rsplit_once(':').is_some_and(|(name, _)| name == value)
            }
            // With what it has become, or without: `health_status: healthy`.
            "event" => event.action == value || event.action.split(':').next() == Some(value),
            _ => value == "container",
        }
    }
}
