//! The contract of mq: what users hold, what backends implement, and everything in between that knows no network.

pub mod backoff;
pub mod capability;
pub mod defaults;
pub mod driver;
mod error;
mod headers;
mod id;
pub mod limits;
mod message;
pub mod protocol;
mod secret;
pub mod spec;
mod sync;
pub mod text;
mod time;
mod trail;
pub mod url;
mod window;

pub use backoff::{Backoff, RetryPolicy};
pub use capability::{Ability, Atomicity, Capabilities, Limits, Order, Requirements, Sharing, Support};
pub use error::{Error, Fate, Kind, Result, Status};
pub use headers::{HeaderValue, Headers};
pub use id::{IdText, MessageId};
pub use message::Message;
pub use secret::Secret;
pub use spec::{
    Binding, Bound, ExchangeKind, ExchangeSpec, HeadersMatch, MatchMode, Overflow, QueueSpec, TopicSpec,
};
pub use time::{Clock, Timestamp};
pub use trail::{DeathReason, Trail};
pub use url::Url;
