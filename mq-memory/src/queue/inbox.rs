//! Where producers put plain messages down, apart from what consumers work on: the two sides share a lock once for all
//! that has come together, and not for each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mq_core::Message;

use super::segments::Segments;
use super::{Entry, Queue, Reader, State};
use crate::broker::Broker;
use crate::pool::Credit;
use crate::sync::Mutex;

/// What came since the queue's own lock was last held. Its lock is the innermost: below that of the queue's state.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Set while there is something, so that a consumer need not take the lock for nothing.
    filled: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
#[repr(C)]
struct Inner {
    /// The queue is gone.
    closed: bool,
    /// A consumer waits: whoever puts something down serves it. Set whenever the line of waiters is not empty.
    awaited: bool,
    /// Numbers the places of the whole queue.
    last_pos: u64,
    messages: usize,
    bytes: u64,
    /// Room taken from the broker's bound and not used yet.
    credit: Credit,
    line: Segments,
}

impl Inner {
    #[inline]
    fn push(&mut self, message: Message, weight: u32) {
        self.last_pos += 1;
        self.messages += 1;
        self.bytes += u64::from(weight);
        self.line.push_back(Entry { pos: self.last_pos, deaths: 0, weight, message });
    }

    fn move_to(&mut self, state: &mut State) {
        if self.messages > 0 {
            state.append_line(&mut self.line, self.messages, self.bytes);
            (self.messages, self.bytes) = (0, 0);
        }
    }
}

/// What became of a plain message.
pub(super) enum Put {
    /// It is stored.
    Stored,
    /// The queue is gone.
    Gone,
    /// The broker is full.
    Full,
}

impl Queue {
    /// Stores a message without options in a queue without bound, priorities and TTL. `room` says how much the broker's
    /// bound still has to give, or `None` if that was taken before.
    #[inline]
    pub(super) fn put_plain(&self, message: &mut Option<Message>, weight: u32, room: Option<&Broker>) -> Put {
        let mut inbox = self.inbox.inner.lock();
        if inbox.closed {
            return Put::Gone;
        }
        if let Some(broker) = room
            && !broker.pool().take(&mut inbox.credit, weight)
        {
            return Put::Full;
        }
        if let Some(message) = message.take() {
            inbox.push(message, weight);
        }
        self.inbox.filled.store(true, Ordering::Relaxed);
        let awaited = inbox.awaited;
        drop(inbox);
        if awaited {
            self.serve();
        }
        Put::Stored
    }

    /// Wakes the consumer that waits.
    #[cold]
    fn serve(&self) {
        let mut state = self.state.lock();
        let mut inbox = self.inbox.inner.lock();
        inbox.move_to(&mut state);
        self.inbox.filled.store(false, Ordering::Relaxed);
        let wake = state.next_waiter();
        inbox.awaited = !state.waiters.is_empty();
        drop(inbox);
        drop(state);
        wake.inspect(|r| r.wake());
    }

    /// Moves what has come to the queue. False if there is nothing.
    #[inline]
    pub(super) fn look(&self, state: &mut State) -> bool {
        let filled = self.inbox.filled.load(Ordering::Relaxed);
        if filled {
            self.absorb(state);
        }
        filled
    }

    /// Moves what has come to the queue.
    pub(super) fn absorb(&self, state: &mut State) {
        let mut inbox = self.inbox.inner.lock();
        inbox.move_to(state);
        self.inbox.filled.store(false, Ordering::Relaxed);
    }

    /// Puts a consumer in the line of waiters. What comes from now on wakes it; what has come meanwhile is in the queue
    /// then.
    pub(super) fn await_more(&self, state: &mut State, reader: &Arc<Reader>) {
        let mut inbox = self.inbox.inner.lock();
        inbox.move_to(state);
        self.inbox.filled.store(false, Ordering::Relaxed);
        inbox.awaited = true;
        state.waiters.push_back(Arc::clone(reader));
    }

    /// The next place; what has come before is in the queue then.
    pub(super) fn place(&self, state: &mut State) -> u64 {
        let mut inbox = self.inbox.inner.lock();
        inbox.move_to(state);
        self.inbox.filled.store(false, Ordering::Relaxed);
        inbox.last_pos += 1;
        inbox.last_pos
    }

    /// The place behind all that is in the queue.
    pub(super) fn end(&self) -> u64 {
        self.inbox.inner.lock().last_pos + 1
    }

    /// Nothing is put down any more. The room that was not used.
    pub(super) fn close_inbox(&self, state: &mut State) -> Credit {
        let mut inbox = self.inbox.inner.lock();
        inbox.move_to(state);
        inbox.closed = true;
        std::mem::take(&mut inbox.credit)
    }

    /// The room that was taken for messages to come.
    pub(super) fn take_inbox_credit(&self) -> Credit {
        std::mem::take(&mut self.inbox.inner.lock().credit)
    }
}
