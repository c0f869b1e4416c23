//! Native errors as errors of the contract: pure, table-tested.

use std::future::Future;
use std::io;
use std::time::Duration;

use lapin::ErrorKind;
use mq_core::text::escape;
use mq_core::{Error, Fate, Kind, Result, Status};

/// The backend's short name.
pub(crate) const BACKEND: &str = "rabbit";

/// What the broker or the client said, as kind, status and one line that says what to do.
pub(crate) fn classify(error: &lapin::Error) -> Error {
    let mapped = match error.kind() {
        ErrorKind::ProtocolError(e) => protocol(e.get_id(), e.get_message().as_str()),
        ErrorKind::IOError(e) => from_io(e),
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => Error::disconnected(
            "the peer does not speak AMQP 0.9.1; is this a TLS port (amqps://), or another service?",
        ),
        ErrorKind::ChannelsLimitReached => Error::new(
            Kind::RateLimited,
            "the connection has no channel left; close producers or consumers, or raise channel_max of the broker",
        ),
        ErrorKind::MissingHeartbeatError => {
            Error::disconnected("the broker was silent for two heartbeats; check the broker and the network")
        }
        ErrorKind::AuthProviderError(_) => {
            Error::new(Kind::Unauthenticated, "the broker's login mechanism is not supported; offer PLAIN")
        }
        ErrorKind::SerialisationError(_) => {
            Error::invalid("the message cannot be written as AMQP frames; shorten its headers")
        }
        _ => Error::disconnected("the channel or connection is closed"),
    };
    mapped.with_source(error.clone()).with_backend(BACKEND)
}

/// A refused login arrives as a channel-level 403, although there is no connection.
pub(crate) fn classify_connect(error: &lapin::Error) -> Error {
    let login = matches!(error.kind(), ErrorKind::ProtocolError(e) if e.get_id() == 403);
    if !login {
        return classify(error);
    }
    Error::new(Kind::Unauthenticated, "the broker refuses this user and password; check the credentials")
        .with_source(error.clone())
        .with_backend(BACKEND)
}

/// By reply code. The client's own notion of what is recoverable takes every protocol error for temporary.
fn protocol(code: u16, text: &str) -> Error {
    let said = || format!("the broker says {code}: {}", escape(text));
    match code {
        311 => Error::new(Kind::TooLarge, said()),
        320 => Error::disconnected(said()),
        403 => Error::new(Kind::PermissionDenied, said()),
        404 => not_found(text).unwrap_or_else(|| Error::new(Kind::NotFound, said())),
        405 => Error::new(Kind::PermissionDenied, format!("{}; it belongs to another connection", said())),
        406 if text.contains("wildcards") => Error::config(format!("{}; use fewer `#`", said())),
        406 => precondition(text).unwrap_or_else(|| Error::new(Kind::Unexpected, said())),
        506 => Error::new(Kind::RateLimited, said()),
        530 if text.contains("not found") => Error::new(
            Kind::NotFound,
            format!("{}; make the vhost, or write its name percent-encoded (/ is %2F)", said()),
        ),
        530 => Error::new(Kind::PermissionDenied, said()),
        541 => Error::disconnected(said()),
        _ => Error::new(Kind::Unexpected, said()),
    }
}

/// `NOT_FOUND - no queue 'x' in vhost '/'`.
fn not_found(text: &str) -> Option<Error> {
    let (sort, rest) = match text.split_once("no queue '") {
        Some((_, rest)) => ("queue", rest),
        None => ("exchange", text.split_once("no exchange '")?.1),
    };
    Some(Error::not_found(sort, rest.split_once('\'')?.0))
}

/// `PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'x' in vhost '/': received 'false' but current is
/// 'true'`, and the longer form for arguments with types.
fn precondition(text: &str) -> Option<Error> {
    let rest = text.split_once("inequivalent arg '")?.1;
    let (argument, rest) = rest.split_once('\'')?;
    let rest = rest.strip_prefix(" for ")?;
    let (sort, rest) = rest.split_once(" '")?;
    let (name, rest) = rest.split_once('\'')?;
    let values = rest.split_once(": ").map_or(rest, |(_, v)| v);
    let property = property_of(argument);
    Some(
        Error::new(
            Kind::AlreadyExists,
            format!(
                "{} `{}` exists with another {property}: {}; use the same value or delete it",
                escape(sort),
                escape(name),
                escape(values)
            ),
        )
        .with_context("property", property),
    )
}

/// The word of the contract for an AMQP argument.
fn property_of(argument: &str) -> String {
    let word = match argument {
        "x-queue-type" | "x-max-priority" => "priority or exclusive (queue type)",
        "x-max-length" => "max_messages",
        "x-max-length-bytes" => "max_bytes",
        "x-overflow" => "overflow",
        "x-delivery-limit" => "max_deaths",
        "x-max-age" => "retention",
        "alternate-exchange" => "alternate",
        "type" => "kind",
        other => return escape(other).to_string(),
    };
    word.to_owned()
}

/// TLS failures arrive as `InvalidData`: no retry helps there.
fn from_io(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData => Error::config(format!(
            "the TLS handshake failed: {}; check the CA, the host name, and whether this port speaks TLS",
            escape(&error.to_string())
        )),
        _ => Error::disconnected(format!("the connection failed: {}", escape(&error.to_string()))),
    }
}

/// An error of a channel, unless the whole connection is gone: the client then gives every channel the first error it
/// had, and that may be the refusal of somebody else's question.
pub(crate) fn whose(error: Error, connection: &lapin::ConnectionStatus) -> Error {
    if connection.connected() || error.kind() == Kind::Disconnected {
        return error;
    }
    let fate = error.fate();
    Error::disconnected("the connection is gone; the client connects again")
        .with_fate(fate)
        .with_source(error)
        .with_backend(BACKEND)
}

/// Puts a deadline on an await.
pub(crate) async fn within<T>(
    operation: &'static str,
    limit: Duration,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(|e| classify(&e).with_operation(operation)),
        Err(_) => Err(Error::timeout(operation, limit).with_backend(BACKEND)),
    }
}

/// A failure after hand-over: nobody knows what the broker did.
pub(crate) fn unknown(error: &lapin::Error) -> Error {
    let mapped = classify(error);
    let status = if mapped.kind() == Kind::Disconnected { Status::Temporary } else { mapped.status() };
    mapped.with_status(status).with_fate(Fate::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_codes() {
        let table = [
            (404, "NOT_FOUND - no queue 'a' in vhost '/'", Kind::NotFound, "queue `a`"),
            (404, "NOT_FOUND - no exchange 'e' in vhost '/'", Kind::NotFound, "exchange `e`"),
            (403, "ACCESS_REFUSED - x", Kind::PermissionDenied, "403"),
            (405, "RESOURCE_LOCKED - x", Kind::PermissionDenied, "another connection"),
            (530, "NOT_ALLOWED - vhost v not found", Kind::NotFound, "vhost"),
            (530, "NOT_ALLOWED - access to vhost 'v' refused", Kind::PermissionDenied, "530"),
            (320, "CONNECTION_FORCED - bye", Kind::Disconnected, "320"),
            (311, "CONTENT_TOO_LARGE", Kind::TooLarge, "311"),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received the value '1' of type 'long' but current is none",
                Kind::AlreadyExists,
                "max_messages",
            ),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': received 'topic' but current is 'direct'",
                Kind::AlreadyExists,
                "kind",
            ),
            (406, "PRECONDITION_FAILED - unknown delivery tag 9", Kind::Unexpected, "406"),
        ];
        for (code, text, kind, part) in table {
            let e = protocol(code, text);
            assert_eq!(e.kind(), kind, "{text}");
            assert!(e.to_string().contains(part), "{e}");
        }
    }

    #[test]
    fn a_tls_failure_is_not_retried() {
        let tls =
            from_io(&io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"));
        assert_eq!((tls.kind(), tls.is_temporary()), (Kind::ConfigInvalid, false));
        let cut = from_io(&io::Error::new(io::ErrorKind::ConnectionReset, "reset"));
        assert_eq!((cut.kind(), cut.is_temporary()), (Kind::Disconnected, true));
    }
}
