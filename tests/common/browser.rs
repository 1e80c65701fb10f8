//! What a person sees of a page: a real browser without a window.

use std::{path::Path, process::Command};

use super::{blocking, unique};

/// A page as it stood after a few seconds, its scripts run.
pub struct Seen {
    /// The document as markup.
    pub markup: String,
    /// Its text.
    pub text: String,
}

impl Seen {
    /// Asserts that a text is there to be read.
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.text.contains(text), "no {text:?} in: {}", self.text);
        self
    }

    /// Asserts that it is not.
    pub fn is_silent_about(&self, text: &str) -> &Self {
        assert!(!self.text.contains(text), "{text:?} in: {}", self.text);
        self
    }
}

/// Opens a page.
pub fn look(url: &str) -> Seen {
    let markup = browse(&["--dump-dom", url]);
    let text = text_of(&markup);
    Seen { markup, text }
}

/// Takes a picture of a page as it is on a screen of that width.
pub fn picture(url: &str, path: &Path, (width, height): (u32, u32), dark: bool) {
    browse(&[
        &format!("--screenshot={}", path.display()),
        &format!("--window-size={width},{height}"),
        &format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)),
        url,
    ]);
    assert!(path.is_file(), "no picture {}", path.display());
}

fn browse(arguments: &[&str]) -> String {
    let profile = std::env::temp_dir().join(unique("outboxd-browser"));
    let mut command = Command::new("timeout");
    command
        .args([
            "60",
            "chromium-headless-shell",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
        ])
        // Its clock runs ahead whenever nothing is under way: three seconds of polls in no time.
        .arg("--virtual-time-budget=3000")
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments);
    let done = blocking(|| command.output()).unwrap();
    drop(std::fs::remove_dir_all(profile));
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {errors}");
    assert!(!errors.contains("Content Security Policy"), "{errors}");
    assert!(!errors.contains("Uncaught"), "{errors}");
    String::from_utf8(done.stdout).unwrap()
}

fn text_of(markup: &str) -> String {
    let body = markup.split_once("<body").map_or(markup, |(_, body)| body);
    let mut text = String::new();
    for part in body.split('<').skip(1) {
        let (_, after) = part.split_once('>').unwrap_or_default();
        text.push_str(after);
        text.push(' ');
    }
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    let words = text.replace("&nbsp;", " ").replace("&amp;", "&");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}
