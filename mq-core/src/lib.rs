//! The contract of mq: what users hold, what backends implement, and everything in between that knows no network.

mod alarm;
mod backlog;
pub mod backoff;
pub mod capability;
mod client;
mod consumer;
mod deadline;
mod declared;
pub mod dedup;
pub mod defaults;
mod delivery;
mod dlq;
pub mod driver;
mod emulate;
mod error;
mod event;
mod exchange;
mod half;
mod headers;
mod id;
pub mod layer;
pub mod limits;
mod link;
mod message;
mod options;
mod producer;
pub mod protocol;
mod queue;
mod registry;
pub mod routing;
pub mod run;
mod secret;
mod sender;
pub mod spec;
mod sync;
pub mod text;
mod time;
mod topic;
mod topology;
mod trail;
mod transaction;
pub mod url;
pub mod watermark;
mod window;

pub use backlog::Backlog;
pub use backoff::{Backoff, RetryPolicy};
pub use capability::{
    Ability, Atomicity, Capabilities, DeathCount, Limits, Order, Requirements, Sharing, Support,
};
pub use client::Client;
pub use consumer::{Consumer, ConsumerBuilder};
pub use dedup::{Dedup, DedupStore, MemoryDedup};
pub use delivery::{Acker, Delivery, Unsettled};
pub use dlq::{MAX_REPLAYS, Replay, Replayed};
pub use error::{Error, Fate, Kind, Result, Status};
pub use event::{ClientEvent, Events};
pub use exchange::Exchange;
pub use half::{Checker, HalfBuilder, HalfProducer, Local};
pub use headers::{HeaderValue, Headers};
pub use id::{IdText, MessageId};
pub use message::Message;
pub use options::ClientOptions;
pub use producer::{Confirmation, ConfirmationFuture, Producer, ProducerBuilder};
pub use queue::Queue;
pub use registry::{Backend, Registry};
pub use run::{BatchHandler, Failure, Handled, Handler, Received, RunLoop, RunReport, permanent};
pub use secret::Secret;
pub use spec::{
    Binding, Bound, ExchangeKind, ExchangeSpec, HeadersMatch, MatchMode, Overflow, QueueSpec, TopicSpec,
};
pub use time::{Clock, Timestamp};
pub use topic::Topic;
pub use topology::Topology;
pub use trail::{DeathReason, MAX_ERROR_TEXT, Trail};
pub use transaction::Transaction;
pub use url::Url;
