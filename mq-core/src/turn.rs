//! Lets other tasks of a thread run while a driver answers again and again without a wait.

use std::cell::Cell;

use tokio::task::coop;

/// Messages that count as one operation of tokio's budget. A task that has used up its budget goes to the end of the
/// line, and for that another thread is woken: with 128 operations in a budget and some 200 ns for each message, that
/// would be each 25 µs, and the wake-up costs as much as many messages. So it is about each 75 µs.
const MESSAGES: usize = 3;

thread_local! {
    static PASSED: Cell<usize> = const { Cell::new(0) };
}

/// Counts messages that passed without a wait; from time to time others get their turn.
///
/// # Cancel safety
/// Loses nothing.
#[inline]
pub(crate) async fn passed(messages: usize) {
    let all = PASSED.get().saturating_add(messages);
    if all < MESSAGES {
        PASSED.set(all);
        return;
    }
    PASSED.set(0);
    coop::consume_budget().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn others_get_their_turn_while_messages_pass() {
        for messages in [1, 100] {
            let seen = Arc::new(AtomicBool::new(false));
            let other = Arc::clone(&seen);
            let other = tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
            let mut calls = 0;
            while !seen.load(Ordering::Relaxed) {
                passed(messages).await;
                calls += 1;
                assert!(calls <= 1024, "others wait in vain while {messages} messages pass a call");
            }
            other.await.unwrap();
        }
    }
}
