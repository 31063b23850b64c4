//! Day 12: of all that an index lists, the image for this machine.

use std::str::FromStr;

use anyhow::{bail, ensure};

use crate::error::Result;
use crate::images::spec::{Descriptor, Index, Platform};

impl FromStr for Platform {
    type Err = anyhow::Error;

    /// `linux/arm/v7`, `linux/amd64`, or `arm64` alone.
    fn from_str(text: &str) -> Result<Platform> {
        let words: Vec<&str> = text.split('/').collect();
        let fine = |word: &&str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        ensure!(
            words.len() <= 3 && words.iter().all(fine),
            "the platform {text:?}: expected OS/ARCHITECTURE, such as linux/amd64 or linux/arm/v7"
        );
        let (os, architecture, variant) = match words.as_slice() {
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant, ..] => (*os, *architecture, Some(variant.to_string())),
            [] => ("linux", "", None),
        };
        ensure!(os == "linux", "the platform {text:?}: a container here runs on Linux, not on {os}");
        // As `uname -m` says it.
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Platform { architecture: architecture.into(), os: os.into(), variant })
    }
}

impl Platform {
    /// How well what is made for `made_for` suits; the lower, the better; `None`: not at all.
    /// An older variant of the same processor family will do.
    pub fn suits(&self, made_for: &Platform) -> Option<u32> {
        if (&self.os, &self.architecture) != (&made_for.os, &made_for.architecture) {
            return None;
        }
        let number = |platform: &Platform| {
            let variant = platform.variant.as_deref().unwrap_or(match platform.architecture.as_str() {
                "arm64" => "v8",
                "arm" => "v7",
                _ => "v1",
            });
            variant.strip_prefix('v').and_then(|number| number.parse::<u32>().ok())
        };
        if self.variant == made_for.variant {
            return Some(0);
        }
        number(self)?.checked_sub(number(made_for)?)
    }
}

// ANCHOR: choose
/// The manifest of `index` that suits `platform` best; of several, the first.
pub fn choose<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor> {
    // ANCHOR: day12_task1_choose_solution
    let suits =
        |manifest: &&Descriptor| manifest.platform.as_ref().and_then(|made_for| platform.suits(made_for));
    let suiting = index.manifests.iter().filter(|manifest| suits(manifest).is_some());
    if let Some(best) = suiting.min_by_key(suits) {
        return Ok(best);
    }
    let mut others: Vec<String> = index.manifests.iter().map(name_of_platform).collect();
    others.dedup();
    bail!("there is no image for {platform}, but for these: {}", others.join(", "))
    // ANCHOR_END: day12_task1_choose_solution
}
// ANCHOR_END: choose

fn name_of_platform(manifest: &Descriptor) -> String {
    let name = manifest.platform.as_ref().map_or("unknown".into(), Platform::to_string);
    name.escape_debug().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::images::digest::Digest;
    use crate::images::spec::{Descriptor, Index, Platform};

    fn platform(text: &str) -> Platform {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// An index of these, in this order.
    fn index(platforms: &[&str]) -> Index {
        let descriptor = |text: &&str| Descriptor {
            media_type: String::new(),
            digest: Digest::of(text.as_bytes()),
            size: 0,
            platform: (!text.is_empty()).then(|| platform(text)),
            annotations: Default::default(),
        };
        Index { manifests: platforms.iter().map(descriptor).collect(), ..Index::default() }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let index = index(platforms);
        let chosen = choose(&index, &platform(wanted)).ok()?;
        Some(chosen.platform.as_ref()?.to_string())
    }

    #[test]
    fn the_image_for_this_machine_is_chosen_wherever_it_stands() {
        let all = ["", "linux/arm64/v8", "linux/amd64", "linux/386", "linux/arm/v6"];
        for (wanted, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/arm64", "linux/arm64/v8"),
            ("aarch64", "linux/arm64/v8"),
            ("linux/arm/v7", "linux/arm/v6"),
        ] {
            assert_eq!(chosen(&all, wanted).as_deref(), Some(expected), "{wanted}");
        }
    }

    #[test]
    fn a_newer_variant_does_not_run_and_the_newest_that_does_is_best() {
        assert_eq!(chosen(&["linux/arm/v7"], "linux/arm/v6"), None);
        let all = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"];
        assert_eq!(chosen(&all, "linux/arm/v7").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen(&all, "linux/arm/v6").as_deref(), Some("linux/arm/v6"));
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64"], "amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(chosen(&["linux/amd64/v3"], "amd64"), None);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let index = index(&["linux/s390x", "linux/arm64/v8"]);
        let said = choose(&index, &platform("linux/amd64")).expect_err("amd64").to_string();
        assert!(said.contains("linux/amd64, but for these: linux/s390x, linux/arm64/v8"), "{said}");
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for bad in ["", "linux/", "linux/a/b/c", "windows/amd64", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
