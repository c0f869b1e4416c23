//! TLS and SASL against the broker's own listeners. A broker that `cargo xtask brokers` did not start natively has
//! none.

use mq_core::Status;
use mq_kafka::{KafkaConfig, Mechanism};

use super::support::state;
use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    #[allow(unused_mut)]
    let mut all = trials![a_password_is_accepted, a_wrong_password_is_refused_for_good];
    #[cfg(feature = "tls")]
    all.extend(tls::trials());
    all
}

/// The URL of a listener, if there is one.
fn url(listener: &str) -> Option<String> {
    state("kafka")?["urls"][listener].as_str().map(str::to_owned)
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

fn mechanisms() -> &'static [Mechanism] {
    if cfg!(feature = "tls") {
        &[Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512]
    } else {
        &[Mechanism::Plain]
    }
}

async fn a_password_is_accepted() {
    let Some(url) = url("sasl") else { return };
    for mechanism in mechanisms() {
        works(listener(&url).credentials(*mechanism, "mq", "mq-secret")).await;
    }
}

async fn a_wrong_password_is_refused_for_good() {
    let Some(url) = url("sasl") else { return };
    for mechanism in mechanisms() {
        refused(listener(&url).credentials(*mechanism, "mq", "hunter2"), Kind::Unauthenticated).await;
        refused(listener(&url).credentials(*mechanism, "nobody", "mq-secret"), Kind::Unauthenticated).await;
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::path::PathBuf;

    use super::*;

    pub(super) fn trials() -> Vec<Trial> {
        trials![
            a_private_authority_is_trusted_when_it_is_named,
            a_client_certificate_is_shown,
            an_unknown_authority_is_refused,
            another_host_name_is_refused,
            a_password_goes_over_tls,
            a_wrong_password_is_refused_over_tls,
        ]
    }

    fn file(purpose: &str) -> Option<PathBuf> {
        state("kafka")?["files"][purpose].as_str().map(PathBuf::from)
    }

    async fn a_private_authority_is_trusted_when_it_is_named() {
        let (Some(url), Some(ca)) = (url("tls"), file("ca")) else { return };
        for host in ["localhost", "127.0.0.1"] {
            works(listener(&url.replacen("127.0.0.1", host, 1)).tls(Some(ca.clone()))).await;
        }
    }

    async fn a_client_certificate_is_shown() {
        let (Some(url), Some(ca)) = (url("tls"), file("ca")) else { return };
        let (Some(certificate), Some(key)) = (file("client_cert"), file("client_key")) else { return };
        works(listener(&url).tls(Some(ca)).identity(certificate, key)).await;
    }

    async fn an_unknown_authority_is_refused() {
        let (Some(url), Some(other)) = (url("tls"), file("client_cert")) else { return };
        refused(listener(&url).tls(None), Kind::ConfigInvalid).await;
        // A certificate, but not the authority's.
        refused(listener(&url).tls(Some(other)), Kind::ConfigInvalid).await;
    }

    async fn another_host_name_is_refused() {
        let (Some(url), Some(ca)) = (url("tls"), file("ca")) else { return };
        let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
        let elsewhere = forward(SocketAddr::from(([127, 0, 0, 1], port)));
        refused(listener(&format!("kafka://{elsewhere}")).tls(Some(ca)), Kind::ConfigInvalid).await;
    }

    /// Forwards connections from another address of the loopback interface, on threads that end with the process.
    fn forward(to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(to).unwrap();
                let pairs = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
                for (mut from, mut to) in pairs {
                    std::thread::spawn(move || {
                        // An end of either side is no matter of the test.
                        drop(std::io::copy(&mut from, &mut to));
                        drop(to.shutdown(std::net::Shutdown::Both));
                    });
                }
            }
        });
        address
    }

    async fn a_password_goes_over_tls() {
        let (Some(url), Some(ca)) = (url("sasl_tls"), file("ca")) else { return };
        for mechanism in mechanisms() {
            works(listener(&url).tls(Some(ca.clone())).credentials(*mechanism, "mq", "mq-secret")).await;
        }
    }

    async fn a_wrong_password_is_refused_over_tls() {
        let (Some(url), Some(ca)) = (url("sasl_tls"), file("ca")) else { return };
        for mechanism in mechanisms() {
            let config = listener(&url).tls(Some(ca.clone())).credentials(*mechanism, "mq", "hunter2");
            refused(config, Kind::Unauthenticated).await;
        }
    }
}
