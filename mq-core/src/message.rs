//! The message: what an application sends and what it receives.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::headers::{HeaderValue, Headers};
use crate::id::MessageId;
use crate::text::escape;
use crate::time::Timestamp;
use crate::trail::Trail;

/// A message: payload, key, headers and delivery options.
///
/// Cloning is cheap: payload, key and a text id are shared. Portable limits (checked before any I/O): payload
/// 1,000,000 bytes on any object, 4 MiB − 64 KiB on objects that mq declared; key, id, correlation id, reply-to
/// and content type 200 bytes each; 64 headers of 8 KiB in all, a header's name 255 bytes.
///
/// ```
/// use mq_core::Message;
/// use std::time::Duration;
///
/// let message = Message::text("remind me")
///     .with_key("customer-7")
///     .with_header("tenant", "blue")
///     .with_delay(Duration::from_secs(1800));
/// assert_eq!(message.payload(), &b"remind me"[..]);
/// ```
pub struct Message {
    pub(crate) id: Option<MessageId>,
    pub(crate) payload: Bytes,
    pub(crate) key: Option<Arc<[u8]>>,
    pub(crate) timestamp: Timestamp,
    pub(crate) meta: Option<Box<Meta>>,
}

impl Clone for Message {
    /// By hand, to be inlined: a broker makes a copy of each message it delivers.
    #[inline]
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            payload: self.payload.clone(),
            key: self.key.clone(),
            timestamp: self.timestamp,
            meta: self.meta.clone(),
        }
    }
}

/// What most messages do not carry, behind one pointer, so that a queued message stays small.
#[derive(Clone, Default)]
pub(crate) struct Meta {
    pub(crate) headers: Headers,
    pub(crate) content_type: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) delay: Option<Duration>,
    pub(crate) due: Option<Timestamp>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) priority: u8,
    pub(crate) trail: Option<Box<Trail>>,
    pub(crate) native: Option<Arc<dyn Any + Send + Sync>>,
}

/// Constructors.
impl Message {
    /// A message with this payload.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { id: None, payload: payload.into(), key: None, timestamp: Timestamp::default(), meta: None }
    }

    /// A message with a text payload; sets no content type.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Bytes::from(text.into()))
    }

    /// A message with a JSON payload and content type `application/json`.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if the value cannot be written as JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self> {
        let payload = serde_json::to_vec(value).map_err(|e| {
            Error::invalid(format!("the value cannot be written as JSON: {e}")).with_source(e)
        })?;
        Ok(Self::new(payload).with_content_type("application/json"))
    }
}

/// Setters.
impl Message {
    pub(crate) fn meta_mut(&mut self) -> &mut Meta {
        self.meta.get_or_insert_default()
    }

    /// Sets the id. Without one, mq mints one at the first send. At most 200 bytes, not empty.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the key: messages of one key keep their order where the backend orders by key, and go to one
    /// partition of a topic. At most 200 bytes.
    #[must_use]
    pub fn with_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(Arc::from(key.as_ref()));
        self
    }

    /// Sets one header. Names that start with `mq-` are reserved; the send refuses them.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<HeaderValue>) -> Self {
        self.meta_mut().headers.insert(name, value);
        self
    }

    /// Replaces all headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.meta_mut().headers = headers;
        self
    }

    /// All headers, to change them in place.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.meta_mut().headers
    }

    /// Says what the payload is, as a media type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.meta_mut().content_type = Some(content_type.into());
        self
    }

    /// Ties this message to another one, for example a reply to its request. mq carries it and does nothing else.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.meta_mut().correlation_id = Some(id.into());
        self
    }

    /// Names where a reply should go. mq carries it and does nothing else.
    #[must_use]
    pub fn with_reply_to(mut self, reply_to: impl Into<String>) -> Self {
        self.meta_mut().reply_to = Some(reply_to.into());
        self
    }

    /// Sets when the message was made, if that was not now.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Delivers not before this time has passed since the send. Replaces [`deliver_at`](Self::deliver_at).
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        let meta = self.meta_mut();
        (meta.delay, meta.due) = (Some(delay), None);
        self
    }

    /// Delivers not before this point in time. A time in the past means now.
    #[must_use]
    pub fn deliver_at(mut self, due: Timestamp) -> Self {
        let meta = self.meta_mut();
        (meta.delay, meta.due) = (None, Some(due));
        self
    }

    /// The message is worthless this long after it was due (or sent, if it has no delay): it is not delivered
    /// then, but dropped, or dead-lettered if the queue asks for it.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        let meta = self.meta_mut();
        (meta.ttl, meta.expires) = (Some(ttl), None);
        self
    }

    /// Priority 0 (default) to 9: higher ones are delivered first. Refused by backends that are not strict
    /// about it.
    #[must_use]
    pub fn with_priority(mut self, priority: u8) -> Self {
        self.meta_mut().priority = priority;
        self
    }
}

/// Readers.
impl Message {
    /// The id, if one was set or stamped. A received message of a foreign producer gets one on arrival.
    #[must_use]
    pub fn id(&self) -> Option<&MessageId> {
        self.id.as_ref()
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload as text.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is not UTF-8: a permanent error, which the run loop
    /// dead-letters.
    pub fn to_str(&self) -> Result<&str> {
        std::str::from_utf8(&self.payload)
            .map_err(|e| Error::invalid("the payload is not UTF-8 text").with_source(e))
    }

    /// Reads the payload as JSON.
    ///
    /// # Errors
    /// [`InvalidMessage`](crate::Kind::InvalidMessage) if it is not JSON of this shape: a permanent error, which
    /// the run loop dead-letters.
    #[cfg(feature = "json")]
    pub fn to_json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.payload)
            .map_err(|e| Error::invalid(format!("the payload is not the expected JSON: {e}")).with_source(e))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// When the message was made.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        static NONE: Headers = Headers::new();
        self.meta.as_ref().map_or(&NONE, |m| &m.headers)
    }

    /// One header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.headers().get(name)
    }

    /// What the payload is, as a media type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.meta.as_ref()?.content_type.as_deref()
    }

    /// The message this one belongs to.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.meta.as_ref()?.correlation_id.as_deref()
    }

    /// Where a reply should go.
    #[must_use]
    pub fn reply_to(&self) -> Option<&str> {
        self.meta.as_ref()?.reply_to.as_deref()
    }

    /// When it is due, if it was delayed. Set once the message has been stamped for sending.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.meta.as_ref()?.due
    }

    /// When it expires. Set once the message has been stamped for sending.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.meta.as_ref()?.expires
    }

    /// Priority 0 to 9.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.meta.as_ref().map_or(0, |m| m.priority)
    }

    /// What went wrong with it so far: failures, cause, origin. `None` if nothing did.
    #[must_use]
    pub fn trail(&self) -> Option<&Trail> {
        self.meta.as_ref()?.trail.as_deref()
    }
}

/// For drivers and emulations: the message as an envelope. All of it is outside semantic versioning's promise to
/// applications, and inside its promise to backend authors.
impl Message {
    /// Makes the message ready for a driver: id, timestamp, absolute due and expiry time. Idempotent: a re-send
    /// keeps all of them.
    #[inline]
    pub fn stamp(&mut self, now: Timestamp) {
        if self.id.is_none() || !self.is_timed() {
            self.stamp_anew(now);
        }
    }

    fn stamp_anew(&mut self, now: Timestamp) {
        self.id.get_or_insert_with(MessageId::mint);
        if self.timestamp == Timestamp::default() {
            self.timestamp = now;
        }
        let Some(meta) = &mut self.meta else { return };
        if let Some(delay) = meta.delay.take() {
            meta.due = Some(now.plus(delay));
        }
        if let Some(ttl) = meta.ttl.take() {
            meta.expires = Some(meta.due.unwrap_or(now).max(now).plus(ttl));
        }
    }

    /// True if it is stamped, and nothing in it depends on the present time.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        let timeless = |m: &Meta| m.delay.is_none() && m.due.is_none() && m.ttl.is_none();
        self.timestamp != Timestamp::default() && self.meta.as_deref().is_none_or(timeless)
    }

    /// Takes it out and leaves an empty one.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(
            self,
            Self { id: None, payload: Bytes::new(), key: None, timestamp: Timestamp::default(), meta: None },
        )
    }

    /// The id of a stamped message.
    ///
    /// # Panics
    /// If the message was never stamped; the core stamps each one before a driver sees it.
    #[must_use]
    pub fn stamped_id(&self) -> &MessageId {
        self.id.as_ref().expect("the core stamps every message before a driver sees it")
    }

    /// True if it carries anything beyond payload, key and id: then options have to be checked.
    #[must_use]
    pub const fn has_options(&self) -> bool {
        self.meta.is_some()
    }

    /// Removes the due time: the message has waited long enough.
    pub fn clear_due(&mut self) {
        if let Some(meta) = &mut self.meta {
            meta.due = None;
        }
    }

    /// Sets or clears the absolute expiry time, as read from the wire.
    pub fn set_expires(&mut self, expires: Option<Timestamp>) {
        if expires.is_some() || self.meta.is_some() {
            self.meta_mut().expires = expires;
        }
    }

    /// The trail, made if there is none.
    pub fn trail_mut(&mut self) -> &mut Trail {
        self.meta_mut().trail.get_or_insert_default()
    }

    /// Takes the trail away: the message starts anew.
    pub fn clear_trail(&mut self) {
        if let Some(meta) = &mut self.meta {
            meta.trail = None;
        }
    }

    /// Whatever a foreign producer put into the native message that mq does not map. Travels with copies.
    #[must_use]
    pub fn native(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.meta.as_ref()?.native.as_ref()
    }

    /// Keeps a native remainder with the message.
    pub fn set_native(&mut self, native: Arc<dyn Any + Send + Sync>) {
        self.meta_mut().native = Some(native);
    }

    /// Bytes that count in send windows and bounded queues: payload, key and headers.
    #[must_use]
    pub fn weight(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |k| k.len());
        self.payload.len() + key + self.meta.as_ref().map_or(0, |m| m.headers.size())
    }
}

impl fmt::Debug for Message {
    /// Shows what identifies the message, never its payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Message");
        s.field("id", &self.id).field("payload", &format_args!("{} bytes", self.payload.len()));
        if let Some(key) = &self.key {
            s.field("key", &format_args!("{}", escape(&String::from_utf8_lossy(key))));
        }
        if let Some(meta) = &self.meta {
            s.field("headers", &meta.headers);
            if let Some(due) = meta.due {
                s.field("due", &due);
            }
            if let Some(expires) = meta.expires {
                s.field("expires", &expires);
            }
            if let Some(trail) = &meta.trail {
                s.field("trail", trail);
            }
        }
        s.finish_non_exhaustive()
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Bytes> for Message {
    fn from(payload: Bytes) -> Self {
        Self::new(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_message_is_small() {
        assert!(size_of::<Message>() <= 96, "{}", size_of::<Message>());
    }

    #[test]
    fn stamping_is_idempotent() {
        let mut m = Message::text("x").with_delay(Duration::from_secs(1)).with_ttl(Duration::from_secs(2));
        m.stamp(Timestamp::from_millis(1000));
        let (id, due, expires) = (m.id.clone(), m.due(), m.expires());
        m.stamp(Timestamp::from_millis(9000));
        assert_eq!((m.id.clone(), m.due(), m.expires()), (id, due, expires));
        assert_eq!(due, Some(Timestamp::from_millis(2000)));
        assert_eq!(expires, Some(Timestamp::from_millis(4000)), "ttl runs from the due time");
    }

    #[test]
    fn debug_shows_no_payload() {
        let shown = format!("{:?}", Message::text("secret payload").with_key("a\nb"));
        assert!(!shown.contains("secret") && !shown.contains('\n'), "{shown}");
    }
}
