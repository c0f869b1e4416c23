//! Exchanges, queues, and what binds them.

use mq::prelude::*;

use super::input::Input;
use super::severity::stem;

/// Routes by patterns.
pub(crate) const TOPIC: &str = "logs";
/// Routes by equal keys.
pub(crate) const DIRECT: &str = "exact";
/// Routes to all.
pub(crate) const FANOUT: &str = "copies";

/// A queue and what brings lines to it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) queue: &'static str,
    pub(crate) exchange: &'static str,
    pub(crate) keys: Vec<String>,
    /// Every line must come here.
    pub(crate) all: bool,
}

impl Route {
    fn new(queue: &'static str, exchange: &'static str, keys: &[&str]) -> Self {
        let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        let all = exchange == FANOUT || keys.iter().any(|k| k == "#");
        Self { queue, exchange, keys, all }
    }

    /// The bindings in a few words.
    pub(crate) fn bound_by(&self) -> String {
        match &*self.keys {
            [one] if one.is_empty() => "(any key)".to_owned(),
            [first, second, rest @ ..] if !rest.is_empty() => format!("{first} {second} …"),
            keys => keys.join(" "),
        }
    }
}

/// Which queue gets what. `everything` is the one that the inputs are put together from again.
pub(crate) fn routes(inputs: &[Input]) -> Vec<Route> {
    let mut errors: Vec<_> = inputs.iter().map(|i| format!("{}.error", stem(i.path()))).collect();
    errors.sort_unstable();
    errors.dedup();
    vec![
        Route::new("everything", TOPIC, &["#"]),
        Route::new("errors", TOPIC, &["*.error"]),
        Route::new("errors-at-any-depth", TOPIC, &["#.error"]),
        Route::new("linux", TOPIC, &["linux.#"]),
        Route::new("warnings", TOPIC, &["*.warning"]),
        Route::new("unclassified", TOPIC, &["*.none"]),
        // Errors match two of its bindings, and still come once.
        Route::new("trouble", TOPIC, &["*.error", "#.error", "*.warning"]),
        Route { keys: errors, ..Route::new("errors-by-name", DIRECT, &[]) },
        Route::new("archive", FANOUT, &[""]),
        Route::new("mirror", FANOUT, &[""]),
    ]
}

/// All of it, to be declared.
pub(crate) fn topology(routes: &[Route]) -> Topology {
    let exchanges = Topology::new()
        .exchange(ExchangeSpec::topic(TOPIC))
        .exchange(ExchangeSpec::direct(DIRECT))
        .exchange(ExchangeSpec::fanout(FANOUT));
    let queues = routes.iter().fold(exchanges, |t, r| t.queue(QueueSpec::new(r.queue)));
    let bindings = routes.iter().flat_map(|r| r.keys.iter().map(move |key| (r, key)));
    bindings.fold(queues, |t, (r, key)| t.bind(r.exchange, r.queue, key))
}

/// Deletes all of it, so that a broker is left as it was found.
pub(crate) async fn remove(client: &Client, routes: &[Route]) -> Result<()> {
    for route in routes {
        client.queue(route.queue).delete().await?;
        client.queue(route.queue).dead_letters().delete().await?;
    }
    for exchange in [TOPIC, DIRECT, FANOUT] {
        client.delete_exchange(exchange).await?;
    }
    Ok(())
}
