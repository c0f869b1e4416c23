//! Percent-encoding.

use std::fmt::{self, Write};

/// Decodes `%xx`; `None` if an escape is cut or odd, or if the result is not UTF-8. A plus sign is a plus sign.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let (hex, tail) = tail.split_at_checked(2)?;
            bytes.push(digit(hex[0])? << 4 | digit(hex[1])?);
            rest = tail;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Writes text with every byte of the characters that are not `plain` as `%XX`.
pub(crate) fn encode(text: &str, plain: impl Fn(char) -> bool, out: &mut impl Write) -> fmt::Result {
    for c in text.chars() {
        if plain(c) {
            out.write_char(c)?;
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(out, "%{byte:02X}")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_escapes_are_refused() {
        assert_eq!(decode("a%20%c3%A9+b").as_deref(), Some("a é+b"));
        for bad in ["%", "%2", "%g0", "%+1", "%ff", "%c3"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
