//! Text that came from outside, made safe to print.

use std::fmt;

/// Shows text with control characters escaped, so that a key or a header cannot forge a log line.
pub fn escape(text: &str) -> impl fmt::Display + '_ {
    Escaped(text)
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn controls_are_escaped_and_the_rest_is_kept() {
        assert_eq!(escape("a\nb\u{1b}[31m é`").to_string(), "a\\nb\\u{1b}[31m é`");
        assert_eq!(escape("x\u{202e}y").to_string(), "x\\u{202e}y");
    }
}
