//! A member of a group: what it holds, and what it has not been told yet.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mq_core::driver::Tag;
use tokio::sync::Notify;

use super::assign::Member;

/// A delivery that is not settled yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) partition: usize,
    pub(crate) offset: u64,
    /// The transaction that will settle it.
    pub(crate) transaction: Option<u64>,
}

/// News for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Reads these partitions now.
    Gained(Vec<u32>),
    /// Should let go of these partitions; the number names the call.
    Revoking(Vec<u32>, u64),
    /// Does not read these partitions any more.
    Lost(Vec<u32>),
    /// These acks did not count.
    AckLost(Vec<Tag>),
}

/// A member.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) member: Member,
    pub(crate) held: HashMap<u64, Held>,
    pub(crate) paused: bool,
    /// The partition to look at first next time, so that a full one does not starve the others.
    pub(crate) turn: usize,
    /// Bounded: news that was not read is merged, and a partition that comes and goes unread leaves no trace.
    news: VecDeque<News>,
    next_seq: u64,
    waiting: bool,
    wake: Arc<Notify>,
}

impl Seat {
    pub(crate) fn new(member: Member, wake: Arc<Notify>) -> Self {
        Self {
            member,
            held: HashMap::new(),
            paused: false,
            turn: 0,
            news: VecDeque::new(),
            next_seq: 0,
            waiting: false,
            wake,
        }
    }

    /// Holds a delivery; tells its number.
    pub(crate) fn hold(&mut self, partition: usize, offset: u64) -> u64 {
        let seq = self.number();
        self.held.insert(seq, Held { partition, offset, transaction: None });
        seq
    }

    /// The number of a delivery that is not held.
    pub(crate) fn number(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    /// Takes all held deliveries of a partition away.
    pub(crate) fn void(&mut self, partition: usize) -> Vec<u64> {
        let mut offsets = Vec::new();
        self.held.retain(|_, h| {
            if h.partition == partition {
                offsets.push(h.offset);
            }
            h.partition != partition
        });
        offsets
    }

    /// It is going to wait for news or messages.
    pub(crate) fn wait(&mut self) {
        self.waiting = true;
    }

    /// Ends a wait, if there is one.
    pub(crate) fn wake(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.wake.notify_one();
        }
    }

    /// All that it has not been told yet.
    pub(crate) fn read_news(&mut self) -> VecDeque<News> {
        std::mem::take(&mut self.news)
    }

    pub(crate) fn tell(&mut self, news: News) {
        match (self.news.back_mut(), news) {
            (Some(News::Gained(old)), News::Gained(new)) | (Some(News::Lost(old)), News::Lost(new)) => {
                old.extend(new);
            }
            (Some(News::AckLost(old)), News::AckLost(new)) => old.extend(new),
            (_, new) => self.news.push_back(new),
        }
        self.wake();
    }

    /// Takes a partition out of news that was not read; true if it was there.
    pub(crate) fn unsay_gained(&mut self, partition: u32) -> bool {
        self.unsay(partition, |n| if let News::Gained(parts) = n { Some(parts) } else { None })
    }

    /// Takes a partition out of a call to let go that was not read.
    pub(crate) fn unsay_revoking(&mut self, partition: u32) -> bool {
        self.unsay(partition, |n| if let News::Revoking(parts, _) = n { Some(parts) } else { None })
    }

    fn unsay(&mut self, partition: u32, pick: impl Fn(&mut News) -> Option<&mut Vec<u32>>) -> bool {
        let before = |parts: &Vec<u32>| parts.contains(&partition);
        let Some(at) = self.news.iter_mut().position(|n| pick(n).is_some_and(|p| before(p))) else {
            return false;
        };
        if let Some(parts) = pick(&mut self.news[at]) {
            parts.retain(|p| *p != partition);
            if parts.is_empty() {
                self.news.remove(at);
            }
        }
        true
    }
}
