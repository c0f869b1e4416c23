//! Headers: a small ordered map of names to flat values.

use std::fmt;

use bytes::Bytes;

/// A header value. Values are flat: no list and no table inside.
///
/// Two values are equal if type and value are equal; `1` and `1.0` differ, as in RabbitMQ's headers exchange.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum HeaderValue {
    /// UTF-8 text.
    Text(String),
    /// Bytes that need not be text.
    Bytes(Bytes),
    /// A signed integer of 64 bits.
    Int(i64),
    /// A double. Not a number is equal to nothing, itself included.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl HeaderValue {
    /// The value as text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(t) = self { Some(t) } else { None }
    }

    /// The value as an integer, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(i) = self { Some(*i) } else { None }
    }

    /// Bytes this value takes in the portable size limit of all headers.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Text(t) => t.len(),
            Self::Bytes(b) => b.len(),
            Self::Int(_) | Self::Float(_) => 8,
            Self::Bool(_) => 1,
        }
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(t) => write!(f, "{t:?}"),
            Self::Bytes(b) => write!(f, "{b:?}"),
            Self::Int(i) => write!(f, "{i}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Bool(b) => write!(f, "{b}"),
        }
    }
}

macro_rules! from {
    ($($t:ty => $variant:ident),+ $(,)?) => {$(
        impl From<$t> for HeaderValue {
            fn from(v: $t) -> Self {
                Self::$variant(v.into())
            }
        }
    )+};
}

from!(String => Text, &str => Text, Bytes => Bytes, i64 => Int, i32 => Int, u32 => Int, f64 => Float, bool => Bool);

/// The headers of a message, in the order in which they were set. A name occurs once.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(Vec<(String, HeaderValue)>);

impl Headers {
    /// No header.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Headers from pairs that may name a header twice: the first place and the last value count.
    pub(crate) fn from_pairs(pairs: Vec<(String, HeaderValue)>) -> Self {
        if pairs.len() <= 32 {
            return pairs.into_iter().collect();
        }
        // Many foreign headers: one look-up each, not one search.
        let mut places = std::collections::HashMap::with_capacity(pairs.len());
        let mut headers: Vec<(String, HeaderValue)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let place = *places.entry(name.clone()).or_insert(headers.len());
            match headers.get_mut(place) {
                Some((_, old)) => *old = value,
                None => headers.push((name, value)),
            }
        }
        Self(headers)
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Sets a header and returns the value it replaces.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<HeaderValue>) -> Option<HeaderValue> {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((name, value));
                None
            }
        }
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        let at = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(at).1)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v))
    }

    /// How many headers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values, as the portable limit counts them.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().map(|(n, v)| n.len() + v.size()).sum()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<String>, V: Into<HeaderValue>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in iter {
            headers.insert(name, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_occurs_once_and_order_is_kept() {
        let mut h: Headers = [("b", 1), ("a", 2)].into_iter().collect();
        assert_eq!(h.insert("b", "x"), Some(HeaderValue::Int(1)));
        assert_eq!(h.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(h.remove("b"), Some("x".into()));
        assert_eq!(h.len(), 1);
    }

    #[test]
    fn equality_is_by_type_and_value() {
        assert_ne!(HeaderValue::from(1), HeaderValue::from(1.0));
        assert_ne!(HeaderValue::from(f64::NAN), HeaderValue::from(f64::NAN));
    }
}
