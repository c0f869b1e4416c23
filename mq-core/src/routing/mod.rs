//! Routing: the bindings of an exchange, and which queues a message goes to. Pure: no I/O, no clock, no task.
//!
//! The in-memory broker routes with it, and so do the backends whose broker has no exchanges: there the publisher
//! routes. The rules are RabbitMQ's, so that a program moves between backends without a change.
//!
//! # Topic patterns
//! A routing key is a list of words with dots between them.
//!
//! - `*` is **exactly one** word, `#` is **zero or more** words: `a.#` matches `a`, and `#` matches the empty key.
//! - The empty key has no word at all: `#` and the empty pattern match it, `*` does not.
//! - Elsewhere an empty word is a word: `a..b` has three words and `.` has two; `*` matches an empty one.
//! - A wildcard is a whole word: `a*` and `#b` are plain words. In a routing key, `*` and `#` are plain words too.
//! - Case counts.
//!
//! The [RabbitMQ tutorial](https://www.rabbitmq.com/tutorials/tutorial-five-python#topic-exchange) states the rule for
//! `#` as above, and so does the AMQP 0-9-1 specification; some other texts say "one or more words", for example that
//! of [Kombu](https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.virtual.exchange.html),
//! which describes its own emulation. Brokers count zero as well.
//!
//! # Headers
//! See [`MatchMode`](crate::MatchMode). Names are compared with case, values by type and content; as in RabbitMQ,
//! text and bytes are one type here, and `1` is not `1.0` (RabbitMQ before 3.13 took the two for equal).
//!
//! # Cost
//! [`check_binding`] limits what one binding can cost, and the matcher is immune to patterns that make a backtracking
//! one explode, such as `#.a.#.a.#.a`: [`Bindings::route`] states the bound.

mod cache;
mod check;
mod edges;
mod hash;
mod headers;
mod list;
mod parallel;
mod pattern;
mod probed;
mod scratch;
mod shapes;
mod table;
mod tags;
#[cfg(test)]
mod tests;
mod topic;
mod trie;

pub use check::check_binding;
pub use table::Bindings;
