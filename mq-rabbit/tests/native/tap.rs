//! A TCP proxy that reads along: it counts what a client asks for, cuts all connections at once while new ones come
//! through, and makes a connection mute while its heartbeats go on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

/// The header of a frame: type, channel, size.
const HEADER: usize = 7;
const METHOD: u8 = 1;
const HEARTBEAT: u8 = 8;
/// What a client sends before its first frame.
const GREETING: usize = 8;

#[derive(Default)]
struct Seen {
    /// Calls by class and method, those that only look apart.
    calls: Mutex<BTreeMap<(u16, u16, bool), u32>>,
    /// The publishing connection is mute.
    mute: AtomicBool,
    open: Mutex<Vec<AbortHandle>>,
}

pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Tap {
    /// Forwards to the host and port of a URL.
    pub(crate) async fn to(url: &str) -> Self {
        let parsed = mq_core::Url::parse(url).unwrap();
        let host = &parsed.hosts()[0];
        let target = (host.name.clone(), host.port.unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                let forwarded = tokio::spawn(forward(client, server, Arc::clone(&shared)));
                shared.open.lock().unwrap().push(forwarded.abort_handle());
            }
        });
        Self { address, seen, task }
    }

    /// Closes every connection that is open.
    pub(crate) fn cut(&self) {
        self.seen.open.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }

    /// From now on the broker says nothing on publishing connections but that it lives.
    pub(crate) fn mute(&self) {
        self.seen.mute.store(true, Ordering::Release);
    }

    /// Declarations and bindings that were asked for since the last call, without those that only look; and the looks.
    pub(crate) fn declared(&self) -> (u32, u32) {
        let calls = std::mem::take(&mut *self.seen.calls.lock().unwrap());
        let sum = |look| calls.iter().filter(|((_, _, l), _)| *l == look).map(|(_, n)| n).sum();
        (sum(false), sum(true))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn forward(client: TcpStream, server: TcpStream, seen: Arc<Seen>) {
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let publishes = Arc::new(AtomicBool::new(false));
    tokio::select! {
        _ = up(from_client, to_server, &seen, &publishes) => {}
        _ = down(from_server, to_client, &seen, &publishes) => {}
    }
}

async fn up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: &Seen,
    publishes: &AtomicBool,
) -> std::io::Result<()> {
    let mut greeting = [0; GREETING];
    from.read_exact(&mut greeting).await?;
    to.write_all(&greeting).await?;
    loop {
        let frame = read_frame(&mut from).await?;
        if frame[0] == METHOD {
            let call = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let (class, method) = (call(HEADER), call(HEADER + 2));
            match (class, method) {
                // Start-ok: brings the name that the broker shows.
                (10, 11) if contains(&frame, b"/publish") => publishes.store(true, Ordering::Release),
                // Exchanges and queues, declared or bound: methods 10 and 20, of an exchange also 30.
                (40 | 50, 10 | 20 | 30) => {
                    let look = method == 10 && is_passive(&frame, class);
                    *seen.calls.lock().unwrap().entry((class, method, look)).or_default() += 1;
                }
                _ => {}
            }
        }
        to.write_all(&frame).await?;
    }
}

async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    seen: &Seen,
    publishes: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let frame = read_frame(&mut from).await?;
        let mute = seen.mute.load(Ordering::Acquire) && publishes.load(Ordering::Acquire);
        if !mute || frame[0] == HEARTBEAT {
            to.write_all(&frame).await?;
        }
    }
}

async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
    // One octet more ends the frame.
    frame.resize(HEADER + usize::try_from(size).unwrap() + 1, 0);
    from.read_exact(&mut frame[HEADER..]).await?;
    Ok(frame)
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

/// Behind class and method: two octets, a name, of an exchange its type, and the bits.
fn is_passive(frame: &[u8], class: u16) -> bool {
    let mut at = HEADER + 6;
    for _ in 0..if class == 40 { 2 } else { 1 } {
        at += 1 + usize::from(frame[at]);
    }
    frame[at] & 1 == 1
}
