//! One broker to test on.

use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use mq_core::{Client, ClientOptions, Consumer, Delivery, Registry};

use crate::places;

pub(crate) type Done = Pin<Box<dyn Future<Output = ()>>>;
pub(crate) type Test = (&'static str, fn(Broker) -> Done);

/// Longest that anything may take; tests end at events long before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Broker {
    entry: &'static str,
    pub(crate) url: String,
    pub(crate) prefix: String,
}

pub(crate) fn all() -> [Broker; 2] {
    ["rabbit310", "rabbit4"].map(|entry| Broker { entry, url: String::new(), prefix: String::new() })
}

/// A client of this broker, with these names.
pub(crate) async fn client(url: &str, options: ClientOptions) -> mq_core::Result<Client> {
    Registry::new().with(mq_rabbit::backend()).connect_with(url, options).await
}

impl Broker {
    pub(crate) fn trial(&self, name: &str, test: fn(Self) -> Done) -> Trial {
        let broker = self.clone();
        Trial::ignorable_test(format!("{}::{name}", self.entry), move || broker.run(test))
    }

    fn run(mut self, test: fn(Self) -> Done) -> Result<Completion, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = places::state(self.entry).and_then(|s| s["url"].as_str().map(str::to_owned));
        let Some(url) = url else {
            let missing = "no broker of its own: start it with `cargo xtask brokers up rabbit`";
            let must = std::env::var("CI").is_ok_and(|v| v == "true");
            return if must { Err(missing.into()) } else { Ok(Completion::ignored_with(missing)) };
        };
        self.url = url;
        self.prefix = format!("k{}-{}-", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let work = async { tokio::time::timeout(PATIENCE * 2, test(self.clone())).await };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(work)));
        runtime.block_on(self.clean());
        runtime.shutdown_timeout(Duration::from_secs(1));
        match result {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(_)) => Err("the test hangs".into()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                Err(text
                    .or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()))
                    .unwrap_or_default()
                    .into())
            }
        }
    }

    async fn clean(&self) {
        let Ok(client) = self.client().await else { return };
        let _ = client.queue("q").delete().await;
        let _ = client.queue("q.dlq").delete().await;
        let _ = client.close().await;
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions::new().with_prefix(&self.prefix)
    }

    pub(crate) async fn client(&self) -> mq_core::Result<Client> {
        client(&self.url, self.options()).await
    }

    /// Runs a command of `cargo xtask brokers` for this broker.
    pub(crate) fn xtask(&self, act: &str) {
        let xtask = places::target_dir().unwrap().join("debug/xtask");
        let ran = Command::new(xtask).args(["brokers", act, self.entry]).output().unwrap();
        assert!(ran.status.success(), "brokers {act}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Runs `rabbitmqctl` of this broker.
    pub(crate) fn ctl(&self, words: &[&str]) {
        let state = places::state(self.entry).unwrap();
        let ran = Command::new(state["files"]["ctl"].as_str().unwrap()).args(words).output().unwrap();
        assert!(ran.status.success(), "rabbitmqctl {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
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
