//! What a binding may be, checked at declare.

use crate::error::{Error, Result};
use crate::headers::HeaderValue;
use crate::limits::{MAX_HEADER_BYTES, MAX_HEADERS, RESERVED_HEADER, check_routing_key};
use crate::spec::{Binding, ExchangeKind, HeadersMatch};
use crate::text::escape;

use super::headers::MODE_HEADER;

/// Checks a binding to an exchange of this kind, before any I/O.
///
/// The routing key or pattern has at most 255 bytes and 64 words. A binding to a headers exchange says what to match,
/// in at most 64 headers and 8 KiB, each name once, none of them empty, `x-match` or mq's own (`mq-`), and no value
/// that is not a number; a binding to any other exchange does not match headers.
///
/// # Errors
/// [`InvalidMessage`](crate::Kind::InvalidMessage) for the routing key, [`ConfigInvalid`](crate::Kind::ConfigInvalid)
/// for everything else.
pub fn check_binding(kind: ExchangeKind, binding: &Binding) -> Result<()> {
    check_routing_key(&binding.key)?;
    match (kind, &binding.matching) {
        (ExchangeKind::Headers, Some(matching)) => check_matching(matching),
        (ExchangeKind::Headers, None) => Err(Error::config(format!(
            "the binding to the headers exchange `{}` says nothing to match; use `Binding::headers`",
            escape(&binding.exchange)
        ))),
        (_, Some(_)) => Err(Error::config(format!(
            "`{}` is a {} exchange, which does not match headers; bind by routing key or declare a headers exchange",
            escape(&binding.exchange),
            kind.as_str()
        ))),
        (_, None) => Ok(()),
    }
}

fn check_matching(matching: &HeadersMatch) -> Result<()> {
    let mut names: Vec<&str> = matching.values.iter().map(|(n, _)| n).collect();
    names.extend(matching.present.iter().map(String::as_str));
    let bytes = matching.values.size() + matching.present.iter().map(String::len).sum::<usize>();
    if names.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Error::config(format!(
            "the binding matches {} headers with {bytes} bytes; at most {MAX_HEADERS} with {MAX_HEADER_BYTES} bytes",
            names.len()
        )));
    }
    for name in &names {
        if name.is_empty() || *name == MODE_HEADER || name.starts_with(RESERVED_HEADER) {
            return Err(Error::config(format!(
                "a binding cannot match the header `{}`: empty names, `{MODE_HEADER}` and `mq-` are reserved",
                escape(name)
            )));
        }
    }
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::config(format!("the binding asks twice for the header `{}`", escape(twice[0]))));
    }
    let is_nan = |v: &HeaderValue| matches!(v, HeaderValue::Float(x) if x.is_nan());
    match matching.values.iter().find(|(_, v)| is_nan(v)) {
        Some((name, _)) => Err(Error::config(format!(
            "the header `{}` of the binding is not a number, which equals nothing",
            escape(name)
        ))),
        None => Ok(()),
    }
}
