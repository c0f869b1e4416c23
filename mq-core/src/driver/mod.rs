//! What a backend owes. **Start here to write one.**
//!
//! A backend is a [`Connector`] that makes a [`Connection`]; the connection opens the other roles. All traits use
//! plain `async fn`; the core holds them behind a boxed twin that is implemented once for all. A role that the
//! broker lacks is the uninhabited [`Unsupported`] type, and its capability says `Unsupported`.
//!
//! # What a driver does
//! - It maps a stamped [`Message`](crate::Message) to the native message and back, hands over, and reports what
//!   became of it.
//! - It classifies each failure as one [`Error`](crate::Error): kind, status, fate. A lost answer is
//!   [`Fate::Unknown`](crate::Fate::Unknown), never "rejected".
//! - It ends every call within the deadline the core puts on it: each future may be dropped at any await point,
//!   and dropping it must neither lose a message nor leak what it held. What a dropped call had taken over
//!   (a message handed to the native client) completes or is reported unknown.
//!
//! # What a driver never does
//! Retry, sleep, reconnect, batch by time, count, trace or log per message: the core does that for all. (Acks are
//! recorded by [`Consumer::ack`] and put on the wire in groups by [`Consumer::flush`], which the core calls.)
//!
//! # What the core promises
//! No call for an undeclared ability, above a declared limit or after `close`; messages are stamped (id, timestamp,
//! absolute due and expiry times) and within limits; at most one `receive` at a time on a consumer; only tags that
//! this consumer issued in its current epoch are settled, each once; names carry the client's prefix already.
//!
//! # Death
//! A role that cannot go on fails its calls: [`Disconnected`](crate::Kind::Disconnected) means "open me again, on
//! this connection if it lives, else on the next"; [`NotFound`](crate::Kind::NotFound) means that the queue or
//! topic behind it is gone. The connection itself reports its death by [`Event::Lost`]. A driver whose native
//! client reconnects by itself reports [`Event::Interrupted`] and [`Event::Restored`] instead and keeps its roles.
//!
//! # Words
//! *Hand-over*: the native client has the message in the order of the calls. *Confirm*: the broker has it.
//! *Completion*: the one answer for one message, given by [`Ticket::done`] or [`Batch::finish_next`].

mod arrival;
mod batch;
mod connection;
mod consumer;
pub(crate) mod erased;
mod half;
mod info;
mod layer;
mod producer;
mod receipt;
mod topology;
mod transaction;
mod unsupported;
mod verdict;

pub use arrival::{
    AckNow, Arrival, ConsumerOptions, Control, Flushed, Incoming, Mode, Release, Settle, Start, Tag,
};
pub use batch::{Batch, Item, Ticket};
pub(crate) use batch::{Join, Outcome, Pending, settled};
pub use connection::{Connection, Connector};
pub use consumer::Consumer;
pub use half::{Half, HalfLog, HalfRecord, LogBatch, LogEntry, Shard, Step, Stepped};
pub use info::{ConnectionInfo, CoreDuties, Event, FOREVER};
pub(crate) use layer::layered;
pub use layer::{
    ErasedConnection, ErasedConsumer, ErasedExchange, ErasedHalf, ErasedHalfLog, ErasedProducer,
    ErasedTransaction,
};
pub use producer::{Exchange, Producer};
pub use receipt::{Position, Receipt, Routed};
pub use topology::{Applied, Change, Count, Depth, Described, PartitionRange, Query, Sort, Target};
pub use transaction::Transaction;
pub use unsupported::Unsupported;
pub use verdict::{Check, CheckToken, Decided, HalfId, HalfOptions, TransactionOptions, Verdict};
