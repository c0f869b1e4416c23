//! A consumer of a topic: member of a group, broadcast, or browser.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use mq_core::driver::{AckNow, Arrival, ConsumerOptions, Control, Flushed, Mode, Release, Settle, Tag};
use mq_core::{Error, Kind, Result};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::browse::Browser;
use super::group::Group;
use super::log::check_start;
use super::reading::void;
use super::seat::{News, Seat};
use super::state::{Reading, State};
use super::{Topic, judged};
use crate::atomic::{Room, Step};
use crate::broker::{Broker, next_id};
use crate::sync::Mutex;

/// What the connection and open transactions know of a consumer.
#[derive(Debug)]
pub(crate) struct TopicReader {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) topic: Arc<Topic>,
    reading: Reading,
    /// A browser reads without a trace in the topic.
    browser: Option<Mutex<Browser>>,
    wake: Arc<Notify>,
    /// Why it has ended.
    end: OnceLock<Error>,
}

/// A consumer of a topic, as its owner holds it.
#[derive(Debug)]
pub(crate) struct TopicConsumer {
    pub(crate) broker: Arc<Broker>,
    pub(crate) reader: Arc<TopicReader>,
}

impl TopicConsumer {
    /// Opens a consumer; its start position is fixed when this returns.
    pub(crate) fn open(broker: &Arc<Broker>, topic: &Arc<Topic>, options: &ConsumerOptions) -> Result<Self> {
        check_start(options.start)?;
        let (id, wake) = (next_id(), Arc::new(Notify::new()));
        let mut state = topic.lock(broker)?;
        let reading = match &options.mode {
            Mode::Group(group) => Reading::Group(Arc::from(group.as_str())),
            Mode::Broadcast | Mode::Browse => Reading::Lone(id),
            other => {
                let text = format!("a topic cannot be read as {other:?}; use a group, broadcast or browse");
                return Err(Error::config(text));
            }
        };
        let browser =
            (options.mode == Mode::Browse).then(|| Mutex::new(Browser::new(options.start, &state.logs)));
        if browser.is_none() {
            let group = state.group(reading.clone(), options.start);
            group.join(id, Arc::clone(&wake), broker.clock().now());
            state.note_handovers();
        }
        topic.settle_down(&mut state, broker);
        drop(state);
        let topic = Arc::clone(topic);
        let reader = TopicReader { id, topic, reading, browser, wake, end: OnceLock::new() };
        Ok(Self { broker: Arc::clone(broker), reader: Arc::new(reader) })
    }

    /// The topic and the group this consumer is a member of.
    fn with<T>(&self, run: impl FnOnce(&mut State, &Reading) -> Result<T>) -> Result<T> {
        self.reader.check()?;
        let mut state = self.reader.topic.lock(&self.broker)?;
        let done = run(&mut state, &self.reader.reading);
        self.reader.topic.settle_down(&mut state, &self.broker);
        done
    }

    /// Takes what there is; `park` says that the caller waits if it is nothing.
    fn take(&self, into: &mut Vec<Arrival>, max: usize, park: bool) -> Result<()> {
        let reader = &self.reader;
        reader.check()?;
        let mut state = reader.topic.lock(&self.broker)?;
        let now = judged(&self.broker);
        if let Some(browser) = &reader.browser {
            let taken = browser.lock().take(reader.id, max, &state.logs, now);
            into.extend(taken.into_iter().map(Arrival::Delivery));
            return Ok(());
        }
        let State { logs, readers, .. } = &mut *state;
        let group = readers.get_mut(&reader.reading).ok_or_else(|| reader.ended())?;
        let before = into.len();
        for news in group.seat(reader.id).map(|s| s.read_news()).unwrap_or_default() {
            into.extend(reader.arrival(news));
        }
        if max > 0 {
            group.take(reader.id, max, logs, now, &mut |i| into.push(Arrival::Delivery(i)));
        }
        if park && into.len() == before {
            group.seat(reader.id).into_iter().for_each(Seat::wait);
        }
        reader.topic.settle_down(&mut state, &self.broker);
        Ok(())
    }

    pub(crate) async fn receive(&self, into: &mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()> {
        let before = into.len();
        self.take(into, max, !wait.is_zero())?;
        let browsed = max > 0 && self.reader.browser.is_some();
        if into.len() > before || wait.is_zero() || browsed {
            return Ok(());
        }
        // Without a task of the timer, what is delayed would never come.
        self.broker.timer().ensure(&self.broker);
        let end = Instant::now().checked_add(wait);
        while into.len() == before {
            let woken = self.reader.wake.notified();
            match end {
                None => woken.await,
                Some(end) if tokio::time::timeout_at(end, woken).await.is_err() => return Ok(()),
                Some(_) => {}
            }
            self.take(into, max, true)?;
        }
        Ok(())
    }

    pub(crate) fn ack(&self, tags: &[Tag]) -> AckNow {
        if self.reader.looks_only() {
            return AckNow::Done;
        }
        let (id, mut now) = (self.reader.id, AckNow::Recorded);
        // A consumer that has ended tells so at the next receive; its deliveries come again.
        _ = self.with(|state, reading| {
            if state.group_of(reading)?.ack(id, tags) {
                now = AckNow::Done;
            }
            Ok(())
        });
        now
    }

    pub(crate) fn flush(&self) -> Result<Flushed> {
        self.reader.check().map(|()| Flushed::Confirmed)
    }

    pub(crate) fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        if self.reader.looks_only() {
            let text = "a broadcast and a browse only look: there is nothing to settle; use a group";
            return Err(Error::unsupported(text));
        }
        let id = self.reader.id;
        match how {
            Settle::Requeue => self.with(|state, reading| state.group_of(reading)?.requeue(id, tag)),
            // A delivery may be held for as long as its partition stays here.
            Settle::Extend(_) => self.with(|state, reading| {
                if state.group_of(reading)?.is_attached(id, tag, None) { Ok(()) } else { Err(void()) }
            }),
            Settle::Move(target, message) => {
                self.broker.check_move()?;
                self.reader.check()?;
                let object = self.broker.names.find(&target)?;
                let tags = vec![(Arc::clone(&self.reader), tag, None)];
                let sends = vec![(object, message)];
                Step { sends, tags, room: Room::Forced, ..Step::default() }.run(&self.broker)
            }
            other => Err(Error::unsupported(format!("memory does not know how to settle by {other:?}"))),
        }
    }

    pub(crate) fn control(&self, control: Control) -> Result<()> {
        let id = self.reader.id;
        match control {
            Control::Seek(start, parts) => {
                check_start(start)?;
                if let Some(browser) = &self.reader.browser {
                    let state = self.reader.topic.lock(&self.broker)?;
                    browser.lock().seek(start, &parts, &state.logs);
                    return Ok(());
                }
                self.with(|state, reading| {
                    let State { logs, readers, .. } = state;
                    let group = readers.get_mut(reading).ok_or_else(void)?;
                    group.seek(id, start, &parts, logs)
                })
            }
            Control::Pause | Control::Resume if self.reader.browser.is_some() => {
                Err(Error::unsupported("a browse ends by itself; stop receiving instead of pausing it"))
            }
            Control::Pause => self.with(|state, reading| state.group_of(reading)?.pause(id, true)),
            Control::Resume => self.with(|state, reading| state.group_of(reading)?.pause(id, false)),
            other => Err(Error::unsupported(format!("memory does not know {other:?}"))),
        }
    }

    /// Leaves the group. What is held comes again; `died` counts a death for each.
    pub(crate) fn end(&self, why: Error, died: bool) {
        self.reader.end(&self.broker, why, died);
    }
}

impl Drop for TopicConsumer {
    fn drop(&mut self) {
        self.end(Error::closed("consumer"), false);
    }
}

impl TopicReader {
    /// True if its deliveries need no ack.
    const fn looks_only(&self) -> bool {
        matches!(self.reading, Reading::Lone(_))
    }

    fn check(&self) -> Result<()> {
        self.end.get().map_or(Ok(()), |end| Err(end.clone()))
    }

    /// Why the group is not there any more: it was deleted, or this consumer has just ended.
    fn ended(&self) -> Error {
        match (&self.reading, self.end.get()) {
            (_, Some(end)) => end.clone(),
            (Reading::Group(group), None) => Error::not_found("group", group),
            (Reading::Lone(_), None) => Error::closed("consumer"),
        }
    }

    /// Leaves the group. What is held comes again; `died` counts a death for each.
    pub(crate) fn end(&self, broker: &Arc<Broker>, why: Error, died: bool) {
        if self.end.set(why).is_err() {
            return;
        }
        if let Ok(mut state) = self.topic.lock(broker) {
            if let Some(group) = state.readers.get_mut(&self.reading) {
                group.leave(self.id, died, broker.clock().now());
            }
            if matches!(self.reading, Reading::Lone(_)) {
                state.readers.remove(&self.reading);
            }
            state.note_handovers();
            self.topic.settle_down(&mut state, broker);
        }
        self.wake.notify_one();
    }

    /// Broadcasts keep their partitions for life: they are told nothing of them.
    fn arrival(&self, news: News) -> Option<Arrival> {
        let group = matches!(self.reading, Reading::Group(_));
        match news {
            News::AckLost(tags) => Some(Arrival::AckLost(tags)),
            _ if !group => None,
            News::Gained(parts) => Some(Arrival::Gained(parts)),
            News::Lost(parts) => Some(Arrival::Lost(parts)),
            News::Revoking(parts, turn) => Some(Arrival::Revoking(parts, self.release(turn))),
        }
    }

    fn release(&self, turn: u64) -> Release {
        let (topic, reading) = (Weak::clone(&self.topic.this), self.reading.clone());
        Release::new(move || {
            let Some(topic) = topic.upgrade() else { return };
            let mut state = topic.state.lock();
            if let Some(group) = state.readers.get_mut(&reading) {
                group.released(turn);
            }
            state.note_handovers();
        })
    }

    /// Hands deliveries to a transaction, all of them or none.
    pub(crate) fn attach(&self, broker: &Broker, tags: &[Tag], transaction: u64) -> Result<()> {
        if self.check().is_err() || self.looks_only() {
            return Err(void());
        }
        let mut state = self.topic.lock(broker)?;
        state.group_of(&self.reading)?.attach(self.id, tags, transaction)
    }

    /// A delivery of a transaction comes again.
    pub(crate) fn roll_back(&self, broker: &Arc<Broker>, tag: Tag, transaction: u64) {
        let Ok(mut state) = self.topic.lock(broker) else { return };
        if let Some(group) = self.group(&mut state) {
            group.roll_back(self.id, tag, transaction);
        }
        self.topic.settle_down(&mut state, broker);
    }

    /// The group of this consumer, if it is still a member of one.
    pub(crate) fn group<'a>(&self, state: &'a mut State) -> Option<&'a mut Group> {
        state.readers.get_mut(&self.reading)
    }
}

impl State {
    fn group_of(&mut self, reading: &Reading) -> Result<&mut Group> {
        self.readers.get_mut(reading).ok_or_else(|| {
            Error::new(Kind::Fenced, "the group was deleted; its deliveries are void, open a new consumer")
        })
    }
}
