//! TLS against the brokers' own listeners, and against listeners whose certificates are wrong.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mq_core::driver::Connection;
use mq_core::{Kind, Status};
use mq_rabbit::RabbitConfig;

use crate::harness::{Broker, connect, produce, texts, until_ready};
use crate::proxy::Proxy;

crate::tests![
    a_private_authority_is_trusted_when_it_is_named,
    a_client_certificate_is_shown,
    an_unknown_authority_is_refused,
    another_host_name_is_refused,
    an_expired_certificate_is_refused,
    plain_and_tls_do_not_mix,
    a_wrong_password_is_permanent_over_tls,
];

/// What `cargo xtask brokers` wrote down about a broker's TLS listener.
struct Listener {
    url: String,
    ca: PathBuf,
    identity: (PathBuf, PathBuf),
}

/// None where the broker is not one of `cargo xtask brokers`.
fn listener(broker: &Broker) -> Option<Listener> {
    broker.needs(find(broker), "no TLS listener: the broker is not one of `cargo xtask brokers`")
}

fn find(broker: &Broker) -> Option<Listener> {
    let state = broker.state()?;
    let file = |name: &str| Some(PathBuf::from(state["files"][name].as_str()?));
    Some(Listener {
        url: state["urls"]["tls"].as_str()?.to_owned(),
        ca: file("ca")?,
        identity: (file("client_cert")?, file("client_key")?),
    })
}

fn config(url: &str, ca: Option<&Path>) -> RabbitConfig {
    RabbitConfig::from_url(url).unwrap().with_tls(ca.map(Path::to_owned))
}

async fn refused(config: RabbitConfig, part: &str) {
    let e = connect(config).await.expect_err("the connect must be refused");
    assert_eq!((e.kind(), e.status()), (Kind::ConfigInvalid, Status::Permanent), "{e}");
    assert!(e.to_string().contains(part), "{e}");
}

async fn a_private_authority_is_trusted_when_it_is_named(broker: Broker) {
    let Some(tls) = listener(&broker) else { return };
    for host in ["localhost", "127.0.0.1"] {
        let url = tls.url.replacen("localhost", host, 1);
        let connection = connect(config(&url, Some(&tls.ca))).await.unwrap();
        let queue = broker.queue(&connection, host, |q| q).await;
        produce(&connection, &queue, texts(0..3)).await;
        until_ready(&connection, &queue, 3).await;
        connection.close().await.unwrap();
    }
}

async fn a_client_certificate_is_shown(broker: Broker) {
    let Some(tls) = listener(&broker) else { return };
    let (certificate, key) = tls.identity.clone();
    let config = config(&tls.url, Some(&tls.ca)).with_identity(certificate, key);
    connect(config).await.unwrap().close().await.unwrap();
}

async fn an_unknown_authority_is_refused(broker: Broker) {
    let Some(tls) = listener(&broker) else { return };
    refused(config(&tls.url, None), "UnknownIssuer").await;
    // A certificate, but not the authority's.
    refused(config(&tls.url, Some(&tls.identity.0)), "UnknownIssuer").await;
}

async fn another_host_name_is_refused(broker: Broker) {
    let Some(tls) = listener(&broker) else { return };
    let proxy = Proxy::between("127.0.0.2:0", &tls.url).await;
    let url = format!("amqps://guest:guest@{}/%2f", proxy.address);
    refused(config(&url, Some(&tls.ca)), "not valid for name").await;
}

/// A TLS listener whose certificate was made in the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let ran = command.current_dir(dir).args(arguments.split(' ')).output().unwrap();
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

async fn an_expired_certificate_is_refused(broker: Broker) {
    let dir = std::env::temp_dir().join(broker.name(mq_core::driver::Sort::Queue, "tls"));
    std::fs::create_dir_all(&dir).unwrap();
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n";
    std::fs::write(dir.join("names"), names).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&dir, &format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.pem -days 2"));
    openssl(&dir, &format!("req {key} -subj /CN=old -keyout old.key -out old.csr"));
    let sign = "x509 -req -in old.csr -CA ca.pem -CAkey ca.key -set_serial 3 -extfile names -out old.pem";
    openssl(&dir, &format!("{sign} -days -1"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl");
    server.current_dir(&dir).args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-quiet"]);
    server.args(["-cert", "old.pem", "-key", "old.key"]).stdin(Stdio::piped());
    let server = Server(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        tokio::task::yield_now().await;
    }
    let url = format!("amqps://guest:guest@localhost:{port}/%2f");
    refused(config(&url, Some(&dir.join("ca.pem"))), "Expired").await;
    drop(server);
    std::fs::remove_dir_all(&dir).unwrap();
}

async fn plain_and_tls_do_not_mix(broker: Broker) {
    let Some(tls) = listener(&broker) else { return };
    let plain = tls.url.replacen("amqps", "amqp", 1);
    let e = connect(RabbitConfig::from_url(&plain).unwrap()).await.unwrap_err();
    assert!(e.to_string().contains("TLS"), "{e}");
    let over = broker.url.as_deref().unwrap().replacen("amqp", "amqps", 1);
    refused(config(&over, Some(&tls.ca)), "TLS").await;
}

async fn a_wrong_password_is_permanent_over_tls(broker: Broker) {
    let Some(tls) = listener(&broker) else { return };
    let config = config(&tls.url, Some(&tls.ca)).with_credentials("guest", "hunter2");
    let e = connect(config).await.unwrap_err();
    assert_eq!((e.kind(), e.status()), (Kind::Unauthenticated, Status::Permanent), "{e}");
    assert!(!format!("{e} {e:?}").contains("hunter2"));
}
