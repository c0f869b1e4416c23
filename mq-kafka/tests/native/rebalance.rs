//! What a change of owners does to partitions.

use mq_kafka::GroupProtocol;

use super::support::Inbox;
use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        every_message_once_over_a_rebalance,
        what_is_acknowledged_stays_so_through_a_storm,
        the_new_group_protocol_keeps_acks_through_a_storm,
        a_revoked_partition_is_released_then_lost,
        a_partition_that_comes_back_after_a_pause_is_read,
        many_closes_at_once_leave_the_group_at_once
    ]
}

async fn every_message_once_over_a_rebalance() {
    let bed = Bed::new().await;
    let queue = bed.queue("move", 4).await;
    bed.texts(&Target::queue(&queue), 200).await;
    let mut first = bed.shared(&queue).await;
    let mut all = first.take(50).await;
    first.ack(&all).await;
    let mut second = bed.shared(&queue).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while all.len() < 200 && Instant::now() < deadline {
        for inbox in [&mut first, &mut second] {
            let got = inbox.some(10, Duration::from_millis(50)).await;
            let tags: Vec<_> = got.iter().map(|d| d.tag).collect();
            inbox.consumer.ack(&tags);
            inbox.consumer.flush().await.unwrap();
            all.extend(got);
            // Dropped at once: a release holds the rebalance back.
            inbox.changes.clear();
        }
    }
    assert_eq!(sorted(&all), (0..200).collect::<Vec<_>>());
    first.close().await;
    second.nothing().await;
    second.close().await;
    bed.close().await;
}

async fn what_is_acknowledged_stays_so_through_a_storm() {
    storm(GroupProtocol::Classic).await;
}

async fn the_new_group_protocol_keeps_acks_through_a_storm() {
    storm(GroupProtocol::Consumer).await;
}

/// Ten members come and go while one stays: what was confirmed never comes again, and nothing is left out.
async fn storm(protocol: GroupProtocol) {
    const MESSAGES: u64 = 600;
    let bed = Bed::with(config().group_protocol(protocol)).await;
    let queue = bed.queue("storm", 4).await;
    bed.texts(&Target::queue(&queue), 600).await;
    let mut stays = bed.shared(&queue).await;
    let (mut done, mut perhaps) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..10 {
        let mut guest = bed.shared(&queue).await;
        for _ in 0..4 {
            work(&mut stays, &mut done, &mut perhaps).await;
            work(&mut guest, &mut done, &mut perhaps).await;
        }
        guest.close().await;
    }
    let deadline = Instant::now() + Duration::from_secs(90);
    while (done.union(&perhaps).count() as u64) < MESSAGES && Instant::now() < deadline {
        work(&mut stays, &mut done, &mut perhaps).await;
    }
    assert!(
        done.union(&perhaps).copied().eq(0..MESSAGES),
        "{} confirmed, {} more",
        done.len(),
        perhaps.len()
    );
    stays.close().await;
    bed.close().await;
}

/// Takes a few and acknowledges them; those whose confirm failed may come again.
async fn work(inbox: &mut Inbox, done: &mut BTreeSet<u64>, perhaps: &mut BTreeSet<u64>) {
    inbox.changes.clear();
    let got = inbox.some(8, Duration::from_millis(100)).await;
    let tags: Vec<_> = got.iter().map(|d| d.tag).collect();
    inbox.consumer.ack(&tags);
    assert!(inbox.some(0, Duration::ZERO).await.is_empty());
    let void = |tag| inbox.changes.iter().any(|c| matches!(c, Arrival::AckLost(tags) if tags.contains(tag)));
    let confirmed = inbox.consumer.flush().await.is_ok();
    for (delivery, number) in got.iter().zip(numbers(&got)) {
        assert!(!done.contains(&number), "{number} was confirmed and comes again");
        if confirmed && !void(&delivery.tag) {
            done.insert(number);
        } else if !void(&delivery.tag) {
            perhaps.insert(number);
        }
    }
}

fn numbers(got: &[mq_core::driver::Incoming]) -> Vec<u64> {
    texts(got).iter().map(|t| t.parse().unwrap()).collect()
}

async fn a_revoked_partition_is_released_then_lost() {
    let bed = Bed::new().await;
    let queue = bed.queue("revoke", 2).await;
    bed.texts(&Target::queue(&queue), 40).await;
    let mut first = bed.shared(&queue).await;
    let held = first.take(40).await;
    let mut second = bed.shared(&queue).await;
    let revoked = loop {
        first.some(0, Duration::from_secs(20)).await;
        let found = first.changes.iter().position(|c| matches!(c, Arrival::Revoking(..)));
        if let Some(at) = found {
            break first.changes.remove(at);
        }
    };
    let Arrival::Revoking(partitions, release) = revoked else { unreachable!() };
    let (gone, kept): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|d| partitions.contains(&d.position.unwrap().partition));
    // Half of what goes away is acknowledged while the rebalance is held back.
    let (done, open) = gone.split_at(gone.len() / 2);
    first.ack(done).await;
    drop(release);
    let again = second.take(open.len()).await;
    assert_eq!(sorted(&again), sorted(open));
    // A late ack of a partition that is gone is told, and harms nobody.
    first.consumer.ack(&[open[0].tag]);
    first.some(0, Duration::from_secs(5)).await;
    assert!(
        first.changes.iter().any(|c| matches!(c, Arrival::Lost(p) if *p == partitions)),
        "{:?}",
        first.changes
    );
    assert!(first.changes.iter().any(|c| matches!(c, Arrival::AckLost(t) if t == &[open[0].tag])));
    first.ack(&kept).await;
    second.ack(&again).await;
    first.close().await;
    second.nothing().await;
    second.close().await;
    bed.close().await;
}

/// T11: the native client keeps the pause of a partition that goes away and comes back.
async fn a_partition_that_comes_back_after_a_pause_is_read() {
    let bed = Bed::new().await;
    let queue = bed.queue("back", 2).await;
    bed.texts(&Target::queue(&queue), 200).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 10;
    let mut first = bed.consumer(options).await;
    let mut seen: BTreeSet<u64> = sorted(&first.take(1).await).into_iter().collect();
    // Nobody takes what it has fetched for longer than the reader's patience: it pauses.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut second = bed.shared(&queue).await;
    assert_eq!(second.take(1).await.len(), 1, "one of the partitions has moved");
    second.close().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.len() < 200 && Instant::now() < deadline {
        seen.extend(sorted(&first.some(10, Duration::from_millis(200)).await));
        first.changes.clear();
    }
    assert_eq!(seen.len(), 200);
    first.close().await;
    bed.close().await;
}

async fn many_closes_at_once_leave_the_group_at_once() {
    let bed = Bed::new().await;
    let queue = bed.queue("exodus", 8).await;
    bed.send(&Target::queue(&queue), (0..40).map(|i| Message::text(i.to_string()).with_key(i.to_string())))
        .await;
    let mut busy = Vec::new();
    for _ in 0..10 {
        let mut inbox = bed.shared(&queue).await;
        inbox.some(5, Duration::from_millis(700)).await;
        busy.push(inbox);
    }
    let closing: Vec<_> = busy.into_iter().map(|inbox| tokio::spawn(inbox.close())).collect();
    for task in closing {
        task.await.unwrap();
    }
    let began = Instant::now();
    let mut next = bed.shared(&queue).await;
    assert_eq!(next.take(40).await.len(), 40);
    // Below the session's time-out: nobody was waited for.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    next.close().await;
    bed.close().await;
}
