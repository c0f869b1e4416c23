//! The contract of mq: what users hold, what backends implement, and everything in between that knows no network.

pub mod backoff;
pub mod capability;
mod client;
mod consumer;
mod deadline;
pub mod defaults;
mod delivery;
pub mod driver;
mod error;
mod event;
mod exchange;
mod headers;
mod id;
pub mod limits;
mod link;
mod message;
mod options;
mod producer;
pub mod protocol;
mod queue;
mod registry;
mod secret;
mod sender;
pub mod spec;
mod sync;
pub mod text;
mod time;
mod topic;
mod topology;
mod trail;
pub mod url;
mod window;

pub use backoff::{Backoff, RetryPolicy};
pub use capability::{Ability, Atomicity, Capabilities, Limits, Order, Requirements, Sharing, Support};
pub use client::Client;
pub use consumer::{Consumer, ConsumerBuilder};
pub use delivery::{Acker, Delivery, Unsettled};
pub use error::{Error, Fate, Kind, Result, Status};
pub use event::{ClientEvent, Events};
pub use exchange::Exchange;
pub use headers::{HeaderValue, Headers};
pub use id::{IdText, MessageId};
pub use message::Message;
pub use options::ClientOptions;
pub use producer::{Confirmation, ConfirmationFuture, Producer, ProducerBuilder};
pub use queue::Queue;
pub use registry::{Backend, Registry};
pub use secret::Secret;
pub use spec::{
    Binding, Bound, ExchangeKind, ExchangeSpec, HeadersMatch, MatchMode, Overflow, QueueSpec, TopicSpec,
};
pub use time::{Clock, Timestamp};
pub use topic::Topic;
pub use topology::Topology;
pub use trail::{DeathReason, MAX_ERROR_TEXT, Trail};
pub use url::Url;
