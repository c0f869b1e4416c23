//! A broker with a client, and short words.

use std::time::Duration;

use mq_core::driver::CoreDuties;
use mq_core::{Client, ClientOptions, QueueSpec, TopicSpec, Topology};
use mq_memory::{MemoryConfig, MemoryConnector};

pub(crate) const S: Duration = Duration::from_secs(1);
pub(crate) const MS: Duration = Duration::from_millis(1);

/// A broker that leaves some abilities to the core, and a client with the queues `q` and `out` and the topic `t`.
pub(crate) async fn rig(duties: impl FnOnce(&mut CoreDuties)) -> (MemoryConnector, Client) {
    let mut core = CoreDuties::default();
    duties(&mut core);
    let broker = MemoryConnector::new(&MemoryConfig::new().with_core(core)).unwrap();
    let client = Client::connect(broker.clone(), ClientOptions::new()).await.unwrap();
    let topology = Topology::new()
        .queue(QueueSpec::new("q"))
        .queue(QueueSpec::new("out"))
        .topic(TopicSpec::new("t").with_partitions(1));
    client.declare(topology).await.unwrap();
    (broker, client)
}
