//! Declaring, describing, purging, trimming.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        declaring_again_compares,
        an_export_names_every_topic_and_its_settings,
        depth_lag_and_partitions,
        purge_empties_a_queue,
        what_is_acknowledged_is_removed_from_a_queues_log,
        what_short_lived_consumers_acknowledge_is_removed_too,
        an_old_commit_hides_nothing_of_a_queue_that_was_made_again,
        a_queue_that_was_made_again_ends_its_consumers,
        a_consumer_of_a_queue_that_was_made_again_ends_or_reads_it
    ]
}

async fn declaring_again_compares() {
    let bed = Bed::new().await;
    let queue = bed.queue("again", 3).await;
    let same = Change::DeclareQueue(QueueSpec::new(&queue).with_parallelism(3));
    assert_eq!(bed.connection.apply(&same).await.unwrap(), Applied::Unchanged);
    let other = Change::DeclareQueue(QueueSpec::new(&queue).with_parallelism(4));
    let refused = bed.connection.apply(&other).await.unwrap_err();
    assert_eq!((refused.kind(), refused.context("property")), (Kind::AlreadyExists, Some("parallelism")));
    let refused = bed.connection.apply(&Change::DeclareTopic(TopicSpec::new(&queue))).await.unwrap_err();
    assert_eq!((refused.kind(), refused.context("property")), (Kind::AlreadyExists, Some("sort")));
    let topic = bed.topic("kept", 3).await;
    let other = TopicSpec::new(&topic).with_partitions(3).with_retention(Duration::from_secs(60));
    let refused = bed.connection.apply(&Change::DeclareTopic(other)).await.unwrap_err();
    assert_eq!(refused.context("property"), Some("retention"));
    bed.close().await;
}

async fn an_export_names_every_topic_and_its_settings() {
    let bed = Bed::new().await;
    let (queue, topic) = (name("export"), name("exported"));
    let changes = [
        Change::DeclareQueue(QueueSpec::new(&queue).with_parallelism(3)),
        Change::DeclareTopic(TopicSpec::new(&topic).with_partitions(5)),
    ];
    let lines = bed.connection.beneath(&changes);
    let line =
        |text: &str| lines.iter().find(|l| l.contains(text)).unwrap_or_else(|| panic!("{text}: {lines:#?}"));
    assert!(
        line(&format!("topic {queue} ")).contains("partitions=3")
            && line(&queue).contains("min.insync.replicas=")
    );
    assert!(line(&format!("topic {topic} ")).contains("partitions=5"));
    assert!(line("mq.delay.00 ").contains("message.timestamp.type=LogAppendTime"));
    for other in ["mq.delay.17 ", "mq.half.<group> ", "mq.undelivered ", "transactional id ", "native group "]
    {
        line(other);
    }
    assert!(lines.iter().all(|l| l.contains("permissions")));
    assert_eq!(
        bed.connection.describe(&Query::Exists(Sort::Queue, queue)).await.unwrap(),
        Described::Exists(false)
    );
    bed.close().await;
}

async fn depth_lag_and_partitions() {
    let bed = Bed::new().await;
    let queue = bed.queue("depth", 2).await;
    let depth = async || match bed.connection.describe(&Query::Depth(queue.clone())).await.unwrap() {
        Described::Depth(depth) => depth.ready,
        other => panic!("{other:?}"),
    };
    assert_eq!(depth().await, Count::Exact(0));
    bed.texts(&Target::queue(&queue), 9).await;
    assert_eq!(depth().await, Count::AtMost(9));
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(9).await;
    inbox.ack(&got).await;
    assert_eq!(depth().await, Count::Exact(0));
    let asked = Query::Partitions(queue.clone());
    let Described::Partitions(ranges) = bed.connection.describe(&asked).await.unwrap() else { panic!() };
    assert_eq!((ranges.len(), ranges.iter().map(|r| r.latest - r.earliest).sum::<u64>()), (2, 9));
    let lag = Query::Lag { topic: queue.clone(), group: name("nobody") };
    let Described::Lag(lag) = bed.connection.describe(&lag).await.unwrap() else { panic!() };
    assert_eq!(lag.len(), 2);
    inbox.close().await;
    bed.close().await;
}

async fn purge_empties_a_queue() {
    let bed = Bed::new().await;
    let queue = bed.queue("purge", 2).await;
    bed.texts(&Target::queue(&queue), 30).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 4;
    let mut inbox = bed.consumer(options).await;
    let held = inbox.take(2).await;
    let purged = bed.connection.apply(&Change::Purge(queue.clone())).await.unwrap();
    assert!(matches!(purged, Applied::Purged(Count::AtMost(30))), "{purged:?}");
    inbox.nothing().await;
    inbox.ack(&held).await;
    bed.send(&Target::queue(&queue), [Message::text("30")]).await;
    assert_eq!(texts(&inbox.take(1).await), ["30"]);
    inbox.close().await;
    bed.close().await;
}

/// Waits until the first steps of a queue's log are removed.
async fn trimmed(bed: &Bed, queue: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let asked = bed.connection.describe(&Query::Partitions(queue.to_owned())).await.unwrap();
        let Described::Partitions(ranges) = asked else { panic!() };
        if ranges[0].earliest >= 10_000 {
            break;
        }
        assert!(Instant::now() < deadline, "{ranges:?}");
    }
}

async fn what_short_lived_consumers_acknowledge_is_removed_too() {
    let bed = Bed::new().await;
    let queue = bed.queue("brief", 1).await;
    for _ in 0..6 {
        bed.texts(&Target::queue(&queue), 2000).await;
        let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
        options.prefetch = 2000;
        let mut inbox = bed.consumer(options).await;
        let got = inbox.take(2000).await;
        inbox.ack(&got).await;
        inbox.close().await;
    }
    trimmed(&bed, &queue).await;
    bed.close().await;
}

async fn what_is_acknowledged_is_removed_from_a_queues_log() {
    let bed = Bed::new().await;
    let queue = bed.queue("trim", 1).await;
    let mut options = ConsumerOptions::new(Target::queue(&queue), Mode::Shared);
    options.prefetch = 2000;
    let mut inbox = bed.consumer(options).await;
    for _ in 0..12 {
        bed.texts(&Target::queue(&queue), 1000).await;
        let got = inbox.take(1000).await;
        inbox.ack(&got).await;
    }
    trimmed(&bed, &queue).await;
    bed.texts(&Target::queue(&queue), 1).await;
    assert_eq!(inbox.take(1).await.len(), 1);
    inbox.close().await;
    bed.close().await;
}

/// Deletes a queue of one partition and declares it again at once.
async fn make_again(bed: &Bed, queue: &str) {
    bed.connection.apply(&Change::Delete(Sort::Queue, queue.to_owned())).await.unwrap();
    let spec = QueueSpec::new(queue).with_parallelism(1);
    bed.connection.apply(&Change::DeclareQueue(spec)).await.unwrap();
}

/// What a consumer of the deleted queue stores too late must not count for the new one: it would skip what that holds.
async fn an_old_commit_hides_nothing_of_a_queue_that_was_made_again() {
    let bed = Bed::new().await;
    let queue = bed.queue("renewed", 1).await;
    let target = Target::queue(&queue);
    bed.texts(&target, 3).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(3).await;
    inbox.ack(&got).await;
    inbox.close().await;
    let old = Foreign::of(&queue);
    let (offset, text) = old.stored();
    assert_eq!(offset, Offset::Offset(3));
    make_again(&bed, &queue).await;
    old.store(offset, text);
    bed.send(&target, [Message::text("a"), Message::text("b")]).await;
    let asked = bed.connection.describe(&Query::Depth(queue.clone())).await.unwrap();
    let Described::Depth(depth) = asked else { panic!("{asked:?}") };
    assert_eq!(depth.ready, Count::AtMost(2));
    let asked = Query::Lag { topic: queue.clone(), group: queue.clone() };
    let asked = bed.connection.describe(&asked).await.unwrap();
    assert!(matches!(&asked, Described::Lag(lag) if lag[..] == [(0, Count::AtMost(2))]), "{asked:?}");
    let mut inbox = bed.shared(&queue).await;
    assert_eq!(texts(&inbox.take(2).await), ["a", "b"]);
    inbox.close().await;
    bed.close().await;
}

/// The native client would read on where it was in the old queue, and skip what the new one holds below that.
async fn a_queue_that_was_made_again_ends_its_consumers() {
    let bed = Bed::new().await;
    let queue = bed.queue("reborn", 1).await;
    let target = Target::queue(&queue);
    bed.texts(&target, 3).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(3).await;
    inbox.ack(&got).await;
    make_again(&bed, &queue).await;
    let news: Vec<String> = (0..6).map(|n| format!("new {n}")).collect();
    bed.send(&target, news.iter().map(|text| Message::text(text.clone())).collect::<Vec<_>>()).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        let mut arrivals = Vec::new();
        loop {
            if let Err(ended) = inbox.consumer.receive(&mut arrivals, 10, Duration::from_secs(1)).await {
                break ended;
            }
        }
    });
    assert_eq!(ended.await.expect("it reads on in another queue").kind(), Kind::NotFound);
    let mut inbox = bed.shared(&queue).await;
    assert_eq!(texts(&inbox.take(6).await), news);
    inbox.close().await;
    bed.close().await;
}

/// It stands behind what the new queue holds: what it took for known would never be delivered.
async fn a_consumer_of_a_queue_that_was_made_again_ends_or_reads_it() {
    let bed = Bed::new().await;
    let other = Bed::new().await;
    let queue = bed.queue("under", 1).await;
    let target = Target::queue(&queue);
    let sent: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    bed.texts(&target, 20).await;
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(20).await;
    inbox.ack(&got).await;
    make_again(&other, &queue).await;
    other.texts(&target, 20).await;
    let mut came = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while came.len() < 20 {
        assert!(Instant::now() < deadline, "{} of 20 came, and it goes on", came.len());
        let mut into = Vec::new();
        match inbox.consumer.receive(&mut into, 20, Duration::from_secs(1)).await {
            Ok(()) => came.extend(into.into_iter().filter_map(|a| match a {
                Arrival::Delivery(d) => Some(d.message.to_str().unwrap().to_owned()),
                _ => None,
            })),
            Err(ended) => {
                assert_eq!(ended.kind(), Kind::NotFound);
                came.clear();
                inbox = bed.shared(&queue).await;
            }
        }
    }
    assert_eq!(came, sent);
    inbox.close().await;
    other.close().await;
    bed.close().await;
}

/// A raw client in the group of a queue with one partition.
struct Foreign {
    queue: String,
    client: BaseConsumer,
}

impl Foreign {
    fn of(queue: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", support::hosts().join(",")).set("group.id", queue);
        Self { queue: queue.to_owned(), client: config.create().unwrap() }
    }

    fn stored(&self) -> (Offset, String) {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.queue, 0);
        let found = self.client.committed_offsets(asked, Duration::from_secs(10)).unwrap();
        let element = &found.elements()[0];
        (element.offset(), element.metadata().to_owned())
    }

    fn store(&self, offset: Offset, text: String) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.queue, 0);
        element.set_offset(offset).unwrap();
        element.set_metadata(text);
        self.client.commit(&list, CommitMode::Sync).unwrap();
    }
}
