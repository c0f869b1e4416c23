//! A TCP proxy that makes faults, for a broker that cannot be asked to make them itself. Loopback only.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes read at once from one side: all that a connection holds in each direction.
const BUFFER: usize = 16 * 1024;

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Forwards.
    None,
    /// Forwards each piece this much later, give or take the second figure.
    Delay(Duration, Duration),
    /// Forwards this many bytes a second.
    Throttle(u32),
    /// Forwards in pieces of 1 to 7 bytes.
    Slice,
    /// Accepts, reads, says nothing.
    BlackHole,
    /// Keeps every connection open and forwards nothing until the fault is changed; then all of it, in order.
    Hold,
    /// Closes new connections at once; those that are open go on.
    Refuse,
}

/// The state that all connections watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    fault: Fault,
    /// Connections of an older generation end.
    generation: u64,
    /// They end with a reset instead of a close.
    reset: bool,
}

/// A proxy in front of one address. It stops when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicU64>,
    forwarded: Arc<AtomicU64>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface and forwards to `upstream`.
    ///
    /// # Errors
    /// No port can be bound, or `upstream` is not on the loopback interface: faults are made at home only.
    pub async fn start(upstream: SocketAddr) -> std::io::Result<Self> {
        Self::start_at(0, upstream).await
    }

    /// As [`start`](Self::start), on this port: for a broker that tells its clients where to connect to.
    ///
    /// # Errors
    /// The port cannot be bound, or `upstream` is not on the loopback interface.
    pub async fn start_at(port: u16, upstream: SocketAddr) -> std::io::Result<Self> {
        if !upstream.ip().is_loopback() {
            return Err(std::io::Error::other("the fault proxy forwards to the loopback interface only"));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (mode, _) = watch::channel(Mode { fault: Fault::None, generation: 0, reset: false });
        let (accepted, forwarded) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let accept = Accept {
            upstream,
            mode: mode.clone(),
            accepted: Arc::clone(&accepted),
            forwarded: Arc::clone(&forwarded),
        };
        let listener = tokio::spawn(accept.run(listener));
        Ok(Self { address, mode, accepted, forwarded, listener })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what is done with open and new connections.
    pub fn set(&self, fault: Fault) {
        self.mode.send_modify(|m| m.fault = fault);
    }

    /// Closes every open connection in the middle of whatever it carries. New ones are accepted.
    pub fn cut(&self) {
        self.end(false);
    }

    /// Resets every open connection. New ones are accepted.
    pub fn reset(&self) {
        self.end(true);
    }

    fn end(&self, reset: bool) {
        self.mode.send_modify(|m| (m.generation, m.reset) = (m.generation + 1, reset));
    }

    /// Forwards again, without any fault. Connections that a black hole has swallowed bytes of are closed.
    pub fn heal(&self) {
        if self.mode.borrow().fault == Fault::BlackHole {
            self.cut();
        }
        self.set(Fault::None);
    }

    /// How many connections were accepted, refused ones included: shows a reconnect storm.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Bytes forwarded in both directions together.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

struct Accept {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    accepted: Arc<AtomicU64>,
    forwarded: Arc<AtomicU64>,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let mode = self.mode.subscribe();
            let now = *mode.borrow();
            if now.fault == Fault::Refuse {
                close(&client, true);
                continue;
            }
            let forwarded = Arc::clone(&self.forwarded);
            tokio::spawn(connection(client, self.upstream, mode, now.generation, forwarded));
        }
    }
}

/// A close that sends a reset throws away what the peer has not read yet.
fn close(stream: &TcpStream, reset: bool) {
    if reset {
        let _ = stream.set_zero_linger();
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mode: watch::Receiver<Mode>,
    generation: u64,
    forwarded: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(upstream).await else { return close(&client, true) };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let pump = |from, to| Pump { from, to, mode: mode.clone(), forwarded: Arc::clone(&forwarded) };
    let (mut up, mut down) = (pump(client_in, server_out), pump(server_in, client_out));
    let mut ended = mode.clone();
    tokio::select! {
        () = up.run() => {}
        () = down.run() => {}
        _ = ended.wait_for(|m| m.generation != generation) => {}
    }
    let reset = mode.borrow().generation != generation && mode.borrow().reset;
    for half in [up.to, down.to] {
        if reset {
            close(half.as_ref(), true);
            // Dropped, it would say goodbye in due form first.
            half.forget();
        }
    }
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
    forwarded: Arc<AtomicU64>,
}

impl Pump {
    /// Ends when either side does.
    async fn run(&mut self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match self.from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => n,
            };
            if self.forward(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    async fn forward(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            let fault = self.released().await;
            let piece = match fault {
                Fault::BlackHole => return Ok(()),
                Fault::Slice => fastrand::usize(1..=7).min(bytes.len()),
                Fault::Throttle(rate) => (rate as usize / 20).clamp(1, bytes.len()),
                _ => bytes.len(),
            };
            self.wait(fault, piece).await;
            self.to.write_all(&bytes[..piece]).await?;
            self.forwarded.fetch_add(piece as u64, Ordering::Relaxed);
            bytes = &bytes[piece..];
        }
        Ok(())
    }

    /// The fault of now, when it is none that holds everything back.
    async fn released(&mut self) -> Fault {
        match self.mode.wait_for(|m| m.fault != Fault::Hold).await {
            Ok(mode) => mode.fault,
            // The proxy is gone, and the connection is cut with it.
            Err(_) => Fault::BlackHole,
        }
    }

    /// Waits as long as the fault asks for, or until it is changed.
    async fn wait(&mut self, fault: Fault, piece: usize) {
        let pause = match fault {
            Fault::Delay(mean, spread) => {
                (mean + spread.mul_f64(fastrand::f64() * 2.0)).saturating_sub(spread)
            }
            Fault::Throttle(rate) => Duration::from_secs_f64(piece as f64 / f64::from(rate.max(1))),
            // Lets the other side see the pieces one by one.
            Fault::Slice => return tokio::task::yield_now().await,
            _ => return,
        };
        let changed = self.mode.wait_for(|m| m.fault != fault);
        let _ = tokio::time::timeout(pause, changed).await;
    }
}
