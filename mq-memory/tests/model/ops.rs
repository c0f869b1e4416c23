//! Random steps.

use proptest::prelude::*;

/// Queues that are declared again and again, by number.
pub const QUEUES: usize = 4;
/// Connections.
pub const LINKS: usize = 2;
/// Consumers at a time.
pub const CONSUMERS: usize = 4;

#[derive(Clone, Debug)]
pub struct Sent {
    /// In tens of milliseconds from now; none means at once.
    pub delay: Option<u64>,
    pub ttl: Option<u64>,
    pub priority: u8,
}

#[derive(Clone, Debug)]
pub enum Op {
    Declare(usize),
    Delete(usize),
    Purge(usize),
    Bind(usize, usize, usize, bool),
    Send(usize, Sent),
    Publish(usize, usize, bool, Sent),
    Cancel(usize, usize),
    Open(usize, usize, usize, bool),
    Close(usize),
    Receive(usize, usize),
    Browse(usize),
    Ack(usize, usize),
    AckAgain(usize),
    Requeue(usize, usize),
    /// Replaces the n-th held delivery by a copy in a queue, delayed.
    Move(usize, usize, usize, Option<u64>),
    Advance(u64),
    Crash(usize),
    Restart,
}

fn sent() -> impl Strategy<Value = Sent> {
    let rarely = |range: std::ops::Range<u64>| prop_oneof![3 => Just(None), 1 => range.prop_map(Some)];
    (rarely(1..12), rarely(1..20), prop_oneof![3 => Just(0u8), 1 => 0u8..10])
        .prop_map(|(delay, ttl, priority)| Sent { delay, ttl, priority })
}

pub fn op() -> impl Strategy<Value = Op> {
    let (q, l, c, n) = (0..QUEUES, 0..LINKS, 0..CONSUMERS, 0..4usize);
    let exchange = 0..3usize;
    let key = 0..super::reference::KEYS.len();
    prop_oneof![
        4 => q.clone().prop_map(Op::Declare),
        1 => q.clone().prop_map(Op::Delete),
        1 => q.clone().prop_map(Op::Purge),
        3 => (exchange.clone(), q.clone(), key.clone(), prop::bool::weighted(0.8))
            .prop_map(|(e, q, k, on)| Op::Bind(e, q, k, on)),
        12 => (q.clone(), sent()).prop_map(|(q, s)| Op::Send(q, s)),
        6 => (exchange, key, any::<bool>(), sent()).prop_map(|(e, k, m, s)| Op::Publish(e, k, m, s)),
        1 => (q.clone(), n.clone()).prop_map(|(q, n)| Op::Cancel(q, n)),
        5 => (l.clone(), c.clone(), q.clone(), prop::bool::weighted(0.2))
            .prop_map(|(l, c, q, x)| Op::Open(l, c, q, x)),
        1 => c.clone().prop_map(Op::Close),
        12 => (c.clone(), 1..5usize).prop_map(|(c, max)| Op::Receive(c, max)),
        2 => q.clone().prop_map(Op::Browse),
        5 => (c.clone(), n.clone()).prop_map(|(c, n)| Op::Ack(c, n)),
        1 => c.clone().prop_map(Op::AckAgain),
        4 => (c.clone(), n.clone()).prop_map(|(c, n)| Op::Requeue(c, n)),
        4 => (c, n, q, prop_oneof![Just(None), (1..12u64).prop_map(Some)])
            .prop_map(|(c, n, q, d)| Op::Move(c, n, q, d)),
        5 => (1..8u64).prop_map(Op::Advance),
        2 => l.prop_map(Op::Crash),
        1 => Just(Op::Restart),
    ]
}
