//! The broker, and names of our own on it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use mq_core::{Client, ClientOptions, Consumer, Delivery, Registry};

use crate::{places, sweep};

pub(crate) type Done = Pin<Box<dyn Future<Output = ()>>>;
pub(crate) type Test = (&'static str, fn(Broker) -> Done);

/// Longest that anything may take; tests end at events long before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long one test may take.
const LIMIT: Duration = Duration::from_secs(400);

#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) url: String,
    pub(crate) prefix: String,
}

/// A client of this broker. A dead one is noticed after 3 s.
pub(crate) async fn client(url: &str, options: ClientOptions) -> mq_core::Result<Client> {
    let mark = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{mark}session_timeout=3s");
    Registry::new().with(mq_kafka::backend()).connect_with(&url, options).await
}

pub(crate) fn trial(name: &str, test: fn(Broker) -> Done) -> Trial {
    Trial::ignorable_test(name, move || {
        let Some(url) = places::url("MQ_KAFKA_URL", "kafka") else {
            let missing = "no Kafka: set MQ_KAFKA_URL or run `cargo xtask brokers up kafka`";
            let must = std::env::var_os("CI").is_some();
            return if must { Err(missing.into()) } else { Ok(Completion::ignored_with(missing)) };
        };
        let broker = Broker { url, prefix: String::new() }.apart();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let work = async { tokio::time::timeout(LIMIT, test(broker.clone())).await };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(work)));
        runtime.block_on(broker.clean());
        runtime.shutdown_timeout(Duration::from_secs(1));
        match result {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(_)) => Err("the test hangs".into()),
            Err(panic) => Err(Failed::from(panic.downcast_ref::<String>().cloned().unwrap_or_default())),
        }
    })
}

impl Broker {
    /// The same with names of its own; those begin with the old ones.
    pub(crate) fn apart(&self) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let begin =
            if self.prefix.is_empty() { format!("k{}-", std::process::id()) } else { self.prefix.clone() };
        Self { url: self.url.clone(), prefix: format!("{begin}{n}-") }
    }

    async fn clean(&self) {
        for begin in ["", "mq.half."] {
            let hosts = places::hosts_of(&self.url).join(",");
            sweep::delete(hosts, format!("{begin}{}", self.prefix)).await;
        }
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions::new().with_prefix(&self.prefix)
    }

    pub(crate) async fn client(&self) -> mq_core::Result<Client> {
        client(&self.url, self.options()).await
    }
}

/// The next message, which must come.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.recv_for(PATIENCE).await.unwrap().expect("no message came")
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}

/// Makes a list of tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const TESTS: &[$crate::broker::Test] =
            &[$((stringify!($name), |broker| Box::pin($name(broker)))),+];
    };
}
