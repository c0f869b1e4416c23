//! The switchboard's faults as those of a torture.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mq_conformance::torture::Trouble;
use mq_memory::{Operation, Switchboard};
use tokio::time::{Instant, sleep};

/// Operations that a planned fault hits.
const HITS: u32 = 50;
/// How long a planned fault waits for operations to hit.
const PATIENCE: Duration = Duration::from_secs(2);

/// Goes down with all connections, for so long.
pub(crate) fn kill(faults: &Switchboard, down: Duration) -> Trouble {
    let faults = faults.clone();
    Trouble::new("kill", move || {
        faults.restart(down);
        async move {
            sleep(down).await;
            Ok(())
        }
    })
}

/// Cuts all connections.
pub(crate) fn cut(faults: &Switchboard) -> Trouble {
    let faults = faults.clone();
    Trouble::new("cut", move || {
        faults.disconnect();
        ready(Ok(()))
    })
}

/// Answers nothing, for a short and for a longer time in turns.
pub(crate) fn stall(faults: &Switchboard, [short, long]: [Duration; 2]) -> Trouble {
    let (faults, turn) = (faults.clone(), Arc::new(AtomicBool::new(false)));
    Trouble::new("stall", move || {
        let time = if turn.fetch_xor(true, Ordering::Relaxed) { long } else { short };
        let faults = faults.clone();
        async move {
            faults.stall();
            sleep(time).await;
            faults.resume();
            Ok(())
        }
    })
}

/// Loses the replies to some operations.
pub(crate) fn lose(faults: &Switchboard) -> Trouble {
    planned("lose", faults, |faults| faults.lose_reply(Operation::Any, HITS))
}

/// Stores some messages twice.
pub(crate) fn duplicate(faults: &Switchboard) -> Trouble {
    planned("duplicate", faults, |faults| faults.duplicate_next(HITS))
}

fn planned(name: &str, faults: &Switchboard, plan: fn(&Switchboard)) -> Trouble {
    let faults = faults.clone();
    Trouble::new(name, move || {
        let faults = faults.clone();
        async move {
            plan(&faults);
            let until = Instant::now() + PATIENCE;
            while faults.planned() > 0 && Instant::now() < until {
                sleep(Duration::from_millis(1)).await;
            }
            faults.clear();
            Ok(())
        }
    })
}
