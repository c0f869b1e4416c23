//! Reads a topic as a member of a group.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use mq_core::driver::{AckNow, Arrival, Consumer, ConsumerOptions, Control, Flushed, Settle, Start, Tag};
use mq_core::{Error, Kind, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::connection::Admin;
use crate::consumer::next_consumer;
use crate::error::BACKEND;
use crate::inbox::{self, End, Inbox};
use crate::publisher::Publisher;
use crate::reader::{self, Reader};
use crate::seat::{self, Ask, BALANCE, Change, Table};
use crate::topic::{Topic, stream};
use crate::{plan, topology};

/// Changes that wait for the core.
const CHANGES: usize = 64;

/// A member of a group.
#[derive(Debug)]
pub(crate) struct GroupMember {
    id: u64,
    table: Arc<Table>,
    asks: Vec<mpsc::Sender<Ask>>,
    state: Mutex<State>,
    /// Says that we are there; the members are counted by it.
    presence: Inbox,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    changes: mpsc::Receiver<Change>,
    readers: BTreeMap<u32, Arc<Reader>>,
    /// What was stored last, by partition: the epoch of its reader, and the offset.
    stored: BTreeMap<u32, (u32, u64)>,
    /// What could not be stored, and whoever flushed has been told.
    told: BTreeMap<u32, (u32, u64)>,
    /// Acks were not stored before their partition went away, and nobody has been told.
    acks_lost: bool,
    paused: bool,
    turn: usize,
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

enum Ended {
    Dead(Error),
    Reader(Arc<Reader>, End),
}

impl State {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        max: usize,
        into: &mut Vec<Arrival>,
    ) -> Poll<std::result::Result<bool, Ended>> {
        let before = into.len();
        while let Poll::Ready(Some(change)) = self.changes.poll_recv(cx) {
            if let Some(error) = self.change(change, into) {
                return Poll::Ready(Err(Ended::Dead(error)));
            }
        }
        let readers: Vec<_> = self.readers.values().map(Arc::clone).collect();
        self.turn = self.turn.wrapping_add(1);
        let (mut skipped, mut delivered) = (false, 0);
        for n in 0..readers.len() {
            let reader = &readers[(self.turn + n) % readers.len()];
            let had = into.len();
            match reader.poll(cx, id, max.saturating_sub(delivered), into) {
                Poll::Ready(Ok(some)) => skipped |= some,
                Poll::Ready(Err(end)) => return Poll::Ready(Err(Ended::Reader(Arc::clone(reader), end))),
                Poll::Pending => {}
            }
            delivered += into.len() - had;
        }
        if into.len() > before || skipped { Poll::Ready(Ok(skipped)) } else { Poll::Pending }
    }

    fn change(&mut self, change: Change, into: &mut Vec<Arrival>) -> Option<Error> {
        match change {
            Change::Gained(partition, reader) => {
                reader.pause(self.paused);
                self.stored.remove(&partition);
                // After a seek it is ours already.
                if self.readers.insert(partition, reader).is_none() {
                    into.push(Arrival::Gained(vec![partition]));
                }
            }
            Change::Revoking(partition, release) => into.push(Arrival::Revoking(vec![partition], release)),
            Change::Lost(partition, unstored) => {
                let reader = self.readers.remove(&partition);
                let told = self.told.remove(&partition);
                self.acks_lost |= unstored && reader.and_then(|r| r.mark()) != told;
                into.push(Arrival::Lost(vec![partition]));
            }
            Change::Dead(error) => return Some(error),
        }
        None
    }
}

impl GroupMember {
    pub(crate) async fn open(
        admin: &Admin,
        publisher: Publisher,
        options: &ConsumerOptions,
        group: &str,
    ) -> Result<Self> {
        let topic = Topic::get(admin, &options.source.name).await?;
        let partitions = topic.partitions;
        let (tell, changes) = mpsc::channel(CHANGES);
        let table = Arc::new(Table {
            admin: admin.clone(),
            publisher,
            group: group.to_owned(),
            starts: starts(admin, &topic, options.start).await?,
            prefetch: options.prefetch.div_ceil(partitions).max(1),
            members: 1.into(),
            owned: Mutex::default(),
            topic,
            tell,
        });
        let presence = present(&table).await?;
        table.count_members().await?;
        let mut member = Self {
            id: next_consumer(),
            asks: Vec::new(),
            state: Mutex::new(State {
                changes,
                readers: BTreeMap::new(),
                stored: BTreeMap::new(),
                told: BTreeMap::new(),
                acks_lost: false,
                paused: false,
                turn: 0,
            }),
            presence,
            tasks: vec![tokio::spawn(count(Arc::clone(&table)))],
            table,
        };
        for partition in 0..partitions {
            let (ask, asks) = mpsc::channel(CHANGES);
            member.asks.push(ask);
            member.tasks.push(tokio::spawn(seat::run(Arc::clone(&member.table), partition, asks)));
        }
        Ok(member)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> Vec<Arc<Reader>> {
        self.state().readers.values().map(Arc::clone).collect()
    }

    fn ask(&self, partition: u32) -> Option<&mpsc::Sender<Ask>> {
        self.asks.get(usize::try_from(partition).ok()?)
    }

    /// Asks the seat of a partition and waits for the answer.
    async fn asked(
        &self,
        partition: u32,
        ask: impl FnOnce(oneshot::Sender<Result<()>>) -> Ask,
    ) -> Result<()> {
        let gone =
            || Error::disconnected("the partition's seat is gone; the client opens the consumer again");
        let (done, answer) = oneshot::channel();
        self.ask(partition).ok_or_else(gone)?.send(ask(done)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(fenced()))
    }

    /// Does something while nobody hears of changes any more: a seat must not wait until they are heard.
    async fn deaf<T>(&self, work: impl Future<Output = T>) -> T {
        let unheard = poll_fn(|cx| {
            let mut state = self.state();
            while let Poll::Ready(Some(_)) = state.changes.poll_recv(cx) {}
            Poll::<std::convert::Infallible>::Pending
        });
        tokio::select! {
            done = work => done,
            never = unheard => match never {},
        }
    }

    /// Lets the broker send more. A reader whose channel is gone says so itself, or its seat has said that it is lost.
    async fn give_credit(&self) {
        for reader in self.readers() {
            if let Err(e) = reader.flush().await {
                tracing::debug!(error = %e, partition = reader.partition, "a reader takes no credit");
            }
        }
    }

    async fn store(&self) -> Result<()> {
        let dirty: Vec<(u32, (u32, u64))> = {
            let state = self.state();
            let marks = state.readers.iter().filter_map(|(p, r)| Some((*p, r.mark()?)));
            marks.filter(|(p, mark)| state.stored.get(p) != Some(mark)).collect()
        };
        let asked = dirty
            .iter()
            .map(|(p, (epoch, offset))| self.asked(*p, |done| Ask::Commit(*epoch, *offset, done)));
        let limit = self.table.admin.limit();
        let answers = tokio::time::timeout(limit, join_all(asked))
            .await
            .map_err(|_| Error::timeout("store offsets", limit).with_backend(BACKEND))?;
        let mut is_lost = std::mem::take(&mut self.state().acks_lost);
        for ((partition, mark), answer) in dirty.into_iter().zip(answers) {
            match answer {
                Ok(()) => drop(self.state().stored.insert(partition, mark)),
                // Another member reads it now; what was acknowledged here comes again there.
                Err(e) if e.kind() == Kind::Fenced => {
                    self.state().told.insert(partition, mark);
                    is_lost = true;
                }
                Err(e) => return Err(e),
            }
        }
        if is_lost { Err(fenced()) } else { Ok(()) }
    }

    async fn seek(&self, start: Start, partitions: &[u32]) -> Result<()> {
        let owned = self.readers().into_iter().map(|r| r.partition);
        let wanted = owned.filter(|p| partitions.is_empty() || partitions.contains(p));
        let asked = wanted.map(|p| self.asked(p, |done| Ask::Seek(start, done)));
        join_all(asked).await.into_iter().collect()
    }
}

fn fenced() -> Error {
    let text =
        "the partition went to another member before the acks were stored; the messages come again there";
    Error::new(Kind::Fenced, text).with_backend(BACKEND)
}

/// Where a new group begins: what is the latest now, not when the partition is owned.
async fn starts(admin: &Admin, topic: &Topic, start: Start) -> Result<Vec<Start>> {
    let fixed = (0..topic.partitions).map(|partition| async move {
        match start {
            Start::Latest => Ok(Start::Offset(reader::end(admin, &stream(&topic.name, partition)).await?)),
            other => Ok(other),
        }
    });
    try_join_all(fixed).await
}

/// Joins the members.
async fn present(table: &Table) -> Result<Inbox> {
    let queue = table.members_queue();
    topology::ensure_queue(&table.admin, plan::own(&queue)).await?;
    let inbox = Inbox::open(&table.admin, &queue).await?;
    inbox.consume(&queue, 1, FieldTable::default(), BasicConsumeOptions::default()).await?;
    Ok(inbox)
}

/// Keeps the number of members fresh.
async fn count(table: Arc<Table>) {
    loop {
        tokio::time::sleep(BALANCE).await;
        if let Err(e) = table.count_members().await {
            tracing::debug!(error = %e, "the members of a group could not be counted");
        }
    }
}

impl Consumer for GroupMember {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        let arrived = poll_fn(|cx| self.state().poll(cx, self.id, max, into));
        match inbox::within(wait, arrived).await {
            Some(Ok(true)) => {
                self.give_credit().await;
                Ok(())
            }
            None | Some(Ok(false)) => Ok(()),
            Some(Err(Ended::Dead(e))) => Err(e),
            Some(Err(Ended::Reader(reader, end))) => match reader.why(end).await {
                e if e.kind() == Kind::NotFound => Err(Error::not_found("topic", &self.table.topic.name)),
                e => Err(e),
            },
        }
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        let state = self.state();
        for tag in tags.iter().filter(|t| t.consumer == self.id) {
            let (partition, offset) = reader::split(tag.seq);
            if let Some(reader) = state.readers.get(&partition).filter(|r| r.epoch == tag.epoch) {
                reader.ack(offset);
            }
        }
        AckNow::Recorded
    }

    async fn flush(&self) -> Result<Flushed> {
        self.give_credit().await;
        self.store().await.map(|()| Flushed::Confirmed)
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match how {
            Settle::Requeue => {
                // A stream takes nothing back: it is read again from there.
                let (partition, offset) = reader::split(tag.seq);
                let current = self.readers().iter().any(|r| r.partition == partition && r.epoch == tag.epoch);
                if tag.consumer != self.id || !current {
                    return Err(Error::new(Kind::Fenced, "the delivery is void; the message comes again"));
                }
                self.seek(Start::Offset(offset), &[partition]).await
            }
            Settle::Extend(_) => Ok(()),
            _ => Err(Error::unsupported("RabbitMQ has no such settlement")),
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        match control {
            Control::Pause | Control::Resume => {
                let paused = matches!(control, Control::Pause);
                self.state().paused = paused;
                self.readers().iter().for_each(|r| r.pause(paused));
                Ok(())
            }
            Control::Seek(start, partitions) => self.seek(start, &partitions).await,
            _ => Err(Error::unsupported("RabbitMQ has no such control")),
        }
    }

    async fn close(&self) -> Result<()> {
        let flushed = self.flush().await.map(drop);
        let leaving = self.asks.iter().map(|ask| async {
            let (done, left) = oneshot::channel();
            if ask.send(Ask::Leave(done)).await.is_ok() {
                // A seat that is gone has left.
                let _ = left.await;
            }
        });
        let grace = self.table.admin.grace();
        let left = tokio::time::timeout(grace, self.deaf(join_all(leaving))).await;
        self.tasks.iter().for_each(JoinHandle::abort);
        self.presence.hang_up().await?;
        left.map_err(|_| Error::timeout("leave a group", grace).with_backend(BACKEND))?;
        flushed
    }
}
