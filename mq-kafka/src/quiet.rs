//! Panics of the native client's wrapper that are known: caught, and kept off the application's standard error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// A panic of this thread is caught and says nothing new.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call that may panic; `None` if it did. The panic hook is told nothing of it, unless the application sets a
/// hook of its own later: ours passes everything else on to the one it found.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(install);
    EXPECTED.set(true);
    // Nothing that the call has touched is used after a panic, but what it borrowed to read.
    let done = catch_unwind(AssertUnwindSafe(call));
    EXPECTED.set(false);
    done.ok()
}

/// Puts our hook before the one that is there.
fn install() {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        if !EXPECTED.get() {
            before(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_what_is_caught_here_is_kept_quiet() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let before = take_hook();
        set_hook(Box::new(move |panic| match panic.payload().downcast_ref::<&str>() {
            Some(&"known") | Some(&"other") => drop(TOLD.fetch_add(1, Ordering::SeqCst)),
            _ => before(panic),
        }));
        // Another test may have been the first to need it: then the one above lies before it.
        install();
        assert_eq!(caught(|| 1), Some(1));
        assert_eq!(caught(|| -> u8 { panic!("known") }), None);
        assert_eq!(TOLD.load(Ordering::SeqCst), 0, "a known panic was told of");
        assert!(catch_unwind(|| panic!("other")).is_err());
        assert_eq!(TOLD.load(Ordering::SeqCst), 1, "every other one is");
    }
}
