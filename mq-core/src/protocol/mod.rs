//! What lives on the wire: names, headers, texts of values, partition hash, and the binary records of mq's own
//! queues and topics. Pure: no I/O, no clock. `docs/protocol.md` is the contract, `docs/protocol-vectors.json`
//! holds vectors for programs in other languages.
//!
//! Every decoder checks lengths and limits before it allocates, and survives any input. What foreign producers
//! wrote is never a failure; only records of mq's own (frames, envelopes, registry) can be damaged.

pub mod acked;
mod base64;
mod codec;
pub mod delayed;
pub mod envelope;
pub mod frame;
pub mod half;
pub mod headers;
pub mod names;
pub mod objects;
pub mod partition;
mod parts;
pub mod registry;
pub mod values;

pub use headers::{Field, Natives};
pub use parts::{Parts, Route};
pub use values::Value;
