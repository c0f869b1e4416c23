//! What more than one backend lacks, done over the driver roles alone: durable, and owned by one process at a time.

pub(crate) mod envelope;
pub(crate) mod unpack;
