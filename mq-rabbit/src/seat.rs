//! One member's place in the line for one partition: waits, claims, owns, commits, passes on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use mq_core::driver::{Release, Start};
use mq_core::protocol::objects;
use mq_core::{Error, Kind, MessageId, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::connection::Admin;
use crate::correlate::Outcome;
use crate::inbox::Inbox;
use crate::lease::{Act, Lease, Place, Record};
use crate::publisher::Publisher;
use crate::reader::{self, Reader};
use crate::topic::{self, Topic};
use crate::{plan, topology};

/// Records that are pushed at once.
const PREFETCH: u32 = 10;
/// How often the balance is looked at.
pub(crate) const BALANCE: Duration = Duration::from_millis(500);
/// Between the claim that came back and the first read: a commit under way may still arrive.
const SETTLE: Duration = Duration::from_millis(100);
/// How long the application may hold a partition back that goes away.
const RELEASE: Duration = Duration::from_secs(2);
/// A record held unsettled is replaced long before the broker takes it back.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// What the seats of one consumer share.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) admin: Admin,
    pub(crate) publisher: Publisher,
    pub(crate) topic: Topic,
    pub(crate) group: String,
    /// Where a new group begins, for each partition.
    pub(crate) starts: Vec<Start>,
    pub(crate) prefetch: u32,
    /// Members of the group, as last seen.
    pub(crate) members: AtomicU32,
    pub(crate) owned: Mutex<BTreeSet<u32>>,
    pub(crate) tell: mpsc::Sender<Change>,
}

/// What a seat tells its consumer.
#[derive(Debug)]
pub(crate) enum Change {
    Gained(u32, Arc<Reader>),
    /// Goes away; the release is dropped when the application has settled.
    Revoking(u32, Release),
    /// Gone; true if acks of its reader were not stored.
    Lost(u32, bool),
    Dead(Error),
}

/// What a consumer asks of a seat.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Store this offset of the reader of this epoch; answered when it counts.
    Commit(u32, u64, oneshot::Sender<Result<()>>),
    /// Go on from there.
    Seek(Start, oneshot::Sender<Result<()>>),
    /// Leave the line.
    Leave(oneshot::Sender<()>),
}

/// The queue whose consumers are the members of a group.
pub(crate) fn members_queue(topic: &str, group: &str) -> String {
    format!("mq.members.{topic}.{group}")
}

impl Table {
    pub(crate) fn owned(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue whose consumers are the members.
    pub(crate) fn members_queue(&self) -> String {
        members_queue(&self.topic.name, &self.group)
    }

    /// Asks how many members there are. A single-active queue would always say one.
    pub(crate) async fn count_members(&self) -> Result<u32> {
        let found = topology::find_queue(&self.admin, &self.members_queue()).await?;
        let count = found.map_or(1, |q| q.consumer_count()).max(1);
        self.members.store(count, Ordering::Relaxed);
        Ok(count)
    }

    fn share(&self) -> usize {
        self.topic.partitions.div_ceil(self.members.load(Ordering::Relaxed).max(1)) as usize
    }

    /// True if this partition is above the fair share: the highest numbers go first.
    fn is_excess(&self, partition: u32) -> bool {
        let owned = self.owned();
        owned.iter().position(|p| *p == partition).is_some_and(|at| at >= self.share())
    }

    async fn at_share(&self) -> Result<bool> {
        if self.owned().len() < self.share() {
            return Ok(false);
        }
        self.count_members().await?;
        Ok(self.owned().len() >= self.share())
    }

    async fn publish(&self, queue: &str, record: &Record) -> Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let payload = Bytes::from(record.to_string());
        match self.publisher.publish("", queue, payload, properties, FieldTable::default()).await? {
            Outcome::Stored => Ok(()),
            _ => Err(Error::disconnected("the queue of the group's offsets does not take a record")),
        }
    }
}

/// Why a round in the line ended.
enum Round {
    /// Get in line again.
    Again,
    /// It was offered and passed on unclaimed.
    Passed,
    /// The consumer leaves.
    Left(oneshot::Sender<()>),
}

/// Stands in line for one partition until the consumer leaves.
pub(crate) async fn run(table: Arc<Table>, partition: u32, mut asks: mpsc::Receiver<Ask>) {
    let queue = objects::offset(&table.topic.name, partition, &table.group);
    let (mut epoch, mut probed, mut left_at) = (0, false, None);
    loop {
        let mut seat = match Seat::take(&table, partition, &queue, epoch, left_at).await {
            Ok(seat) => seat,
            Err(e) => return drop(table.tell.send(Change::Dead(e)).await),
        };
        if !probed {
            if let Err(e) = table.publish(&queue, &Record::Probe).await {
                return drop(table.tell.send(Change::Dead(e)).await);
            }
            probed = true;
        }
        let ended = seat.serve(&mut asks).await;
        seat.disown().await;
        (epoch, left_at) = (seat.epoch, seat.left_at);
        // Closing the channel hands the unacknowledged record to the next in line; a cancel would keep it here.
        let hung_up = seat.inbox.hang_up().await;
        match ended {
            Ok(Round::Again) => {}
            // Alone in the line, the partition comes straight back.
            Ok(Round::Passed) => tokio::time::sleep(SETTLE).await,
            Ok(Round::Left(done)) => {
                // Whoever closes the consumer may have given up waiting.
                let _ = done.send(());
                return;
            }
            Err(e) => return drop(table.tell.send(Change::Dead(hung_up.err().unwrap_or(e))).await),
        }
    }
}

/// The application has been told that the partition goes away.
struct Leaving {
    until: Instant,
    released: oneshot::Receiver<()>,
    done: bool,
}

impl Leaving {
    fn is_over(&self) -> bool {
        self.done || self.until <= Instant::now()
    }
}

/// Waits until the application lets go.
async fn released(leaving: &mut Option<Leaving>) {
    match leaving {
        Some(leaving) if !leaving.done => {
            // A release that was dropped without a word is one, too.
            let _ = (&mut leaving.released).await;
            leaving.done = true;
        }
        _ => std::future::pending().await,
    }
}

struct Seat<'a> {
    table: &'a Table,
    partition: u32,
    queue: &'a str,
    inbox: Inbox,
    lease: Lease,
    reader: Option<Arc<Reader>>,
    /// Of the reader; moves on with each start.
    epoch: u32,
    settling: Option<Instant>,
    leaving: Option<Leaving>,
    waiting: Vec<(u64, oneshot::Sender<Result<()>>)>,
    stored: Option<Place>,
    /// What was stored when the partition was last passed on: epoch of the reader, and offset.
    left_at: Option<(u32, u64)>,
    refreshed: Instant,
}

impl<'a> Seat<'a> {
    async fn take(
        table: &'a Table,
        partition: u32,
        queue: &'a str,
        epoch: u32,
        left_at: Option<(u32, u64)>,
    ) -> Result<Self> {
        topology::ensure_queue(&table.admin, plan::owned(queue)).await?;
        table.admin.births().ripe().await;
        let inbox = Inbox::open(&table.admin, queue).await?;
        inbox.consume(queue, PREFETCH, FieldTable::default(), BasicConsumeOptions::default()).await?;
        let lease = Lease::new(MessageId::mint().to_string(), table.topic.born);
        let (reader, settling, leaving, waiting, stored) = (None, None, None, Vec::new(), None);
        let refreshed = Instant::now();
        Ok(Self {
            table,
            partition,
            queue,
            inbox,
            lease,
            reader,
            epoch,
            settling,
            leaving,
            waiting,
            stored,
            left_at,
            refreshed,
        })
    }

    /// Until the partition is lost or passed on, or the consumer leaves.
    async fn serve(&mut self, asks: &mut mpsc::Receiver<Ask>) -> Result<Round> {
        loop {
            let wait = self.next_look().map_or(BALANCE, |at| at.saturating_duration_since(Instant::now()));
            let mut records = Vec::new();
            tokio::select! {
                received = self.inbox.receive(PREFETCH as usize, wait.min(BALANCE), |d| records.push(d)) => received?,
                ask = asks.recv() => match ask {
                    None => return Ok(Round::Again),
                    Some(Ask::Leave(done)) => return self.store_the_last().await.map(|()| Round::Left(done)),
                    Some(ask) => self.asked(ask).await?,
                },
                () = released(&mut self.leaving) => {}
            }
            for delivery in records {
                for act in self.lease.record(delivery.delivery_tag, Record::parse(&delivery.data)) {
                    if let Some(round) = self.act(act).await? {
                        return Ok(round);
                    }
                }
            }
            self.inbox.flush().await?;
            if let Some(round) = self.look().await? {
                return Ok(round);
            }
        }
    }

    /// When something is due.
    fn next_look(&self) -> Option<Instant> {
        self.settling.or(self.leaving.as_ref().map(|l| l.until))
    }

    /// What is due by time.
    async fn look(&mut self) -> Result<Option<Round>> {
        if self.settling.is_some_and(|at| at <= Instant::now()) {
            self.settling = None;
            self.begin().await?;
        }
        if self.reader.is_none() {
            return Ok(None);
        }
        match &self.leaving {
            Some(leaving) if leaving.is_over() => {
                self.store_the_last().await?;
                return Ok(Some(Round::Again));
            }
            None if self.table.is_excess(self.partition) => self.pass_on().await,
            _ => {}
        }
        if self.refreshed.elapsed() > REFRESH {
            self.store(self.stored.unwrap_or(Place::First)).await?;
        }
        Ok(None)
    }

    /// What ends the round, if anything does.
    async fn act(&mut self, act: Act) -> Result<Option<Round>> {
        match act {
            Act::Ack(tag) => self.inbox.ack(tag),
            Act::Offered => {
                if self.table.at_share().await? {
                    return Ok(Some(Round::Passed));
                }
                let claim = self.lease.claim();
                self.table.publish(self.queue, &claim).await?;
            }
            Act::Claim(claim) => self.table.publish(self.queue, &claim).await?,
            Act::Claimed => self.settling = Some(Instant::now() + SETTLE),
            Act::Committed(seq) => self.committed(seq),
            Act::Lost => return Ok(Some(Round::Again)),
        }
        Ok(None)
    }

    /// The partition is ours: store where we go on, and read from there.
    async fn begin(&mut self) -> Result<()> {
        let place = match self.lease.place() {
            Some(place) => place,
            None => self.first_place(self.table.starts[self.partition as usize]).await?,
        };
        self.store(place).await?;
        self.read_from(place).await
    }

    async fn first_place(&self, start: Start) -> Result<Place> {
        let stream = topic::stream(&self.table.topic.name, self.partition);
        Ok(match reader::within(&self.table.admin, &stream, start).await? {
            Start::At(time) => Place::Time(time.as_millis()),
            Start::Offset(offset) => Place::Offset(offset),
            // A name for "the end" would mean another place to the next owner.
            Start::Latest => Place::Offset(reader::end(&self.table.admin, &stream).await?),
            _ => Place::First,
        })
    }

    async fn read_from(&mut self, place: Place) -> Result<()> {
        self.epoch += 1;
        let (table, partition) = (self.table, self.partition);
        let opened =
            Reader::open(&table.admin, &table.topic, partition, place.start(), table.prefetch, self.epoch)
                .await?;
        let reader = Arc::new(opened);
        self.reader = Some(Arc::clone(&reader));
        table.owned().insert(partition);
        // The consumer is gone: it will leave.
        let _ = table.tell.send(Change::Gained(partition, reader)).await;
        Ok(())
    }

    async fn store(&mut self, place: Place) -> Result<u64> {
        let (seq, record) = self.lease.commit(place);
        self.table.publish(self.queue, &record).await?;
        (self.stored, self.refreshed) = (Some(place), Instant::now());
        if let Place::Offset(offset) = place {
            self.table.admin.note_offset(
                &self.table.topic.name,
                self.partition,
                &self.table.group,
                Some(offset),
            );
        }
        Ok(seq)
    }

    async fn asked(&mut self, ask: Ask) -> Result<()> {
        let fenced = || {
            Error::new(
                Kind::Fenced,
                "the partition is owned by another member; its messages come again there",
            )
        };
        match ask {
            // It was passed on with this: the acks are stored.
            Ask::Commit(epoch, offset, done)
                if self.left_at.is_some_and(|(e, o)| e == epoch && o >= offset) =>
            {
                drop(done.send(Ok(())))
            }
            Ask::Commit(_, _, done) | Ask::Seek(_, done) if self.reader.is_none() => {
                drop(done.send(Err(fenced())))
            }
            // A seek came in between: what was read before it says no more where the group goes on.
            Ask::Commit(epoch, _, done) if epoch != self.epoch => drop(done.send(Ok(()))),
            Ask::Commit(_, offset, done) => {
                let seq = self.store(Place::Offset(offset)).await?;
                self.waiting.push((seq, done));
            }
            Ask::Seek(start, done) => {
                let place = self.first_place(start).await?;
                self.store(place).await?;
                self.read_from(place).await?;
                drop(done.send(Ok(())));
            }
            Ask::Leave(done) => drop(done.send(())),
        }
        Ok(())
    }

    /// A commit counts when its own record has come back, not when the broker has it.
    fn committed(&mut self, seq: u64) {
        let (done, left) = std::mem::take(&mut self.waiting).into_iter().partition(|(own, _)| *own <= seq);
        self.waiting = left;
        for (_, answer) in done {
            let _ = answer.send(Ok(()));
        }
    }

    /// Gives the application time to settle before it goes away.
    async fn pass_on(&mut self) {
        let (free, released) = oneshot::channel();
        let release = Release::new(move || {
            // Released too late is released, too.
            let _ = free.send(());
        });
        let _ = self.table.tell.send(Change::Revoking(self.partition, release)).await;
        self.leaving = Some(Leaving { until: Instant::now() + RELEASE, released, done: false });
    }

    async fn store_the_last(&mut self) -> Result<()> {
        let Some(offset) = self.reader.as_ref().and_then(|r| r.committable()) else { return Ok(()) };
        if self.stored != Some(Place::Offset(offset)) {
            self.store(Place::Offset(offset)).await?;
        }
        self.left_at = Some((self.epoch, offset));
        // Nobody stays to see the records come back; we own the partition until the channel closes.
        self.committed(u64::MAX);
        Ok(())
    }

    async fn disown(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        self.table.owned().remove(&self.partition);
        self.table.admin.note_offset(&self.table.topic.name, self.partition, &self.table.group, None);
        let stored = self.left_at.filter(|(epoch, _)| *epoch == self.epoch).map(|(_, offset)| offset);
        let confirmed = self.stored.filter(|_| self.waiting.is_empty());
        let is_stored = |offset| stored == Some(offset) || confirmed == Some(Place::Offset(offset));
        let unstored = reader.committable().is_some_and(|offset| !is_stored(offset));
        let _ = self.table.tell.send(Change::Lost(self.partition, unstored)).await;
        // It is only read from: whatever fails here, the channel goes with its last handle.
        let _ = reader.close().await;
    }
}
