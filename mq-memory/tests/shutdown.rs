//! What happens to handles that outlive their runtime.
#![allow(missing_docs)]

use mq_core::{Client, ClientOptions, QueueSpec, Topology};
use mq_memory::{MemoryConfig, MemoryConnector};

#[test]
fn a_delivery_that_is_held_while_the_runtime_shuts_down_ends_quietly() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector = MemoryConnector::new(&MemoryConfig::new()).unwrap();
    let kept = runtime.block_on(async {
        let client = Client::connect(connector, ClientOptions::new()).await.unwrap();
        client.declare(Topology::new().queue(QueueSpec::new("q"))).await.unwrap();
        for text in ["in a task", "in hand"] {
            client.queue("q").send(text).await.unwrap();
        }
        let mut consumer = client.queue("q").consumer().open().await.unwrap();
        let in_a_task = consumer.recv().await.unwrap();
        let in_hand = consumer.recv().await.unwrap();
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(in_a_task);
        });
        (client, consumer, in_hand)
    });
    drop(runtime);
    drop(kept);
}
