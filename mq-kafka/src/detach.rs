//! Values whose drop blocks.

use std::fmt;
use std::ops::Deref;

/// Drops its value on a thread of its own: the drop of a native client joins threads and waits for brokers.
pub(crate) struct Detached<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Detached<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Send + 'static> Deref for Detached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the value is there until the drop")
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        let made = std::thread::Builder::new().name("mq-kafka-drop".to_owned()).spawn(move || drop(value));
        if made.is_err() {
            // The closure, and the value with it, was dropped right here: late, but done.
            tracing::warn!(target: "mq_kafka", "no thread for a native client's drop");
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Detached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Detached")
    }
}
