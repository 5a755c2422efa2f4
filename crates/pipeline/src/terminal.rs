//! What is shown to a person. Names, paths and texts come from files of others: none of them may steer a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, StdoutLock, Write};

/// A text without characters that a terminal obeys, or that turn its direction; they are shown as `\u{1b}`.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if steers(letter) {
            // Writing to a string cannot fail.
            let _ = write!(cleaned, "{}", letter.escape_unicode());
        } else {
            cleaned.push(letter);
        }
    }
    Cow::Owned(cleaned)
}

fn steers(letter: char) -> bool {
    let directions = matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    directions || (letter.is_control() && !matches!(letter, '\n' | '\t'))
}

/// stdout, cleaned.
pub(crate) struct Stdout(StdoutLock<'static>);

/// Takes stdout until it is dropped.
pub(crate) fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What is formatted comes in whole texts.
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(clean(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_steers_a_terminal() {
        assert_eq!(clean("a\tb\nµ"), "a\tb\nµ");
        assert_eq!(clean("a\u{1b}[31mb\r"), "a\\u{1b}[31mb\\u{d}");
        assert_eq!(clean("\u{9b}1A\u{202e}\u{7f}"), "\\u{9b}1A\\u{202e}\\u{7f}");
    }
}
