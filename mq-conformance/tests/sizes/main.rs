//! What has to hold not once but often, on the memory broker: cancellation at every poll, shutdown at any moment,
//! members that come and go, poison in a stream. `MQ_SCALE` multiplies the number of tries; it is 1 in CI.

mod cancel;
mod members;
mod poison;
mod shutdown;
mod soak;

use mq_core::driver::CoreDuties;
use mq_core::{Client, ClientOptions};
use mq_memory::{MemoryConfig, MemoryConnector};

/// So many tries at `MQ_SCALE=1`.
fn tries(at_one: u64) -> u64 {
    let scale = std::env::var("MQ_SCALE").map(|s| s.parse().expect("MQ_SCALE is a number"));
    at_one * scale.unwrap_or(1)
}

/// A private broker: with all of its own abilities, or with everything emulated that the core can emulate.
fn broker(emulated: bool) -> MemoryConnector {
    let mut duties = CoreDuties::default();
    (duties.exchanges, duties.retry, duties.expiry) = (emulated, emulated, emulated);
    (duties.transactions, duties.half) = (emulated, emulated);
    MemoryConnector::new(&MemoryConfig::new().with_core(duties)).unwrap()
}

async fn connect(broker: &MemoryConnector) -> Client {
    Client::connect(broker.clone(), ClientOptions::new()).await.unwrap()
}

/// Runs a test on virtual time, and fails it if it has not ended after a day of it.
fn virtually<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let day = std::time::Duration::from_secs(86_400);
    runtime.block_on(async { tokio::time::timeout(day, test).await.expect("it hangs") })
}
