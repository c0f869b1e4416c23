//! Groups: members share the partitions, offsets are stored, no commit passes a hole.

use std::collections::{BTreeMap, BTreeSet};

use mq_core::driver::{Count, Start};
use mq_core::{Kind, Message, Topic};

use crate::context::{Ctx, text};
use crate::outcome::{Outcome, check, check_eq, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "group";
    each_group_gets_everything [Topics];
    members_share_without_loss [Topics];
    a_group_goes_on_where_it_stopped [Topics];
    a_new_group_starts_at_the_earliest [Topics];
    a_new_group_can_start_at_the_latest [Topics];
    no_commit_passes_a_hole [Topics];
    a_member_that_leaves_is_taken_over [Topics];
    a_member_that_dies_is_taken_over [Topics];
    a_member_that_joins_gets_its_share [Topics];
    keys_go_to_partitions_as_in_kafka [Topics];
    lag_is_what_is_not_acknowledged [Topics];
    a_send_to_a_missing_topic_is_not_found [Topics];
    positions_rise_and_are_told [Topics];
    stored_offsets_survive_a_restart [Topics] Restart;
    a_group_can_pause_and_resume [Topics];
    a_rebalance_repeats_nothing [Topics];
}

/// Sends `0..n`, each with a key of its own.
async fn fill(topic: &Topic, from: usize, n: usize) -> Outcome {
    let messages: Vec<_> =
        (from..from + n).map(|i| Message::text(i.to_string()).with_key(format!("k{i}"))).collect();
    let producer = topic.producer().build().await?;
    for result in producer.send_all(messages).await {
        result?;
    }
    Ok(())
}

fn set(texts: &[String]) -> BTreeSet<String> {
    texts.iter().cloned().collect()
}

async fn each_group_gets_everything(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    fill(&topic, 0, 50).await?;
    for group in ["a", "b"] {
        let mut consumer = topic.group(group).open().await?;
        let got = cx.all(&mut consumer, 50).await?;
        check_eq!((got.len(), set(&got).len()), (50, 50), "messages and different messages of group {group}");
    }
    Ok(())
}

async fn members_share_without_loss(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    let mut first = topic.group("g").open().await?;
    let mut second = cx.second().await?.topic("t").group("g").open().await?;
    // Both hear of the other one before there is anything to read.
    let settled = tokio::join!(first.recv_for(cx.patience.quiet), second.recv_for(cx.patience.quiet));
    check!(matches!(settled, (Ok(None), Ok(None))), "something came from an empty topic: {settled:?}");
    fill(&topic, 0, 200).await?;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    cx.shared([(&mut first, &mut one), (&mut second, &mut two)], 200).await?;
    let all: BTreeSet<_> = one.iter().chain(&two).collect();
    check_eq!((all.len(), one.len() + two.len()), (200, 200), "different messages, deliveries");
    check!(!one.is_empty() && !two.is_empty(), "a member got nothing: {} and {}", one.len(), two.len());
    Ok(())
}

async fn a_group_goes_on_where_it_stopped(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 3).await?;
    fill(&topic, 0, 30).await?;
    let mut got = Vec::new();
    for _ in 0..3 {
        let mut consumer = topic.group("g").open().await?;
        got.extend(cx.read(&mut consumer, 10).await?);
        consumer.close().await?;
    }
    check_eq!((got.len(), set(&got).len()), (30, 30), "in three rounds of ten");
    let mut last = topic.group("g").open().await?;
    cx.nothing(&mut last).await
}

async fn a_new_group_starts_at_the_earliest(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    fill(&topic, 0, 10).await?;
    let mut consumer = topic.group("g").open().await?;
    fill(&topic, 10, 5).await?;
    check_eq!(set(&cx.all(&mut consumer, 15).await?).len(), 15, "old and new messages");
    Ok(())
}

async fn a_new_group_can_start_at_the_latest(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    fill(&topic, 0, 10).await?;
    let mut consumer = topic.group("g").start(Start::Latest).open().await?;
    // Where a group is joined in the background, its position is fixed when it has its partitions.
    cx.nothing(&mut consumer).await?;
    fill(&topic, 10, 5).await?;
    let wanted: BTreeSet<String> = (10..15).map(|n| n.to_string()).collect();
    check_eq!(set(&cx.all(&mut consumer, 5).await?), wanted, "new messages alone");
    Ok(())
}

async fn no_commit_passes_a_hole(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    for n in 0..10 {
        topic.send(n.to_string()).await?;
    }
    let mut consumer = topic.group("g").open().await?;
    let mut hole = None;
    for delivery in cx.take(&mut consumer, 10).await? {
        if text(&delivery) == "4" {
            hole = Some(delivery);
        } else {
            delivery.ack()?;
        }
    }
    consumer.flush_acks().await?;
    consumer.close().await?;
    drop(hole);
    let mut next = topic.group("g").open().await?;
    let got = cx.all(&mut next, 1).await?;
    check!(got.contains(&"4".to_owned()), "the message that was never acknowledged is gone; {got:?} came");
    check!(
        got.iter().all(|t| t.parse::<u32>().is_ok_and(|n| n >= 4)),
        "what is below the hole came again: {got:?}"
    );
    Ok(())
}

async fn a_member_that_leaves_is_taken_over(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    let mut first = topic.group("g").open().await?;
    let mut second = topic.group("g").open().await?;
    let settled = tokio::join!(first.recv_for(cx.patience.quiet), second.recv_for(cx.patience.quiet));
    check!(matches!(settled, (Ok(None), Ok(None))), "something came from an empty topic");
    first.close().await?;
    fill(&topic, 0, 40).await?;
    check_eq!(set(&cx.all(&mut second, 40).await?).len(), 40, "what the one that stays gets");
    Ok(())
}

async fn a_member_that_dies_is_taken_over(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    let other = cx.second().await?;
    let mut dying = other.topic("t").group("g").open().await?;
    fill(&topic, 0, 40).await?;
    let mut acked = BTreeSet::new();
    for delivery in cx.take(&mut dying, 20).await? {
        if acked.len() < 10 {
            acked.insert(text(&delivery));
            delivery.ack()?;
        } else {
            std::mem::forget(delivery);
        }
    }
    other.close().await?;
    drop(dying);
    let mut next = topic.group("g").open().await?;
    let mut seen = acked;
    while seen.len() < 40 {
        let delivery = cx.next(&mut next).await?;
        seen.insert(text(&delivery));
        delivery.ack()?;
    }
    Ok(())
}

async fn a_member_that_joins_gets_its_share(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    let mut first = topic.group("g").prefetch(5).open().await?;
    fill(&topic, 0, 20).await?;
    let mut seen: Vec<String> = cx.read(&mut first, 20).await?;
    let mut second = cx.second().await?.topic("t").group("g").prefetch(5).open().await?;
    let mut of_second = Vec::new();
    for round in 1..50 {
        fill(&topic, round * 20, 20).await?;
        cx.shared([(&mut first, &mut seen), (&mut second, &mut of_second)], (round + 1) * 20).await?;
        if !of_second.is_empty() {
            let all: BTreeSet<_> = seen.iter().chain(&of_second).collect();
            check_eq!(all.len(), (round + 1) * 20, "different messages after {round} rounds");
            return Ok(());
        }
    }
    Err(crate::Failed::new("the member that joined never got a partition"))
}

/// Partitions of a topic of 8, by the hash of Kafka's Java client.
async fn keys_go_to_partitions_as_in_kafka(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 8).await?;
    let mut consumer = topic.group("g").open().await?;
    let keys = ["", "a", "b", "customer-7", "key-1", "ключ"];
    for key in keys {
        topic.send(Message::text(key).with_key(key)).await?;
    }
    let mut homes: BTreeMap<String, u32> = BTreeMap::new();
    for delivery in cx.take(&mut consumer, keys.len()).await? {
        if let Some(at) = delivery.position() {
            homes.insert(text(&delivery), at.partition);
        }
        delivery.ack()?;
    }
    for (key, home) in &homes {
        check_eq!(*home, partition(key.as_bytes(), 8), "the partition of `{key}`");
    }
    Ok(())
}

/// Murmur2 with Kafka's seed, made positive, by the number of partitions. Written apart from the core's.
fn partition(key: &[u8], partitions: u32) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mix = |k: u32| {
        let k = k.wrapping_mul(M);
        (k ^ (k >> 24)).wrapping_mul(M)
    };
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let words = key.chunks_exact(4);
    let rest = words.remainder();
    let mut hash = words.fold(0x9747_b28c ^ length, |h, w| {
        h.wrapping_mul(M) ^ mix(u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
    });
    if !rest.is_empty() {
        let tail = rest.iter().enumerate().fold(0, |t, (n, b)| t | u32::from(*b) << (8 * n));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    ((hash ^ (hash >> 15)) & 0x7fff_ffff) % partitions
}

async fn lag_is_what_is_not_acknowledged(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut consumer = topic.group("g").open().await?;
    fill(&topic, 0, 10).await?;
    cx.read(&mut consumer, 4).await?;
    consumer.flush_acks().await?;
    cx.eventually("a lag of 6", || async {
        let lag = topic.lag("g").await?;
        Ok(lag.iter().all(|(_, count)| match count {
            Count::Exact(n) => *n == 6,
            Count::AtMost(n) => *n >= 6,
            _ => true,
        }))
    })
    .await
}

async fn a_send_to_a_missing_topic_is_not_found(cx: Ctx) -> Outcome {
    let missing = cx.client.topic("missing");
    check_kind!(missing.send("x").await, Kind::NotFound, "a send to a missing topic");
    check_kind!(missing.group("g").open().await, Kind::NotFound, "a group of a missing topic");
    check_kind!(missing.partitions().await, Kind::NotFound, "the partitions of a missing topic");
    Ok(())
}

async fn positions_rise_and_are_told(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 1).await?;
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(topic.send(n.to_string()).await?.position);
    }
    let mut consumer = topic.group("g").open().await?;
    let mut last = None;
    for (n, delivery) in cx.take(&mut consumer, 10).await?.into_iter().enumerate() {
        let at = delivery.position();
        check!(at.is_some(), "a delivery of a topic has no position");
        check!(at > last, "{at:?} came after {last:?}");
        check!(sent[n].is_none() || sent[n] == at, "sent to {:?}, read from {at:?}", sent[n]);
        last = at;
        delivery.ack()?;
    }
    Ok(())
}

async fn stored_offsets_survive_a_restart(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    fill(&topic, 0, 20).await?;
    let mut consumer = topic.group("g").open().await?;
    let mut seen = set(&cx.read(&mut consumer, 20).await?);
    cx.acks_last(&consumer).await?;
    consumer.close().await?;
    cx.restart().await?;
    fill(&topic, 20, 5).await?;
    let mut next = topic.group("g").open().await?;
    let new = cx.all(&mut next, 5).await?;
    check_eq!(new.len(), 5, "what comes after a restart: {new:?}");
    seen.extend(new);
    check_eq!(seen.len(), 25, "different messages in all");
    Ok(())
}

async fn a_group_can_pause_and_resume(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 2).await?;
    let mut consumer = topic.group("g").open().await?;
    cx.nothing(&mut consumer).await?;
    consumer.pause().await?;
    fill(&topic, 0, 6).await?;
    cx.nothing(&mut consumer).await?;
    consumer.resume().await?;
    check_eq!(cx.read(&mut consumer, 6).await?.len(), 6, "after the resume");
    Ok(())
}

/// What a member had received but not handed out goes to the one that took the partition over, and to it alone.
async fn a_rebalance_repeats_nothing(cx: Ctx) -> Outcome {
    let topic = cx.topic("t", 4).await?;
    fill(&topic, 0, 40).await?;
    let mut first = topic.group("g").open().await?;
    let mut got = cx.read(&mut first, 1).await?;
    let mut second = cx.second().await?.topic("t").group("g").open().await?;
    // The other one has its share when its first message comes.
    got.extend(cx.read(&mut second, 1).await?);
    let mut of_second = Vec::new();
    cx.shared([(&mut first, &mut got), (&mut second, &mut of_second)], 40).await?;
    got.extend(of_second);
    check_eq!((set(&got).len(), got.len()), (40, 40), "different messages, deliveries");
    check_eq!((first.held(), second.held()), (0, 0), "what the members hold in the end");
    Ok(())
}
