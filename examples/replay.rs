//! Reading a topic again: groups, stored offsets, seek by position and by time, browsing.
//!
//! ```sh
//! cargo run --example replay
//! MQ_URL=kafka://127.0.0.1:9092 cargo run --features kafka --example replay
//! ```

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use mq::driver::{Count, Start};
use mq::prelude::*;

use common::Failed;

/// How long a message that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "temperatures";
const SENSORS: [&str; 3] = ["cellar", "attic", "roof"];

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let client = common::connect(&common::unique("replay")).await?;
    println!("connected to {} ({})", client.backend(), client.product());
    client.declare(Topology::new().topic(TopicSpec::new(TOPIC).with_partitions(2))).await?;
    let topic = client.topic(TOPIC);
    let outcome = tour(&client, &topic).await;
    topic.delete().await?;
    client.close().await?;
    outcome
}

async fn tour(client: &Client, topic: &Topic) -> Result<(), Failed> {
    send(topic, 0..4).await?;
    // Messages are found by their times, to the millisecond: none of them may share this one.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let noon = client.clock().now();
    send(topic, 4..6).await?;
    for range in topic.partitions().await? {
        println!("partition {}: offsets {} to {}", range.partition, range.earliest, range.latest);
    }

    let mut display = topic.group("display").open().await?;
    println!("\nthe group `display` starts at the earliest message:");
    read(&mut display, 18).await?;
    display.flush_acks().await?;
    println!("what it has left to read: {}", lag(topic, "display").await?);

    println!("\nit seeks to the earliest message and reads everything again:");
    display.seek(Start::Earliest, &[]).await?;
    read(&mut display, 18).await?;

    println!("\nit seeks to a point in time and reads what came after it:");
    display.seek(Start::At(noon), &[]).await?;
    read(&mut display, 6).await?;
    display.close().await?;

    send(topic, 6..7).await?;
    println!("\na new member goes on where the group stopped:");
    let mut successor = topic.group("display").open().await?;
    read(&mut successor, 3).await?;
    successor.close().await?;

    println!("\nanother group has offsets of its own, and reads everything:");
    let mut archive = topic.group("archive").open().await?;
    read(&mut archive, 21).await?;
    archive.close().await?;
    Ok(())
}

/// Each sensor's values of these hours. The key keeps a sensor's messages in one partition, in order.
async fn send(topic: &Topic, hours: std::ops::Range<i64>) -> Result<()> {
    let producer = topic.producer().build().await?;
    let values = hours.flat_map(|hour| SENSORS.map(|sensor| (sensor, hour)));
    let messages = values.map(|(sensor, hour)| Message::text(format!("{hour}h")).with_key(sensor));
    for sent in producer.send_all(messages).await {
        sent?;
    }
    producer.close().await
}

/// Takes so many messages and prints them by sensor.
async fn read(consumer: &mut Consumer, count: usize) -> Result<(), Failed> {
    let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..count {
        let delivery = consumer.recv_for(PATIENCE).await?.ok_or("a message did not come")?;
        let sensor = String::from_utf8_lossy(delivery.key().unwrap_or_default()).into_owned();
        let at = delivery.position().map_or_else(String::new, |p| format!("@{}:{}", p.partition, p.offset));
        came.entry(sensor).or_default().push(format!("{}{at}", delivery.to_str()?));
        delivery.ack()?;
    }
    for (sensor, values) in came {
        println!("  {sensor:<7} {}", values.join(" "));
    }
    Ok(())
}

async fn lag(topic: &Topic, group: &str) -> Result<u64> {
    let lag = topic.lag(group).await?;
    Ok(lag.iter().filter_map(|(_, count)| Count::exact(*count)).sum())
}
