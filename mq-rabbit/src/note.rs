//! What AMQP has no place for, kept durably with a queue or topic.
//!
//! AMQP never tells the arguments of an object. But a declare that differs is refused with a text that names the
//! present value. So a note is the alternate exchange (a name of nothing) of an exchange that nobody publishes to:
//! a passive declare tells whether there is a note, a declare without alternate exchange what it says, and a
//! differing declaration of the queue is refused by the broker itself.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::FieldTable;
use mq_core::{Bound, Error, Kind, Overflow, QueueSpec, Result};

use crate::connection::Admin;
use crate::{plan, topology};

/// What is kept about a queue or topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Expiry of messages that bring none.
    pub(crate) ttl: Option<Duration>,
    /// A full queue makes its senders wait.
    pub(crate) push_back: bool,
    /// What expires goes to the dead-letter queue.
    pub(crate) keeps_expired: bool,
    /// Partitions of a topic.
    pub(crate) partitions: Option<u32>,
    /// When the topic was made: offsets stored for a namesake before it mean nothing.
    pub(crate) born: Option<u64>,
}

/// The text of a note begins with this. It is short because a refusal has 255 bytes at most.
const MARK: &str = "mq:";

/// The exchange that keeps the note of an object.
pub(crate) fn name_of(object: &str) -> String {
    format!("mq.note.{object}")
}

impl Note {
    /// The note of a queue.
    pub(crate) fn of(spec: &QueueSpec) -> Self {
        let push_back = matches!(spec.bound, Some(Bound { overflow: Overflow::PushBack, .. }));
        Self { ttl: spec.ttl, push_back, keeps_expired: spec.dead_letter_expired, ..Self::default() }
    }

    /// The note of a topic.
    pub(crate) fn of_topic(partitions: u32, born: u64) -> Self {
        Self { partitions: Some(partitions), born: Some(born), ..Self::default() }
    }

    /// Means the same, whenever it was made.
    fn agrees(&self, other: &Self) -> bool {
        Self { born: None, ..*self } == Self { born: None, ..*other }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The text that is kept, if there is anything to keep.
    pub(crate) fn kept(self) -> Option<String> {
        (!self.is_empty()).then(|| self.to_text())
    }

    fn to_text(self) -> String {
        let mut parts = Vec::new();
        if let Some(ttl) = self.ttl {
            parts.push(format!("ttl={}", ttl.as_nanos().div_ceil(1_000_000)));
        }
        if self.push_back {
            parts.push("push-back".to_owned());
        }
        if self.keeps_expired {
            parts.push("keep-expired".to_owned());
        }
        if let Some(partitions) = self.partitions {
            parts.push(format!("partitions={partitions}"));
        }
        if let Some(born) = self.born {
            parts.push(format!("born={born}"));
        }
        format!("{MARK}{}", parts.join(","))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut note = Self::default();
        for part in text.strip_prefix(MARK)?.split(',') {
            match part.split_once('=') {
                Some(("ttl", millis)) => note.ttl = Some(Duration::from_millis(millis.parse().ok()?)),
                Some(("partitions", count)) => note.partitions = Some(count.parse().ok()?),
                Some(("born", millis)) => note.born = Some(millis.parse().ok()?),
                _ if part == "push-back" => note.push_back = true,
                _ if part == "keep-expired" => note.keeps_expired = true,
                // Of a later version.
                _ => {}
            }
        }
        Some(note)
    }

    /// Keeps the note, or finds it equal.
    ///
    /// # Errors
    /// [`AlreadyExists`](Kind::AlreadyExists) if there is another one, or one where none should be.
    pub(crate) async fn keep(self, admin: &Admin, object: &str) -> Result<()> {
        if self.is_empty() {
            let present = Self::read(admin, object).await?;
            return if present.is_empty() { Ok(()) } else { Err(conflict(object, present, self)) };
        }
        let mut arguments = FieldTable::default();
        plan::text(&mut arguments, "alternate-exchange", &self.to_text());
        match declare(admin, object, arguments).await {
            Err(e) if e.kind() == Kind::AlreadyExists => {
                let present = present(&e).unwrap_or_default();
                if present.agrees(&self) {
                    Ok(())
                } else {
                    Err(conflict(object, present, self).with_source(e))
                }
            }
            other => other,
        }
    }

    /// Reads the note; without one, all of it is as by default.
    pub(crate) async fn read(admin: &Admin, object: &str) -> Result<Self> {
        if !topology::exchange_exists(admin, &name_of(object)).await? {
            return Ok(Self::default());
        }
        match declare(admin, object, FieldTable::default()).await {
            Err(e) if e.kind() == Kind::AlreadyExists => present(&e).ok_or_else(|| {
                Error::new(
                    Kind::Unexpected,
                    format!("the note of `{object}` cannot be read; shorten the vhost's name"),
                )
                .with_source(e)
            }),
            Err(e) => Err(e),
            // It was deleted in between, and is made by this declare.
            Ok(()) => Self::forget(admin, object).await.map(|()| Self::default()),
        }
    }

    /// Removes the note.
    pub(crate) async fn forget(admin: &Admin, object: &str) -> Result<()> {
        let name = name_of(object);
        let delete = |channel: lapin::Channel| async move {
            channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await
        };
        admin.find("forget a note", delete).await.map(drop)
    }
}

async fn declare(admin: &Admin, object: &str, arguments: FieldTable) -> Result<()> {
    let name = &name_of(object);
    let options =
        ExchangeDeclareOptions { durable: true, internal: true, ..ExchangeDeclareOptions::default() };
    let work = |channel: lapin::Channel| {
        let arguments = arguments.clone();
        async move {
            channel.exchange_declare(name.as_str().into(), ExchangeKind::Fanout, options, arguments).await
        }
    };
    admin.look("keep a note", work).await
}

/// `… but current is the value 'mq:…' of type 'longstr'`.
fn present(conflict: &Error) -> Option<Note> {
    let (_, rest) = conflict.message().rsplit_once("current is")?;
    Note::parse(rest.split('\'').nth(1)?)
}

pub(crate) fn conflict(object: &str, present: Note, wanted: Note) -> Error {
    let property = if present.ttl != wanted.ttl {
        "ttl"
    } else if present.keeps_expired != wanted.keeps_expired {
        "dead_letter_expired"
    } else if present.partitions != wanted.partitions {
        "partitions"
    } else {
        "overflow"
    };
    Error::new(
        Kind::AlreadyExists,
        format!("`{object}` exists with another {property}; use the same value or delete it"),
    )
    .with_context("property", property)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip() {
        let notes = [
            Note { ttl: Some(Duration::from_millis(5)), push_back: true, ..Note::default() },
            Note { push_back: true, ..Note::default() },
            Note { keeps_expired: true, ..Note::default() },
            Note::of_topic(12, 1_700_000_000_000),
        ];
        for note in notes {
            assert_eq!(Note::parse(&note.to_text()), Some(note));
        }
        assert_eq!(Note::parse("mq:later=1,push-back").map(|n| n.push_back), Some(true));
        assert_eq!(Note::parse("something"), None);
    }

    #[test]
    fn the_present_value_is_read_from_the_refusal() {
        let e = Error::new(
            Kind::AlreadyExists,
            "exchange `mq.note.q` exists with another alternate: received none but current is the value 'mq:ttl=7' of type 'longstr'; use",
        );
        assert_eq!(present(&e).and_then(|n| n.ttl), Some(Duration::from_millis(7)));
    }
}
