//! Every interleaving of the send window, up to a number of preemptions, on the code that is shipped.
//!
//! Not part of a plain `cargo test`, which would build everything twice. From the root of the workspace:
//!
//! ```text
//! RUSTFLAGS="--cfg mq_loom" CARGO_TARGET_DIR=target/loom cargo test -p mq-core --release --lib loom
//! ```
//!
//! A wake-up that is lost shows as a deadlock, a credit that leaks as a wrong count at the end.
//! `LOOM_MAX_PREEMPTIONS=3` looks further (a minute); `LOOM_LOG=trace LOOM_LOCATION=1` tell how a failure came about.

use std::pin::pin;

use loom::future::block_on;
use loom::thread;

use super::*;

/// Few preemptions find nearly all errors of this sort and keep each model at seconds.
fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(f);
}

/// Takes a place, looks at the window while it has it, and gives it back.
fn pass(window: &Arc<Window>, weight: usize) {
    let permit = block_on(window.acquire(weight));
    let (messages, bytes) = window.used();
    assert!(messages <= window.max_messages, "{messages} messages");
    assert!(bytes <= window.max_bytes || messages == 1, "{messages} messages with {bytes} bytes");
    drop(permit);
}

/// Asks for a place, looks once, and goes away.
fn give_up(window: &Arc<Window>, weight: usize) {
    let mut asking = pin!(window.acquire(weight));
    let answer = asking.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(answer);
}

fn spawn(window: &Arc<Window>, f: impl FnOnce(&Arc<Window>) + 'static) -> thread::JoinHandle<()> {
    let window = Arc::clone(window);
    thread::spawn(move || f(&window))
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|t| t.join().unwrap());
}

/// Nobody waits, and nothing is taken.
fn assert_idle(window: &Arc<Window>) {
    assert_eq!(window.used(), (0, 0));
    assert!(window.waiters.lock().iter().all(|w| matches!(*w.state.lock(), WaiterState::Gone)));
}

#[test]
fn one_who_waits_is_woken() {
    model(4, || {
        let window = Window::new(1, 100, None);
        let held = block_on(window.acquire(1));
        let other = spawn(&window, |w| pass(w, 1));
        drop(held);
        join([other]);
        assert_idle(&window);
    });
}

#[test]
fn three_pass_a_window_of_one() {
    model(2, || {
        let window = Window::new(1, 100, None);
        let others = [1, 2].map(|weight| spawn(&window, move |w| pass(w, weight)));
        pass(&window, 3);
        join(others);
        assert_idle(&window);
    });
}

#[test]
fn large_and_small_ones_share_the_bytes() {
    model(2, || {
        let window = Window::new(9, 10, None);
        let others = [10, 4].map(|weight| spawn(&window, move |w| pass(w, weight)));
        pass(&window, 50);
        join(others);
        assert_idle(&window);
    });
}

#[test]
fn a_release_serves_all_that_fit() {
    model(2, || {
        let window = Window::new(9, 10, None);
        let held = block_on(window.acquire(10));
        let others = [5, 5].map(|weight| spawn(&window, move |w| pass(w, weight)));
        drop(held);
        join(others);
        assert_idle(&window);
    });
}

#[test]
fn one_who_gives_up_leaks_nothing() {
    model(4, || {
        let window = Window::new(1, 100, None);
        let held = block_on(window.acquire(1));
        let other = spawn(&window, |w| give_up(w, 2));
        drop(held);
        join([other]);
        assert_idle(&window);
        pass(&window, 1);
    });
}

#[test]
fn one_who_gives_up_holds_nobody_up() {
    model(2, || {
        let window = Window::new(1, 100, None);
        let held = block_on(window.acquire(1));
        let others = [spawn(&window, |w| give_up(w, 2)), spawn(&window, |w| pass(w, 1))];
        drop(held);
        join(others);
        assert_idle(&window);
    });
}

#[test]
fn a_large_one_that_gives_up_lets_the_small_one_in() {
    model(4, || {
        let window = Window::new(9, 10, None);
        // Never given back in the model's threads: only the large one stands in the small one's way.
        let held = block_on(window.acquire(6));
        let others = [spawn(&window, |w| give_up(w, 10)), spawn(&window, |w| pass(w, 2))];
        join(others);
        drop(held);
        assert_idle(&window);
    });
}

#[test]
fn a_window_around_is_given_back_too() {
    model(2, || {
        let outer = Window::new(1, 100, None);
        let inner = Window::new(2, 100, Some(Arc::clone(&outer)));
        let held = block_on(outer.acquire(1));
        let others = [spawn(&inner, |w| give_up(w, 2)), spawn(&inner, |w| pass(w, 3))];
        drop(held);
        join(others);
        assert_idle(&inner);
        assert_idle(&outer);
    });
}

#[test]
fn two_windows_share_the_one_around_them() {
    model(4, || {
        let outer = Window::new(1, 100, None);
        let inner = [1, 2].map(|n| Window::new(n, 100, Some(Arc::clone(&outer))));
        let other = spawn(&inner[1], |w| pass(w, 1));
        pass(&inner[0], 2);
        join([other]);
        inner.iter().chain([&outer]).for_each(assert_idle);
    });
}
