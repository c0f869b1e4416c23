//! Every public future, dropped after its first, second, … poll: nothing is lost, nothing comes from nowhere, windows and
//! credits are whole again, nobody hangs.

mod calls;
mod world;

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use super::{tries, virtually};
use world::World;

/// Polls tried at most; a sweep ends before that where the call ends by itself.
const POLLS: usize = 40;

/// A future, and after how many polls it is dropped.
pub(super) struct Cut {
    polls: usize,
    dice: fastrand::Rng,
    /// False once a future was dropped.
    ended: bool,
}

impl Cut {
    /// Polls a future as often as planned, at times without being woken, and drops it then; `None` if it was dropped.
    pub(super) async fn call<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        for poll in 1..=self.polls {
            let spurious = self.dice.bool();
            let mut woken = false;
            let ended = std::future::poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(Some(value)),
                // Whoever selects over several futures polls all of them when one is woken.
                Poll::Pending if woken || spurious || poll == self.polls => Poll::Ready(None),
                Poll::Pending => {
                    woken = true;
                    Poll::Pending
                }
            });
            if let Some(value) = ended.await {
                return Some(value);
            }
            for _ in 0..self.dice.usize(0..3) {
                tokio::task::yield_now().await;
            }
        }
        self.ended = false;
        None
    }
}

/// Sweeps over one call; how often it was dropped.
fn sweep(name: &str, call: world::Call, emulated: bool) -> u64 {
    let mut dropped = 0;
    for polls in 1..=POLLS {
        let mut all_ended = true;
        for seed in 0..tries(20) {
            let cut = Cut { polls, dice: fastrand::Rng::with_seed(seed), ended: true };
            let ended = virtually(async {
                let mut world = World::new(emulated, cut).await;
                call(&mut world).await;
                let ended = world.cut.ended;
                world.judge(&format!("{name}, emulated {emulated}, {polls} polls, seed {seed}")).await;
                ended
            });
            dropped += u64::from(!ended);
            all_ended &= ended;
            // What ends by itself every time has no more points.
            if all_ended && seed >= 10 {
                return dropped;
            }
        }
    }
    dropped
}

fn sweep_all(emulated: bool) {
    let dropped = calls::ALL.iter().map(|(name, call)| (name, sweep(name, *call, emulated)));
    let dropped: Vec<_> = dropped.inspect(|(name, n)| println!("{name}: dropped {n} times")).collect();
    let at_once = if emulated { calls::AT_ONCE_EMULATED } else { calls::AT_ONCE };
    let never: Vec<_> = dropped.iter().filter(|(_, n)| *n == 0).map(|(name, _)| **name).collect();
    assert_eq!(never, at_once, "never dropped, so nothing is proved");
}

#[test]
fn every_future_of_the_native_roles_can_be_dropped_at_any_poll() {
    sweep_all(false);
}

#[test]
fn every_future_over_the_emulations_can_be_dropped_at_any_poll() {
    sweep_all(true);
}
