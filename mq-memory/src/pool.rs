//! The bound of the whole broker, in messages and bytes.
//!
//! Queues take credit in chunks under their own lock and give back in chunks, so that two queues do not share a
//! cache line for each message.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Room that is taken from the pool and not used yet, or used no longer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Credit {
    pub(crate) fn add(&mut self, weight: u32) {
        self.messages += 1;
        self.bytes += u64::from(weight);
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    max: Credit,
    chunk: Credit,
    messages: AtomicU64,
    bytes: AtomicU64,
    waiting: AtomicUsize,
    room: Notify,
}

impl Pool {
    pub(crate) fn new(max_messages: u64, max_bytes: u64) -> Self {
        let max = Credit { messages: max_messages.max(1), bytes: max_bytes.max(1) };
        let chunk = Credit { messages: (max.messages / 4096).max(1), bytes: (max.bytes / 4096).max(1) };
        Self {
            max,
            chunk,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }

    pub(crate) const fn max_bytes(&self) -> u64 {
        self.max.bytes
    }

    /// Takes one message of this weight out of `local`, filled up from the pool where needed. False if the broker
    /// is full.
    #[inline]
    pub(crate) fn take(&self, local: &mut Credit, weight: u32) -> bool {
        let weight = u64::from(weight);
        if local.messages > 0 && local.bytes >= weight {
            local.messages -= 1;
            local.bytes -= weight;
            return true;
        }
        self.take_afresh(local, weight)
    }

    fn take_afresh(&self, local: &mut Credit, weight: u64) -> bool {
        // Nothing is drawn in vain: a send that has to wait would give it back, and so wake itself and others for
        // nothing, for ever.
        if !self.has_room(*local, weight) {
            return false;
        }
        if local.messages == 0 {
            local.messages = draw(&self.messages, self.max.messages, 1, self.chunk.messages);
        }
        if local.bytes < weight {
            let missing = weight - local.bytes;
            local.bytes += draw(&self.bytes, self.max.bytes, missing, self.chunk.bytes.max(missing));
        }
        if local.messages == 0 || local.bytes < weight {
            return false;
        }
        local.messages -= 1;
        local.bytes -= weight;
        true
    }

    /// Takes room for several messages at once, all of it or none.
    pub(crate) fn draw(&self, credit: Credit) -> Result<(), ()> {
        if draw(&self.messages, self.max.messages, credit.messages, credit.messages) < credit.messages {
            return Err(());
        }
        if draw(&self.bytes, self.max.bytes, credit.bytes, credit.bytes) < credit.bytes {
            self.messages.fetch_sub(credit.messages, Ordering::AcqRel);
            return Err(());
        }
        Ok(())
    }

    /// Takes room beyond the bound.
    pub(crate) fn force_draw(&self, credit: Credit) {
        self.messages.fetch_add(credit.messages, Ordering::AcqRel);
        self.bytes.fetch_add(credit.bytes, Ordering::AcqRel);
    }

    /// True if there is room for this much now.
    pub(crate) fn fits(&self, credit: Credit) -> bool {
        let used = self.used();
        used.messages.saturating_add(credit.messages) <= self.max.messages
            && used.bytes.saturating_add(credit.bytes) <= self.max.bytes
    }

    fn has_room(&self, local: Credit, weight: u64) -> bool {
        let messages = local.messages > 0 || self.messages.load(Ordering::Acquire) < self.max.messages;
        let missing = weight.saturating_sub(local.bytes);
        messages
            && (missing == 0 || self.bytes.load(Ordering::Acquire).saturating_add(missing) <= self.max.bytes)
    }

    /// As [`take`](Self::take), beyond the bound if it must be: for copies that the broker itself makes.
    pub(crate) fn force(&self, local: &mut Credit, weight: u32) {
        if !self.take(local, weight) {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(u64::from(weight), Ordering::Relaxed);
        }
    }

    /// Gives room back, and wakes who waits for it.
    pub(crate) fn give_back(&self, credit: Credit) {
        if credit == Credit::default() {
            return;
        }
        self.messages.fetch_sub(credit.messages, Ordering::AcqRel);
        self.bytes.fetch_sub(credit.bytes, Ordering::AcqRel);
        if self.is_starved() {
            self.room.notify_waiters();
        }
    }

    /// True if `freed` is so much that it should go back to the pool now.
    pub(crate) fn wants(&self, freed: Credit) -> bool {
        freed.messages >= self.chunk.messages.min(64) || freed.bytes >= self.chunk.bytes || self.is_starved()
    }

    /// True while a send waits for room.
    pub(crate) fn is_starved(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Announces that a send waits: from now on all that becomes free is given back at once.
    pub(crate) fn starve(&self) -> Starving<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Starving(self)
    }

    /// Messages and bytes that are taken.
    pub(crate) fn used(&self) -> Credit {
        Credit { messages: self.messages.load(Ordering::Acquire), bytes: self.bytes.load(Ordering::Acquire) }
    }
}

/// A send that waits for room.
#[derive(Debug)]
pub(crate) struct Starving<'a>(&'a Pool);

impl Starving<'_> {
    /// Completes after the next time room is given back; counts from the moment it is enabled.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.room.notified()
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Takes `wanted` if it fits below `max`, else `needed`, else nothing.
fn draw(used: &AtomicU64, max: u64, needed: u64, wanted: u64) -> u64 {
    let mut now = used.load(Ordering::Acquire);
    loop {
        let room = max.saturating_sub(now);
        let take = if wanted <= room {
            wanted
        } else if needed <= room {
            needed
        } else {
            return 0;
        };
        match used.compare_exchange_weak(now, now + take, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return take,
            Err(other) => now = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pool_is_exact() {
        let pool = Pool::new(2, 10);
        let (mut a, mut b) = (Credit::default(), Credit::default());
        assert!(pool.take(&mut a, 4) && pool.take(&mut b, 6));
        assert!(!pool.take(&mut a, 0), "no message left");
        assert_eq!((a, pool.used()), (Credit::default(), Credit { messages: 2, bytes: 10 }));
        pool.give_back(Credit { messages: 1, bytes: 4 });
        assert!(!pool.take(&mut a, 5), "one byte short");
        assert_eq!(a, Credit::default(), "nothing is drawn in vain");
        assert!(pool.take(&mut a, 4));
        pool.force(&mut a, 100);
        assert_eq!((a.messages, pool.used()), (0, Credit { messages: 3, bytes: 110 }));
    }

    #[test]
    fn a_large_pool_is_drawn_in_chunks() {
        let pool = Pool::new(1_000_000, 1 << 30);
        let mut local = Credit::default();
        assert!(pool.take(&mut local, 10));
        assert_eq!(local.messages, 243);
        assert_eq!(pool.used().messages, 244);
        assert!(
            !pool.wants(Credit { messages: 63, bytes: 0 }) && pool.wants(Credit { messages: 64, bytes: 0 })
        );
    }
}
