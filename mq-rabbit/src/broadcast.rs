//! Reads a whole topic with no stored offset: every consumer gets everything. Also the browse of a topic, which ends
//! where the topic ended when it began.

use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::try_join_all;
use mq_core::driver::{
    AckNow, Arrival, Consumer, ConsumerOptions, Control, Flushed, Mode, Settle, Start, Tag,
};
use mq_core::{Error, Result};

use crate::connection::Admin;
use crate::consumer::next_consumer;
use crate::inbox::{self, End};
use crate::reader::{self, Reader};
use crate::topic::{self, Topic};

/// Reads all partitions of a topic.
#[derive(Debug)]
pub(crate) struct Broadcast {
    id: u64,
    admin: Admin,
    topic: Topic,
    prefetch: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    readers: Vec<std::sync::Arc<Reader>>,
    /// For a browse: the end of each partition when it began, 0 if there is nothing to show.
    ends: Option<Vec<u64>>,
    /// Whose turn it is first.
    turn: usize,
}

impl State {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        id: u64,
        max: usize,
        into: &mut Vec<Arrival>,
    ) -> Poll<std::result::Result<bool, (usize, End)>> {
        if max > 0 && self.is_shown() {
            // Nothing, at once, is how a browse ends.
            return Poll::Ready(Ok(false));
        }
        let count = self.readers.len();
        self.turn = self.turn.wrapping_add(1);
        let (before, mut skipped) = (into.len(), false);
        for n in 0..count {
            let at = (self.turn + n) % count;
            let room = max.saturating_sub(into.len() - before);
            let arrived = into.len();
            match self.readers[at].poll(cx, id, room, into) {
                Poll::Ready(Ok(some)) => skipped |= some,
                Poll::Ready(Err(end)) => return Poll::Ready(Err((at, end))),
                Poll::Pending => {}
            }
            if let Some(ends) = &self.ends {
                skipped |= self.readers[at].keep_before(ends[at], into, arrived);
            }
        }
        if into.len() > before || skipped { Poll::Ready(Ok(skipped)) } else { Poll::Pending }
    }

    /// Puts recorded acks of all partitions on the wire; false if one of the readers is dead.
    fn try_flush(&self) -> bool {
        let mut all = true;
        for reader in &self.readers {
            all &= reader.try_flush();
        }
        all
    }

    /// True for a browse that has come to its end.
    fn is_shown(&self) -> bool {
        let Some(ends) = &self.ends else { return false };
        self.readers.iter().zip(ends).all(|(reader, end)| reader.has_reached(*end))
    }
}

impl Broadcast {
    pub(crate) async fn open(admin: &Admin, options: &ConsumerOptions) -> Result<Self> {
        let topic = Topic::get(admin, &options.source.name).await?;
        let ends = if options.mode == Mode::Browse {
            let all = (0..topic.partitions).map(|p| {
                let stream = topic::stream(&topic.name, p);
                async move {
                    let end = reader::end(admin, &stream).await?;
                    let some = reader::begins_before(admin, &stream, options.start, end).await?;
                    Ok::<_, Error>(if some { end } else { 0 })
                }
            });
            Some(try_join_all(all).await?)
        } else {
            None
        };
        let prefetch = options.prefetch.div_ceil(topic.partitions).max(1);
        let readers =
            (0..topic.partitions).map(|p| Reader::open(admin, &topic, p, options.start, prefetch, 0));
        let readers = try_join_all(readers).await?.into_iter().map(std::sync::Arc::new).collect();
        let state = Mutex::new(State { readers, ends, turn: 0 });
        Ok(Self { id: next_consumer(), admin: admin.clone(), topic, prefetch, state })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> Vec<std::sync::Arc<Reader>> {
        self.state().readers.clone()
    }

    /// Brings at least one message, or the end of a browse.
    async fn arrivals(&self, into: &mut Vec<Arrival>, max: usize) -> Result<()> {
        let before = into.len();
        loop {
            match poll_fn(|cx| self.state().poll(cx, self.id, max, into)).await {
                Ok(skipped) => {
                    if skipped {
                        self.flush().await?;
                    }
                    if into.len() > before || self.state().is_shown() {
                        return Ok(());
                    }
                }
                Err((at, end)) => return Err(self.why(at, end).await),
            }
        }
    }

    async fn why(&self, at: usize, end: End) -> Error {
        let reader = std::sync::Arc::clone(&self.readers()[at]);
        match reader.why(end).await {
            e if e.kind() == mq_core::Kind::NotFound => Error::not_found("topic", &self.topic.name),
            e => e,
        }
    }

    async fn seek(&self, start: Start, partitions: &[u32]) -> Result<()> {
        for old in self.readers() {
            if !partitions.is_empty() && !partitions.contains(&old.partition) {
                continue;
            }
            let stream = topic::stream(&self.topic.name, old.partition);
            let start = reader::within(&self.admin, &stream, start).await?;
            let opened =
                Reader::open(&self.admin, &self.topic, old.partition, start, self.prefetch, old.epoch + 1)
                    .await?;
            let mut state = self.state();
            if let Some(place) = state.readers.iter_mut().find(|r| r.partition == old.partition) {
                *place = std::sync::Arc::new(opened);
            }
        }
        Ok(())
    }
}

impl Consumer for Broadcast {
    async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        // Out of time is no error.
        inbox::within(wait, self.arrivals(into, max)).await.unwrap_or(Ok(()))
    }

    fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool> {
        let before = into.len();
        // The one who receives is not waiting now; it is registered again when it waits, and meets an end there.
        let mut cx = Context::from_waker(Waker::noop());
        let mut state = self.state();
        if let Poll::Ready(Ok(true)) = state.poll(&mut cx, self.id, max, into) {
            // What was skipped has to be acknowledged, or nothing more would come; a reader that is dead shows later.
            state.try_flush();
        }
        Ok(into.len() > before)
    }

    fn try_flush(&self) -> bool {
        self.state().try_flush()
    }

    fn ack(&self, tags: &[Tag]) -> AckNow {
        let state = self.state();
        for tag in tags.iter().filter(|t| t.consumer == self.id) {
            let (partition, offset) = reader::split(tag.seq);
            let reader = state.readers.iter().find(|r| r.partition == partition && r.epoch == tag.epoch);
            if let Some(reader) = reader {
                reader.ack(offset);
            }
        }
        AckNow::Recorded
    }

    async fn flush(&self) -> Result<Flushed> {
        for reader in self.readers() {
            reader.flush().await?;
        }
        Ok(Flushed::Taken)
    }

    async fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        match how {
            // A topic without a group has nobody to give a message back to.
            Settle::Requeue => {
                self.ack(&[tag]);
                Ok(())
            }
            Settle::Extend(_) => Ok(()),
            _ => Err(Error::unsupported("RabbitMQ has no such settlement")),
        }
    }

    async fn control(&self, control: Control) -> Result<()> {
        match control {
            Control::Pause => self.readers().iter().for_each(|r| r.pause(true)),
            Control::Resume => self.readers().iter().for_each(|r| r.pause(false)),
            Control::Seek(start, partitions) => return self.seek(start, &partitions).await,
            _ => return Err(Error::unsupported("RabbitMQ has no such control")),
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        for reader in self.readers() {
            reader.close().await?;
        }
        Ok(())
    }
}
