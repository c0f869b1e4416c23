//! Notes what happens while it happens.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mq_core::driver::Position;
use tokio::time::Instant;

use super::{
    Decision, Deletion, Delivery, End, Fault, History, Moment, Place, PlaceInfo, Send, Settled, Shift, Span,
    Tx,
};

/// Notes operations of many tasks in one [`History`]. All times are taken here, by one monotonic clock: the start
/// of an operation before it is called, its end after it has returned, so that no order is claimed that was not
/// there. It grows with the run; the size of a run is bounded by its author.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    /// Settled deliveries of each consumer whose settlement is not known to be durable.
    undurable: HashMap<u32, Vec<usize>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Starts a record now. Must be called inside a tokio runtime if its clock is paused.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::new(State::default()) }
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.start.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names a queue or topic.
    pub fn place(&self, info: PlaceInfo) -> Place {
        let h = &mut self.state().history;
        h.places.push(info);
        h.places.len() - 1
    }

    /// Notes how many messages a place still holds after the drain.
    pub fn left(&self, place: Place, left: u64) {
        self.state().history.places[place].left = Some(left);
    }

    /// Notes the call of a send; its time is taken here. The answer names it for [`sent`](Self::sent).
    pub fn send(&self, mut send: Send) -> usize {
        let h = &mut self.state().history;
        send.span = Span::open(self.now());
        h.sends.push(send);
        h.sends.len() - 1
    }

    /// Notes that a send has returned.
    pub fn sent(&self, send: usize, end: End, position: Option<Position>) {
        let now = self.now();
        let h = &mut self.state().history;
        let send = &mut h.sends[send];
        (send.span.to, send.span.end, send.position) = (Some(now), end, position.or(send.position));
    }

    /// Notes a delivery; its time is taken here. The answer names it for the other calls.
    pub fn delivered(&self, mut delivery: Delivery) -> usize {
        let h = &mut self.state().history;
        delivery.at = self.now();
        h.deliveries.push(delivery);
        h.deliveries.len() - 1
    }

    /// Notes that a delivery is settled: before the call, since what follows may be seen before it returns.
    pub fn settled(&self, delivery: usize, how: Settled) {
        let now = self.now();
        let mut state = self.state();
        let d = &mut state.history.deliveries[delivery];
        d.settled = Some((how, now));
        let consumer = d.consumer;
        state.undurable.entry(consumer).or_default().push(delivery);
    }

    /// Notes how the call ended that gave a delivery back, whose [`settled`](Self::settled) came before it.
    pub fn gave_back(&self, delivery: usize, end: End) {
        let now = self.now();
        let d = &mut self.state().history.deliveries[delivery];
        d.copy = d.settled.map(|(_, from)| Span::done(from, now, end));
    }

    /// Notes that a settlement failed: the delivery is as it was before.
    pub fn unsettled(&self, delivery: usize) {
        let mut state = self.state();
        let d = &mut state.history.deliveries[delivery];
        d.settled = None;
        let consumer = d.consumer;
        if let Some(open) = state.undurable.get_mut(&consumer) {
            open.retain(|index| *index != delivery);
        }
    }

    /// Notes that a transaction holds a delivery.
    pub fn attached(&self, delivery: usize, transaction: usize) {
        self.state().history.deliveries[delivery].transaction = Some(transaction);
    }

    /// Notes that every settlement of a consumer that was called before `flushed` is durable.
    pub fn durable(&self, consumer: u32, flushed: Moment) {
        let now = self.now();
        let mut state = self.state();
        let State { history, undurable } = &mut *state;
        let Some(open) = undurable.get_mut(&consumer) else { return };
        open.retain(|index| {
            let d = &mut history.deliveries[*index];
            let done = d.settled.is_some_and(|(_, at)| at <= flushed);
            if done {
                d.durable = Some(now);
            }
            !done
        });
    }

    /// Notes the begin of a transaction.
    pub fn begin(&self) -> usize {
        let h = &mut self.state().history;
        h.transactions.push(Tx { decision: Decision::None, span: Span::open(Moment::MAX) });
        h.transactions.len() - 1
    }

    /// Notes that a transaction is about to be committed or rolled back.
    pub fn deciding(&self, transaction: usize, decision: Decision) {
        let now = self.now();
        self.state().history.transactions[transaction] = Tx { decision, span: Span::open(now) };
    }

    /// Notes how the call that ended a transaction returned.
    pub fn decided(&self, transaction: usize, end: End) {
        let now = self.now();
        let h = &mut self.state().history;
        let span = &mut h.transactions[transaction].span;
        (span.to, span.end) = (Some(now), end);
    }

    /// Notes that a consumer goes away and gives back what it holds (`None`: some consumers may).
    pub fn shift(&self, consumer: Option<u32>) {
        let shift = Shift { at: self.now(), consumer, seek: false };
        self.state().history.shifts.push(shift);
    }

    /// Notes that a consumer is about to seek.
    pub fn seek(&self, consumer: Option<u32>) {
        let shift = Shift { at: self.now(), consumer, seek: true };
        self.state().history.shifts.push(shift);
    }

    /// Notes that a fault is about to be made. The answer names it for [`healed`](Self::healed).
    pub fn fault(&self, label: impl Into<String>) -> usize {
        let fault = Fault { label: label.into(), from: self.now(), to: None };
        let h = &mut self.state().history;
        h.faults.push(fault);
        h.faults.len() - 1
    }

    /// Notes that everything is connected again.
    pub fn healed(&self, fault: usize) {
        let now = self.now();
        self.state().history.faults[fault].to = Some(now);
    }

    /// Notes that a queue is about to be deleted. The answer names it for [`made_again`](Self::made_again).
    pub fn deletion(&self, place: Place) -> usize {
        let deletion = Deletion { place, from: self.now(), to: None };
        let h = &mut self.state().history;
        h.deletions.push(deletion);
        h.deletions.len() - 1
    }

    /// Notes that a deleted queue has been declared again: what is sent from now on must arrive.
    pub fn made_again(&self, deletion: usize) {
        let now = self.now();
        self.state().history.deletions[deletion].to = Some(now);
    }

    /// Corrects the record.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut History)) {
        change(&mut self.state().history);
    }

    /// Looks at the record so far.
    pub fn with<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.state().history)
    }

    /// The record so far.
    #[must_use]
    pub fn snapshot(&self) -> History {
        self.state().history.clone()
    }

    /// The record, when the run is over.
    #[must_use]
    pub fn finish(self) -> History {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).history
    }
}
