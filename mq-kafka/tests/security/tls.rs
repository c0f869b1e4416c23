//! Certificates: whose are trusted, and the client's own.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_private_authority_is_trusted_when_it_is_named,
        a_client_certificate_is_shown,
        an_unknown_authority_is_refused,
        another_host_name_is_refused,
        a_password_goes_over_tls,
        a_wrong_password_is_refused_over_tls,
    ]
}

async fn a_private_authority_is_trusted_when_it_is_named() {
    let (url, ca) = (url("tls"), file("ca"));
    for host in ["localhost", "127.0.0.1"] {
        works(listener(&url.replacen("127.0.0.1", host, 1)).tls(Some(ca.clone()))).await;
    }
}

async fn a_client_certificate_is_shown() {
    let (url, ca) = (url("tls"), file("ca"));
    let (certificate, key) = (file("client_cert"), file("client_key"));
    works(listener(&url).tls(Some(ca)).identity(certificate, key)).await;
}

async fn an_unknown_authority_is_refused() {
    let (url, other) = (url("tls"), file("client_cert"));
    refused(listener(&url).tls(None), Kind::ConfigInvalid).await;
    // A certificate, but not the authority's.
    refused(listener(&url).tls(Some(other)), Kind::ConfigInvalid).await;
}

async fn another_host_name_is_refused() {
    let (url, ca) = (url("tls"), file("ca"));
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
    let (url, ca) = (url("sasl_tls"), file("ca"));
    for mechanism in PASSWORDS {
        works(listener(&url).tls(Some(ca.clone())).credentials(mechanism, "mq", "mq-secret")).await;
    }
}

async fn a_wrong_password_is_refused_over_tls() {
    let (url, ca) = (url("sasl_tls"), file("ca"));
    for mechanism in PASSWORDS {
        let config = listener(&url).tls(Some(ca.clone())).credentials(mechanism, "mq", "hunter2");
        refused(config, Kind::Unauthenticated).await;
    }
}
