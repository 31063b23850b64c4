//! Day 18: what is missing, as Go writes it.

use serde::{Deserialize, Deserializer};

/// Go writes `null` for a list that was never made.
pub fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
