//! The mappings that come with outboxd.

/// A mapping by name.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// As `--preset` has it.
    pub name: &'static str,
    /// The file, which begins with what one should know.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// All of them, by name.
        pub const PRESETS: &[Preset] = &[$(Preset {
            name: $name,
            text: include_str!(concat!("../../presets/", $name, ".toml")),
        }),*];
    };
}

presets![
    "cap",
    "debezium",
    "debezium-quarkus",
    "deroldo",
    "eventferry",
    "eventuate",
    "go-outbox",
    "goharvest",
    "modulith-v1",
    "modulith-v2",
    "namastack",
    "nestarc",
    "open-outbox",
    "outboxy",
    "oxide",
    "pg-tide",
    "pgx-outbox",
    "sbmt",
    "tomorrow-one",
    "watermill",
    "watermill-queue",
    "zehelein",
];

impl Preset {
    /// The preset of that name.
    ///
    /// # Errors
    /// In words, with all the names.
    pub fn named(name: &str) -> Result<Self, String> {
        let preset = PRESETS.iter().find(|preset| preset.name == name);
        preset.copied().ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
            format!(
                "there is no preset {name:?}; there are {}",
                names.join(", ")
            )
        })
    }

    /// What it is of, in a line.
    pub fn summary(self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches(['#', ' '])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_mapping_and_says_what_it_is() {
        for preset in PRESETS {
            let parsed = super::super::parse("a preset", preset.text);
            assert!(parsed.is_ok(), "{}: {parsed:?}", preset.name);
            assert!(!preset.summary().is_empty(), "{}", preset.name);
        }
        assert!(PRESETS.is_sorted_by_key(|preset| preset.name));
    }
}
