//! Delayed messages.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_delayed_message_comes_when_it_is_due,
        what_has_no_target_when_due_is_put_aside,
        a_delay_survives_the_end_of_its_sender,
        a_full_level_that_comes_back_is_read_on,
        an_orderly_change_of_owners_moves_nothing_twice,
        a_close_waits_for_the_forwarder
    ]
}

async fn a_delayed_message_comes_when_it_is_due() {
    let bed = Bed::delaying(&name("")).await;
    let queue = bed.queue("due", 2).await;
    let mut inbox = bed.shared(&queue).await;
    let now = Timestamp::now();
    let delays = [0_u64, 300, 1500, 2600, 4500];
    let message = |d: &u64| {
        let due = now.plus(Duration::from_millis(*d));
        Message::text(d.to_string()).with_key("k").with_header("h", 1).deliver_at(due).with_timestamp(now)
    };
    bed.send(&Target::queue(&queue), delays.iter().rev().map(message)).await;
    let mut seen = Vec::new();
    while seen.len() < delays.len() {
        let got = inbox.take(1).await;
        let delay: u64 = got[0].message.to_str().unwrap().parse().unwrap();
        assert!(Timestamp::now() >= now.plus(Duration::from_millis(delay)), "{delay} came early");
        // Shown, not judged: a first delayed message makes its topic and moves the group.
        println!("{delay} ms: late by {:?}", Timestamp::now().since(now.plus(Duration::from_millis(delay))));
        let m = &got[0].message;
        assert_eq!((m.key(), m.timestamp(), m.headers().len()), (Some(&b"k"[..]), now, 1));
        inbox.ack(&got).await;
        seen.push(delay);
    }
    assert_eq!(seen, delays);
    inbox.close().await;
    bed.close().await;
}

async fn what_has_no_target_when_due_is_put_aside() {
    let namespace = name("");
    let bed = Bed::delaying(&namespace).await;
    let queue = bed.queue("gone", 1).await;
    let target = Target::queue(&queue);
    let due = Timestamp::now().plus(Duration::from_millis(1200));
    let id = name("id");
    bed.send(&target, [Message::text("x").with_id(id.as_str()).deliver_at(due)]).await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue.clone())).await.unwrap();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(40), bed.connection.next_event()).await.unwrap();
        if matches!(&event, Event::Undelivered(found, _) if found.to_string() == id) {
            break;
        }
    }
    let aside = Target::queue(format!("{namespace}mq.undelivered"));
    let mut browse = bed.consumer(ConsumerOptions::new(aside, Mode::Browse)).await;
    let found = loop {
        let got = browse.take(1).await.remove(0);
        if got.message.stamped_id().to_string() == id {
            break got.message;
        }
    };
    assert_eq!(found.trail().unwrap().source.as_deref(), Some(queue.as_str()));
    browse.close().await;
    bed.close().await;
}

async fn a_delay_survives_the_end_of_its_sender() {
    let namespace = name("");
    let sender = Bed::with(config().namespace(&namespace)).await;
    let queue = sender.queue("heir", 1).await;
    let due = Timestamp::now().plus(Duration::from_secs(2));
    sender.send(&Target::queue(&queue), [Message::text("x").deliver_at(due)]).await;
    tokio::time::timeout(Duration::from_secs(15), sender.connection.close()).await.unwrap().unwrap();
    let bed = Bed::delaying(&namespace).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(1).await;
    assert!(Timestamp::now() >= due);
    inbox.ack(&got).await;
    inbox.close().await;
    bed.connection.apply(&Change::Delete(Sort::Queue, queue)).await.unwrap();
    bed.close().await;
}

/// How many levels each forwarder of a namespace owns, as soon as their group has settled.
async fn forwarders(namespace: &str) -> Option<Vec<usize>> {
    let group = format!("{namespace}mq.delay");
    let found = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", hosts().join(",")).create().unwrap();
        let list = client.fetch_group_list(Some(&group), Duration::from_secs(5)).ok()?;
        let group = list.groups().iter().find(|g| g.name() == group)?;
        let level = |name: &[u8]| name.strip_prefix(b"mq.delay.").map(<[u8]>::to_vec);
        let levels = |bytes: &[u8]| bytes.windows(11).filter_map(level).collect::<BTreeSet<_>>().len();
        let mut owned: Vec<_> = group.members().iter().map(|m| m.assignment().map_or(0, levels)).collect();
        owned.sort_unstable();
        matches!(group.state(), "Stable" | "Empty" | "Dead").then_some(owned)
    });
    found.await.unwrap()
}

/// Waits until the forwarders own so many levels each.
async fn settled(namespace: &str, wanted: &[usize]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let owned = forwarders(namespace).await;
        if owned.as_deref() == Some(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "the forwarders own {owned:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a message that is due after a while, so that this connection's forwarder runs.
async fn delayed(bed: &Bed, target: &Target, text: &str, delay: u64) {
    let due = Timestamp::now().plus(Duration::from_millis(delay));
    bed.send(target, [Message::text(text).deliver_at(due)]).await;
}

/// T11: a level that holds as much as it may is paused, and the native client keeps the pause when the level goes away
/// and comes back.
async fn a_full_level_that_comes_back_is_read_on() {
    const EACH: usize = 1200;
    let namespace = name("");
    let bed = Bed::delaying(&namespace).await;
    let target = Target::queue(bed.queue("full", 1).await);
    let now = Timestamp::now();
    // Three of six levels are full: of three forwarders, the first keeps two levels at most.
    for seconds in [40, 31, 15] {
        let due = now.plus(Duration::from_secs(seconds));
        bed.send(&target, (0..EACH).map(|i| Message::text(format!("{seconds}-{i}")).deliver_at(due))).await;
    }
    settled(&namespace, &[6]).await;
    let mut guests = Vec::new();
    for n in 2..4 {
        let guest = Bed::with(config().namespace(&namespace).forwards(true)).await;
        delayed(&guest, &target, &format!("guest {n}"), 10_000).await;
        settled(&namespace, &vec![6 / n; n]).await;
        guests.push(guest);
    }
    for guest in guests {
        guest.close().await;
    }
    settled(&namespace, &[6]).await;
    let mut inbox = bed.shared(&target.name).await;
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(90);
    while seen.len() < 3 * EACH + 2 && Instant::now() < deadline {
        let got = inbox.some(100, Duration::from_secs(1)).await;
        seen.extend(texts(&got));
        inbox.ack(&got).await;
    }
    assert_eq!(seen.len(), 3 * EACH + 2, "messages that came");
    inbox.close().await;
    bed.close().await;
}

/// In a child: sends a delayed message, waits until its forwarder works, closes, and ends.
pub(crate) async fn sender(what: &str) {
    let (namespace, queue) = what.split_once(' ').unwrap();
    let sender = Bed::with(config().namespace(namespace).forwards(true)).await;
    delayed(&sender, &Target::queue(queue), "last", 5000).await;
    settled(namespace, &[3]).await;
    sender.close().await;
    std::process::exit(0);
}

/// Members come and go, in order, while messages are on their way from level to level.
async fn an_orderly_change_of_owners_moves_nothing_twice() {
    const EACH: usize = 4000;
    const GUESTS: usize = 5;
    let namespace = name("");
    let bed = Bed::delaying(&namespace).await;
    let target = Target::queue(bed.queue("storm", 1).await);
    let now = Timestamp::now();
    let message = |i: usize| {
        let due = now.plus(Duration::from_millis(3000 + (i as u64) * 3));
        Message::text(i.to_string()).deliver_at(due)
    };
    bed.send(&target, (0..EACH).map(message)).await;
    settled(&namespace, &[4]).await;
    let mut inbox = bed.shared(&target.name).await;
    let mut seen = Vec::new();
    for n in 0..GUESTS {
        let guest = Bed::with(config().namespace(&namespace).forwards(true)).await;
        delayed(&guest, &target, &format!("guest {n}"), 2500).await;
        settled(&namespace, &[2, 2]).await;
        seen.extend(texts(&inbox.some(1000, Duration::from_millis(500)).await));
        guest.close().await;
        settled(&namespace, &[4]).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.len() < EACH + GUESTS && Instant::now() < deadline {
        let got = inbox.some(1000, Duration::from_secs(1)).await;
        inbox.ack(&got).await;
        seen.extend(texts(&got));
    }
    // Second copies arrive behind the last first one, if there are any.
    seen.extend(texts(&inbox.some(1000, Duration::from_secs(3)).await));
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((distinct.len(), seen.len() - distinct.len()), (EACH + GUESTS, 0), "came, and came again");
    inbox.close().await;
    bed.close().await;
}

/// What only sends delayed messages ends in order, too: nobody waits a session for it, and nothing is moved twice.
async fn a_close_waits_for_the_forwarder() {
    let namespace = name("");
    let bed = Bed::delaying(&namespace).await;
    let target = Target::queue(bed.queue("last", 1).await);
    run_child(super::SENDER, &format!("{namespace} {}", target.name), true).await;
    assert_eq!(forwarders(&namespace).await.as_deref(), Some(&[][..]), "it has left");
    let mut inbox = bed.shared(&target.name).await;
    assert_eq!(texts(&inbox.take(1).await), ["last"]);
    inbox.close().await;
    bed.close().await;
}
