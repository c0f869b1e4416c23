//! A TCP proxy between client and broker that can be cut or made to swallow everything.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Open,
    Swallow,
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to the host and port of a URL.
    pub(crate) async fn to(url: &str) -> Self {
        Self::between("127.0.0.1:0", url).await
    }

    /// As [`to`](Self::to), listening at this address.
    pub(crate) async fn between(address: &str, url: &str) -> Self {
        let parsed = mq_core::Url::parse(url).unwrap();
        let host = &parsed.hosts()[0];
        let target = (host.name.clone(), host.port.unwrap_or(5672));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Open);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                tokio::spawn(forward(client, server, seen.clone()));
            }
        });
        Self { address, mode, task }
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Keeps every connection open and forwards nothing any more.
    pub(crate) fn swallow(&self) {
        self.mode.send_replace(Mode::Swallow);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, mut mode: watch::Receiver<Mode>) {
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = mode.wait_for(|m| *m != Mode::Open) => {}
    }
    // Swallowing: both sockets stay open, unread, until the test ends or cuts.
    let _ = mode.wait_for(|m| *m == Mode::Cut).await;
}
