//! TLS and SASL against the broker's own listeners, which a broker has that `cargo xtask brokers` started natively;
//! without one, the tests are ignored.

macro_rules! trials {
    ($($test:ident),+ $(,)?) => { vec![$(trial(stringify!($test), $test)),+] };
}

mod endpoint;
#[allow(dead_code, unused_imports)]
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod tokens;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use mq_core::driver::{Connection as _, Connector as _, Target, Transaction as _, TransactionOptions};
use mq_core::{Kind, Message, Status, Timestamp};
use mq_kafka::{KafkaConfig, Mechanism};
use support::broker::state;
use support::{Bed, sorted};

/// How long one test may take.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let ignored = find("sasl_tls").is_none();
    let passwords = trials![a_password_is_accepted, a_wrong_password_is_refused_for_good];
    let trials = [passwords, tls::trials(), tokens::trials()].into_iter().flatten();
    libtest_mimic::run(&arguments, trials.map(|t| t.with_ignored_flag(ignored)).collect()).exit_code()
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let run = async { tokio::time::timeout(LIMIT, test()).await };
        runtime.block_on(run).map_err(|_| Failed::from(format!("not done after {LIMIT:?}")))
    })
}

/// The URL of a listener, if there is one.
fn find(listener: &str) -> Option<String> {
    state("kafka")?["urls"][listener].as_str().map(str::to_owned)
}

fn url(listener: &str) -> String {
    find(listener).expect("only called when there are listeners")
}

/// A PEM file that goes with the listeners.
fn file(purpose: &str) -> PathBuf {
    state("kafka")
        .and_then(|s| s["files"][purpose].as_str().map(PathBuf::from))
        .expect("a file beside the listeners")
}

fn listener(url: &str) -> KafkaConfig {
    KafkaConfig::from_url(url).unwrap().client_id("mq-native-test").forwards(false)
}

/// Sends, receives and commits through a listener.
async fn works(config: KafkaConfig) {
    let bed = Bed::with(config).await;
    let queue = bed.queue("secure", 1).await;
    bed.texts(&Target::queue(&queue), 3).await;
    let mut tx = bed.connection.begin(&TransactionOptions::default()).await.unwrap();
    tx.send(&Target::queue(&queue), stamped("3")).await.unwrap();
    tx.commit().await.unwrap();
    let mut inbox = bed.shared(&queue).await;
    let got = inbox.take(4).await;
    assert_eq!(sorted(&got), [0, 1, 2, 3]);
    inbox.ack(&got).await;
    inbox.close().await;
    bed.close().await;
}

fn stamped(text: &str) -> Message {
    let mut message = Message::text(text);
    message.stamp(Timestamp::now());
    message
}

/// The connect fails with this kind, for good, and shows no secret.
async fn refused(config: KafkaConfig, kind: Kind) {
    let connector = mq_kafka::KafkaConnector::new(config).unwrap();
    let error = connector.connect().await.expect_err("the connect must be refused");
    assert_eq!((error.kind(), error.status()), (kind, Status::Permanent), "{error}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("mq-secret"), "{shown}");
}

const PASSWORDS: [Mechanism; 3] = [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

async fn a_password_is_accepted() {
    let url = url("sasl");
    for mechanism in PASSWORDS {
        works(listener(&url).credentials(mechanism, "mq", "mq-secret")).await;
    }
}

async fn a_wrong_password_is_refused_for_good() {
    let url = url("sasl");
    for mechanism in PASSWORDS {
        refused(listener(&url).credentials(mechanism, "mq", "hunter2"), Kind::Unauthenticated).await;
        refused(listener(&url).credentials(mechanism, "nobody", "mq-secret"), Kind::Unauthenticated).await;
    }
}
