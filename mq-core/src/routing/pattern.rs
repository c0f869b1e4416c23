//! Words of routing keys, and patterns in their shortest form.

/// The words of a routing key: what lies between the dots. The empty key has none; `a.` has two, the second empty.
pub(super) fn words(key: &str) -> impl Iterator<Item = &str> {
    // Words are short: looking at each byte beats the searcher of `str::split`.
    let mut rest = (!key.is_empty()).then_some(key);
    std::iter::from_fn(move || {
        let key = rest?;
        let Some(dot) = key.bytes().position(|b| b == b'.') else { return rest.take() };
        rest = Some(&key[dot + 1..]);
        Some(&key[..dot])
    })
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// This word.
    Word(&'a str),
    /// `*`: any one word.
    One,
    /// `#`: any number of words, also none.
    Any,
}

/// True if the pattern has a wildcard. Only a whole word is one: `a*` is a plain word.
pub(super) fn is_wild(pattern: &str) -> bool {
    words(pattern).any(|w| w == "*" || w == "#")
}

/// The parts of a pattern, with each run of wildcards in its shortest form: all `*` of the run, then one `#` if it
/// has any. `#.*.#` asks for one or more words and so does `*.#`, but with fewer states; after it, `#` stands only
/// before a word or at the end.
pub(super) fn parts(pattern: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut any = false;
    for word in words(pattern) {
        match word {
            "*" => parts.push(Part::One),
            "#" => any = true,
            word => {
                if std::mem::take(&mut any) {
                    parts.push(Part::Any);
                }
                parts.push(Part::Word(word));
            }
        }
    }
    if any {
        parts.push(Part::Any);
    }
    parts
}

/// A pattern in its shortest form.
pub(super) fn shortest(parts: &[Part<'_>]) -> Box<str> {
    let text = |part: &Part<'_>| match part {
        Part::Word(word) => (*word).to_owned(),
        Part::One => "*".to_owned(),
        Part::Any => "#".to_owned(),
    };
    parts.iter().map(text).collect::<Vec<_>>().join(".").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_words_count_and_the_empty_key_has_none() {
        let split = |k| words(k).collect::<Vec<_>>();
        assert_eq!(split(""), [""; 0]);
        assert_eq!(split("."), ["", ""]);
        assert_eq!(split("a."), ["a", ""]);
        assert_eq!(split(".a"), ["", "a"]);
        assert_eq!(split("a..b"), ["a", "", "b"]);
    }

    #[test]
    fn runs_of_wildcards_are_shortened() {
        use Part::{Any, One, Word};
        assert_eq!(parts("#.#.#"), [Any]);
        assert_eq!(parts("#.*.#.*.a"), [One, One, Any, Word("a")]);
        assert_eq!(parts("a.#.#.b.*"), [Word("a"), Any, Word("b"), One]);
        assert_eq!(parts("a*.#b"), [Word("a*"), Word("#b")]);
        assert_eq!(parts(".#"), [Word(""), Any]);
        assert!(parts("").is_empty());
    }

    #[test]
    fn only_a_whole_word_is_a_wildcard() {
        assert!(is_wild("a.#") && is_wild("*") && is_wild("#.a"));
        assert!(!is_wild("a*.b#") && !is_wild("") && !is_wild("a..b"));
    }
}
